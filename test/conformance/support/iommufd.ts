/** An open /dev/iommu with what the iommufd selftests surround it with: buffers, mock devices, a look for leaks. @module */

import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IOMMU_PGFAULT_PERM_READ,
  IOMMU_PGFAULT_PERM_WRITE,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_TEST_OP_ADD_RESERVED,
  IOMMU_TEST_OP_CREATE_ACCESS,
  IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
  IOMMU_TEST_OP_DEV_CHECK_CACHE,
  IOMMU_TEST_OP_DMABUF_GET,
  IOMMU_TEST_OP_DMABUF_REVOKE,
  IOMMU_TEST_OP_MD_CHECK_IOTLB,
  IOMMU_TEST_OP_MD_CHECK_MAP,
  IOMMU_TEST_OP_MD_CHECK_REFS,
  IOMMU_TEST_OP_MOCK_DOMAIN,
  IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
  IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
  IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT,
  IOMMU_TEST_OP_TRIGGER_IOPF,
  iommu_test_cmd_add_reserved,
  iommu_test_cmd_check_dev_cache,
  iommu_test_cmd_check_iotlb,
  iommu_test_cmd_check_map,
  iommu_test_cmd_check_refs,
  iommu_test_cmd_create_access,
  iommu_test_cmd_destroy_access_pages,
  iommu_test_cmd_dmabuf_get,
  iommu_test_cmd_dmabuf_revoke,
  iommu_test_cmd_memory_limit,
  iommu_test_cmd_mock_domain,
  iommu_test_cmd_mock_domain_flags,
  iommu_test_cmd_mock_domain_replace,
  iommu_test_cmd_trigger_iopf,
  MOCK_DEV_CACHE_NUM,
  MOCK_NESTED_DOMAIN_IOTLB_NUM,
} from '../../../bindings/uapi/iommufd-test.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { FieldInputs, Fields, Struct, StructMemory } from '../../../bindings/uapi/struct.js';
import type { ConformanceHost } from './case.js';
import { equal, holds, succeeds } from './expect.js';
import { type Answer, type Caller, call, testCommand } from './ioctl.js';
import { anonymous, type FileMemory, HUGE_PAGE, type Memory, memfd, PAGE } from './memory.js';

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const READ_WRITE = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
/** What the kernel may use while it pins, unless a case wants less. */
const DEFAULT_MEMORY_LIMIT = 65536;

/** In bytes. */
export const BUFFER_SIZE = 16 * PAGE;

/** Bytes in the heap that structs point at. */
export interface Pointed extends StructMemory {
  readonly address: bigint;
}

/** The ids of a mock device, and of the page table that it is attached to. */
export interface MockDevice {
  /** What is destroyed to remove it (`stdev`). */
  readonly id: number;
  readonly hwptId: number;
  /** The object that a bind gives (`idev`). */
  readonly deviceId: number;
}

/** What IOMMU_HWPT_ALLOC takes beyond device and page table. */
export interface HwptOptions {
  readonly flags?: number;
  readonly dataType?: number;
  /** Points at nothing unless given. */
  readonly data?: Pointed;
  /** In bytes; the size of `data` unless given. */
  readonly dataLength?: number;
  readonly faultId?: number;
}

/** Opens /dev/iommu. */
export function openIommufd({ kernel }: Caller): number {
  return succeeds(kernel.open('/dev/iommu', O_RDWR), 'open of /dev/iommu');
}

/** Fills `bytes` with something else each time. */
export function scramble(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 2 ** 16) {
    crypto.getRandomValues(bytes.subarray(at, at + 2 ** 16));
  }
}

/**
 * The selftests' fixture: methods named after a request succeed or end the case; their `try` forms, and {@link call},
 * answer whatever the kernel says.
 *
 * Disposing it closes the descriptor and checks that no page of the buffers is pinned afterwards.
 */
export class IommufdFixture implements Caller, Disposable {
  readonly host: ConformanceHost;
  readonly kernel: Syscalls;
  readonly fd: number;
  /** 16 pages of anonymous memory; their address is good for huge pages. */
  readonly buffer: Memory;
  /** 16 pages in a memfd, which another process can map as well. */
  readonly file: FileMemory;
  readonly #pointed: StructMemory[] = [];

  constructor(host: ConformanceHost) {
    this.host = host;
    this.kernel = host.kernel;
    this.fd = openIommufd(host);
    this.buffer = anonymous(host, BUFFER_SIZE, HUGE_PAGE);
    this.file = memfd(host, BUFFER_SIZE);
  }

