/**
 * The kernel's selftest iommu/iommufd_fail_nth.c: sequences of requests, again and again, with the n-th allocation in
 * them failing until none does. What matters is what is left behind: nothing pinned, and no complaint of the kernel's.
 *
 * A host that cannot make allocations fail goes through each sequence once.
 *
 * @module
 */
import type { Test } from 'tap';
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  IOMMU_DESTROY,
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_GET_HW_INFO,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_ALLOW_IOVAS,
  IOMMU_IOAS_COPY,
  IOMMU_IOAS_IOVA_RANGES,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VIOMMU_ALLOC,
  type iommu_hwpt_alloc,
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import {
  IOMMU_HW_QUEUE_TYPE_SELFTEST,
  IOMMU_HWPT_DATA_SELFTEST,
  IOMMU_TEST_IOTLB_DEFAULT,
  IOMMU_TEST_OP_ACCESS_PAGES,
  IOMMU_TEST_OP_ACCESS_RW,
  IOMMU_TEST_OP_CREATE_ACCESS,
  IOMMU_TEST_OP_DESTROY_ACCESS_PAGES,
  IOMMU_TEST_OP_MD_CHECK_REFS,
  IOMMU_TEST_OP_MOCK_DOMAIN,
  IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
  IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE,
  IOMMU_TEST_OP_PASID_ATTACH,
  IOMMU_TEST_OP_PASID_DETACH,
  IOMMU_TEST_OP_PASID_REPLACE,
  IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT,
  IOMMU_VEVENTQ_TYPE_SELFTEST,
  IOMMU_VIOMMU_TYPE_SELFTEST,
  iommu_hwpt_selftest,
  iommu_test_cmd_access_pages,
  iommu_test_cmd_access_rw,
  iommu_test_cmd_check_refs,
  iommu_test_cmd_create_access,
  iommu_test_cmd_destroy_access_pages,
  iommu_test_cmd_memory_limit,
  iommu_test_cmd_mock_domain,
  iommu_test_cmd_mock_domain_flags,
  iommu_test_cmd_mock_domain_replace,
  iommu_test_cmd_pasid_attach,
  iommu_test_cmd_pasid_detach,
  iommu_test_cmd_pasid_replace,
  iommu_test_hw_info,
  MOCK_ACCESS_RW_SLOW_PATH,
  MOCK_ACCESS_RW_WRITE,
  MOCK_APERTURE_START,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES,
  MOCK_FLAGS_DEVICE_PASID,
} from '../../../bindings/uapi/iommufd-test.js';
import type { Request } from '../../../bindings/uapi/request.js';
import {
  encodeList,
  type FieldInputs,
  type Fields,
  type FieldValues,
  type Struct,
  type StructInput,
} from '../../../bindings/uapi/struct.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, outcome } from '../support/expect.js';
import { FaultInjection } from '../support/fault-injection.js';
import { call, testCommand } from '../support/ioctl.js';
import { openIommufd } from '../support/iommufd.js';
import { mockMachine } from '../support/iommufd-cases.js';
import { anonymous, type FileMemory, type Memory, memfd, PAGE } from '../support/memory.js';

/** What is mapped, in bytes. */
const SIZE = 2 ** 21;
/** Half a range of pages as the kernel pins them, in bytes. */
const PART = 262_144;
const READ_WRITE = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
/** So little that pinning goes in many small steps, in bytes. */
const MEMORY_LIMIT = 32;
/** No sequence has as many places to fail in; one that never gets through is stuck. */
const MANY = 1000;
const O_RDWR = 2;
/** Changes when the kernel warns. */
const TAINTED = '/proc/sys/kernel/tainted';

/** A request of a sequence did not succeed. */
class Refused extends Error {
  override readonly name = 'Refused';
}

/** What sequences work on, made once: memory, and structs that others point at. */
class Surroundings implements Disposable {
  readonly buffer: Memory;
  readonly file: FileMemory;
  readonly ranges: Uint8Array;
  readonly small: Uint8Array;
  readonly big: Uint8Array;
  readonly data: Uint8Array;
  readonly info: Uint8Array;

  constructor(host: ConformanceHost) {
    this.buffer = anonymous(host, SIZE);
    this.file = memfd(host, SIZE);
    const bytes = (length: number) => new Uint8Array(new ArrayBuffer(length));
    this.ranges = bytes(10 * iommu_iova_range.size);
    this.small = bytes(64);
    this.big = bytes(8 * PAGE);
    this.info = bytes(iommu_test_hw_info.size);
    const data = iommu_hwpt_selftest.allocate();
    iommu_hwpt_selftest.encode(data.view, { iotlb: IOMMU_TEST_IOTLB_DEFAULT });
    this.data = data.bytes;
  }

  [Symbol.dispose](): void {
    this.buffer[Symbol.dispose]();
    this.file[Symbol.dispose]();
  }
}

