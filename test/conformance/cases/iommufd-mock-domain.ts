/** The kernel's selftest iommu/iommufd.c: what mapping and unmapping do to the page table of a mock device. @module */
import { EBUSY, EFAULT, EINVAL, ENOENT, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_TEST_DEV_CACHE_DEFAULT,
  IOMMU_TEST_OP_ACCESS_PAGES,
  IOMMU_TEST_OP_ACCESS_REPLACE_IOAS,
  iommu_test_cmd_access_pages,
  iommu_test_cmd_access_replace_ioas,
  MOCK_APERTURE_START,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES,
  MOCK_PAGE_SIZE,
} from '../../../bindings/uapi/iommufd-test.js';
import { MFD_CLOEXEC } from '../../../bindings/uapi/memfd.js';
import { MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, refused, succeeds } from '../support/expect.js';
import { BUFFER_SIZE, IommufdFixture, type MockDevice } from '../support/iommufd.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import {
  anonymous,
  anonymousHuge,
  type FileMemory,
  HUGE_PAGE,
  type Memory,
  memfd,
  PAGE,
} from '../support/memory.js';

interface Variant {
  readonly domains: 1 | 2;
  readonly hugePages: boolean;
  readonly file: boolean;
}

const variants: Record<string, Variant> = {
  one_domain: { domains: 1, hugePages: false, file: false },
  two_domains: { domains: 2, hugePages: false, file: false },
  one_domain_hugepage: { domains: 1, hugePages: true, file: false },
  two_domains_hugepage: { domains: 2, hugePages: true, file: false },
  one_domain_file: { domains: 1, hugePages: false, file: true },
  one_domain_file_hugepage: { domains: 1, hugePages: true, file: true },
};

const APERTURE = BigInt(MOCK_APERTURE_START);

/** An IOAS with one or two mock devices, which share the page table that was made for the first. */
class MockDomains extends IommufdFixture {
  readonly ioasId: number;
  readonly devices: MockDevice[] = [];
  /** Of the memory that cases map, in bytes. */
  readonly size: number;
  readonly variant: Variant;

  constructor(host: ConformanceHost, variant: Variant) {
    super(host);
    this.variant = variant;
    this.size = variant.hugePages ? 2 * HUGE_PAGE : 8 * PAGE;
    this.ioasId = this.allocIoas();
    for (let i = 0; i < variant.domains; i++) {
      this.devices.push(this.mockDevice(this.ioasId));
      this.checkDeviceCache(this.first.deviceId, IOMMU_TEST_DEV_CACHE_DEFAULT);
    }
  }

  get first(): MockDevice {
    const [device] = this.devices;
    holds(device !== undefined, 'a mock device');
    return device;
  }

  /** Every page table, and `further`, translates to the memory at `address`. */
  checkAll(address: bigint, iova: bigint, length: number, further?: number): void {
    for (const { hwptId } of this.devices) this.checkMap(hwptId, address, iova, length);
    if (further !== undefined) this.checkMap(further, address, iova, length);
  }

  /** The memory that a sweep goes over. The selftest gives file variants small pages, always. */
  sweepMemory(): Memory | FileMemory {
    if (this.variant.file) return memfd(this, this.size);
    return this.variant.hugePages ? anonymousHuge(this, this.size) : anonymous(this, this.size);
  }

  /**
   * Maps every part of the memory that begins and ends at multiples of a mock page, looks at it with `check`, and
   * unmaps it. Of huge pages only some parts, that go to the end: the selftest's own loop comes out empty there.
   */
  sweep(check: (address: bigint, iova: bigint, length: number) => void): void {
    using memory = this.sweepMemory();
    this.checkReferences(memory.address, memory.length, 0);
    const { hugePages, file } = this.variant;
    const step = hugePages ? this.size / 16 : MOCK_PAGE_SIZE;
    for (let start = 0; start < this.size; start += step) {
      const ends = hugePages ? [this.size] : [];
      if (!hugePages) {
        for (let end = start + MOCK_PAGE_SIZE; end < this.size; end += MOCK_PAGE_SIZE) ends.push(end);
      }
      for (const end of ends) {
        const length = end - start;
        const address = memory.address + BigInt(start);
        const iova = file
          ? this.mapFile(this.ioasId, (memory as FileMemory).fd, start, length)
          : this.map(this.ioasId, address, length);
        check(address, iova, length);
        const firstPage = Math.floor(start / PAGE) * PAGE;
        const pastPage = Math.floor(end / PAGE) * PAGE;
        this.checkReferences(memory.address + BigInt(firstPage), pastPage - firstPage, 1);
        equal(this.unmap(this.ioasId, iova, length), BigInt(length), 'bytes unmapped');
      }
    }
    this.checkReferences(memory.address, memory.length, 0);
  }

