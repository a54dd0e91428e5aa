/** The legacy group of a device without an IOMMU, its container, and the cdev beside it. @module */
import { EBUSY, EINVAL, ENODEV, ENOTTY, EPERM } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_SET,
} from '../../../bindings/uapi/iommufd.js';
import {
  VFIO_CHECK_EXTENSION,
  VFIO_DEVICE_GET_INFO,
  VFIO_GROUP_FLAGS_CONTAINER_SET,
  VFIO_GROUP_FLAGS_VIABLE,
  VFIO_GROUP_GET_STATUS,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_NOIOMMU_IOMMU,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
} from '../../../bindings/uapi/vfio.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { Cdev } from '../support/cdev.js';
import { equal, refused, succeeds } from '../support/expect.js';
import { call } from '../support/ioctl.js';
import { openIommufd } from '../support/iommufd.js';
import { NoiommuFixture } from '../support/noiommu.js';
import { hostCases } from '../support/noiommu-cases.js';
import { demand, deviceFromGroup, groupPath, vfioNode } from '../support/vfio.js';

const O_RDWR = 2;

/** Descriptors that are closed at the end, the last one first. */
class Descriptors implements Disposable {
  readonly #host: ConformanceHost;
  readonly #fds: number[] = [];

  constructor(host: ConformanceHost) {
    this.#host = host;
  }

  open(path: string): number {
    return this.keep(succeeds(this.#host.kernel.open(path, O_RDWR), `open of ${path}`));
  }

  keep(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.reverse()) this.#host.kernel.close(fd);
  }
}

async function pathOfGroup(host: ConformanceHost): Promise<string> {
  await vfioNode(host, address.nvmeA);
  return groupPath(host.kernel, address.nvmeA).replace('/dev/vfio/', '/dev/vfio/noiommu-');
}

function setContainer({ kernel }: ConformanceHost, group: number, container: number): number {
  const pointer = Buffer.alloc(4);
  pointer.writeInt32LE(container);
  return kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER.number, pointer);
}

