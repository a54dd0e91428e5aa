/** Memory for a device without an IOMMU: when it is pinned, until when, and what a replaced address space does to it. @module */
import { EBUSY, EFAULT, EINVAL, ENODEV, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_IOVA_RANGES,
  iommu_iova_range,
} from '../../../bindings/uapi/iommufd.js';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import type { Case } from '../support/case.js';
import { equal, holds, refused } from '../support/expect.js';
import { memfd, PAGE } from '../support/memory.js';
import type { NoiommuFixture } from '../support/noiommu.js';
import { deviceCases } from '../support/noiommu-cases.js';

const pageSize = BigInt(PAGE);

const tests: Readonly<Record<string, (fixture: NoiommuFixture) => void>> = {
  any_iova: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const range = iommufd.point(iommu_iova_range.size);
    const ask = () => {
      const values = { ioas_id: ioas, num_iovas: 1, allowed_iovas: range.address };
      const answer = iommufd.call(IOMMU_IOAS_IOVA_RANGES, values);
      equal(answer.result, 0, 'IOMMU_IOAS_IOVA_RANGES');
      equal(answer.values.num_iovas, 1, 'ranges');
      return { ...iommu_iova_range.decode(range.view), alignment: answer.values.out_iova_alignment };
    };
    equal(ask().alignment, 1n, 'alignment before a device is attached');
    cdev.attach(ioas);
    const { start, last, alignment } = ask();
    equal(start, 0n, 'start');
    equal(last, 2n ** 64n - 1n, 'last');
    equal(alignment, pageSize, 'alignment');
    // Where interrupts go on x86, and no IOMMU lets memory be.
    iommufd.map(ioas, iommufd.buffer.address, PAGE, 0xfee0_0000n);
    iommufd.map(ioas, iommufd.buffer.address, PAGE, 0n);
  },

  pinned_at_attach: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const { address } = iommufd.buffer;
    iommufd.map(ioas, address, 2 * PAGE);
    iommufd.checkReferences(address, 2 * PAGE, 0);
    cdev.attach(ioas);
    iommufd.checkReferences(address, 2 * PAGE, 1);
    iommufd.map(ioas, address + 2n * pageSize, PAGE);
    iommufd.checkReferences(address, 3 * PAGE, 1);
    cdev.detach();
    iommufd.checkReferences(address, 3 * PAGE, 0);
  },

  unpinned_at_unmap: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    cdev.attach(ioas);
    const { address } = iommufd.buffer;
    const iova = iommufd.map(ioas, address, 2 * PAGE);
    iommufd.checkReferences(address, 2 * PAGE, 1);
    equal(iommufd.unmap(ioas, iova, 2 * PAGE), 2n * pageSize, 'bytes unmapped');
    iommufd.checkReferences(address, 2 * PAGE, 0);
  },

  file_pinned_at_attach: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const iova = iommufd.mapFile(ioas, iommufd.file.fd, PAGE, 2 * PAGE);
    // Touched, so that there are pages to count.
    iommufd.file.bytes.fill(1);
    iommufd.checkReferences(iommufd.file.address + pageSize, 2 * PAGE, 0);
    cdev.attach(ioas);
    iommufd.checkReferences(iommufd.file.address + pageSize, 2 * PAGE, 1);
    iommufd.checkReferences(iommufd.file.address, PAGE, 0);
    const file = fixture.getPhysical(ioas, iova, PAGE);
    const same = iommufd.map(ioas, iommufd.file.address + pageSize, PAGE);
    equal(fixture.getPhysical(ioas, same, PAGE).physical, file.physical, 'the same page by its address');
  },

  bad_memory_is_noticed_at_attach: fixture => {
    const { iommufd, cdev } = fixture;
    const { kernel } = iommufd;
    const hole = kernel.mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    equal(kernel.munmap(hole, 2 * PAGE), 0, 'munmap');
    const ioas = iommufd.allocIoas();
    const iova = iommufd.map(ioas, hole, PAGE);
    refused(cdev.tryAttach(ioas).result, EFAULT, 'attach');
    iommufd.unmap(ioas, iova, PAGE);
    cdev.attach(ioas);
    refused(iommufd.tryMap(ioas, hole, PAGE).result, EFAULT, 'map');
  },

  beyond_the_file_is_noticed_at_attach: fixture => {
    const { iommufd, cdev } = fixture;
    using file = memfd(iommufd, PAGE);
    const ioas = iommufd.allocIoas();
    const iova = iommufd.mapFile(ioas, file.fd, 0, 2 * PAGE);
    refused(cdev.tryAttach(ioas).result, EINVAL, 'attach');
    iommufd.unmap(ioas, iova, 2 * PAGE);
    cdev.attach(ioas);
    refused(iommufd.tryMapFile(ioas, file.fd, 0, 2 * PAGE).result, EINVAL, 'map');
  },

  page_table_keeps_pins_without_attach: fixture => {
    const { iommufd, cdev, deviceId } = fixture;
    const ioas = iommufd.allocIoas();
    const { address } = iommufd.buffer;
    const iova = iommufd.map(ioas, address, PAGE);
    const hwpt = iommufd.allocHwpt(deviceId, ioas);
    iommufd.checkReferences(address, PAGE, 1);
    const { physical } = fixture.getPhysical(ioas, iova, PAGE);
    cdev.attach(hwpt);
    cdev.detach();
    iommufd.checkReferences(address, PAGE, 1);
    equal(fixture.getPhysical(ioas, iova, PAGE).physical, physical, 'after attach and detach');
    cdev[Symbol.dispose]();
    iommufd.checkReferences(address, PAGE, 1);
    equal(fixture.getPhysical(ioas, iova, PAGE).physical, physical, 'after the close of the device');
    iommufd.destroy(hwpt);
    iommufd.checkReferences(address, PAGE, 0);
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'without the page table');
  },

  close_of_the_device_unpins: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    const { address } = iommufd.buffer;
    cdev.attach(ioas);
    const iova = iommufd.map(ioas, address, PAGE);
    iommufd.checkReferences(address, PAGE, 1);
    cdev[Symbol.dispose]();
    iommufd.checkReferences(address, PAGE, 0);
    refused(fixture.tryGetPhysical(ioas, iova, PAGE).result, EOPNOTSUPP, 'after the close');
    equal(iommufd.unmap(ioas, iova, PAGE), pageSize, 'the mapping is still there');
    iommufd.destroy(ioas);
  },

  // The device may still write to the first address space's memory: nothing stands in its way.
  replaced_ioas_is_unpinned: fixture => {
    const { iommufd, cdev } = fixture;
    const { address } = iommufd.buffer;
    const [first, second] = [iommufd.allocIoas(), iommufd.allocIoas()];
    const iova = iommufd.map(first, address, PAGE);
    const other = iommufd.map(second, address + pageSize, PAGE);
    const before = cdev.attach(first);
    const after = cdev.attach(second);
    holds(before !== after, 'another page table');
    iommufd.checkReferences(address, PAGE, 0);
    iommufd.checkReferences(address + pageSize, PAGE, 1);
    refused(fixture.tryGetPhysical(first, iova, PAGE).result, EOPNOTSUPP, 'the first');
    fixture.getPhysical(second, other, PAGE);
    iommufd.destroy(first);
    refused(iommufd.tryDestroy(second), EBUSY, 'destroying the second');
  },

  replaced_ioas_with_page_table_stays_pinned: fixture => {
    const { iommufd, cdev, deviceId } = fixture;
    const { address } = iommufd.buffer;
    const [first, second] = [iommufd.allocIoas(), iommufd.allocIoas()];
    const iova = iommufd.map(first, address, PAGE);
    const hwpt = iommufd.allocHwpt(deviceId, first);
    equal(cdev.attach(hwpt), hwpt, 'attached to the page table itself');
    const { physical } = fixture.getPhysical(first, iova, PAGE);
    cdev.attach(second);
    iommufd.checkReferences(address, PAGE, 1);
    equal(fixture.getPhysical(first, iova, PAGE).physical, physical, 'the first, replaced');
    iommufd.destroy(hwpt);
    iommufd.checkReferences(address, PAGE, 0);
  },

  replace_by_itself: fixture => {
    const { iommufd, cdev, deviceId } = fixture;
    const ioas = iommufd.allocIoas();
    const { address } = iommufd.buffer;
    const iova = iommufd.map(ioas, address, PAGE);
    const hwpt = cdev.attach(ioas);
    const { physical } = fixture.getPhysical(ioas, iova, PAGE);
    equal(cdev.attach(ioas), hwpt, 'the same IOAS: the same page table');
    equal(cdev.attach(hwpt), hwpt, 'the page table itself');
    iommufd.checkReferences(address, PAGE, 1);
    const manual = iommufd.allocHwpt(deviceId, ioas);
    equal(cdev.attach(manual), manual, 'a page table of the same IOAS');
    iommufd.checkReferences(address, PAGE, 1);
    equal(fixture.getPhysical(ioas, iova, PAGE).physical, physical, 'over all of it');
    holds(cdev.attach(ioas) !== manual, 'an IOAS never chooses a page table made by hand');
  },

  failed_replace_changes_nothing: fixture => {
    const { iommufd, cdev } = fixture;
    const { kernel } = iommufd;
    const { address } = iommufd.buffer;
    const [good, bad] = [iommufd.allocIoas(), iommufd.allocIoas()];
    const iova = iommufd.map(good, address, PAGE);
    const hwpt = cdev.attach(good);
    const hole = kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
    equal(kernel.munmap(hole, PAGE), 0, 'munmap');
    iommufd.map(bad, hole, PAGE);
    refused(cdev.tryAttach(bad).result, EFAULT, 'replace');
    iommufd.checkReferences(address, PAGE, 1);
    fixture.getPhysical(good, iova, PAGE);
    equal(cdev.attach(good), hwpt, 'the old page table is still the one');
  },

  destroy_while_in_use: fixture => {
    const { iommufd, cdev, deviceId } = fixture;
    const ioas = iommufd.allocIoas();
    const hwpt = cdev.attach(ioas);
    refused(iommufd.tryDestroy(ioas), EBUSY, 'the IOAS');
    refused(iommufd.tryDestroy(hwpt), EBUSY, 'the page table');
    refused(iommufd.tryDestroy(deviceId), EBUSY, 'the device');
    cdev.detach();
    cdev.detach();
    iommufd.destroy(ioas);
  },

  change_process: fixture => {
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    cdev.attach(ioas);
    iommufd.mapFile(ioas, iommufd.file.fd, 0, PAGE);
    equal(iommufd.call(IOMMU_IOAS_CHANGE_PROCESS, {}).result, 0, 'files alone');
    iommufd.map(ioas, iommufd.buffer.address, PAGE);
    refused(iommufd.call(IOMMU_IOAS_CHANGE_PROCESS, {}).result, EINVAL, 'anonymous memory');
  },

  mock_device_replaced_onto_it: fixture => {
    // The mock device's driver knows nothing of a page table that is no IOMMU's.
    const { iommufd, cdev } = fixture;
    const [ioas, other] = [iommufd.allocIoas(), iommufd.allocIoas()];
    const hwpt = cdev.attach(ioas);
    const mock = iommufd.mockDevice(other);
    refused(iommufd.tryReplace(mock.id, ioas), ENODEV, 'onto the IOAS');
    refused(iommufd.tryReplace(mock.id, hwpt), ENODEV, 'onto its page table');
    iommufd.destroy(mock.id);
  },
};

export const noiommuMemory: readonly Case[] = deviceCases('memory', tests);