  [Symbol.dispose](): void {
    equal(this.kernel.close(this.fd), 0, 'close of /dev/iommu');
    const again = openIommufd(this);
    try {
      for (const { address, length } of [this.buffer, this.file]) {
        const values = { length: BigInt(length), uptr: address, refs: 0 };
        const command = iommu_test_cmd_check_refs;
        const { result } = testCommand(this, again, IOMMU_TEST_OP_MD_CHECK_REFS, command, values);
        equal(result, 0, 'nothing is pinned after the last close');
      }
    } finally {
      this.kernel.close(again);
      this.buffer[Symbol.dispose]();
      this.file[Symbol.dispose]();
    }
  }

  /** `size` zeroed bytes whose address a struct can hold for as long as the fixture lives. */
  point(size: number): Pointed {
    const buffer = new ArrayBuffer(size);
    const memory = { bytes: new Uint8Array(buffer), view: new DataView(buffer) };
    this.#pointed.push(memory);
    return { ...memory, address: this.kernel.addressOf(memory.bytes) };
  }

  /** A struct in such memory. */
  pointStruct<F extends Fields>(struct: Struct<F>, values: FieldInputs<F> = {}): Pointed {
    const memory = this.point(struct.size);
    struct.encode(memory.view, values);
    return memory;
  }

  call<F extends Fields>(request: Request<Struct<F>>, values: FieldInputs<F>): Answer<F> {
    return call(this, this.fd, request, values);
  }

  test<F extends Fields>(op: number, command: Struct<F>, values: FieldInputs<F>): Answer<F> {
    return testCommand(this, this.fd, op, command, values);
  }

  tryDestroy(id: number): number {
    return this.call(IOMMU_DESTROY, { id }).result;
  }

  destroy(id: number): void {
    equal(this.tryDestroy(id), 0, 'IOMMU_DESTROY');
  }

  allocIoas(): number {
    const { result, values } = this.call(IOMMU_IOAS_ALLOC, {});
    equal(result, 0, 'IOMMU_IOAS_ALLOC');
    holds(values.out_ioas_id !== 0, 'an IOAS has an id');
    return values.out_ioas_id;
  }

  /** Maps memory, at `iova` if that is given. */
  tryMap(
    ioasId: number,
    address: bigint,
    length: number | bigint,
    iova?: bigint,
    flags = READ_WRITE,
  ): { result: number; iova: bigint } {
    const { result, values } = this.call(IOMMU_IOAS_MAP, {
      flags: iova === undefined ? flags : flags | IOMMU_IOAS_MAP_FIXED_IOVA,
      ioas_id: ioasId,
      user_va: address,
      length: BigInt(length),
      ...(iova !== undefined && { iova }),
    });
    return { result, iova: values.iova };
  }

  /** @returns where */
  map(ioasId: number, address: bigint, length: number | bigint, iova?: bigint, flags = READ_WRITE): bigint {
    const answer = this.tryMap(ioasId, address, length, iova, flags);
    equal(answer.result, 0, () => `IOMMU_IOAS_MAP of ${length} bytes`);
    return answer.iova;
  }

  /** Maps a file from `start` on, at `iova` if that is given. */
  tryMapFile(
    ioasId: number,
    fd: number,
    start: number,
    length: number,
    iova?: bigint,
  ): { result: number; iova: bigint } {
    const { result, values } = this.call(IOMMU_IOAS_MAP_FILE, {
      flags: iova === undefined ? READ_WRITE : READ_WRITE | IOMMU_IOAS_MAP_FIXED_IOVA,
      ioas_id: ioasId,
      fd,
      start: BigInt(start),
      length: BigInt(length),
      ...(iova !== undefined && { iova }),
    });
    return { result, iova: values.iova };
  }

  /** @returns where */
  mapFile(ioasId: number, fd: number, start: number, length: number, iova?: bigint): bigint {
    const answer = this.tryMapFile(ioasId, fd, start, length, iova);
    equal(answer.result, 0, () => `IOMMU_IOAS_MAP_FILE of ${length} bytes`);
    return answer.iova;
  }

  tryUnmap(ioasId: number, iova: bigint, length: number | bigint): { result: number; length: bigint } {
    const { result, values } = this.call(IOMMU_IOAS_UNMAP, { ioas_id: ioasId, iova, length: BigInt(length) });
    return { result, length: values.length };
  }

  /** @returns how many bytes */
  unmap(ioasId: number, iova: bigint, length: number | bigint): bigint {
    const answer = this.tryUnmap(ioasId, iova, length);
    equal(answer.result, 0, 'IOMMU_IOAS_UNMAP');
    return answer.length;
  }

