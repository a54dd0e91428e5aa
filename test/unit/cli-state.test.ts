// `iommufd state`: what is shown, found good or bad, compared and exported; as a process where exit codes and streams
// matter.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Iova } from '../../src/address.js';
import { describe } from '../../src/cli/errors.js';
import { JsonRows, jsonPieces, toJson } from '../../src/cli/json.js';
import { printable } from '../../src/cli/printable.js';
import { joinPieces } from '../../src/cli/space-picture.js';
import { differencesJson, differencesText } from '../../src/cli/state/diff.js';
import { exported } from '../../src/cli/state/export.js';
import { stateText } from '../../src/cli/state/show.js';
import { stateJson } from '../../src/cli/state/state-json.js';
import { examine, verdictJson, verdictText } from '../../src/cli/state/verify.js';
import { compareStates } from '../../src/keepalive/state/compare-states.js';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { ExtentTable } from '../../src/keepalive/state/extent-table.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { MappingTable } from '../../src/keepalive/state/mapping-table.js';
import { exportRfc, importRfc } from '../../src/keepalive/state/rfc.js';
import type {
  SavedArena as Arena,
  SavedIommufd as Iommufd,
  SavedIoas,
  State,
} from '../../src/keepalive/state/saved-state.js';
import { StateError } from '../../src/keepalive/state/state-error.js';
import { PageSize } from '../../src/memory/memfd.js';
import { edit } from '../support/edit-state.js';
import { goldenStates } from '../support/golden-states.js';
import { nodeCommand } from '../support/node-command.js';

const { u32, string } = FdtValue;
const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const directory = mkdtempSync(join(tmpdir(), 'iommufd-cli-state-'));
t.teardown(() => rmSync(directory, { recursive: true, force: true }));
// Each process takes its time to start on a busy machine.
t.setTimeout(120_000);

const iommufd = (args: readonly string[], input?: string | Uint8Array) =>
  spawnSync(...nodeCommand(main, ...args), { encoding: 'utf8', input: input ?? '', maxBuffer: 2 ** 28 });

const golden = (name: string): State => goldenStates[name] as State;

/** One of everything. */
const whole: State = {
  ...golden('everything'),
  arenas: [...golden('arena-v1-place').arenas, ...golden('everything').arenas.slice(1)],
  iommufds: [
    ...golden('hwpt-v1').iommufds,
    ...golden('everything').iommufds,
    ...golden('iommufd-v1-rlimit').iommufds,
  ],
  devices: [
    {
      ...golden('device-v1-details').devices[0],
      ...golden('hwpt-v1').devices[0],
    } as State['devices'][number],
    ...golden('everything').devices.slice(1),
  ],
};
const bytes = encodeState(whole);

function file(name: string, content: Uint8Array | string): string {
  const path = join(directory, name);
  writeFileSync(path, content);
  return path;
}

const good = file('good.state', bytes);

