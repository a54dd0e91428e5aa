// The argument checks: TypeError for kind, RangeError for range.
import t from 'tap';
import { iova } from '../../src/address.js';
import {
  checkAligned,
  checkFunction,
  checkInteger,
  checkPowerOfTwo,
  checkRange,
  checkU64,
} from '../../src/check.js';

const range = { name: 'RangeError', message: /^it / };
const type = { name: 'TypeError', message: /^it / };
/** What is no number, whatever the types say. */
const noNumbers = [undefined, null, '1', 1n, true, {}, [], () => 1] as unknown as number[];

t.test('checkInteger', async t => {
  t.equal(checkInteger('it', 0), 0);
  t.equal(checkInteger('it', Number.MAX_SAFE_INTEGER), Number.MAX_SAFE_INTEGER);
  t.equal(checkInteger('it', -5, -5, 5), -5);
  t.equal(checkInteger('it', 5, -5, 5), 5);
  for (const value of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
    t.throws(() => checkInteger('it', value), range, String(value));
  }
  t.throws(() => checkInteger('it', 6, -5, 5), { message: 'it must be an integer from -5 to 5, got 6' });
  for (const value of noNumbers) t.throws(() => checkInteger('it', value), type);
});

t.test('checkU64', async t => {
  t.equal(checkU64('it', 0n), 0n);
  t.equal(checkU64('it', 2n ** 64n - 1n), 2n ** 64n - 1n);
  t.equal(checkU64('it', 4096), 4096n, 'a number for convenience');
  for (const value of [-1n, 2n ** 64n, -1, 0.5, Number.NaN, 2 ** 53]) {
    t.throws(() => checkU64('it', value), range, String(value));
  }
  for (const value of noNumbers) if (typeof value !== 'bigint') t.throws(() => checkU64('it', value), type);
  t.equal(iova(0x1000), 0x1000n);
  t.throws(() => iova(-1), { name: 'RangeError', message: /^IOVA / });
});

t.test('checkAligned', async t => {
  for (const value of [0, 4096, 8192, 2 ** 52, 0n, 4096n, 2n ** 64n - 4096n]) {
    t.doesNotThrow(() => checkAligned('it', value, 4096));
  }
  for (const value of [1, 4095, 4097, 0.5, Number.NaN, 1n, 4097n, 2n ** 64n - 1n]) {
    t.throws(() => checkAligned('it', value, 4096), range, String(value));
  }
  t.throws(() => checkAligned('it', 0x1234n, 16), { message: 'it must be a multiple of 16, got 0x1234' });
});

t.test('checkPowerOfTwo', async t => {
  for (let bit = 0; bit <= 52; bit++) {
    const power = 2 ** bit;
    t.equal(checkPowerOfTwo('it', power, 1), power);
    if (bit >= 2) {
      t.throws(() => checkPowerOfTwo('it', power - 1, 1), range, `2^${bit} - 1`);
      t.throws(() => checkPowerOfTwo('it', power + 1, 1), range, `2^${bit} + 1`);
    }
  }
  for (const value of [0, -1, -2, 3, 0.5, Number.NaN, 2 ** 53])
    t.throws(() => checkPowerOfTwo('it', value, 1), range);
  t.throws(() => checkPowerOfTwo('it', 32, 64), range);
  t.throws(() => checkPowerOfTwo('it', 128, 1, 64), range);
  for (const value of noNumbers) t.throws(() => checkPowerOfTwo('it', value, 1), type);
});

t.test('checkRange', async t => {
  for (const [offset, length] of [
    [0, 0],
    [0, 100],
    [100, 0],
    [99, 1],
  ] as const) {
    t.doesNotThrow(() => checkRange('it', offset, length, 100));
  }
  for (const [offset, length] of [
    [0, 101],
    [100, 1],
    [101, 0],
    [-1, 1],
    [1, -1],
    [0.5, 1],
    [1, 0.5],
    [Number.NaN, 1],
    [1, Number.NaN],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ] as const) {
    t.throws(() => checkRange('it', offset, length, 100), { name: 'RangeError', message: /^it/ });
  }
  for (const value of noNumbers) {
    t.throws(() => checkRange('it', value, 1, 100), type);
    t.throws(() => checkRange('it', 1, value, 100), type);
  }
});

t.test('checkFunction', async t => {
  t.doesNotThrow(() => checkFunction('it', () => undefined));
  t.doesNotThrow(() => checkFunction('it', class {}));
  for (const value of [undefined, null, {}, 'f', 1]) t.throws(() => checkFunction('it', value), type);
});
