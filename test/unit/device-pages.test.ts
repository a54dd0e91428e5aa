// Page tables as devices see them: every byte at its address, in runs as long as they can be.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { iova } from '../../src/address.js';
import type { Ioas } from '../../src/iommufd/ioas.js';
import { DEVICE_PAGE, DevicePages } from '../../src/memory/device-pages.js';

const PAGE = BigInt(DEVICE_PAGE);

/** Pages in the order of `numbers`, which the kernel reports in runs of at most `longest` pages. */
function physical(numbers: readonly bigint[], longest = Number.POSITIVE_INFINITY): DevicePages {
  const base = 0x40_0000n;
  let calls = 0;
  const ioas = {
    physicalExtent(at: bigint, length: number) {
      calls++;
      const first = Number((at - base) / PAGE);
      let count = 1;
      const most = Math.min(longest, length / DEVICE_PAGE);
      while (count < most && numbers[first + count] === (numbers[first] as bigint) + BigInt(count)) count++;
      return { address: (numbers[first] as bigint) * PAGE, length: BigInt(count * DEVICE_PAGE) };
    },
  };
  const pages = DevicePages.physical(ioas as unknown as Ioas, iova(base), numbers.length * DEVICE_PAGE);
  assert.ok(calls <= numbers.length);
  return pages;
}

/** Runs of pages: some neighbours, some not, some over the edge of 4 GiB. */
const anyNumbers = fc
  .array(
    fc.record({
      start: fc.oneof(
        fc.bigInt(1n, 40n),
        fc.bigInt(0xf_fffan, 0x10_0004n),
        fc.bigInt(0xf_ffff_fffan, 0xf_ffff_ffffn),
        fc.bigInt(1n, 2n ** 52n - 64n),
      ),
      count: fc.integer({ min: 1, max: 6 }),
    }),
    { minLength: 1, maxLength: 8 },
  )
  .map(runs =>
    runs.flatMap(({ start, count }) => Array.from({ length: count }, (_, i) => start + BigInt(i))),
  );

t.test('segments are the bytes in order, each run as long as it can be', async t => {
  let several = 0;
  fc.assert(
    fc.property(anyNumbers, fc.nat(), fc.nat(), fc.integer({ min: 1, max: 4 }), (numbers, a, b, longest) => {
      const pages = physical(numbers, longest);
      const size = numbers.length * DEVICE_PAGE;
      const offset = a % size;
      const length = b % (size - offset + 1);
      const addressOf = (at: number): bigint =>
        (numbers[Math.floor(at / DEVICE_PAGE)] as bigint) * PAGE + BigInt(at % DEVICE_PAGE);

      // The slow way: page by page, joining what follows.
      const expected: { offset: number; address: bigint; length: number }[] = [];
      for (let at = offset; at < offset + length; ) {
        const stop = Math.min((Math.floor(at / DEVICE_PAGE) + 1) * DEVICE_PAGE, offset + length);
        const last = expected.at(-1);
        if (last && last.address + BigInt(last.length) === addressOf(at)) last.length += stop - at;
        else expected.push({ offset: at, address: addressOf(at), length: stop - at });
        at = stop;
      }
      assert.deepEqual(pages.segments(offset, length), expected);
      if (expected.length > 1) several++;
      if (length > 0) assert.equal(pages.address(offset), addressOf(offset));
      assert.deepEqual(
        [...pages.addresses],
        numbers.map(number => number * PAGE),
      );
      assert.equal(pages.words.length, 2 * numbers.length);
      assert.equal(pages.words[0], Number(((numbers[0] as bigint) * PAGE) & 0xffff_ffffn));
      assert.equal(pages.words[1], Number(((numbers[0] as bigint) * PAGE) >> 32n));
    }),
    { numRuns: 3000 },
  );
  t.ok(several > 1000, `${several} of them in several segments`);
});

t.test('behind an IOMMU memory is one run', async t => {
  const pages = DevicePages.contiguous(iova(0xffff_e000n), 4 * DEVICE_PAGE);
  t.same([...pages.addresses], [0xffff_e000n, 0xffff_f000n, 0x1_0000_0000n, 0x1_0000_1000n]);
  t.same(pages.segments(100, 10_000), [{ offset: 100, address: 0xffff_e064n, length: 10_000 }]);
  t.equal(pages.scattered, false);
  t.same(pages.segments(100, 0), [], 'nothing has no segments');
});

t.test('knows whether it is scattered', async t => {
  t.equal(physical([7n, 8n, 9n]).scattered, false, 'one run');
  t.equal(physical([7n, 9n]).scattered, true, 'two runs');
  t.equal(physical([8n, 7n]).scattered, true, 'backwards is two runs');
});