t.test('show', async t => {
  const text = stateText(decodeState(bytes), 80);
  const lines = text.split('\n');
  const has = (line: RegExp): void => {
    t.ok(
      lines.some(each => line.test(each)),
      String(line),
    );
  };
  has(/^0000:00:04\.0 {2}NVMe controller 1b36:0010$/);
  has(/^ {2}subsystem +1af4:1100$/);
  has(/^ {2}serial number +01-23-45-67-89-ab-cd-ef$/);
  has(/^ {2}opened through +its own file$/);
  has(/^ {2}confined by +IOMMU$/);
  has(/^ {2}confined by +nothing \(no IOMMU\)$/);
  has(/^ {2}address space +iommufd 1, IOAS 0, HWPT 4294967295$/);
  has(/^ {2}driver +nvme-v1: 2 properties, 1 node$/);
  has(/^ {2}interrupts +MSI-X: 65$/);
  has(/^ {2,}request: 1$/);
  has(/^ {2}reset methods +flr bus$/);
  has(/^ {2}BARs +0: 16 KiB of memory, 64 bits$/);
  has(/^ +2: 64 GiB of memory, 64 bits, prefetchable$/);
  has(/^ +4: 32 B of I\/O$/);
  has(/^ {2}capabilities +MSI-X \(0x11\) at 0x40$/);
  has(/^ +serial number \(0x0003\) at 0x100, version 1$/);
  has(/^ {2}BARs +not known$/);
  has(/^queues +0x1 +64 MiB +2 MiB +- +iommufd 1, IOAS 0, 0x8000_0000_0000_0000$/);
  has(/^\(no name\) +0x2 +8 MiB +4 KiB +4 +-$/);
  has(/^data ä +0xfedcba9876543210 /);
  has(/^iommufd 1, IOAS 0$/);
  has(/^ {2}allowed +0x0000 … 0xfedf_ffff$/);
  has(
    /^ {2}HWPTs +0 for 0000:00:04\.0, 4294967295 for 0000:00:04\.0 \(nest parent, dirty tracking, PASID\)$/,
  );
  has(/^ {2}huge pages +off$/);
  has(/^ {2}mapped +nothing$/);
  has(/^ {2}allowed +all IOVAs$/);
  has(/^ {2}mapped +34\.1 MiB in 5 mappings, 1 read-only, 1 write-only$/);
  has(/^ {2}\[█·+b\]$/);
  has(/^ {2}a {2}data ä +from 0x0001_0000 +68 KiB +in one piece$/);
  has(/^ {2}b {2}queues +from 0x0002_1000 +34\.0 MiB +in 2 pieces$/);
  has(/^iommufd 3 charges pinned memory to the process$/);
  has(/^iommufd 3 has no IOAS$/);
  has(/^iommufd +state +0xf{16}$/);
  has(/^a +\(nothing\)$/);
  has(/^2 things not understood here, and passed on:$/);
  has(/^ {2}\/: property generation$/);
  has(/^ {2}\/fault-queue-0$/);
  t.ok(
    lines.every(line => line.length <= 100),
    'no line is too long',
  );

  const { status, stdout, stderr } = iommufd(['state', 'show', good]);
  t.equal(status, 0);
  t.equal(stderr, '');
  t.ok(stdout.endsWith(`\n\n${text}`), 'and the same from the command');
  t.match(
    stdout,
    /^\S+good\.state: 2 devices, 1 driver, 3 arenas, 3 iommufds, 3 IOASes, 2 HWPTs, 2 sessions\n/,
  );
  t.equal(stateText(golden('state-v1'), 80), '', 'an empty one');
});

