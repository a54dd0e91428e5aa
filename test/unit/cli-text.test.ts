// The pure parts of the command: numbers, units, tables, names, progress, errors.
import t from 'tap';
import { colours } from '../../src/cli/colours.js';
import { describe, find, flatten, Incomplete, Interrupted, UsageError } from '../../src/cli/errors.js';
import { toJson } from '../../src/cli/json.js';
import { parseCount, parseDuration, parseSize } from '../../src/cli/numbers.js';
import { className, isBridge, isNvme } from '../../src/cli/pci-class.js';
import { Progress, progressLine } from '../../src/cli/progress.js';
import { fields, table } from '../../src/cli/table.js';
import { formatRate, formatSeconds, formatSize, formatSizeExactly } from '../../src/cli/units.js';
import { DeviceError, DeviceErrorCode } from '../../src/errors.js';

t.test('sizes', async t => {
  const sizes: readonly [string, number][] = [
    ['1', 1],
    ['4096', 4096],
    ['0x1000', 4096],
    ['512B', 512],
    ['4K', 4096],
    ['4k', 4096],
    ['4KiB', 4096],
    ['4kB', 4000],
    ['1MiB', 2 ** 20],
    ['1mib', 2 ** 20],
    ['1 MiB', 2 ** 20],
    ['2G', 2 ** 31],
    ['3TB', 3e12],
    // Hexadecimal digits, not a unit.
    ['0x1b', 27],
  ];
  for (const [text, bytes] of sizes) t.equal(parseSize('--bytes', text), bytes, text);
  for (const text of ['', '0', '-1', '1.5K', '5iB', 'KiB', '0x', '1XB', '9999999T', ' 1', '1e3']) {
    t.throws(
      () => parseSize('--bytes', text),
      { name: 'RangeError', message: /--bytes must be a size/ },
      text,
    );
  }
});

t.test('counts', async t => {
  t.equal(parseCount('--lba', '0'), 0);
  t.equal(parseCount('--lba', '12'), 12);
  t.equal(parseCount('--lba', '0xff'), 255);
  for (const text of ['', '-1', '1.5', '4K', 'x', '99999999999999999']) {
    t.throws(() => parseCount('--lba', text), { name: 'RangeError', message: /--lba must be/ }, text);
  }
  t.throws(() => parseCount('--namespace', '0', 1), /of at least 1/);
});

t.test('durations', async t => {
  t.equal(parseDuration('--timeout', '10'), 10_000);
  t.equal(parseDuration('--timeout', '0.5'), 500);
  t.equal(parseDuration('--timeout', '500ms'), 500);
  t.equal(parseDuration('--timeout', '10s'), 10_000);
  t.equal(parseDuration('--timeout', '2m'), 120_000);
  for (const text of ['', '0', '-1', '1h', 's', '999999999']) {
    t.throws(() => parseDuration('--timeout', text), { name: 'RangeError' }, text);
  }
});

t.test('units', async t => {
  t.equal(formatSize(0), '0 B');
  t.equal(formatSize(1023), '1023 B');
  t.equal(formatSize(1024), '1 KiB');
  t.equal(formatSize(1536), '1.50 KiB');
  t.equal(formatSize(128n << 20n), '128 MiB');
  t.equal(formatSize(2 ** 40), '1 TiB');
  t.equal(formatSizeExactly(512), '512 bytes');
  t.equal(formatSizeExactly(1), '1 byte');
  t.equal(formatSizeExactly(2n ** 20n), '1 MiB (1048576 bytes)');
  t.equal(formatRate(2 ** 20, 0.5), '2 MiB/s');
  t.match(formatRate(512, 0), /\/s$/, 'no time is no division by zero');
  t.equal(formatSeconds(0.123), '0.12 s');
  t.equal(formatSeconds(12.4), '12 s');
  t.equal(formatSeconds(200), '3 min 20 s');
  t.equal(formatSeconds(7500), '2 h 5 min');
});