/** One run of a sequence. Requests end it with {@link Refused} when they fail. */
class Attempt {
  readonly kernel: Syscalls;
  readonly on: Surroundings;
  /** From here on allocations fail, or one does. */
  readonly injectFaults: () => void;
  fd = -1;
  /** Kept for the end: an access keeps the iommufd open. */
  accessFd = -1;
  mockId = 0;
  pasid = 0;

  constructor(kernel: Syscalls, on: Surroundings, injectFaults: () => void) {
    this.kernel = kernel;
    this.on = on;
    this.injectFaults = injectFaults;
  }

  open(): void {
    this.fd = this.kernel.open('/dev/iommu', O_RDWR);
    if (this.fd < 0) throw new Refused(`open: ${outcome(this.fd)}`);
  }

  request<F extends Fields>(request: Request<Struct<F>>, values: FieldInputs<F>): FieldValues<F> {
    const answer = call(this, this.fd, request, values);
    if (answer.result < 0) throw new Refused(`${request.name}: ${outcome(answer.result)}`);
    return answer.values;
  }

  test<F extends Fields>(op: number, command: Struct<F>, values: FieldInputs<F>): FieldValues<F> {
    const answer = testCommand(this, this.fd, op, command, values);
    if (answer.result < 0) throw new Refused(`${command.name}: ${outcome(answer.result)}`);
    return answer.values;
  }

  allocIoas(): number {
    return this.request(IOMMU_IOAS_ALLOC, {}).out_ioas_id;
  }

  limitMemory(): void {
    this.test(IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT, iommu_test_cmd_memory_limit, { limit: MEMORY_LIMIT });
  }

  /** @returns where */
  map(ioasId: number, length: number, iova?: bigint): bigint {
    return this.request(IOMMU_IOAS_MAP, {
      flags: iova === undefined ? READ_WRITE : READ_WRITE | IOMMU_IOAS_MAP_FIXED_IOVA,
      ioas_id: ioasId,
      user_va: this.on.buffer.address,
      length: BigInt(length),
      ...(iova !== undefined && { iova }),
    }).iova;
  }

  mapFile(ioasId: number, length: number): void {
    const { fd } = this.on.file;
    this.request(IOMMU_IOAS_MAP_FILE, { flags: READ_WRITE, ioas_id: ioasId, fd, length: BigInt(length) });
  }

  destroy(id: number): void {
    this.request(IOMMU_DESTROY, { id });
  }

  mockDevice(ioasId: number): number {
    return this.test(IOMMU_TEST_OP_MOCK_DOMAIN, iommu_test_cmd_mock_domain, { id: ioasId }).out_stdev_id;
  }

  replace(ptId: number): void {
    const values = { id: this.mockId, pt_id: ptId };
    this.test(IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE, iommu_test_cmd_mock_domain_replace, values);
  }

  allocHwpt(deviceId: number, ptId: number, values: StructInput<typeof iommu_hwpt_alloc>): number {
    return this.request(IOMMU_HWPT_ALLOC, { dev_id: deviceId, pt_id: ptId, ...values }).out_hwpt_id;
  }

  createAccess(ioasId: number, flags: number): void {
    const values = { id: ioasId, flags };
    this.accessFd = this.test(
      IOMMU_TEST_OP_CREATE_ACCESS,
      iommu_test_cmd_create_access,
      values,
    ).out_access_fd;
  }

  closeAccess(): void {
    equal(this.kernel.close(this.accessFd), 0, 'close of the access');
    this.accessFd = -1;
  }

  accessRw(iova: bigint, bytes: Uint8Array, flags: number): void {
    this.test(IOMMU_TEST_OP_ACCESS_RW, iommu_test_cmd_access_rw, {
      id: this.accessFd,
      iova,
      length: BigInt(bytes.length),
      uptr: this.kernel.addressOf(bytes),
      flags,
    });
  }

  /** Pins all of the buffer for the access, and lets go of it. */
  accessPages(iova: bigint): void {
    const { out_access_pages_id } = this.test(IOMMU_TEST_OP_ACCESS_PAGES, iommu_test_cmd_access_pages, {
      id: this.accessFd,
      iova,
      length: BigInt(SIZE),
      uptr: this.on.buffer.address,
    });
    this.test(IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, iommu_test_cmd_destroy_access_pages, {
      id: this.accessFd,
      access_pages_id: out_access_pages_id,
    });
  }