t.test('a picture of each address space', async t => {
  const space = (ioas: Partial<SavedIoas>, arenas: State['arenas'] = golden('ioas-v1').arenas): string =>
    stateText(
      {
        ...golden('state-v1'),
        arenas,
        iommufds: [{ id: 0, ioases: [{ id: 0, allowed: [], mappings: new MappingTable(), ...ioas }] }],
      },
      36,
    );
  const mappings = new MappingTable();
  for (const [iova, arena] of [
    [0, 1n],
    [1, 1n],
    [2, 2n],
    [5, 2n],
  ] as const) {
    mappings.push({ iova: BigInt(iova * 2 ** 28) as Iova, length: 2 ** 28, arena, offset: 0 });
  }
  const two = [1n, 2n].map(token => ({ token, size: 2 ** 28, pageSize: PageSize.Small, name: 'x' }));
  t.match(
    space({ mappings }, two),
    /\n {2}\[aaa█bb···bbb·+\]\n {2}of that .*, drawn larger\n {2}\[a{10}b{5}·{10}b{5}\]\n/,
    'to 4 GiB',
  );
  t.match(
    space({ mappings }, two),
    /a {2}x 0x1 .* in one piece\n {2}b {2}x 0x2 .* in 2 pieces/,
    'names twice',
  );
  const range = (first: bigint, last: bigint) => ({ first: first as Iova, last: last as Iova });
  t.match(
    space({ mappings, allowed: [range(0n, 0x1fff_ffffn), range(0x3000_0000n, 0x5fff_ffffn)] }, two),
    /allowed +0x0000 … 0x1fff_ffff, 0x3000_0000 … 0x5fff_ffff\n(.*\n)+ {2}▒ {2}not allowed +from 0x2000_0000 +256 MiB\n/,
  );
  t.match(
    space({ mappings, allowed: [range(0x1000_0000n, 0x1fff_ffffn)] }, two),
    /\n {2}0x0000 … 0x5fff_ffff, 1\.50 GiB/,
    'what is mapped outside is drawn, too',
  );
  const many = Array.from({ length: 40 }, (_, index) => ({
    token: BigInt(index),
    size: 2 ** 28,
    pageSize: PageSize.Small,
    name: `n${index}`,
  }));
  const each = new MappingTable();
  for (const { token } of many) {
    const length = token === 39n ? 8192 : 4096;
    each.push({ iova: (token * 8192n) as Iova, length, arena: token, offset: 0 });
  }
  const picture = space({ mappings: each }, many);
  t.equal(picture.match(/^ {2}[a-z] {2}n\d+ /gm)?.length, 25, 'the largest have letters');
  t.match(picture, /^ {2}[a-z] {2}n39 /m);
  t.match(picture, /^ {2}[a-z] {2}15 others .* in 15 pieces$/m);
  const ranges = Array.from({ length: 100 }, (_, index) =>
    range(BigInt(index) * 10n, BigInt(index) * 10n + 5n),
  );
  t.match(space({ allowed: ranges }), /allowed .*, 0x0046 … 0x004b, and 92 more\n/);
  t.notMatch(space({ allowed: ranges }), /not allowed/);
});

t.test('what others wrote is fit for a terminal', async t => {
  t.equal(printable('a\u001b[2Jb\u009bc\u202ed ä€😀'), 'a\\u{1b}[2Jb\\u{9b}c\\u{202e}d ä€😀');
  const evil = '\u001b[2J\u202e';
  const state: State = {
    ...whole,
    arenas: whole.arenas.map(arena => ({ ...arena, name: evil })),
    sessions: [{ name: evil, tokens: new Map([[evil, 1n]]) }],
    drivers: whole.drivers.map(driver => ({ ...driver, compatible: evil })),
  };
  const evilBytes = encodeState(state);
  const bad = edit(bytes, root => root.child('device-').set('interface', string(`${evil}\u009b`)));
  const decoded = decodeState(evilBytes);
  const differences = compareStates(decoded, whole);
  const shown: Readonly<Record<string, string>> = {
    show: stateText(decoded, 80),
    'show --json': toJson(stateJson(decoded, 'summary')),
    verify: verdictText('x', examine(bad)),
    'verify --json': toJson(verdictJson('x', examine(bad))),
    error: describe(examine(bad)),
    diff: differencesText(differences, 'a', 'b'),
    'diff --json': toJson(differencesJson(differences)),
    'export to dts': Buffer.concat([...exported(evilBytes, 'dts')]).toString(),
    'export to json': Buffer.concat([...exported(evilBytes, 'json')]).toString(),
  };
  for (const [title, text] of Object.entries(shown)) {
    t.not(text, '', title);
    for (const character of ['\u001b', '\u009b', '\u202e']) t.notOk(text.includes(character), title);
  }
});

