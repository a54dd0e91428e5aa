/** FIXTURE(iommufd_ioas): which IOVAs there are, and which the kernel chooses. @module */
import { EADDRINUSE, EMSGSIZE, ENOSPC } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_IOVA_RANGES,
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import {
  MOCK_APERTURE_LAST,
  MOCK_APERTURE_START,
  MOCK_PAGE_SIZE,
} from '../../../bindings/uapi/iommufd-test.js';
import { decodeList } from '../../../bindings/uapi/struct.js';
import { equal, holds, refused } from '../support/expect.js';
import { BUFFER_SIZE } from '../support/iommufd.js';
import type { IoasFixture, IoasTests } from '../support/iommufd-ioas.js';
import { PAGE } from '../support/memory.js';

const U64_MAX = 2n ** 64n - 1n;
const APERTURE = BigInt(MOCK_APERTURE_START);
const pages = (count: number): bigint => BigInt(count * PAGE);
const lowestBit = (length: number): bigint => BigInt(length & -length);

interface Range {
  readonly start: bigint;
  readonly last: bigint;
}

/** Allows the given ranges only. */
function tryAllow(f: IoasFixture, ...ranges: readonly Range[]): number {
  const memory = f.point(iommu_iova_range.size * Math.max(ranges.length, 1));
  for (const [i, range] of ranges.entries()) {
    iommu_iova_range.encode(memory.view, range, i * iommu_iova_range.size);
  }
  return f.call(IOMMU_IOAS_ALLOW_IOVAS, {
    ioas_id: f.ioas,
    num_iovas: ranges.length,
    allowed_iovas: memory.address,
  }).result;
}

/** Maps 1 to 10 pages where the kernel likes, has each place looked at, and unmaps them. */
function mapAnywhere(
  f: IoasFixture,
  address: bigint,
  sizeOf: (i: number) => number,
  check: (iova: bigint, length: number) => void,
): void {
  const lengths = Array.from({ length: 10 }, (_, i) => sizeOf(i));
  const iovas = lengths.map(length => f.map(f.ioas, address, length));
  for (const [i, iova] of iovas.entries()) check(iova, lengths[i] as number);
  for (const [i, iova] of iovas.entries()) f.unmap(f.ioas, iova, lengths[i] as number);
}

const growing = (i: number): number => (i + 1) * PAGE;

function aligned(iova: bigint, length: number): void {
  equal(iova % lowestBit(length), 0n, () => `alignment of ${length} bytes at 0x${iova.toString(16)}`);
}

/** Asks for the usable ranges with room for `count`; the buffer shows what was written to it. */
function ranges(f: IoasFixture, count: number) {
  f.buffer.bytes.fill(0);
  const { result, values } = f.call(IOMMU_IOAS_IOVA_RANGES, {
    ioas_id: f.ioas,
    num_iovas: count,
    allowed_iovas: f.buffer.address,
  });
  const { buffer, byteOffset, byteLength } = f.buffer.bytes;
  const [first, second] = decodeList(new DataView(buffer, byteOffset, byteLength), iommu_iova_range, 2);
  holds(first !== undefined && second !== undefined, 'two ranges');
  return { result, count: values.num_iovas, alignment: values.out_iova_alignment, first, second };
}

function sameRange(actual: Range, start: bigint, last: bigint, what: string): void {
  equal(actual.start, start, `start of ${what}`);
  equal(actual.last, last, `last of ${what}`);
}

export const iovaTests: IoasTests = {
  area_auto_iova(f) {
    const { address } = f.buffer;
    mapAnywhere(
      f,
      address,
      () => PAGE,
      () => {},
    );
    // Without a device nobody looks whether there is anything at the address.
    mapAnywhere(f, f.device === undefined ? 2n ** 31n : address, growing, aligned);

    const reserved = { start: pages(4), length: pages(100) };
    equal(f.tryAddReserved(f.ioas, reserved.start, reserved.length), 0, 'ADD_RESERVED');
    mapAnywhere(f, address, growing, (iova, length) => {
      aligned(iova, length);
      holds(
        iova <= reserved.start || iova >= reserved.start + reserved.length,
        () => `0x${iova.toString(16)} is reserved`,
      );
    });

    refused(tryAllow(f, { start: pages(1), last: pages(600) }), EADDRINUSE, 'to allow what is reserved');

    const start = f.device === undefined ? pages(200) : APERTURE + pages(1);
    const last = (f.device === undefined ? 0n : APERTURE) + pages(600) - 1n;
    equal(tryAllow(f, { start, last }), 0, 'to allow a range');
    mapAnywhere(f, address, growing, (iova, length) => {
      aligned(iova, length);
      const end = iova + BigInt(length) - 1n;
      holds(iova >= start && end <= last, () => `0x${iova.toString(16)} is not in the range allowed`);
    });
  },

  reserved_overflow(f) {
    equal(f.tryAddReserved(f.ioas, 6n, 0xffff_ffff_ffff_8001n), 0, 'ADD_RESERVED of nearly all');
    refused(f.tryMap(f.ioas, f.buffer.address, 5 * PAGE).result, ENOSPC, 'no room');
  },

  area_allowed(f) {
    const range = { start: f.base, last: f.base + pages(600) };
    const reserve = (): number => f.tryAddReserved(f.ioas, f.base + pages(1), pages(1));
    equal(tryAllow(f, range), 0, 'to allow a range');
    refused(reserve(), EADDRINUSE, 'to reserve what is allowed');
    equal(tryAllow(f), 0, 'to allow everything again');
    equal(reserve(), 0, 'to reserve it now');
    refused(tryAllow(f, range), EADDRINUSE, 'to allow what is reserved');
  },

  iova_ranges(f) {
    const most = BUFFER_SIZE / iommu_iova_range.size;
    const aperture = (actual: Range): void =>
      sameRange(actual, APERTURE, BigInt(MOCK_APERTURE_LAST), 'the aperture');

    const all = ranges(f, most);
    equal(all.result, 0, 'ranges');
    equal(all.count, 1, 'number of ranges');
    if (f.device === undefined) {
      sameRange(all.first, 0n, U64_MAX, 'everything');
      equal(all.alignment, 1n, 'alignment');
    } else {
      aperture(all.first);
      equal(all.alignment, BigInt(MOCK_PAGE_SIZE), 'alignment');
    }

    const none = ranges(f, 0);
    refused(none.result, EMSGSIZE, 'no room');
    equal(none.count, 1, 'how many it would take');
    sameRange(none.first, 0n, 0n, 'what was not written');

    equal(f.tryAddReserved(f.ioas, pages(1), pages(1)), 0, 'ADD_RESERVED');
    const both = ranges(f, most);
    equal(both.result, 0, 'ranges around what is reserved');
    if (f.device === undefined) {
      equal(both.count, 2, 'number of ranges');
      sameRange(both.first, 0n, pages(1) - 1n, 'what is below');
      sameRange(both.second, pages(2), U64_MAX, 'what is above');
    } else {
      equal(both.count, 1, 'number of ranges');
      aperture(both.first);
    }

    const one = ranges(f, 1);
    if (f.device === undefined) {
      refused(one.result, EMSGSIZE, 'room for one');
      equal(one.count, 2, 'how many it would take');
      sameRange(one.first, 0n, pages(1) - 1n, 'what is below');
    } else {
      equal(one.result, 0, 'room for one');
      equal(one.count, 1, 'number of ranges');
      aperture(one.first);
    }
    sameRange(one.second, 0n, 0n, 'what was not written');
  },
};