  tryAllocHwpt(
    deviceId: number,
    ptId: number,
    { flags = 0, dataType = IOMMU_HWPT_DATA_NONE, data, dataLength, faultId = 0 }: HwptOptions = {},
  ): { result: number; id: number } {
    const { result, values } = this.call(IOMMU_HWPT_ALLOC, {
      flags,
      dev_id: deviceId,
      pt_id: ptId,
      data_type: dataType,
      data_len: dataLength ?? data?.bytes.length ?? 0,
      data_uptr: data?.address ?? 0n,
      fault_id: faultId,
    });
    return { result, id: values.out_hwpt_id };
  }

  allocHwpt(deviceId: number, ptId: number, options: HwptOptions = {}): number {
    const answer = this.tryAllocHwpt(deviceId, ptId, options);
    equal(answer.result, 0, 'IOMMU_HWPT_ALLOC');
    return answer.id;
  }

  /** Invalidates; `handled` says how many of the `count` entries the kernel says it did. */
  tryInvalidate(
    id: number,
    entries: Pointed | undefined,
    dataType: number,
    entryLength: number,
    count: number,
  ): { result: number; handled: number } {
    const { result, values } = this.call(IOMMU_HWPT_INVALIDATE, {
      hwpt_id: id,
      data_type: dataType,
      data_uptr: entries?.address ?? 0n,
      entry_len: entryLength,
      entry_num: count,
    });
    return { result, handled: values.entry_num };
  }

  allocFaultQueue(): { id: number; fd: number } {
    const { result, values } = this.call(IOMMU_FAULT_QUEUE_ALLOC, {});
    equal(result, 0, 'IOMMU_FAULT_QUEUE_ALLOC');
    holds(values.out_fault_id !== 0 && values.out_fault_fd !== 0, 'a fault queue has an id and a descriptor');
    return { id: values.out_fault_id, fd: values.out_fault_fd };
  }

  // Mock devices, IOMMU_TEST_CMD

  tryMockDevice(ptId: number): MockDevice & { result: number } {
    const answer = this.test(IOMMU_TEST_OP_MOCK_DOMAIN, iommu_test_cmd_mock_domain, { id: ptId });
    const { out_stdev_id, out_hwpt_id, out_idev_id } = answer.values;
    return { result: answer.result, id: out_stdev_id, hwptId: out_hwpt_id, deviceId: out_idev_id };
  }

  /** A device attached to an IOAS or to a page table. */
  mockDevice(ptId: number): MockDevice {
    const device = this.tryMockDevice(ptId);
    equal(device.result, 0, 'MOCK_DOMAIN');
    return device;
  }

  tryMockDeviceFlags(ptId: number, flags: number): MockDevice & { result: number } {
    const answer = this.test(IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, iommu_test_cmd_mock_domain_flags, {
      id: ptId,
      dev_flags: flags,
    });
    const { out_stdev_id, out_hwpt_id, out_idev_id } = answer.values;
    return { result: answer.result, id: out_stdev_id, hwptId: out_hwpt_id, deviceId: out_idev_id };
  }

  /** The same, `flags` being `MOCK_FLAGS_DEVICE_*`. */
  mockDeviceFlags(ptId: number, flags: number): MockDevice {
    const device = this.tryMockDeviceFlags(ptId, flags);
    equal(device.result, 0, 'MOCK_DOMAIN_FLAGS');
    return device;
  }

  tryReplace(mockId: number, ptId: number): number {
    const values = { id: mockId, pt_id: ptId };
    return this.test(IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, iommu_test_cmd_mock_domain_replace, values).result;
  }

  /** Moves a mock device to another IOAS or page table. */
  replace(mockId: number, ptId: number): void {
    equal(this.tryReplace(mockId, ptId), 0, 'MOCK_DOMAIN_REPLACE');
  }

  /** Every cache of the mock device holds `expected`. */
  checkDeviceCache(deviceId: number, expected: number): void {
    for (let cache_id = 0; cache_id < MOCK_DEV_CACHE_NUM; cache_id++) {
      const values = { id: deviceId, cache_id, cache: expected };
      const { result } = this.test(IOMMU_TEST_OP_DEV_CHECK_CACHE, iommu_test_cmd_check_dev_cache, values);
      equal(result, 0, `DEV_CHECK_CACHE ${cache_id}`);
    }
  }

  /** The translation cache of a nested page table holds these values. */
  checkIotlb(hwptId: number, expected: readonly number[]): void {
    equal(expected.length, MOCK_NESTED_DOMAIN_IOTLB_NUM);
    for (const [iotlb_id, iotlb] of expected.entries()) {
      const values = { id: hwptId, iotlb_id, iotlb };
      const { result } = this.test(IOMMU_TEST_OP_MD_CHECK_IOTLB, iommu_test_cmd_check_iotlb, values);
      equal(result, 0, `MD_CHECK_IOTLB ${iotlb_id}`);
    }
  }