  /** Closes everything, and checks that nothing is pinned. */
  end(): void {
    if (this.accessFd >= 0) this.closeAccess();
    if (this.fd < 0) return;
    if (this.pasid !== 0 && this.mockId !== 0) {
      const values = { id: this.mockId, pasid: this.pasid };
      testCommand(this, this.fd, IOMMU_TEST_OP_PASID_DETACH, iommu_test_cmd_pasid_detach, values);
    }
    equal(this.kernel.close(this.fd), 0, 'close of /dev/iommu');
    const again = openIommufd(this);
    try {
      for (const { address, length } of [this.on.buffer, this.on.file]) {
        const values = { uptr: address, length: BigInt(length), refs: 0 };
        const command = iommu_test_cmd_check_refs;
        equal(testCommand(this, again, IOMMU_TEST_OP_MD_CHECK_REFS, command, values).result, 0, 'pins left');
      }
    } finally {
      this.kernel.close(again);
    }
  }
}

type Sequence = (attempt: Attempt) => void;

/** What an IOAS does without any device. */
function basic(attempt: Attempt): void {
  const { kernel, on } = attempt;
  attempt.injectFaults();
  attempt.open();
  const ioasId = attempt.allocIoas();
  const pointer = kernel.addressOf(on.ranges);
  attempt.request(IOMMU_IOAS_IOVA_RANGES, { ioas_id: ioasId, num_iovas: 10, allowed_iovas: pointer });
  const allowed = { start: 16_384n, last: BigInt(SIZE + 600 * 16_384 - 1) };
  encodeList(new DataView(on.ranges.buffer), iommu_iova_range, [allowed]);
  attempt.request(IOMMU_IOAS_ALLOW_IOVAS, { ioas_id: ioasId, num_iovas: 1, allowed_iovas: pointer });
  const iova = attempt.map(ioasId, SIZE);
  attempt.request(IOMMU_IOAS_COPY, {
    flags: READ_WRITE,
    dst_ioas_id: ioasId,
    src_ioas_id: ioasId,
    length: BigInt(on.ranges.length),
    src_iova: iova,
  });
  const unmap = { ioas_id: ioasId, iova, length: BigInt(SIZE) };
  attempt.request(IOMMU_IOAS_UNMAP, unmap);
  // Where there is nothing any more: fails, whatever else does.
  call(attempt, attempt.fd, IOMMU_IOAS_UNMAP, unmap);
}

function prepare(attempt: Attempt): number {
  attempt.open();
  const ioasId = attempt.allocIoas();
  attempt.limitMemory();
  return ioasId;
}

/** A page table, then a mapping; then the other way around. */
function mapDomain(attempt: Attempt, map: (ioasId: number) => void): void {
  const ioasId = prepare(attempt);
  attempt.injectFaults();
  const mockId = attempt.mockDevice(ioasId);
  map(ioasId);
  attempt.destroy(mockId);
  attempt.mockDevice(ioasId);
}

function mapTwoDomains(attempt: Attempt): void {
  const ioasId = prepare(attempt);
  const first = attempt.mockDevice(ioasId);
  attempt.injectFaults();
  const second = attempt.mockDevice(ioasId);
  attempt.map(ioasId, PART);
  attempt.destroy(first);
  attempt.destroy(second);
  attempt.mockDevice(ioasId);
  attempt.mockDevice(ioasId);
}

function accessRw(attempt: Attempt): void {
  const ioasId = prepare(attempt);
  const iova = attempt.map(ioasId, PART);
  attempt.injectFaults();
  attempt.createAccess(ioasId, 0);
  const { small, big } = attempt.on;
  attempt.accessRw(iova, small, 0);
  attempt.accessRw(iova, small, MOCK_ACCESS_RW_WRITE);
  attempt.accessRw(iova, small, MOCK_ACCESS_RW_SLOW_PATH);
  attempt.accessRw(iova, small, MOCK_ACCESS_RW_SLOW_PATH | MOCK_ACCESS_RW_WRITE);
  attempt.accessRw(iova, big, MOCK_ACCESS_RW_SLOW_PATH);
  attempt.closeAccess();
}

