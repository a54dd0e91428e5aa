// Whether the declared structs, requests and constants are the kernel's: the compiler is asked, about the
// headers of the test kernel, and nothing may be missing on either side.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import * as eventfd from '../../bindings/uapi/eventfd.js';
import * as fcntl from '../../bindings/uapi/fcntl.js';
import * as iommufd from '../../bindings/uapi/iommufd.js';
import * as kexec from '../../bindings/uapi/kexec.js';
import * as liveupdate from '../../bindings/uapi/liveupdate.js';
import * as memfd from '../../bindings/uapi/memfd.js';
import * as mman from '../../bindings/uapi/mman.js';
import type { Request } from '../../bindings/uapi/request.js';
import * as socket from '../../bindings/uapi/socket.js';
import { type FieldType, type FlexibleType, Struct } from '../../bindings/uapi/struct.js';
import * as vfio from '../../bindings/uapi/vfio.js';
import { kernel } from './prepare.js';

/** What a header defines, or what we declare, by name. */
interface Definitions<S, R, C> {
  readonly structs: ReadonlyMap<string, S>;
  readonly requests: ReadonlyMap<string, R>;
  readonly constants: ReadonlyMap<string, C>;
}

type Declared = Definitions<Struct, Request, number | bigint | string>;
/** Structs with the names of their members; constants with their text. */
type Parsed = Definitions<readonly string[], string, string>;

const advice = 'run `npm run test:kernel`, which prepares a kernel with its headers';

/** The directory for `-I`: the one that holds `linux/iommufd.h`. */
const includeDirectory = async (): Promise<string> => {
  const given = process.env.IOMMUFD_VM_HEADERS;
  const root = given === undefined || given === '' ? (await kernel('iommufd')).headers : given;
  if (root === undefined) throw new Error('the kernel in use comes without headers');
  const found = [root, join(root, 'include')].find(path => existsSync(join(path, 'linux/iommufd.h')));
  if (found === undefined) throw new Error(`there is no linux/iommufd.h in ${root}`);
  return found;
};

