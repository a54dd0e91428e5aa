// Whether dtc and libfdt, which others read and write flattened device trees with, agree with ours: on everything that we
// write, and on everything that they do.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { fdtSource } from '../../src/keepalive/state/dts.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { type Fdt, type FdtNode, readFdt, writeFdt } from '../../src/keepalive/state/fdt.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { exportRfc, importRfc } from '../../src/keepalive/state/rfc.js';
import { reseal } from '../support/flat-tree.js';
import { FROM_DTC, goldenFile, goldenRfc, goldenStates } from '../support/golden-states.js';
import { random } from '../support/random.js';
import { plain, randomNode, randomState } from '../support/random-state.js';

const directory = mkdtempSync(join(tmpdir(), 'iommufd-dtc-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
const file = (name: string): string => join(directory, name);

const { seed } = random();
t.comment(`seed ${seed}`);

/** Runs a program; what it writes to stderr is a complaint. */
function run(
  command: string,
  args: readonly string[],
  input?: string | Uint8Array,
): { output: Buffer; complaints: string } {
  const log = file('stderr');
  const quoted = ['sh', '-c', `exec "$0" "$@" 2>'${log}'`, command, ...args];
  try {
    const output = execFileSync(quoted[0] as string, quoted.slice(1), {
      input: input ?? '',
      maxBuffer: 2 ** 28,
    });
    return { output, complaints: readFileSync(log, 'utf8') };
  } catch (error) {
    throw new Error(`${command} ${args.join(' ')}: ${readFileSync(log, 'utf8')}`, { cause: error });
  }
}

const toSource = (blob: Uint8Array): { output: Buffer; complaints: string } =>
  run('dtc', ['-I', 'dtb', '-O', 'dts'], blob);

/** Whatever dtc's checks have to say. */
const toSourceAnyway = (blob: Uint8Array): { output: Buffer } =>
  run('dtc', ['-I', 'dtb', '-O', 'dts', '-q', '-q'], blob);

const toBlob = (source: string | Uint8Array, ...options: string[]): Uint8Array =>
  new Uint8Array(run('dtc', ['-I', 'dts', '-O', 'dtb', '-q', ...options], source).output);

/** A tree in one form for comparing. */
function plainTree({ root, reservations }: Fdt): unknown {
  const node = ({ name, properties, children }: FdtNode): unknown => ({
    name,
    properties: [...properties].map(([key, value]) => `${key}=${Buffer.from(value).toString('hex')}`).sort(),
    children: children.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(node),
  });
  return { root: node(root), reservations };
}

/** That dtc reads it without a complaint, and that what dtc makes of it is the same tree. */
function sameForDtc(t: Test, title: string, blob: Uint8Array, ...options: string[]): void {
  const { output, complaints } = toSource(blob);
  t.equal(complaints, '', `${title}: dtc has nothing to say`);
  const theirs = readFdt(toBlob(output, ...options));
  t.strictSame(plainTree(theirs), plainTree(readFdt(blob)), `${title}: the same tree`);
}

t.test('dtc reads what we write', async t => {
  for (const [name, state] of Object.entries(goldenStates)) sameForDtc(t, name, encodeState(state));
  sameForDtc(t, 'rfc', exportRfc(goldenRfc));
  const r = random(seed);
  for (let run = 0; run < 60; run++) {
    const state = randomState(r, run < 50 ? 30 : 3000);
    const blob = encodeState(state);
    sameForDtc(
      t,
      `random state ${run}`,
      blob,
      ...(run & 1 ? ['-V', '16', '-p', '100'] : ['-S', String(blob.length * 2)]),
    );
    if (!t.passing()) return;
  }
  for (let run = 0; run < 40; run++) {
    const reservations = Array.from({ length: r.below(3) }, () => ({
      address: BigInt(r.below(2 ** 32)),
      size: 4096n,
    }));
    const blob = writeFdt({ root: randomNode(r, '', 4), reservations, bootCpu: 0 });
    // Property and node names at random make dtc's checks complain, so only the tree is compared.
    const { output } = toSourceAnyway(blob);
    t.strictSame(plainTree(readFdt(toBlob(output, '-f'))), plainTree(readFdt(blob)), `random tree ${run}`);
  }
});

t.test('a state that went through dtc is the same, once its checksum is right again', async t => {
  const state = goldenStates.everything;
  if (!state) throw new Error('there is no golden state of everything');
  const wanted = encodeState(state);
  const source = toSource(wanted).output;
  for (const options of [
    [],
    ['-V', '16'],
    ['-p', '1000'],
    ['-S', '16384'],
    ['-s'],
    ['-a', '64'],
    ['-R', '3'],
    ['-V', '16', '-R', '1', '-p', '60'],
  ]) {
    const blob = toBlob(source, ...options);
    t.ok(reseal(blob), 'it has a checksum');
    t.strictSame(encodeState(decodeState(blob)), wanted, options.join(' ') || 'no options');
  }
  const golden = new Uint8Array(readFileSync(goldenFile(FROM_DTC)));
  t.strictSame(plain(decodeState(golden)), plain(decodeState(wanted)), 'the golden file as well');
});

t.test('dtc reads our source text', async t => {
  const same = (title: string, tree: Fdt, ...options: string[]): void => {
    const made = readFdt(toBlob([...fdtSource(tree)].join(''), ...options));
    t.strictSame(plainTree(made), plainTree(tree), `${title}: the same tree`);
  };
  for (const [name, state] of Object.entries(goldenStates)) {
    const blob = encodeState(state);
    const { complaints } = run('dtc', ['-I', 'dts', '-O', 'dtb'], [...fdtSource(readFdt(blob))].join(''));
    t.equal(complaints, '', `${name}: dtc has nothing to say`);
    same(name, readFdt(blob));
  }
  same('rfc', readFdt(exportRfc(goldenRfc)));
  const r = random(seed);
  for (let run = 0; run < 20; run++) same(`random state ${run}`, readFdt(encodeState(randomState(r, 1000))));
  const byte = (): number => (r.below(4) === 0 ? 0 : r.below(3) === 0 ? r.below(256) : 0x20 + r.below(0x60));
  const values = Array.from({ length: 300 }, (_, index): [string, Uint8Array] => [
    `v${index}`,
    Uint8Array.from({ length: r.below(80) }, byte),
  ]);
  const reservations = [{ address: 0xffff_ffff_0000_0000n, size: 4096n }];
  same('values of any kind', {
    root: { name: '', properties: new Map(values), children: [] },
    reservations,
    bootCpu: 0,
  });
  // Names at random make dtc's checks complain.
  for (let run = 0; run < 40; run++) {
    same(`random tree ${run}`, { root: randomNode(r, '', 4), reservations: [], bootCpu: 0 }, '-f');
  }
});

t.test('we read what dtc writes', async t => {
  const source = `/dts-v1/;
    /memreserve/ 0x10000000 0x4000;
    /memreserve/ 0xffffffff00000000 0x1;
    / {
      model = "a", "b";
      #address-cells = <1>;
      #size-cells = <1>;
      empty;
      bytes = [00 01 fe ff];
      mixed = "text", <0x12345678 &node>, [ab], /bits/ 16 <1 2>, /bits/ 64 <0x123456789abcdef0>;
      expression = <((1 << 4) | 3)>;
      path = &node;
      node: node@1000 {
        reg = <0x1000 0x10>;
        gone = <1>;
        inner: inner { deep { deeper { deepest; }; }; };
      };
      deleted { x = <1>; };
    };
    &node { added = "later"; /delete-property/ gone; };
    &inner { also; };
    / { /delete-node/ deleted; };
  `;
  const value = (node: FdtNode | undefined, name: string): string | undefined => {
    const bytes = node?.properties.get(name);
    return bytes && Buffer.from(bytes).toString('hex');
  };
  for (const options of [
    [],
    ['-V', '16'],
    ['-V', '17', '-p', '64'],
    ['-S', '8192'],
    ['-@'],
    ['-a', '4096'],
    ['-R', '4'],
    ['-b', '5'],
    ['-s'],
    ['-H', 'both'],
  ]) {
    const title = options.join(' ') || 'no options';
    const tree = readFdt(toBlob(source, ...options));
    const node = tree.root.children.find(({ name }) => name === 'node@1000');
    const phandle = node?.properties.get('phandle');
    t.ok(phandle, `${title}: a phandle`);
    const reserved = tree.reservations.slice(0, 2).map(({ address, size }) => [address, size]);
    t.strictSame(
      reserved,
      [
        [0x10000000n, 0x4000n],
        [0xffffffff00000000n, 1n],
      ],
      `${title}: reservations`,
    );
    t.equal(tree.bootCpu, options[0] === '-b' ? 5 : 0);
    t.equal(value(tree.root, 'empty'), '');
    t.equal(value(tree.root, 'bytes'), '0001feff');
    t.equal(
      value(tree.root, 'mixed'),
      `${Buffer.from('text\0').toString('hex')}12345678${Buffer.from(phandle ?? []).toString('hex')}ab00010002123456789abcdef0`,
    );
    t.equal(value(tree.root, 'expression'), '00000013');
    t.equal(FdtValue.readString(tree.root.properties.get('path') ?? new Uint8Array(1)), '/node@1000');
    t.equal(FdtValue.readString(node?.properties.get('added') ?? new Uint8Array(1)), 'later');
    t.notOk(node?.properties.has('gone'));
    t.notOk(tree.root.children.some(({ name }) => name === 'deleted'));
    t.equal(node?.children[0]?.children[0]?.children[0]?.properties.has('deepest'), true);
    sameTreeAgain(t, title, tree);
  }
});

/** That dtc reads the tree that we write of it. */
function sameTreeAgain(t: Test, title: string, tree: Fdt): void {
  t.strictSame(
    plainTree(readFdt(toBlob(toSourceAnyway(writeFdt(tree)).output))),
    plainTree(tree),
    `${title}: and back`,
  );
}

t.test('we read what fdtput leaves', async t => {
  const path = file('put.dtb');
  writeFileSync(path, encodeState(goldenStates.everything as NonNullable<typeof goldenStates.everything>));
  const before = readFdt(new Uint8Array(readFileSync(path)));
  run('fdtput', ['-t', 's', path, '/device-0000-00-04.0', 'slot', 'a much longer text than there was']);
  run('fdtput', ['-t', 'x', path, '/iommufd-7', 'colour', 'ff0000']);
  run('fdtput', ['-c', path, '/added-1', '/added-2']);
  run('fdtput', ['-d', path, '/iommufd-7', 'colour']);
  run('fdtput', ['-r', path, '/added-1']);
  run('fdtput', ['-t', 'x', path, '/', 'crc32c', '0']);
  const blob = new Uint8Array(readFileSync(path));
  t.not(blob.length, 0);
  t.ok(reseal(blob));
  const state = decodeState(blob);
  t.strictSame(
    state.devices[0]?.kept?.properties.get('slot'),
    FdtValue.string('a much longer text than there was'),
  );
  t.ok(state.kept?.nodes.some(({ name }) => name === 'added-2'));
  t.notOk(readFdt(blob).root.children.some(({ name }) => name === 'added-1'));
  t.equal(readFdt(blob).root.children.length, before.root.children.length + 1);
});

t.test('we read what libfdt writes, and it reads what we write', async t => {
  const program = file('libfdt');
  const source = fileURLToPath(new URL('../../../test/vm/libfdt.c', import.meta.url));
  run('cc', ['-std=gnu17', '-O1', '-Wall', '-Werror', '-o', program, source, '-lfdt']);

  const written = (kind: string): Fdt => readFdt(new Uint8Array(run(program, [kind]).output));
  const expected = plainTree(written('sequential'));
  const { root, reservations } = written('sequential');
  t.strictSame(reservations, [{ address: 0x1000n, size: 0x2000n }]);
  t.equal(FdtValue.readU64(root.properties.get('wide') ?? new Uint8Array(0)), 0x123456789abcdef0n);
  t.equal(root.children.length, 3);
  t.strictSame(
    plainTree(written('read-write')),
    expected,
    'fdt_rw: the same, piece by piece and in another order',
  );
  t.strictSame(plainTree(written('unpacked')), expected, 'with room between the blocks');
  t.strictSame(plainTree(written('nops')), expected, 'with NOPs for what was deleted');

  const rfc = new Uint8Array(run(program, ['rfc', '5000']).output);
  const { iommufds } = importRfc(rfc);
  const areas = iommufds[0]?.ioases[0]?.mappings;
  t.equal(areas?.length, 5000);
  t.same(areas?.get(4999), { iova: 4999n * 0x2000n, length: 0x1000n, prot: 7 });
  t.strictSame(
    plainTree(readFdt(exportRfc({ iommufds }))),
    plainTree(readFdt(rfc)),
    'and write the same tree',
  );
  const reversed = importRfc(new Uint8Array(run(program, ['rfc-reversed', '300']).output));
  t.same(reversed.iommufds[0]?.ioases[0]?.mappings.get(299), {
    iova: 299n * 0x2000n,
    length: 0x1000n,
    prot: 7,
  });

  for (const [name, state] of Object.entries(goldenStates)) {
    const blob = encodeState(state);
    t.equal(run(program, ['check'], blob).output.toString(), 'ok\n', `${name}: fdt_check_full`);
    // Into a larger buffer, changed there and packed again, as a kernel would.
    const moved = new Uint8Array(run(program, ['move'], blob).output);
    t.strictSame(plainTree(readFdt(moved)), plainTree(readFdt(blob)), `${name}: fdt_open_into and fdt_pack`);
  }
  t.equal(run(program, ['check'], exportRfc(goldenRfc)).output.toString(), 'ok\n');
  t.equal(
    run(program, ['sum'], exportRfc({ iommufds })).output.toString(),
    `5000 ${5000 * 0x1000}\n`,
    'libfdt reads the RFC layout as we write it',
  );
});