t.test('show and export as JSON', async t => {
  const shown = JSON.parse(iommufd(['state', 'show', good, '--json']).stdout);
  t.match(shown, {
    compatible: 'iommufd,state-v1',
    arenas: [
      {
        token: '0x1',
        name: 'queues',
        size: '67108864',
        pageSize: '2097152',
        extentCount: null,
        place: { iommufd: 1, ioas: 0, iova: '0x8000000000000000' },
      },
      { token: '0x2', extentCount: 4 },
      {},
    ],
    iommufds: [
      {
        id: 1,
        rlimitMode: 'user',
        ioases: [{ id: 0, hugePages: false, hwpts: [{ id: 0, flags: '0x0' }, { flags: '0xb' }] }],
      },
      { id: 3, rlimitMode: 'process' },
      { id: 7, ioases: [{}, { hugePages: true, mappingCount: 5, mappedBytes: '35733504', hwpts: [] }] },
    ],
    devices: [
      {
        address: '0000:00:04.0',
        vendorId: '0x1b36',
        serial: '0x0123456789abcdef',
        bars: [{ index: 0, size: '16384', kind: 'memory64' }, {}, {}, {}],
        capabilities: [{ id: '0x11', offset: '0x40' }, {}, {}, { id: '0x0003', extended: true }],
        interrupts: [{ kind: 'MSI-X', count: 65 }, { kind: 'request' }],
        resetMethods: 'flr bus',
        addressSpace: { iommufd: 1, ioas: 0, hwpt: 0xffff_ffff },
      },
      { serial: null, bars: null, resetMethods: null, addressSpace: { hwpt: null } },
    ],
    drivers: [{ compatible: 'nvme-v1', properties: { 'doorbell-stride': '00000004' }, children: [{}] }],
    sessions: [{ name: 'a', tokens: {} }, { tokens: { state: '0xffffffffffffffff' } }],
    kept: { properties: { generation: '00000009' }, nodes: [{ name: 'fault-queue-0' }] },
  });
  const all = JSON.parse(iommufd(['state', 'export', good, '-f', 'json']).stdout);
  t.match(all.iommufds[2].ioases[1].mappings, [
    {
      iova: '0x10000',
      length: '4096',
      arena: '0xfedcba9876543210',
      offset: '0',
      readable: true,
      writeable: true,
    },
    {},
    { writeable: false },
    { readable: false },
    { iova: '0xfffffffffe000000' },
  ]);
  t.strictSame(all.arenas[1].extents[3], {
    offset: '4194304',
    address: '0xfffffffffffff000',
    length: '4096',
  });
  t.equal(all.arenas[0].extents, null);
  const { mappings: _, ...rest } = all.iommufds[2].ioases[1];
  t.strictSame(rest, shown.iommufds[2].ioases[1], 'and apart from rows it is the same');
});

t.test('JSON in pieces', async t => {
  const value = {
    a: 1n,
    b: [],
    c: [1, 'x', null, { d: {} }],
    '\u009b': '\u202e',
    rows: [{ x: 1 }],
  };
  t.equal([...jsonPieces(value)].join(''), toJson(value), 'as in one');
  t.equal(
    [...jsonPieces({ rows: new JsonRows([{ x: 1n }, [2]]) })].join(''),
    '{\n  "rows": [\n    {"x":"1"},\n    [2]\n  ]\n}\n',
  );
  t.equal([...jsonPieces(new JsonRows([]))].join(''), '[]\n');
  const many = { rows: new JsonRows(Array.from({ length: 100_000 }, (_, index) => ({ index }))) };
  const pieces = [...jsonPieces(many)];
  t.ok(pieces.length > 10 && pieces.every(piece => piece.length < 70_000), `${pieces.length} pieces`);
  t.equal(JSON.parse(pieces.join('')).rows[99_999].index, 99_999);
  t.equal(iommufd(['state', 'show', good, '--json']).stdout.includes('\n  "devices": [\n'), true);
});

t.test('joined pieces', async t => {
  const piece = (first: bigint, length: bigint, label: string) => ({ first, length, label });
  t.strictSame(joinPieces([piece(0n, 1n, 'a'), piece(1n, 2n, 'a'), piece(3n, 1n, 'b'), piece(5n, 1n, 'b')]), [
    piece(0n, 3n, 'a'),
    piece(3n, 1n, 'b'),
    piece(5n, 1n, 'b'),
  ]);
});