function accessPin(attempt: Attempt): void {
  const ioasId = prepare(attempt);
  const iova = attempt.map(ioasId, SIZE);
  attempt.createAccess(ioasId, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
  attempt.injectFaults();
  attempt.accessPages(iova);
  attempt.closeAccess();
}

/** The pages are pinned already, for the page table. */
function accessPinDomain(attempt: Attempt): void {
  const ioasId = prepare(attempt);
  const mockId = attempt.mockDevice(ioasId);
  const iova = attempt.map(ioasId, SIZE);
  attempt.createAccess(ioasId, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
  attempt.injectFaults();
  attempt.accessPages(iova);
  attempt.closeAccess();
  attempt.destroy(mockId);
}

/** All that hangs on a device: tables, moves, a virtual IOMMU with what it has, faults, PASIDs. */
function device(attempt: Attempt): void {
  const { kernel, on } = attempt;
  attempt.open();
  const ioasId = attempt.allocIoas();
  const otherId = attempt.allocIoas();
  const iova = BigInt(MOCK_APERTURE_START);
  attempt.map(ioasId, PAGE, iova);
  attempt.map(otherId, PAGE, iova);
  attempt.injectFaults();

  const mock = attempt.test(IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS, iommu_test_cmd_mock_domain_flags, {
    id: ioasId,
    dev_flags: MOCK_FLAGS_DEVICE_PASID,
  });
  attempt.mockId = mock.out_stdev_id;
  const deviceId = mock.out_idev_id;
  attempt.request(IOMMU_GET_HW_INFO, {
    dev_id: deviceId,
    data_len: on.info.length,
    data_uptr: kernel.addressOf(on.info),
  });
  const plain = attempt.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_PASID });
  attempt.replace(otherId);
  attempt.replace(plain);

  const parent = attempt.allocHwpt(deviceId, ioasId, {
    flags: IOMMU_HWPT_ALLOC_NEST_PARENT | IOMMU_HWPT_ALLOC_PASID,
  });
  const viommu = { type: IOMMU_VIOMMU_TYPE_SELFTEST, dev_id: deviceId, hwpt_id: parent };
  const viommu_id = attempt.request(IOMMU_VIOMMU_ALLOC, viommu).out_viommu_id;
  attempt.request(IOMMU_VDEVICE_ALLOC, { viommu_id, dev_id: deviceId });
  attempt.request(IOMMU_HW_QUEUE_ALLOC, {
    viommu_id,
    type: IOMMU_HW_QUEUE_TYPE_SELFTEST,
    nesting_parent_iova: iova,
    length: BigInt(PAGE),
  });
  const faults = attempt.request(IOMMU_FAULT_QUEUE_ALLOC, {});
  kernel.close(faults.out_fault_fd);
  attempt.allocHwpt(deviceId, parent, {
    flags: IOMMU_HWPT_FAULT_ID_VALID,
    fault_id: faults.out_fault_id,
    data_type: IOMMU_HWPT_DATA_SELFTEST,
    data_len: on.data.length,
    data_uptr: kernel.addressOf(on.data),
  });
  const events = { viommu_id, type: IOMMU_VEVENTQ_TYPE_SELFTEST, veventq_depth: 2 };
  kernel.close(attempt.request(IOMMU_VEVENTQ_ALLOC, events).out_veventq_fd);
  const another = attempt.allocHwpt(deviceId, ioasId, { flags: IOMMU_HWPT_ALLOC_PASID });

  const pasid = 200;
  const id = attempt.mockId;
  attempt.test(IOMMU_TEST_OP_PASID_ATTACH, iommu_test_cmd_pasid_attach, { id, pasid, pt_id: parent });
  attempt.pasid = pasid;
  attempt.test(IOMMU_TEST_OP_PASID_REPLACE, iommu_test_cmd_pasid_replace, { id, pasid, pt_id: another });
  attempt.test(IOMMU_TEST_OP_PASID_DETACH, iommu_test_cmd_pasid_detach, { id, pasid });
  attempt.pasid = 0;
}

/** Goes through `sequence` until nothing fails in it any more. */
function sweep(t: Test, host: ConformanceHost, sequence: Sequence): void {
  const tainted = host.kernel.readText(TAINTED);
  using injection = FaultInjection.open(host);
  using on = new Surroundings(host);
  for (let nth = 0; ; nth++) {
    holds(nth < MANY, 'the sequence comes to its end');
    const arm = nth === 0 ? () => {} : () => injection?.arm(nth);
    const attempt = new Attempt(host.kernel, on, arm);
    let refusal: unknown;
    let hit = false;
    try {
      sequence(attempt);
    } catch (error) {
      refusal = error;
    } finally {
      hit = nth > 0 && injection?.disarm() === true;
      attempt.end();
    }
    const expected = hit && refusal instanceof Refused;
    if (refusal !== undefined && !expected) throw refusal;
    if (nth > 0 && !hit) {
      t.comment(`${nth - 1} places to fail in`);
      equal(host.kernel.readText(TAINTED), tainted, 'complaints of the kernel');
      return;
    }
    if (injection === undefined) {
      t.comment('nothing can be made to fail here');
      return;
    }
  }
}

const sequences: Readonly<Record<string, Sequence>> = {
  basic,
  map_domain: attempt => mapDomain(attempt, ioasId => attempt.map(ioasId, PART)),
  map_file_domain: attempt => mapDomain(attempt, ioasId => attempt.mapFile(ioasId, PART)),
  map_two_domains: mapTwoDomains,
  access_rw: accessRw,
  access_pin: accessPin,
  access_pin_domain: accessPinDomain,
  device,
};

export const cases: readonly Case[] = Object.entries(sequences).map(([name, sequence]) => ({
  source: 'iommu/iommufd_fail_nth.c',
  fixture: 'basic_fail_nth',
  name,
  profiles: mockMachine,
  run: (t, host) => sweep(t, host, sequence),
}));
