/** FIXTURE(iommufd_ioas): accesses by the kernel itself, and memory of other processes. @module */
import { EFAULT, ENOENT } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_TEST_CMD,
  IOMMU_TEST_OP_ACCESS_PAGES,
  IOMMU_TEST_OP_ACCESS_RW,
  iommu_test_cmd,
  iommu_test_cmd_access_pages,
  iommu_test_cmd_access_rw,
  MOCK_ACCESS_RW_SLOW_PATH,
  MOCK_ACCESS_RW_WRITE,
  MOCK_APERTURE_START,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES,
  MOCK_PAGE_SIZE,
} from '../../../bindings/uapi/iommufd-test.js';
import type { Child } from '../support/case.js';
import { equal, refused, sameBytes } from '../support/expect.js';
import { BUFFER_SIZE, scramble } from '../support/iommufd.js';
import type { IoasFixture, IoasTests } from '../support/iommufd-ioas.js';
import { anonymousHuge, HUGE_PAGE, type Memory, PAGE } from '../support/memory.js';

const APERTURE = BigInt(MOCK_APERTURE_START);
/** How many bytes before and after a page's end are accessed. */
const AROUND = 50;
const LONGEST = 64;

/** Pins pages through an access; they must be those at `address`. @returns what gives them back */
function pin(f: IoasFixture, access: number, iova: bigint, length: number, address: bigint): number {
  const values = { id: access, iova, length: BigInt(length), uptr: address };
  const answer = f.test(IOMMU_TEST_OP_ACCESS_PAGES, iommu_test_cmd_access_pages, values);
  equal(answer.result, 0, () => `ACCESS_PAGES of ${length} bytes`);
  return answer.values.out_access_pages_id;
}

/** Reads and writes all around the end of a page, in all lengths, and then everything. `memory` is mapped at `iova`. */
function checkAccess(f: IoasFixture, access: number, iova: bigint, memory: Memory, flags = 0): void {
  const { bytes } = memory;
  scramble(bytes);
  const noise = new Uint8Array(2 ** 12);
  scramble(noise);
  let noiseAt = 0;
  const command = iommu_test_cmd_access_rw;
  const argument = command.allocate();
  const transfer = f.point(LONGEST);
  command.encode(argument.view, {
    size: iommu_test_cmd.size,
    op: IOMMU_TEST_OP_ACCESS_RW,
    id: access,
    uptr: transfer.address,
  });
  const issue = (withFlags: number): number => {
    command.set(argument.view, 'flags', withFlags);
    return f.kernel.ioctl(f.fd, IOMMU_TEST_CMD.number, argument.bytes);
  };
  for (let offset = PAGE - AROUND; offset < PAGE + AROUND; offset++) {
    command.set(argument.view, 'iova', iova + BigInt(offset));
    for (let length = 1; length < LONGEST; length++) {
      const what = (verb: string) => () => `${verb} ${length} bytes at offset ${offset}`;
      command.set(argument.view, 'length', BigInt(length));
      equal(issue(flags), 0, what('read'));
      sameBytes(transfer.bytes.subarray(0, length), bytes.subarray(offset, offset + length), what('read'));

      noiseAt = (noiseAt + LONGEST + 1) % (noise.length - LONGEST);
      transfer.bytes.set(noise.subarray(noiseAt, noiseAt + LONGEST));
      equal(issue(flags | MOCK_ACCESS_RW_WRITE), 0, what('write'));
      sameBytes(bytes.subarray(offset, offset + length), transfer.bytes.subarray(0, length), what('write'));
    }
  }
  const everything = f.point(BUFFER_SIZE);
  command.set(argument.view, 'iova', iova);
  command.set(argument.view, 'length', BigInt(BUFFER_SIZE));
  command.set(argument.view, 'uptr', everything.address);
  equal(issue(flags), 0, 'read of everything');
  sameBytes(everything.bytes, bytes, 'everything');
}