/** Reads a header as far as these headers go; throws at what it would misread. */
const parse = (header: string): Parsed => {
  const text = header
    .replace(/\/\*[\s\S]*?\*\//g, ' ')
    .replace(/\/\/.*$/gm, '')
    .replace(/\\\n/g, ' ');
  const structs = new Map<string, string[]>();
  const requests = new Map<string, string>();
  const constants = new Map<string, string>();

  for (const [, name = '', parameters = '', value = ''] of text.matchAll(
    /^[ \t]*#[ \t]*define[ \t]+(\w+)(\([^)]*\))?[ \t]*(.*?)[ \t]*$/gm,
  )) {
    // An include guard has no value, and a macro with parameters is no constant.
    if (value === '' || parameters !== '') continue;
    if (/^_IO[A-Z]*\s*\(/.test(value)) requests.set(name, value);
    else constants.set(name, value);
  }

  const code = text.replace(/^[ \t]*#.*$/gm, '');
  for (const [, body = ''] of code.matchAll(/\benum\b[^{;]*\{([^}]*)\}/g)) {
    for (const [, name = '', value = ''] of body.matchAll(/(\w+)\s*(?:=\s*([^,]+))?(?:,|$)/g)) {
      constants.set(name, value);
    }
  }

  for (const match of code.matchAll(/\bstruct\s+(\w+)\s*\{/g)) {
    const name = match[1] ?? '';
    const start = match.index + match[0].length;
    let depth = 1;
    let end = start;
    for (; depth > 0; end++) {
      if (end === code.length) throw new Error(`struct ${name} does not end`);
      if (code[end] === '{') depth++;
      if (code[end] === '}') depth--;
    }
    // The members of an anonymous union are members of the struct.
    const members = code
      .slice(start, end - 1)
      .replace(/\bunion\s*\{|\}/g, ';')
      .split(';')
      .map(member => member.replace(/__counted_by\s*\(\w+\)/, '').trim())
      .filter(member => member !== '');
    structs.set(
      name,
      members.map(member => {
        const found = /^(?:struct\s+)?\w+[\s*]+(\w+)\s*(?:\[\w*\])?$/.exec(member)?.[1];
        if (found === undefined) throw new Error(`cannot read the member "${member}" of struct ${name}`);
        return found;
      }),
    );
  }
  return { structs, requests, constants };
};

const isRequest = (value: unknown): value is Request =>
  typeof value === 'object' && value !== null && 'number' in value && 'argument' in value;

const declarations = (module: object): Declared => {
  const structs = new Map<string, Struct>();
  const requests = new Map<string, Request>();
  const constants = new Map<string, number | bigint | string>();
  for (const [name, value] of Object.entries(module) as [string, unknown][]) {
    if (value instanceof Struct) structs.set(name, value);
    else if (isRequest(value)) requests.set(name, value);
    else if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'string') {
      constants.set(name, value);
    } else {
      throw new Error(`${name} is neither a struct nor a request nor a constant`);
    }
  }
  return { structs, requests, constants };
};

/**
 * What a field is, in the words of the C program below: `u32`, `s32*64` for an array, `u8*0` for a flexible
 * one.
 */
const shape = (type: FieldType | FlexibleType): string => {
  if (type.kind === 'flexible') return `${shape(type.element)}*0`;
  if (type instanceof Struct) return `struct ${type.name}`;
  if ('element' in type && 'count' in type) return `${shape(type.element as FieldType)}*${type.count}`;
  return type.name;
};

/** Prints a line of C that prints the shape of a member, as the compiler sees it. */
const probe = (struct: string, member: string, type: FieldType | FlexibleType): string => {
  const at = `((struct ${struct} *)0)->${member}`;
  const listed = type.kind === 'flexible' || type.kind === 'array';
  const element =
    type.kind === 'flexible' ? type.element : 'element' in type ? (type.element as FieldType) : type;
  const one = listed ? `${at}[0]` : at;
  const kind = element instanceof Struct ? `PROBE_STRUCT(${one}, ${element.name})` : `PROBE_INTEGER(${one})`;
  const count = type.kind === 'flexible' ? '0' : listed ? `sizeof(${at}) / sizeof(${one})` : '1';
  const size = type.kind === 'flexible' ? '0' : `sizeof(${at})`;
  return (
    `printf("${struct}.${member}\\t%zu\\t%zu\\t%zu\\t%s", offsetof(struct ${struct}, ${member}), (size_t)(${size}), ` +
    `_Alignof(__typeof__(${one})), ${kind}); ` +
    (listed ? `printf("*%zu\\n", (size_t)(${count}));` : 'puts("");')
  );
};

interface Place {
  readonly offset: number;
  readonly size: number;
  readonly alignment: number;
  readonly shape: string;
}

interface Measured {
  /** By the name of a struct, or of a struct and a member. */
  readonly places: ReadonlyMap<string, Place>;
  readonly values: ReadonlyMap<string, bigint | string>;
}

/**
 * Compiles a program that knows the headers and our names, and nothing of our numbers; reports what it
 * prints.
 */
const measure = (include: string, headers: readonly string[], declared: Declared): Measured => {
  const lines: string[] = [];
  for (const { name, fields } of declared.structs.values()) {
    lines.push(
      `printf("${name}\\t0\\t%zu\\t%zu\\t-\\n", sizeof(struct ${name}), _Alignof(struct ${name}));`,
      ...Object.values(fields).map(field => probe(name, field.name, field.type)),
    );
  }
  for (const name of declared.requests.keys()) {
    lines.push(`printf("${name}\\t%llu\\n", (unsigned long long)(${name}));`);
  }
  for (const [name, value] of declared.constants) {
    lines.push(
      typeof value === 'string'
        ? `printf("${name}\\t%s\\n", ${name});`
        : // An enumerator makes sure that this is a constant, and of integer type.
          `{ enum { constant = (${name}) != 0 }; printf("${name}\\t%lld\\n", (long long)(${name})); }`,
    );
  }
  const source = `
    ${headers.map(header => `#include <${header}>`).join('\n')}
    #include <stddef.h>
    #include <stdio.h>
    #define PROBE_STRUCT(x, s) _Generic((x), struct s: "struct " #s, default: "another type")
    #define PROBE_INTEGER(x) _Generic((x), __u8: "u8", __u16: "u16", __u32: "u32", __s32: "s32", \\
      __u64: "u64", __u64 *: "u64", default: "another type")
    int main(void) {\n${lines.join('\n')}\n return 0; }\n`;

  const directory = mkdtempSync(join(tmpdir(), 'iommufd-headers-'));
  try {
    const file = join(directory, 'headers.c');
    const program = join(directory, 'headers');
    writeFileSync(file, source);
    execFileSync('cc', ['-std=gnu11', '-Wall', '-Werror', '-I', include, '-o', program, file], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const places = new Map<string, Place>();
    const values = new Map<string, bigint | string>();
    for (const line of execFileSync(program, { encoding: 'utf8' }).trimEnd().split('\n')) {
      const [name = '', first = '', size, alignment, shape] = line.split('\t');
      if (shape === undefined) values.set(name, /^-?\d+$/.test(first) ? BigInt(first) : first);
      else {
        places.set(name, { offset: Number(first), size: Number(size), alignment: Number(alignment), shape });
      }
    }
    return { places, values };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};

const missing = (from: ReadonlyMap<string, unknown>, wanted: Iterable<string>): string[] =>
  [...wanted].filter(name => !from.has(name));

t.test('the declarations are those of the kernel headers', async t => {
  let include: string;
  try {
    include = await includeDirectory();
  } catch (error) {
    t.fail(`no kernel headers (${advice}): ${error instanceof Error ? error.message : String(error)}`);
    return;
  }

  const whole = [
    ['linux/iommufd.h', iommufd],
    ['linux/vfio.h', vfio],
    ['linux/liveupdate.h', liveupdate],
    ['linux/memfd.h', memfd],
  ] as const;
  for (const [header, module] of whole) {
    await t.test(header, async t => {
      const theirs = parse(readFileSync(join(include, header), 'utf8'));
      const ours = declarations(module);

      for (const kind of ['structs', 'requests', 'constants'] as const) {
        t.same(missing(ours[kind], theirs[kind].keys()), [], `no ${kind} of the header are missing`);
        t.same(
          missing(theirs[kind], ours[kind].keys()),
          [],
          `no ${kind} are declared that the header has not`,
        );
      }
      const shared: Declared = {
        structs: new Map([...ours.structs].filter(([name]) => theirs.structs.has(name))),
        requests: new Map([...ours.requests].filter(([name]) => theirs.requests.has(name))),
        constants: new Map([...ours.constants].filter(([name]) => theirs.constants.has(name))),
      };
      for (const [name, members] of theirs.structs) {
        t.same(
          Object.keys(shared.structs.get(name)?.fields ?? {}),
          members,
          `${name} has its members, in order`,
        );
      }
      if (!t.passing()) return;

      const { places, values } = measure(include, [header], shared);
      for (const [name, struct] of shared.structs) {
        const place = places.get(name);
        t.same(
          { size: struct.size, alignment: struct.alignment },
          { size: place?.size, alignment: place?.alignment },
          `${name}: ${place?.size} bytes`,
        );
        let end = 0;
        for (const field of Object.values(struct.fields)) {
          const place = places.get(`${name}.${field.name}`);
          const { alignment } = field.type.kind === 'flexible' ? field.type.element : field.type;
          t.same(
            { offset: field.offset, size: field.size, alignment, shape: shape(field.type) },
            place,
            `${name}.${field.name}: ${place?.shape} at ${place?.offset}`,
          );
          // By the compiler's numbers alone: between members there is padding and nothing else.
          if (place !== undefined && field.overlays === undefined) {
            t.ok(place.offset - end < place.alignment, `nothing is hidden before ${name}.${field.name}`);
            end = place.offset + place.size;
          }
        }
        if (place !== undefined)
          t.ok(place.size - end < place.alignment, `nothing is hidden at the end of ${name}`);
      }
      for (const [name, { number }] of shared.requests) t.equal(BigInt(number), values.get(name), name);
      for (const [name, value] of shared.constants) {
        const kernels = values.get(name);
        // What the header writes as a negative int is meant for an unsigned field of 32 bits.
        const unsigned = typeof kernels === 'bigint' && kernels < 0n ? BigInt.asUintN(32, kernels) : kernels;
        t.equal(typeof value === 'string' ? value : BigInt(value), unsigned, name);
      }
      t.comment(
        `${header}: ${shared.structs.size} structs with ${places.size - shared.structs.size} fields, ` +
          `${shared.requests.size} requests, ${shared.constants.size} constants`,
      );
    });
  }

  // Of these the library uses a part. What the kernel says of sockets is not among its headers, but in the C library's.
  const partial = [
    [['linux/fcntl.h'], fcntl],
    [['linux/eventfd.h'], eventfd],
    [['linux/mman.h'], mman],
    [['linux/kexec.h', 'linux/reboot.h'], kexec],
    [['sys/socket.h'], socket],
  ] as const;
  for (const [headers, module] of partial) {
    await t.test(headers.join(', '), async t => {
      const ours = declarations(module);
      t.equal(ours.structs.size + ours.requests.size, 0, 'only constants are declared');
      const { values } = measure(include, headers, ours);
      for (const [name, value] of ours.constants) t.equal(BigInt(value), values.get(name), name);
      t.comment(`${headers.join(', ')}: ${ours.constants.size} constants`);
    });
  }
});
