/** A device without an IOMMU: its node, its bind, what it cannot do, and what works all the same. @module */
import { EAGAIN, EBADF, EBADFD, EINVAL, ENOENT, EOPNOTSUPP, EPERM } from '../../../bindings/uapi/errno.js';
import { EFD_NONBLOCK } from '../../../bindings/uapi/eventfd.js';
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_SET_DIRTY_TRACKING,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VIOMMU_ALLOC,
} from '../../../bindings/uapi/iommufd.js';
import { IOMMU_HWPT_DATA_SELFTEST, IOMMU_VIOMMU_TYPE_SELFTEST } from '../../../bindings/uapi/iommufd-test.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_GET_INFO,
  VFIO_PCI_MSIX_IRQ_INDEX,
} from '../../../bindings/uapi/vfio.js';
import { EDU_MAX_DMA } from '../../support/edu-registers.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { Cdev } from '../support/cdev.js';
import { EduDriver } from '../support/edu.js';
import { equal, holds, refused, sameBytes, succeeds } from '../support/expect.js';
import { call } from '../support/ioctl.js';
import { openIommufd } from '../support/iommufd.js';
import { PAGE } from '../support/memory.js';
import { NoiommuFixture } from '../support/noiommu.js';
import { deviceCases, hostCases } from '../support/noiommu-cases.js';
import { VfioDevice, vfioNode } from '../support/vfio.js';

const O_RDWR = 2;
const COMMAND = 0x04;
const BUS_MASTER = 1 << 2;

const getInfo = (cdev: Cdev): number => call(cdev, cdev.fd, VFIO_DEVICE_GET_INFO, {}).result;

const nodes: Readonly<Record<string, (host: ConformanceHost) => Promise<void>>> = {
  named_for_what_it_is: async host => {
    const node = await vfioNode(host, address.nvmeA);
    const names = host.kernel.readDirectory(`/sys/bus/pci/devices/${address.nvmeA}/vfio-dev`);
    holds(typeof names !== 'number', 'the device has nodes');
    equal(names.length, 1, 'nodes');
    holds(/^noiommu-vfio\d+$/.test(names[0] as string), `${names[0]} says that there is no IOMMU`);
    equal(node, `/dev/vfio/devices/${names[0]}`, 'its path');
  },

  open_needs_cap_sys_rawio: async host => {
    const node = await vfioNode(host, address.nvmeA);
    {
      using _dropped = host.dropCapability('CAP_SYS_RAWIO');
      refused(host.kernel.open(node, O_RDWR), EPERM, 'open');
    }
    equal(host.kernel.close(succeeds(host.kernel.open(node, O_RDWR), 'open')), 0, 'close');
  },

  only_open_needs_it: async host => {
    using cdev = await Cdev.open(host, address.nvmeA);
    const iommufd = openIommufd(host);
    try {
      using _dropped = host.dropCapability('CAP_SYS_RAWIO');
      cdev.bind(iommufd);
      equal(getInfo(cdev), 0, 'information');
    } finally {
      host.kernel.close(iommufd);
    }
  },

  bind: async host => {
    using cdev = await Cdev.open(host, address.nvmeA);
    const iommufd = openIommufd(host);
    try {
      refused(getInfo(cdev), EINVAL, 'information before the bind');
      refused(cdev.tryBind(-1).result, EINVAL, 'bind to -1');
      refused(cdev.tryBind(10_000).result, EBADF, 'bind to a descriptor that is not open');
      refused(cdev.tryBind(cdev.fd).result, EBADFD, 'bind to what is no iommufd');
      holds(cdev.bind(iommufd) > 0, 'a device has an id');
      equal(getInfo(cdev), 0, 'information');
      refused(cdev.tryBind(iommufd).result, EINVAL, 'bind once more');
      using again = await Cdev.open(host, address.nvmeA);
      refused(again.tryBind(iommufd).result, EINVAL, 'bind by another open file');
    } finally {
      host.kernel.close(iommufd);
    }
  },

  two_devices_in_one_ioas: async host => {
    using first = await NoiommuFixture.open(host);
    using second = await Cdev.open(host, address.edu);
    const { iommufd } = first;
    holds(second.bind(iommufd.fd) !== first.deviceId, 'each has an id');
    const ioas = iommufd.allocIoas();
    const iova = iommufd.map(ioas, iommufd.buffer.address, PAGE);
    const hwpt = first.cdev.attach(ioas);
    equal(second.attach(ioas), hwpt, 'they share the page table');
    first.cdev.detach();
    first.getPhysical(ioas, iova, PAGE);
    iommufd.checkReferences(iommufd.buffer.address, PAGE, 1);
    second.detach();
    iommufd.checkReferences(iommufd.buffer.address, PAGE, 0);
  },

  bus_master_is_off_after_bind: async host => {
    for (let round = 0; round < 2; round++) {
      using fixture = await NoiommuFixture.open(host);
      const device = new VfioDevice(fixture.host.kernel, fixture.cdev.fd);
      equal(device.readConfig(COMMAND, 2) & BUS_MASTER, 0, `round ${round}`);
      device.writeConfig(COMMAND, 2, device.readConfig(COMMAND, 2) | BUS_MASTER);
      equal(device.readConfig(COMMAND, 2) & BUS_MASTER, BUS_MASTER, 'switched on');
    }
  },

  interrupts: async host => {
    using fixture = await NoiommuFixture.open(host);
    const { kernel } = host;
    const device = new VfioDevice(kernel, fixture.cdev.fd);
    const eventfd = succeeds(kernel.eventfd(0, EFD_NONBLOCK), 'eventfd');
    try {
      const value = Buffer.alloc(8);
      equal(device.connect(VFIO_PCI_MSIX_IRQ_INDEX, 0, [eventfd]), 0, 'connect');
      refused(kernel.read(eventfd, value), EAGAIN, 'before');
      equal(device.trigger(VFIO_PCI_MSIX_IRQ_INDEX, 0), 0, 'trigger');
      equal(kernel.read(eventfd, value), 8, 'after');
      equal(device.disconnect(VFIO_PCI_MSIX_IRQ_INDEX), 0, 'disconnect');
    } finally {
      kernel.close(eventfd);
    }
  },

  dma_by_physical_address: async host => {
    using fixture = await NoiommuFixture.open(host, address.edu);
    const { iommufd, cdev } = fixture;
    const ioas = iommufd.allocIoas();
    cdev.attach(ioas);
    const iova = iommufd.mapFile(ioas, iommufd.file.fd, 0, 2 * PAGE);
    const source = iommufd.file.bytes.subarray(0, EDU_MAX_DMA);
    const target = iommufd.file.bytes.subarray(PAGE, PAGE + EDU_MAX_DMA);
    source.forEach((_, i) => {
      source[i] = i * 7;
    });
    target.fill(0);
    using driver = new EduDriver(new VfioDevice(host.kernel, cdev.fd));
    const from = fixture.getPhysical(ioas, iova, PAGE).physical;
    const to = fixture.getPhysical(ioas, iova + BigInt(PAGE), PAGE).physical;
    await driver.copy(from, to, EDU_MAX_DMA);
    sameBytes(target, source, 'the copy');
    // Detached, it reaches memory all the same.
    iommufd.allocHwpt(fixture.deviceId, ioas);
    cdev.detach();
    target.fill(0);
    await driver.copy(from, to, EDU_MAX_DMA);
    sameBytes(target, source, 'the copy after the detach');
  },
};