  /** Maps all of the buffer, or of the file, in an IOAS. */
  mapBuffer(ioasId: number): bigint {
    return this.variant.file
      ? this.mapFile(ioasId, this.file.fd, 0, BUFFER_SIZE)
      : this.map(ioasId, this.buffer.address, BUFFER_SIZE);
  }
}

function basicMemory(iommu: MockDomains): void {
  const { ioasId } = iommu;
  const iova = iommu.map(ioasId, iommu.buffer.address, PAGE);
  iommu.checkAll(iommu.buffer.address, iova, PAGE);

  const { hugePages } = iommu.variant;
  using memory = hugePages ? anonymousHuge(iommu, iommu.size) : anonymous(iommu, iommu.size);
  const half = iommu.size / 2;
  equal(iommu.kernel.munmap(memory.address + BigInt(half), half), 0, 'munmap of the second half');
  refused(iommu.tryMap(ioasId, memory.address, iommu.size).result, EFAULT, 'a hole half way');
  equal(iommu.kernel.munmap(memory.address, half), 0, 'munmap of the first half');
  refused(iommu.tryMap(ioasId, memory.address, iommu.size).result, EFAULT, 'a hole from the first page on');
}

function basicFile(iommu: MockDomains, huge: boolean): void {
  const { ioasId } = iommu;
  const iova = iommu.mapFile(ioasId, iommu.file.fd, 0, PAGE);
  iommu.checkAll(iommu.file.address, iova, PAGE);

  using file = memfd(iommu, iommu.size, { huge });
  refused(iommu.tryMapFile(ioasId, file.fd, 0, iommu.size + 1).result, EINVAL, 'more than the file');
  equal(iommu.kernel.ftruncate(file.fd, 0), 0, 'ftruncate');
  refused(iommu.tryMapFile(ioasId, file.fd, 0, iommu.size).result, EINVAL, 'what the file has no more');
}

function basic(iommu: MockDomains): void {
  const { file, hugePages } = iommu.variant;
  if (!file) basicMemory(iommu);
  else basicFile(iommu, false);
  // Beyond the selftest, whose file variants have small pages only.
  if (file && hugePages) basicFile(iommu, true);
}

/** What a page table translates to stays the same page, although the process writes to a private mapping later. */
function readOnlyUnshare(iommu: MockDomains): void {
  const { kernel } = iommu;
  const fd = succeeds(kernel.memfdCreate('private', MFD_CLOEXEC), 'memfd_create');
  try {
    const content = new Uint8Array(PAGE).fill(0x5a);
    equal(kernel.write(fd, content), PAGE, 'write to the memfd');
    const address = kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    holds(address > 0n, 'a private mapping');
    const iova = iommu.map(iommu.ioasId, address, PAGE, undefined, IOMMU_IOAS_MAP_READABLE);
    iommu.checkAll(address, iova, PAGE);
    new Uint8Array(kernel.view(address, PAGE)).fill(1);
    iommu.checkAll(address, iova, PAGE);
    const after = new Uint8Array(PAGE);
    equal(kernel.pread(fd, after, 0), PAGE, 'read of the memfd');
    equal(after.indexOf(1), -1, 'where the file shows what was written to the private mapping');
    equal(kernel.munmap(address, PAGE), 0, 'munmap');
  } finally {
    kernel.close(fd);
  }
}