t.test('tables', async t => {
  const rows = [
    ['A', 'LONG', 'C'],
    ['aaa', 'b', ''],
  ];
  t.equal(table(rows), 'A    LONG  C\naaa  b\n');
  t.equal(
    table(rows, text => `<${text}>`),
    '<A    LONG  C>\naaa  b\n',
  );
  t.equal(table([]), '');
  t.equal(
    fields([
      ['a', '1'],
      ['bcd', '2'],
    ] as const),
    '  a    1\n  bcd  2\n',
  );
});

t.test('class names', async t => {
  t.equal(className(0x010802), 'NVMe controller');
  t.equal(className(0x010801), 'non-volatile memory controller');
  t.equal(className(0x020000), 'Ethernet controller');
  t.equal(className(0x00ff00), '0x00ff00');
  t.ok(isNvme(0x010802));
  t.notOk(isNvme(0x020000));
  t.ok(isBridge(0x060400));
  t.notOk(isBridge(0x020000));
});

t.test('progress', async t => {
  t.equal(
    progressLine(50, 100, 1, 80),
    ' 50% [===============               ] 50 B of 100 B, 50 B/s, 1 s left',
  );
  t.equal(progressLine(2 ** 20, undefined, 2, 80), '1 MiB, 512 KiB/s');
  t.notMatch(progressLine(0, 100, 1, 80), /left/);
  for (const columns of [1, 10, 40, 60, 80, 200]) {
    for (const done of [0, 1, 99, 100, 101]) {
      const line = progressLine(done, 100, 3, columns);
      t.ok(line.length < columns, `${line.length} < ${columns}`);
    }
  }
  const written: string[] = [];
  const write = (text: string): unknown => written.push(text);
  const silent = new Progress(100, { isTTY: true, write });
  silent.update(50);
  silent[Symbol.dispose]();
  t.strictSame(written, [], 'nothing at first');
  t.ok(silent.seconds >= 0);
});

t.test('colours', async t => {
  const terminal = { isTTY: true };
  t.not(colours(terminal, { TERM: 'xterm' }).bold('x'), 'x');
  t.equal(colours(terminal, { TERM: 'xterm', NO_COLOR: '1' }).bold('x'), 'x');
  t.equal(colours(terminal, { TERM: 'dumb' }).red('x'), 'x');
  t.equal(colours({}, { TERM: 'xterm' }).red('x'), 'x', 'not a terminal');
});

t.test('JSON', async t => {
  t.strictSame(JSON.parse(toJson({ a: 2n ** 63n, b: 1 })), { a: '9223372036854775808', b: 1 });
});

t.test('errors', async t => {
  const noIommu = new DeviceError(DeviceErrorCode.NoIommu, 'd', 'no IOMMU', 'Pass { noiommu: true }');
  t.equal(describe(noIommu), 'd: no IOMMU. Pass --noiommu to accept that');
  const mounted = new DeviceError(
    DeviceErrorCode.Busy,
    'd',
    'holds mounted file systems',
    'Unmount them first',
  );
  t.equal(describe(mounted), 'd: holds mounted file systems. Unmount them first, or pass --force');
  const gone = new DeviceError(DeviceErrorCode.Gone, 'd', 'gone', 'Look under the table');
  t.equal(describe(gone), gone.message, 'other hints stay');
  t.equal(describe(new Error('one\n  two')), 'one two');
  t.equal(describe('text'), 'text');
  t.equal(describe(new AggregateError([new Error('a'), new Error('b')])), 'a; b');

  const interrupted = new Interrupted('SIGTERM');
  t.equal(interrupted.exitCode, 143);
  t.equal(new Interrupted('SIGINT').exitCode, 130);
  const incomplete = new Incomplete('1 of 2', { cause: interrupted });
  t.equal(find(incomplete, Interrupted), interrupted);
  t.equal(find(incomplete, UsageError), undefined);
  t.equal(describe(new Incomplete('1 of 2', { cause: gone })), `${gone.message} (1 of 2)`);

  const failing = (): void => {
    using _ = {
      [Symbol.dispose]: () => {
        throw new Error('while cleaning up');
      },
    };
    throw incomplete;
  };
  try {
    failing();
  } catch (error) {
    t.strictSame(
      flatten(error).map(each => (each as Error).message),
      ['1 of 2', 'while cleaning up'],
    );
    t.equal(find(error, Interrupted), interrupted);
  }
});