const tests: Readonly<Record<string, (host: ConformanceHost) => Promise<void>>> = {
  open_needs_cap_sys_rawio: async host => {
    const path = await pathOfGroup(host);
    using _dropped = host.dropCapability('CAP_SYS_RAWIO');
    refused(host.kernel.open(path, O_RDWR), EPERM, 'open');
  },

  open_once: async host => {
    const path = await pathOfGroup(host);
    using files = new Descriptors(host);
    files.open(path);
    refused(host.kernel.open(path, O_RDWR), EBUSY, 'open once more');
  },

  group_keeps_cdev_out: async host => {
    const path = await pathOfGroup(host);
    using files = new Descriptors(host);
    using cdev = await Cdev.open(host, address.nvmeA);
    const iommufd = files.keep(openIommufd(host));
    const group = files.open(path);
    refused(cdev.tryBind(iommufd).result, EBUSY, 'bind');
    refused(deviceFromGroup(host.kernel, group, address.nvmeA), EINVAL, 'a device without a container');
  },

  cdev_keeps_group_out: async host => {
    const path = await pathOfGroup(host);
    {
      using _bound = await NoiommuFixture.open(host);
      refused(host.kernel.open(path, O_RDWR), EBUSY, 'open');
    }
    using files = new Descriptors(host);
    files.open(path);
  },

  open_cdev_keeps_nobody_out: async host => {
    const path = await pathOfGroup(host);
    using _cdev = await Cdev.open(host, address.nvmeA);
    using files = new Descriptors(host);
    files.open(path);
  },

  container: async host => {
    const { kernel } = host;
    const path = await pathOfGroup(host);
    using files = new Descriptors(host);
    const container = files.open('/dev/vfio/vfio');
    const supports = (type: number): number => kernel.ioctl(container, VFIO_CHECK_EXTENSION.number, type);
    equal(supports(VFIO_NOIOMMU_IOMMU), 1, 'an empty container may become one without an IOMMU');
    equal(supports(VFIO_TYPE1v2_IOMMU), 1, 'or one with');
    refused(
      kernel.ioctl(container, VFIO_SET_IOMMU.number, VFIO_NOIOMMU_IOMMU),
      EINVAL,
      'before it has a group',
    );
    const group = files.open(path);
    equal(setContainer(host, group, container), 0, 'the group joins');
    refused(setContainer(host, group, container), EINVAL, 'the group joins again');
    equal(supports(VFIO_NOIOMMU_IOMMU), 1, 'no IOMMU');
    equal(supports(VFIO_TYPE1_IOMMU), 0, 'type 1');
    refused(kernel.ioctl(container, VFIO_SET_IOMMU.number, VFIO_TYPE1v2_IOMMU), ENODEV, 'type 1');
    {
      using _dropped = host.dropCapability('CAP_SYS_RAWIO');
      refused(kernel.ioctl(container, VFIO_SET_IOMMU.number, VFIO_NOIOMMU_IOMMU), EPERM, 'unprivileged');
    }
    equal(kernel.ioctl(container, VFIO_SET_IOMMU.number, VFIO_NOIOMMU_IOMMU), 0, 'VFIO_SET_IOMMU');
    const { flags } = demand(host, group, VFIO_GROUP_GET_STATUS, {});
    equal(flags, VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET, 'status');
    refused(call(host, container, VFIO_IOMMU_MAP_DMA, {}).result, ENOTTY, 'there is nothing to map into');
    refused(call(host, container, VFIO_IOMMU_GET_INFO, {}).result, ENOTTY, 'and nothing to tell');
    refused(deviceFromGroup(kernel, group, '0000:ff:1f.7'), ENODEV, 'another device');
    const device = files.keep(succeeds(deviceFromGroup(kernel, group, address.nvmeA), 'the device'));
    equal(call(host, device, VFIO_DEVICE_GET_INFO, {}).result, 0, 'information');
  },

  iommufd_as_container: async host => {
    const { kernel } = host;
    const path = await pathOfGroup(host);
    using files = new Descriptors(host);
    const iommufd = files.keep(openIommufd(host));
    const group = files.open(path);
    equal(setContainer(host, group, iommufd), 0, 'the group joins');
    const supports = kernel.ioctl(iommufd, VFIO_CHECK_EXTENSION.number, VFIO_NOIOMMU_IOMMU);
    equal(supports, 1, 'no IOMMU');
    equal(kernel.ioctl(iommufd, VFIO_SET_IOMMU.number, VFIO_NOIOMMU_IOMMU), 0, 'VFIO_SET_IOMMU');
    {
      using _dropped = host.dropCapability('CAP_SYS_RAWIO');
      refused(deviceFromGroup(kernel, group, address.nvmeA), EPERM, 'unprivileged');
    }
    const device = files.keep(succeeds(deviceFromGroup(kernel, group, address.nvmeA), 'the device'));
    equal(call(host, device, VFIO_DEVICE_GET_INFO, {}).result, 0, 'information');
  },

  iommufd_with_compat_ioas: async host => {
    // An address space for a container means that translation is expected, and there is none.
    const { kernel } = host;
    const path = await pathOfGroup(host);
    using files = new Descriptors(host);
    const iommufd = files.keep(openIommufd(host));
    const group = files.open(path);
    const ioas_id = demand(host, iommufd, IOMMU_IOAS_ALLOC, {}).out_ioas_id;
    const set = { op: IOMMU_VFIO_IOAS_SET, ioas_id };
    const clear = { op: IOMMU_VFIO_IOAS_CLEAR };
    equal(call(host, iommufd, IOMMU_VFIO_IOAS, set).result, 0, 'set');
    refused(setContainer(host, group, iommufd), EINVAL, 'the group joins');
    equal(call(host, iommufd, IOMMU_VFIO_IOAS, clear).result, 0, 'clear');
    equal(setContainer(host, group, iommufd), 0, 'the group joins');
    equal(call(host, iommufd, IOMMU_VFIO_IOAS, set).result, 0, 'set');
    refused(deviceFromGroup(kernel, group, address.nvmeA), EPERM, 'the device');
    equal(call(host, iommufd, IOMMU_VFIO_IOAS, clear).result, 0, 'clear');
    const device = succeeds(deviceFromGroup(kernel, group, address.nvmeA), 'the device');
    equal(kernel.close(device), 0, 'close');
  },
};

export const noiommuGroup: readonly Case[] = hostCases('group', tests);