t.test('verify', async t => {
  const { status, stdout, stderr } = iommufd(['state', 'verify', good]);
  t.equal(status, 0);
  t.equal(stderr, '');
  t.match(stdout, /^\S+good\.state is good\n/);
  t.match(stdout, /records +2 devices, 1 driver, .* 2 sessions/);
  t.match(stdout, /mappings +5: in order/);
  t.match(stdout, /extents +4: /);
  t.match(stdout, /not understood +2 things/);
  t.notMatch(stdout, /behind it/);
  const pages = new Uint8Array(8192);
  pages.set(bytes);
  t.match(verdictText('-', examine(pages)), /standard input is good\n(.*\n)* {2}behind it +4\.\d+ KiB/);
  const json = iommufd(['state', 'verify', '-', '--json'], pages);
  t.equal(json.status, 0);
  t.match(JSON.parse(json.stdout), {
    file: '-',
    good: true,
    size: '8192',
    stateSize: String(bytes.length),
    devices: 2,
    mappings: 5,
    extents: 4,
    notUnderstood: 2,
  });

  const bad: readonly [string, Uint8Array, RegExp][] = [
    ['empty', new Uint8Array(0), /DAMAGED\n/],
    ['a word', Buffer.from('state'), /DAMAGED\n/],
    ['a picture', Buffer.from('89504e470d0a1a0a0000000d49484452'.repeat(8), 'hex'), /DAMAGED\n.*\n/],
    ['cut off in the header', bytes.subarray(0, 20), /DAMAGED/],
    [
      'cut off',
      bytes.subarray(0, 1000),
      /DAMAGED\n {2}where +byte 4\n {2}what +it is shorter than it says\n/,
    ],
    [
      'a bit turned',
      bytes.map((byte, index) => (index === Buffer.from(bytes).indexOf('flr bus') ? byte ^ 1 : byte)),
      /DAMAGED\n {2}where +\/, property crc32c, byte \d+\n {2}what +the checksum/,
    ],
    ['another layout', exportRfc(whole), /UNSUPPORTED\n {2}where +\/, property compatible.*\n.*"iommufd-v0"/],
    [
      'another version',
      edit(bytes, root =>
        root.child('iommufd-7').child('ioas-12').set('compatible', string('iommufd,ioas-v2')),
      ),
      /UNSUPPORTED\n {2}where +\/iommufd-7\/ioas-12, property compatible, byte \d+\n.*version 2.*\n {2}what to do +Restore with/,
    ],
    [
      'no such IOAS',
      edit(bytes, root => root.child('device-0000-00-05.0').set('address-space', FdtValue.u32s([7, 9]))),
      /INVALID\n {2}where +\/device-0000-00-05\.0, property address-space, byte \d+\n {2}what +there is no IOAS 9/,
    ],
    [
      'a row past its arena',
      edit(bytes, root => root.child('iommufd-7').child('ioas-12').setPacked('mapping', [0x4a, 1], 1)),
      /INVALID\n {2}where +\/iommufd-7\/ioas-12, property mappings, byte \d+\n {2}what +row 0: .*beyond its arena/,
    ],
  ];
  for (const [title, content, message] of bad) {
    const verdict = examine(content);
    const text = verdictText('x', verdict);
    t.match(text, /^x is not good: /, title);
    t.match(text, message, title);
    t.match(text, /\n {2}what to do +\S/, title);
    const { good, code, reason } = JSON.parse(toJson(verdictJson('x', verdict)));
    t.equal(good, false, title);
    t.ok(text.includes(code) && text.includes(reason), `${title}, as JSON`);
  }
});