/** Another process, which has mapped the fixture's file in the IOAS at the beginning of the aperture. */
async function mapInChild(f: IoasFixture): Promise<Child> {
  const argument = { ioasId: f.ioas, iova: APERTURE, length: BUFFER_SIZE };
  const child = f.host.spawn('mapInIoas', [f.fd, f.file.fd], argument);
  equal(await child.heard(), 0, 'IOMMU_IOAS_MAP in another process');
  return child;
}

export const accessTests: IoasTests = {
  // The selftest spells it so.
  access_domain_destory(f) {
    using memory = anonymousHuge(f, 2 * HUGE_PAGE);
    f.map(f.ioas, memory.address, memory.length, f.base);
    const access = f.createAccess(f.ioas, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
    const pinned = pin(f, access, f.base + BigInt(PAGE), PAGE, memory.address + BigInt(PAGE));
    // All of it is given back but for one page in the middle of a huge one.
    if (f.device !== undefined) f.destroy(f.device.id);
    f.destroyAccessPages(access, pinned);
    f.destroyAccess(access);
  },

  access_pin(f) {
    const { address } = f.buffer;
    const access = f.createAccess(f.ioas, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
    for (let count = 1; count < BUFFER_SIZE / PAGE; count++) {
      const pinPages = (): number => pin(f, access, APERTURE, count * PAGE, address);
      f.map(f.ioas, address, BUFFER_SIZE, APERTURE);
      f.destroyAccessPages(access, pinPages());

      const first = pinPages();
      const second = pinPages();
      f.destroyAccessPages(access, second);
      f.destroyAccessPages(access, first);

      const third = pinPages();
      const device = f.mockDevice(f.ioas);
      f.checkMap(device.hwptId, address, APERTURE, BUFFER_SIZE);
      f.destroy(device.id);
      f.destroyAccessPages(access, third);
      f.unmap(f.ioas, APERTURE, BUFFER_SIZE);
    }
    f.destroyAccess(access);
  },

  access_pin_unmap(f) {
    const access = f.createAccess(f.ioas, MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES);
    f.map(f.ioas, f.buffer.address, BUFFER_SIZE, APERTURE);
    const pinned = pin(f, access, APERTURE, BUFFER_SIZE, f.buffer.address);
    f.unmap(f.ioas, APERTURE, BUFFER_SIZE);
    refused(f.tryDestroyAccessPages(access, pinned), ENOENT, 'the kernel has given them back');
    // The selftest leaves it to the end of the process.
    f.destroyAccess(access);
  },

  access_rw(f) {
    const access = f.createAccess(f.ioas, 0);
    const iova = f.map(f.ioas, f.buffer.address, BUFFER_SIZE);
    checkAccess(f, access, iova, f.buffer);
    checkAccess(f, access, iova, f.buffer, MOCK_ACCESS_RW_SLOW_PATH);
    f.unmap(f.ioas, iova, BUFFER_SIZE);
    f.destroyAccess(access);
  },

  access_rw_unaligned(f) {
    const access = f.createAccess(f.ioas, 0);
    const iova = f.base + BigInt(MOCK_PAGE_SIZE);
    f.map(f.ioas, f.buffer.address, BUFFER_SIZE, iova);
    checkAccess(f, access, iova, f.buffer);
    f.unmap(f.ioas, iova, BUFFER_SIZE);
    f.destroyAccess(access);
  },

  async fork_gone(f) {
    const access = f.createAccess(f.ioas, 0);
    await (await mapInChild(f)).end();
    if (f.device === undefined) {
      refused(f.tryMockDevice(f.ioas).result, EFAULT, 'nothing is pinned, and the process is gone');
    } else {
      // All was pinned while the process was there: it goes from one page table to the other.
      f.mockDevice(f.ioas);
      checkAccess(f, access, APERTURE, f.file);
    }
    f.destroyAccess(access);
  },

  async fork_present(f) {
    const access = f.createAccess(f.ioas, 0);
    const child = await mapInChild(f);
    try {
      f.mockDevice(f.ioas);
      checkAccess(f, access, APERTURE, f.file);
    } finally {
      await child.end();
    }
    f.destroyAccess(access);
  },
};