function userCopy(iommu: MockDomains): void {
  const memory = iommu.variant.file ? iommu.file : iommu.buffer;
  const copyToDomains = (sourceId: number, sourceIova: bigint): void => {
    const { result } = iommu.call(IOMMU_IOAS_COPY, {
      flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE,
      dst_ioas_id: iommu.ioasId,
      src_ioas_id: sourceId,
      length: BigInt(BUFFER_SIZE),
      dst_iova: APERTURE,
      src_iova: sourceIova,
    });
    equal(result, 0, 'IOMMU_IOAS_COPY');
    iommu.checkAll(memory.address, APERTURE, BUFFER_SIZE);
  };

  // Pinned by an access where there is no page table, then copied to where there are some.
  const oldId = iommu.allocIoas();
  const oldIova = iommu.mapBuffer(oldId);
  const access = iommu.createAccess(oldId, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
  const pin = (iova: bigint): number => {
    const { result, values } = iommu.test(IOMMU_TEST_OP_ACCESS_PAGES, iommu_test_cmd_access_pages, {
      id: access,
      iova,
      length: BigInt(BUFFER_SIZE),
      uptr: memory.address,
    });
    equal(result, 0, 'ACCESS_PAGES');
    return values.out_access_pages_id;
  };
  pin(oldIova);
  copyToDomains(oldId, oldIova);

  // The access moves to another IOAS and lets go of what it had pinned.
  const newId = iommu.allocIoas();
  const newIova = iommu.mapBuffer(newId);
  const move = { id: access, ioas_id: newId };
  const moved = iommu.test(IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, iommu_test_cmd_access_replace_ioas, move);
  equal(moved.result, 0, 'ACCESS_REPLACE_IOAS');
  iommu.unmap(iommu.ioasId, APERTURE, BUFFER_SIZE);
  iommu.destroy(oldId);

  const pages = pin(newIova);
  copyToDomains(newId, newIova);
  iommu.destroyAccessPages(access, pages);
  iommu.destroyAccess(access);
  iommu.destroy(newId);
}

function replace(iommu: MockDomains): void {
  const otherId = iommu.allocIoas();
  const [first, second] = iommu.devices;
  holds(first !== undefined, 'a mock device');
  iommu.replace(first.id, otherId);
  // The page table that was made for the device goes when the device does.
  if (second === undefined) refused(iommu.tryReplace(first.id, first.hwptId), ENOENT, 'a table that is gone');
  iommu.replace(first.id, otherId);
  if (second !== undefined) {
    iommu.replace(first.id, second.hwptId);
    iommu.replace(first.id, second.hwptId);
    iommu.replace(first.id, first.hwptId);
  }
  iommu.replace(first.id, iommu.ioasId);
  iommu.destroy(otherId);
}

function allocHwpt(iommu: MockDomains): void {
  for (const { id, deviceId } of iommu.devices) {
    const flags = ~IOMMU_HWPT_ALLOC_NEST_PARENT >>> 0;
    refused(iommu.tryAllocHwpt(deviceId, iommu.ioasId, { flags }).result, EOPNOTSUPP, 'unknown flags');
    const plain = iommu.allocHwpt(deviceId, iommu.ioasId);
    const parent = iommu.allocHwpt(deviceId, iommu.ioasId, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT });

    iommu.replace(id, plain);
    refused(iommu.tryDestroy(plain), EBUSY, 'destroying a table in use');
    iommu.replace(id, parent);
    refused(iommu.tryDestroy(parent), EBUSY, 'destroying a nesting parent in use');
    iommu.replace(id, iommu.ioasId);
    iommu.destroy(parent);

    const { id: another } = iommu.mockDevice(plain);
    iommu.destroy(another);
    iommu.destroy(plain);
  }
}

export const cases: readonly Case[] = Object.entries(variants).flatMap(([name, variant]) =>
  fixtureCases(
    'iommufd_mock_domain',
    host => new MockDomains(host, variant),
    {
      basic,
      ro_unshare: readOnlyUnshare,
      all_aligns: iommu => iommu.sweep((address, iova, length) => iommu.checkAll(address, iova, length)),
      all_aligns_copy: iommu =>
        iommu.sweep((address, iova, length) => {
          // A page table that comes while the mapping is there, and goes before it.
          const { id, hwptId } = iommu.mockDevice(iommu.ioasId);
          iommu.checkAll(address, iova, length, hwptId);
          iommu.destroy(id);
        }),
      user_copy: userCopy,
      replace,
      alloc_hwpt: allocHwpt,
    },
    name,
  ),
);