t.test('a bad state, for each verb', async t => {
  const path = file('bad.state', bytes.subarray(0, 1000));
  const verify = iommufd(['state', 'verify', path]);
  t.equal(verify.status, 1);
  t.match(verify.stdout, /bad\.state is not good: DAMAGED\n/);
  t.equal(verify.stderr, '');
  for (const args of [['show'], ['export', '-f', 'rfc'], ['diff', good]]) {
    const { status, stdout, stderr } = iommufd(['state', ...args, path]);
    t.equal(status, args[0] === 'diff' ? 2 : 1, args.join(' '));
    t.match(
      stderr,
      /^iommufd: \S+bad\.state: saved state \(byte 4\): it is shorter.*\. Use another copy.*\n$/,
    );
    t.equal(stderr.split('\n').length, 2, 'one line');
    t.equal(stdout, '');
  }
});

t.test('files that cannot be read', async t => {
  const missing = join(directory, 'missing');
  const large = file('large', '');
  truncateSync(large, 2 ** 30 + 1);
  const cases: readonly [string[], number, RegExp][] = [
    [['verify', missing], 1, /^iommufd: ENOENT.*missing/],
    [['diff', good, missing], 2, /^iommufd: ENOENT.*missing/],
    [['verify', directory], 1, /^iommufd: .* is a directory\n$/],
  ];
  for (const [args, wanted, message] of cases) {
    const { status, stdout, stderr } = iommufd(['state', ...args]);
    t.equal(status, wanted, args.join(' '));
    t.match(stderr, message);
    t.equal(stdout, '');
  }
  t.match(
    iommufd(['state', 'verify', large]).stdout,
    /DAMAGED\n {2}what +it is larger than 1073741824 bytes/,
  );
});

t.test('a pipe', async t => {
  const path = join(directory, 'fifo');
  execFileSync('mkfifo', [path]);
  const { status, stdout } = spawnSync(
    'sh',
    ['-c', 'cat "$2" > "$3" & exec "$0" "$1" state verify "$3"', process.execPath, main, good, path],
    { encoding: 'utf8' },
  );
  t.equal(status, 0);
  t.match(stdout, /fifo is good/);
});

t.test('diff', async t => {
  const same = iommufd(['state', 'diff', good, '-'], bytes);
  t.equal(same.status, 0);
  t.match(same.stdout, /good\.state and standard input say the same\n$/);

  const [one, seven, three] = whole.iommufds as [Iommufd, Iommufd, Iommufd];
  const shifted = new MappingTable();
  for (const mapping of seven.ioases.flatMap(ioas => [...ioas.mappings]).slice(0, 3)) {
    shifted.push({ ...mapping, offset: mapping.offset + (mapping.arena === 1n ? 4096 : 0), writeable: true });
  }
  const ioases = seven.ioases.map(ioas => (ioas.id === 12 ? { ...ioas, mappings: shifted } : ioas));
  const [queues, data, located] = whole.arenas as [Arena, Arena, Arena];
  const other: State = {
    ...whole,
    arenas: [{ ...queues, size: 2 ** 27 }, data, { ...located, extents: new ExtentTable() }],
    iommufds: [one, { ...seven, ioases }, three],
    devices: whole.devices.map((device, index) => (index === 0 ? { ...device, vendorId: 0x8086 } : device)),
    sessions: whole.sessions.slice(0, 1),
    kept: { properties: new Map([['generation', u32(10)]]), nodes: [] },
  };
  const path = file('other.state', encodeState(other));
  const { status, stdout, stderr } = iommufd(['state', 'diff', good, path]);
  t.equal(status, 1);
  t.equal(stderr, '');
  const expected = [
    `--- ${good}`,
    `+++ ${path}`,
    '/: generation',
    '  - [00000009]',
    '  + [0000000a]',
    '/arena-1: size',
    '  - 64 MiB (67108864 bytes)',
    '  + 128 MiB (134217728 bytes)',
    '/arena-2: physical addresses differ in 3 ranges',
    '    from byte 0x0, 16 KiB',
    '  - 0x0001_0000_0000',
    '  + (nothing)',
  ];
  t.strictSame(stdout.split('\n').slice(0, expected.length), expected);
  for (const lines of [
    ['/iommufd-7/ioas-12: mappings differ in 3 ranges'],
    [
      '    0x0002_1000, 2 MiB',
      '  - arena 0x1 from byte 0x400000, read-only',
      '  + arena 0x1 from byte 0x401000',
    ],
    ['    0x0022_1000, 12 KiB', '  - arena 0x1 from byte 0x1000, write-only', '  + (nothing)'],
    ['/device-0000-00-04.0: vendor-id', '  - 0x1b36', '  + 0x8086'],
    [`/session "a" (iommufd,session-v1): only in ${good}`],
    [`/fault-queue-0 (iommufd,fault-queue-v1): only in ${good}`],
  ]) {
    t.ok(stdout.includes(`\n${lines.join('\n')}\n`), lines.join(' '));
  }
  const differences = compareStates(decodeState(bytes), decodeState(encodeState(other)));
  t.equal(differencesText(differences, good, path), stdout);
  t.strictSame(toJson(differencesJson([])), '[]\n');
  t.match(JSON.parse(toJson(differencesJson(differences))), [
    { kind: 'property', path: '/', property: 'generation', a: { hex: '00000009' }, b: { hex: '0000000a' } },
    { kind: 'property', path: '/arena-1', property: 'size', a: '67108864', b: '134217728' },
    {
      kind: 'extents',
      count: 3,
      ranges: [{ offset: '0', length: '16384', a: '0x100000000', b: null }, {}, {}],
    },
    {
      kind: 'mappings',
      path: '/iommufd-7/ioas-12',
      count: 3,
      ranges: [
        {
          iova: '0x21000',
          length: '2097152',
          a: { arena: '0x1', offset: '4194304', readable: true, writeable: false },
          b: { offset: '4198400', writeable: true },
        },
        { b: null },
        {},
      ],
    },
    { kind: 'property', property: 'vendor-id', a: '0x1b36', b: '0x8086' },
    { kind: 'record', path: '/session "a"', type: 'iommufd,session-v1', in: 'a' },
    { kind: 'record', path: '/fault-queue-0', in: 'a' },
  ]);
});