const refusals: Readonly<Record<string, (fixture: NoiommuFixture) => void>> = {
  attach: ({ iommufd, cdev, deviceId }) => {
    refused(cdev.tryAttach(0).result, ENOENT, 'to 0');
    refused(cdev.tryAttach(0xffff_ffff).result, ENOENT, 'to nothing');
    refused(cdev.tryAttach(deviceId).result, EINVAL, 'to a device');
    const ioas = iommufd.allocIoas();
    const hwpt = cdev.attach(ioas);
    holds(hwpt !== ioas && hwpt !== deviceId, 'a page table of its own');
    cdev.detach();
    refused(cdev.tryAttach(hwpt).result, ENOENT, 'to a page table that went with the detach');
  },

  hwpt_flags: ({ iommufd, deviceId }) => {
    const ioas = iommufd.allocIoas();
    const attempt = (flags: number) => iommufd.tryAllocHwpt(deviceId, ioas, { flags }).result;
    refused(attempt(IOMMU_HWPT_ALLOC_NEST_PARENT), EOPNOTSUPP, 'NEST_PARENT');
    refused(attempt(IOMMU_HWPT_ALLOC_PASID), EOPNOTSUPP, 'PASID');
    refused(attempt(IOMMU_HWPT_ALLOC_DIRTY_TRACKING), EOPNOTSUPP, 'DIRTY_TRACKING');
    refused(attempt(1 << 4), EOPNOTSUPP, 'an unknown flag');
    refused(attempt(IOMMU_HWPT_FAULT_ID_VALID), ENOENT, 'FAULT_ID_VALID without a fault queue');
    iommufd.destroy(ioas);
  },

  // A fault queue is taken, though no fault can ever arrive in it.
  hwpt_with_fault_queue: ({ iommufd, deviceId, cdev }) => {
    const ioas = iommufd.allocIoas();
    const queue = iommufd.allocFaultQueue();
    const options = { flags: IOMMU_HWPT_FAULT_ID_VALID, faultId: queue.id };
    const hwpt = iommufd.allocHwpt(deviceId, ioas, options);
    equal(cdev.attach(hwpt), hwpt, 'attach');
    iommufd.kernel.close(queue.fd);
    cdev.detach();
    iommufd.destroy(hwpt);
    iommufd.destroy(queue.id);
  },

  hwpt_data: ({ iommufd, deviceId }) => {
    const ioas = iommufd.allocIoas();
    const data = iommufd.point(8);
    const attempt = (dataType: number, dataLength: number) =>
      iommufd.tryAllocHwpt(deviceId, ioas, { dataType, data, dataLength }).result;
    refused(attempt(IOMMU_HWPT_DATA_SELFTEST, 8), EOPNOTSUPP, 'data');
    refused(attempt(IOMMU_HWPT_DATA_SELFTEST, 0), EINVAL, 'a type without data');
    refused(attempt(0, 8), EINVAL, 'data without a type');
  },

  nested: ({ iommufd, deviceId }) => {
    const ioas = iommufd.allocIoas();
    const parent = iommufd.allocHwpt(deviceId, ioas);
    const options = { dataType: IOMMU_HWPT_DATA_SELFTEST, data: iommufd.point(8) };
    refused(iommufd.tryAllocHwpt(deviceId, parent, options).result, EOPNOTSUPP, 'on a page table');
    refused(iommufd.tryAllocHwpt(deviceId, parent).result, EOPNOTSUPP, 'without data');
  },

  hw_info: ({ iommufd, deviceId }) => {
    refused(iommufd.call(IOMMU_GET_HW_INFO, { dev_id: deviceId }).result, EOPNOTSUPP, 'IOMMU_GET_HW_INFO');
    refused(iommufd.call(IOMMU_GET_HW_INFO, { dev_id: 0 }).result, ENOENT, 'of device 0');
  },

  viommu: ({ iommufd, deviceId }) => {
    const ioas = iommufd.allocIoas();
    const hwpt_id = iommufd.allocHwpt(deviceId, ioas);
    const values = { type: IOMMU_VIOMMU_TYPE_SELFTEST, dev_id: deviceId, hwpt_id };
    refused(iommufd.call(IOMMU_VIOMMU_ALLOC, values).result, EOPNOTSUPP, 'IOMMU_VIOMMU_ALLOC');
    const vdevice = { viommu_id: hwpt_id, dev_id: deviceId };
    refused(iommufd.call(IOMMU_VDEVICE_ALLOC, vdevice).result, ENOENT, 'IOMMU_VDEVICE_ALLOC');
  },

  vdevice: ({ iommufd, deviceId }) => {
    // The virtual IOMMU of another device, a mock one.
    const ioas = iommufd.allocIoas();
    const mock = iommufd.mockDevice(ioas);
    const flags = IOMMU_HWPT_ALLOC_NEST_PARENT;
    const hwpt_id = iommufd.allocHwpt(mock.deviceId, ioas, { flags });
    const values = { type: IOMMU_VIOMMU_TYPE_SELFTEST, dev_id: mock.deviceId, hwpt_id };
    const viommu = iommufd.call(IOMMU_VIOMMU_ALLOC, values);
    equal(viommu.result, 0, 'IOMMU_VIOMMU_ALLOC');
    const viommu_id = viommu.values.out_viommu_id;
    const vdevice = { viommu_id, dev_id: deviceId, virt_id: 1n };
    refused(iommufd.call(IOMMU_VDEVICE_ALLOC, vdevice).result, EINVAL, 'IOMMU_VDEVICE_ALLOC');
    iommufd.destroy(viommu_id);
    iommufd.destroy(hwpt_id);
    iommufd.destroy(mock.id);
  },

  pasid: ({ iommufd, cdev, deviceId }) => {
    const ioas = iommufd.allocIoas();
    const hwpt = iommufd.allocHwpt(deviceId, ioas);
    for (const pt_id of [ioas, hwpt]) {
      const values = { flags: VFIO_DEVICE_ATTACH_PASID, pt_id, pasid: 1 };
      refused(call(cdev, cdev.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, values).result, EINVAL, 'attach of PASID 1');
    }
  },

  dirty_tracking: ({ iommufd, deviceId }) => {
    const ioas = iommufd.allocIoas();
    const hwpt_id = iommufd.allocHwpt(deviceId, ioas);
    const flags = IOMMU_HWPT_DIRTY_TRACKING_ENABLE;
    refused(iommufd.call(IOMMU_HWPT_SET_DIRTY_TRACKING, { flags, hwpt_id }).result, EOPNOTSUPP, 'start');
    refused(iommufd.call(IOMMU_HWPT_SET_DIRTY_TRACKING, { hwpt_id }).result, EOPNOTSUPP, 'stop');
    const bitmap = iommufd.point(8);
    const read = { hwpt_id, iova: 0n, length: 0x1000n, page_size: 0x1000n, data: bitmap.address };
    refused(iommufd.call(IOMMU_HWPT_GET_DIRTY_BITMAP, read).result, EOPNOTSUPP, 'bitmap');
  },
};

export const noiommuDevice: readonly Case[] = [
  ...hostCases('device', nodes),
  ...deviceCases('refusals', refusals),
];