  tryCheckMap(hwptId: number, address: bigint, iova: bigint, length: number): number {
    const values = { id: hwptId, iova, length: BigInt(length), uptr: address };
    return this.test(IOMMU_TEST_OP_MD_CHECK_MAP, iommu_test_cmd_check_map, values).result;
  }

  /** A page table translates `iova` to the very memory at `address`. */
  checkMap(hwptId: number, address: bigint, iova: bigint, length: number): void {
    equal(this.tryCheckMap(hwptId, address, iova, length), 0, 'MD_CHECK_MAP');
  }

  /** Every page of the memory at `address` has `references` pins. */
  checkReferences(address: bigint, length: number, references: number): void {
    const values = { uptr: address, length: BigInt(length), refs: references };
    const { result } = this.test(IOMMU_TEST_OP_MD_CHECK_REFS, iommu_test_cmd_check_refs, values);
    equal(result, 0, `MD_CHECK_REFS ${references}`);
  }

  tryAddReserved(ioasId: number, start: bigint, length: bigint): number {
    const values = { id: ioasId, start, length };
    return this.test(IOMMU_TEST_OP_ADD_RESERVED, iommu_test_cmd_add_reserved, values).result;
  }

  /** Sets how much memory the kernel may use while it pins, in bytes; what is usual unless given. */
  limitMemory(limit = DEFAULT_MEMORY_LIMIT): void {
    const { result } = this.test(IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, iommu_test_cmd_memory_limit, { limit });
    equal(result, 0, 'SET_TEMP_MEMORY_LIMIT');
  }

  /** An access by the kernel itself. @returns its descriptor */
  createAccess(ioasId: number, flags: number): number {
    const values = { id: ioasId, flags };
    const answer = this.test(IOMMU_TEST_OP_CREATE_ACCESS, iommu_test_cmd_create_access, values);
    equal(answer.result, 0, 'CREATE_ACCESS');
    return answer.values.out_access_fd;
  }

  destroyAccess(accessFd: number): void {
    equal(this.kernel.close(accessFd), 0, 'close of an access');
  }

  tryDestroyAccessPages(accessFd: number, pagesId: number): number {
    const values = { id: accessFd, access_pages_id: pagesId };
    return this.test(IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, iommu_test_cmd_destroy_access_pages, values).result;
  }

  destroyAccessPages(accessFd: number, pagesId: number): void {
    equal(this.tryDestroyAccessPages(accessFd, pagesId), 0, 'DESTROY_ACCESS_PAGES');
  }

  /**
   * A dma-buf. Its descriptor is not among the answers of Linux 7.3, although the selftests count on it; it is the
   * lowest number that was free.
   */
  createDmabuf(length: number): number {
    const lowest = succeeds(this.kernel.eventfd(0, 0), 'eventfd');
    this.kernel.close(lowest);
    const values = { length, open_flags: O_CLOEXEC };
    const { result } = this.test(IOMMU_TEST_OP_DMABUF_GET, iommu_test_cmd_dmabuf_get, values);
    equal(result, 0, 'DMABUF_GET');
    return lowest;
  }

  revokeDmabuf(fd: number, revoked: boolean): void {
    const values = { dmabuf_fd: fd, revoked: revoked ? 1 : 0 };
    const { result } = this.test(IOMMU_TEST_OP_DMABUF_REVOKE, iommu_test_cmd_dmabuf_revoke, values);
    succeeds(result, 'DMABUF_REVOKE');
  }

  /** A page fault of the device, read from the fault queue and answered. @returns the result of the fault itself */
  triggerFault(deviceId: number, faultFd: number, pasid = 1): number {
    const { result } = this.test(IOMMU_TEST_OP_TRIGGER_IOPF, iommu_test_cmd_trigger_iopf, {
      dev_id: deviceId,
      pasid,
      grpid: 2,
      perm: IOMMU_PGFAULT_PERM_READ | IOMMU_PGFAULT_PERM_WRITE,
      addr: 0xdeadbeafn,
    });
    if (result < 0) return result;
    const fault = iommu_hwpt_pgfault.allocate();
    holds(this.kernel.read(faultFd, fault.bytes) > 0, 'a fault can be read');
    const response = iommu_hwpt_page_response.allocate();
    const cookie = iommu_hwpt_pgfault.get(fault.view, 'cookie');
    iommu_hwpt_page_response.encode(response.view, { cookie, code: IOMMUFD_PAGE_RESP_SUCCESS });
    holds(this.kernel.write(faultFd, response.bytes) > 0, 'a response can be written');
    return 0;
  }
}