t.test('export', async t => {
  const dts = iommufd(['state', 'export', good]);
  t.equal(dts.status, 0);
  t.match(dts.stdout, /^\/dts-v1\/;\n\n\/ \{\n\tcompatible = "iommufd,state-v1";\n/);
  t.match(dts.stdout, /\n\t\t\thwpt-0 \{\n/);
  const invalid = edit(bytes, root => root.child('device-0000-00-05.0').set('address-space', u32(1)));
  t.equal((examine(invalid) as StateError).code, 'INVALID');
  t.match(Buffer.concat([...exported(invalid, 'dts')]).toString(), 'address-space = <0x1>;', 'of a bad one');
  t.throws(() => exported(invalid, 'json'), StateError);
  t.throws(() => exported(bytes.subarray(0, 100), 'dts'), StateError);

  const output = join(directory, 'out.dtb');
  const rfc = iommufd(['state', 'export', good, '--format', 'rfc', '--output', output]);
  t.equal(rfc.status, 0);
  t.match(rfc.stdout, /^wrote \S+good\.state as rfc to \S+out\.dtb, 618 bytes\n$/);
  const written = new Uint8Array(readFileSync(output));
  t.strictSame(written, exportRfc(decodeState(bytes)));
  t.same(
    importRfc(written).iommufds.map(({ id }) => id),
    [1, 3, 7],
  );
  const json = iommufd(['state', 'export', good, '-f', 'rfc', '-o', output, '--json']);
  t.strictSame(JSON.parse(json.stdout), { file: good, format: 'rfc', bytes: String(written.length), output });
  const kept = file('kept', 'old');
  t.equal(iommufd(['state', 'export', '-', '-f', 'json', '-o', kept], invalid).status, 1);
  t.equal(readFileSync(kept, 'utf8'), 'old', 'what cannot be exported leaves what is there alone');
});
