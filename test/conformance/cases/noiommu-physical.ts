/** IOMMU_IOAS_NOIOMMU_GET_PA: what it answers, and what it refuses. @module */
import { EADDRINUSE, EINVAL, ENOENT, EOPNOTSUPP, EOVERFLOW, EPERM } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
} from '../../../bindings/uapi/iommufd.js';
import type { Case } from '../support/case.js';
import { equal, holds, refused } from '../support/expect.js';
import { HUGE_PAGE, memfd, PAGE } from '../support/memory.js';
import type { NoiommuFixture } from '../support/noiommu.js';
import { deviceCases } from '../support/noiommu-cases.js';

const U64_MAX = 2n ** 64n - 1n;
const pageSize = BigInt(PAGE);
const hugePage = BigInt(HUGE_PAGE);

/** An IOAS that the device is attached to. */
function attached({ iommufd, cdev }: NoiommuFixture): number {
  const ioas = iommufd.allocIoas();
  cdev.attach(ioas);
  return ioas;
}

const tests: Readonly<Record<string, (fixture: NoiommuFixture) => void>> = {
  every_page: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const { address, length } = iommufd.buffer;
    const iova = iommufd.map(ioas, address, length);
    const seen = new Set<bigint>();
    for (let at = 0n; at < length; at += pageSize) {
      const { physical, length: contiguous } = fixture.getPhysical(ioas, iova + at, PAGE);
      equal(physical % pageSize, 0n, 'a page is aligned');
      holds(physical !== 0n, 'a page is somewhere');
      equal(contiguous, pageSize, 'a page is contiguous');
      seen.add(physical);
    }
    equal(seen.size, length / PAGE, 'every page is another one');
  },

  offset_within_page: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    const { physical } = fixture.getPhysical(ioas, iova, 1);
    for (const offset of [1n, 8n, 511n, 2048n, 4095n]) {
      const answer = fixture.getPhysical(ioas, iova + offset, pageSize);
      equal(answer.physical, physical + offset, `at ${offset}`);
      equal(answer.length, pageSize - offset, `what is left of the page at ${offset}`);
    }
  },

  contiguous_over_huge_page: fixture => {
    const { iommufd } = fixture;
    using memory = memfd(iommufd, HUGE_PAGE, { huge: true });
    const ioas = attached(fixture);
    const iova = iommufd.mapFile(ioas, memory.fd, 0, HUGE_PAGE);
    const whole = fixture.getPhysical(ioas, iova, HUGE_PAGE);
    equal(whole.physical % hugePage, 0n, 'a huge page is aligned');
    equal(whole.length, hugePage, 'a huge page is contiguous');
    const inside = fixture.getPhysical(ioas, iova + 5n * pageSize + 7n, U64_MAX);
    equal(inside.physical, whole.physical + 5n * pageSize + 7n, 'inside');
    equal(inside.length, hugePage - 5n * pageSize - 7n, 'what is left');
  },

  length_caps_the_answer: fixture => {
    const { iommufd } = fixture;
    using memory = memfd(iommufd, HUGE_PAGE, { huge: true });
    const ioas = attached(fixture);
    const iova = iommufd.mapFile(ioas, memory.fd, 0, HUGE_PAGE);
    for (const length of [1n, 100n, 4095n, 4096n, 4097n, 10_000n, hugePage - 1n]) {
      equal(fixture.getPhysical(ioas, iova, length).length, length, `${length} bytes asked for`);
    }
    const offset = 4000n;
    equal(fixture.getPhysical(ioas, iova + offset, 200n).length, 200n, 'over the end of a page');
  },

  stops_where_memory_is_not_contiguous: fixture => {
    const { iommufd } = fixture;
    using first = memfd(iommufd, HUGE_PAGE, { huge: true });
    const ioas = attached(fixture);
    // The pages of one huge page in reverse, each an area of its own, and one area over the huge page as it is.
    const base = hugePage;
    const last = BigInt(HUGE_PAGE - PAGE);
    for (let at = 0; at < 4; at++) {
      iommufd.mapFile(ioas, first.fd, HUGE_PAGE - (at + 1) * PAGE, PAGE, base + BigInt(at * PAGE));
    }
    const top = fixture.getPhysical(ioas, base, 4 * PAGE);
    equal(top.length, pageSize, 'the last page comes first, alone');
    const next = fixture.getPhysical(ioas, base + pageSize, 4 * PAGE);
    equal(next.physical, top.physical - pageSize, 'the one below it follows');
    const whole = iommufd.mapFile(ioas, first.fd, 0, HUGE_PAGE);
    equal(fixture.getPhysical(ioas, whole + last, 1).physical, top.physical, 'the same page at another IOVA');
  },

  stops_at_the_end_of_an_area: fixture => {
    const { iommufd } = fixture;
    using memory = memfd(iommufd, HUGE_PAGE, { huge: true });
    const ioas = attached(fixture);
    // Adjacent both as IOVAs and in memory, yet two mappings.
    const half = HUGE_PAGE / 2;
    iommufd.mapFile(ioas, memory.fd, 0, half, hugePage);
    iommufd.mapFile(ioas, memory.fd, half, half, hugePage + BigInt(half));
    const first = fixture.getPhysical(ioas, hugePage, HUGE_PAGE);
    equal(first.length, BigInt(half), 'the first mapping');
    const second = fixture.getPhysical(ioas, hugePage + BigInt(half), HUGE_PAGE);
    equal(second.physical, first.physical + BigInt(half), 'the second goes on where the first ends');
    equal(second.length, BigInt(half), 'the second mapping');
  },

  part_of_a_page: fixture => {
    // Alignment is a page's once a device is attached, and 1 before that.
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE + 100, pageSize);
    refused(cdev.tryAttach(ioas).result, EADDRINUSE, 'attach with a mapping that is no number of pages');
    equal(iommufd.unmap(ioas, iova, PAGE + 100), pageSize + 100n, 'bytes unmapped');
    cdev.attach(ioas);
    refused(iommufd.tryMap(ioas, iommufd.buffer.address, PAGE + 100, pageSize).result, EINVAL, 'map');
  },

  high_iova: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const { address } = iommufd.buffer;
    const low = iommufd.map(ioas, address, PAGE);
    const { physical } = fixture.getPhysical(ioas, low, PAGE);
    for (const iova of [1n << 39n, 1n << 48n, 1n << 56n, 1n << 63n, 2n ** 64n - 2n * pageSize]) {
      iommufd.map(ioas, address, PAGE, iova);
      equal(fixture.getPhysical(ioas, iova, PAGE).physical, physical, `at 0x${iova.toString(16)}`);
    }
  },

  the_very_last_page: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const iova = 2n ** 64n - pageSize;
    const { result } = iommufd.tryMap(ioas, iommufd.buffer.address, PAGE, iova);
    equal(result, 0, 'map');
    equal(fixture.getPhysical(ioas, iova, PAGE).length, pageSize, 'contiguous');
    equal(fixture.getPhysical(ioas, iova + 4094n, PAGE).length, 2n, 'the last two bytes');
    refused(fixture.tryGetPhysical(ioas, U64_MAX, 1).result, EOVERFLOW, 'the last byte');
  },

  of_a_copy: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const other = iommufd.allocIoas();
    const iova = iommufd.map(ioas, iommufd.buffer.address, 4 * PAGE);
    const copy = {
      flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
      length: 2n * pageSize,
      dst_iova: hugePage,
    };
    const source = { src_ioas_id: ioas, src_iova: iova + pageSize };
    equal(iommufd.call(IOMMU_IOAS_COPY, { ...copy, ...source, dst_ioas_id: ioas }).result, 0, 'copy within');
    equal(
      iommufd.call(IOMMU_IOAS_COPY, { ...copy, ...source, dst_ioas_id: other }).result,
      0,
      'copy to another',
    );
    const { physical } = fixture.getPhysical(ioas, iova + pageSize, PAGE);
    equal(fixture.getPhysical(ioas, hugePage, PAGE).physical, physical, 'the copy is the same memory');
    refused(fixture.tryGetPhysical(other, hugePage, PAGE).result, EOPNOTSUPP, 'where no device is attached');
    fixture.iommufd.allocHwpt(fixture.deviceId, other);
    equal(fixture.getPhysical(other, hugePage, PAGE).physical, physical, 'once it has a page table');
  },

  needs_cap_sys_rawio: fixture => {
    const { iommufd, host } = fixture;
    const ioas = attached(fixture);
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    {
      using _dropped = host.dropCapability('CAP_SYS_RAWIO');
      refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EPERM, 'without CAP_SYS_RAWIO');
      refused(fixture.tryGetPhysical(0, 0n, 0, 1, 1).result, EPERM, 'before anything else is looked at');
    }
    fixture.getPhysical(ioas, iova, PAGE);
  },

  flags_and_reserved: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    refused(fixture.tryGetPhysical(ioas, iova, PAGE, 1).result, EOPNOTSUPP, 'flags');
    refused(fixture.tryGetPhysical(ioas, iova, PAGE, 0, 1).result, EOPNOTSUPP, '__reserved');
    refused(fixture.tryGetPhysical(0, U64_MAX, 0, 1).result, EOPNOTSUPP, 'flags, before the rest');
  },

  length_zero: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    refused(fixture.tryGetPhysical(ioas, iova, 0).result, EINVAL, 'length 0');
    refused(fixture.tryGetPhysical(0, U64_MAX, 0).result, EINVAL, 'length 0, before IOVA and IOAS');
  },

  iova_overflow: fixture => {
    const ioas = attached(fixture);
    refused(fixture.tryGetPhysical(ioas, U64_MAX, 1).result, EOVERFLOW, 'IOVA 2^64 - 1');
    refused(fixture.tryGetPhysical(0, U64_MAX, 1).result, EOVERFLOW, 'IOVA 2^64 - 1, before the IOAS');
    refused(fixture.tryGetPhysical(ioas, U64_MAX - 1n, U64_MAX).result, ENOENT, 'IOVA 2^64 - 2');
  },

  not_there: fixture => {
    const { iommufd } = fixture;
    const ioas = attached(fixture);
    refused(fixture.tryGetPhysical(0, 0n, 1).result, ENOENT, 'IOAS 0');
    refused(fixture.tryGetPhysical(ioas + 100, 0n, 1).result, ENOENT, 'no such IOAS');
    refused(fixture.tryGetPhysical(fixture.deviceId, 0n, 1).result, ENOENT, 'a device is no IOAS');
    refused(fixture.tryGetPhysical(ioas, 0n, 1).result, ENOENT, 'nothing mapped');
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE, hugePage);
    refused(fixture.tryGetPhysical(ioas, iova - 1n, 2).result, ENOENT, 'the byte before');
    refused(fixture.tryGetPhysical(ioas, iova + pageSize, 1).result, ENOENT, 'the byte after');
    iommufd.unmap(ioas, iova, PAGE);
    refused(fixture.tryGetPhysical(ioas, iova, 1).result, ENOENT, 'unmapped');
  },

  no_page_table_yet: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'before the attach');
    refused(
      fixture.tryGetPhysical(ioas, iova + pageSize, PAGE).result,
      ENOENT,
      'before the attach, not mapped',
    );
    cdev.attach(ioas);
    fixture.getPhysical(ioas, iova, PAGE);
    cdev.detach();
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'after the detach');
  },

  behind_a_mock_iommu: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const mock = iommufd.mockDevice(ioas);
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'the page table of an IOMMU');
    equal(cdev.attach(ioas), mock.hwptId, 'which the device without one shares');
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'and that does not help');
    cdev.detach();
    iommufd.destroy(mock.id);
  },

  beside_a_mock_iommu: fixture => {
    // Each has its own page table in the same IOAS; where memory is looked up is the first one's.
    const { iommufd, deviceId } = fixture;
    const ioas = iommufd.allocIoas();
    const own = iommufd.allocHwpt(deviceId, ioas);
    const mock = iommufd.mockDevice(ioas);
    holds(mock.hwptId !== own, 'another page table');
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE, 1n << 25n);
    fixture.getPhysical(ioas, iova, PAGE);
    iommufd.destroy(own);
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'only the mock one is left');
    iommufd.destroy(mock.id);
  },
};

export const noiommuPhysical: readonly Case[] = deviceCases('get_pa', tests);
