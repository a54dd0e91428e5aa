/**
 * Rows 83 to 85 of the errno table: a cdev and its tie to an iommufd.
 *
 * Left out of row 84, for want of a machine: interrupts that are not isolated (EPERM), DMA owned by another iommufd
 * through a second device of the group (EPERM), an IOMMU that is not coherent (EINVAL). Of row 85: the EBUSY of an
 * attach while another thread resets the device, and the EOPNOTSUPP of a driver without PASIDs, as vfio-pci has them.
 *
 * @module
 */
import { E2BIG, EBADF, EBADFD, EBUSY, EFAULT, EINVAL, ENOENT, ENOTTY } from '../../../bindings/uapi/errno.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { FieldInputs, Fields, Struct, StructInput } from '../../../bindings/uapi/struct.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_ATTACH_PASID,
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_PASID,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_DEVICE_SET_IRQS,
  vfio_device_bind_iommufd,
} from '../../../bindings/uapi/vfio.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { Cdev } from '../support/cdev.js';
import { hostRows, iommufdProfiles } from '../support/errno-cases.js';
import { equal, refused, succeeds } from '../support/expect.js';
import { call } from '../support/ioctl.js';
import { groupPath } from '../support/vfio.js';
import { ViommuFixture } from '../support/viommu.js';

const O_RDWR = 2;

const issue = <F extends Fields>(cdev: Cdev, request: Request<Struct<F>>, values: FieldInputs<F>): number =>
  call(cdev, cdev.fd, request, values).result;

const bind = (cdev: Cdev, values: StructInput<typeof vfio_device_bind_iommufd>): number =>
  issue(cdev, VFIO_DEVICE_BIND_IOMMUFD, values);

function beforeBind(cdev: Cdev): void {
  const { kernel, fd } = cdev;
  refused(issue(cdev, VFIO_DEVICE_GET_INFO, {}), EINVAL, 'GET_INFO');
  refused(issue(cdev, VFIO_DEVICE_GET_REGION_INFO, {}), EINVAL, 'GET_REGION_INFO');
  refused(issue(cdev, VFIO_DEVICE_GET_IRQ_INFO, {}), EINVAL, 'GET_IRQ_INFO');
  refused(issue(cdev, VFIO_DEVICE_SET_IRQS, {}), EINVAL, 'SET_IRQS');
  refused(issue(cdev, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, {}), EINVAL, 'GET_PCI_HOT_RESET_INFO');
  refused(issue(cdev, VFIO_DEVICE_FEATURE, {}), EINVAL, 'FEATURE');
  refused(issue(cdev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, {}), EINVAL, 'ATTACH');
  refused(issue(cdev, VFIO_DEVICE_DETACH_IOMMUFD_PT, {}), EINVAL, 'DETACH');
  refused(kernel.ioctl(fd, VFIO_DEVICE_RESET.number, 0), EINVAL, 'RESET');
  refused(kernel.ioctl(fd, 0x3bff, 0), EINVAL, 'an unknown request');
  refused(kernel.pread(fd, new Uint8Array(4), 0), EINVAL, 'reading');
  refused(kernel.pwrite(fd, new Uint8Array(4), 0), EINVAL, 'writing');
  refused(Number(kernel.mmap(4096, 1, 1, fd, 0)), EINVAL, 'mapping');
}

async function bindRefusals(host: ConformanceHost): Promise<void> {
  const { kernel } = host;
  using iommu = new ViommuFixture(host);
  using cdev = await Cdev.open(host, address.nvmeA);
  const iommufd = iommu.fd;
  refused(bind(cdev, { iommufd: -1 }), EINVAL, 'descriptor -1');
  refused(bind(cdev, { iommufd: -2 }), EINVAL, 'descriptor -2');
  refused(bind(cdev, { iommufd, flags: 2 }), EINVAL, 'unknown flags');
  refused(bind(cdev, { iommufd, argsz: 0 }), EINVAL, 'size 0');
  refused(bind(cdev, { iommufd, argsz: 15 }), EINVAL, 'a size too small');
  const longer = vfio_device_bind_iommufd.allocate(8);
  const argsz = vfio_device_bind_iommufd.size + 8;
  vfio_device_bind_iommufd.encode(longer.view, { argsz, iommufd });
  longer.bytes[argsz - 1] = 1;
  refused(
    kernel.ioctl(cdev.fd, VFIO_DEVICE_BIND_IOMMUFD.number, longer.bytes),
    E2BIG,
    'something in the tail',
  );
  refused(kernel.ioctl(cdev.fd, VFIO_DEVICE_BIND_IOMMUFD.number, 0), EFAULT, 'no struct');
  refused(bind(cdev, { iommufd: 10_000 }), EBADF, 'a descriptor that is not open');
  refused(bind(cdev, { iommufd: iommu.file.fd }), EBADFD, 'a memfd');
  refused(bind(cdev, { iommufd: cdev.fd }), EBADFD, 'the cdev itself');
  const flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
  const token = iommu.point(16);
  refused(
    bind(cdev, { iommufd, flags, token_uuid_ptr: token.address }),
    EINVAL,
    'a token that nobody asked for',
  );
  refused(bind(cdev, { iommufd, flags, token_uuid_ptr: 0n }), EFAULT, 'a token at address 0');
  const group = groupPath(kernel, address.nvmeA);
  const path = host.profile === 'noiommu' ? group.replace('/vfio/', '/vfio/noiommu-') : group;
  const file = succeeds(kernel.open(path, O_RDWR), 'open of the group');
  refused(bind(cdev, { iommufd }), EBUSY, 'while the group is open');
  equal(kernel.close(file), 0, 'close of the group');
  // The token's pointer need not be there.
  equal(bind(cdev, { iommufd, argsz: 16 }), 0, 'the smallest size');
  refused(bind(cdev, { iommufd }), EINVAL, 'bound already');
  refused(kernel.open(path, O_RDWR), EBUSY, 'the group, while the cdev is bound');
  using again = await Cdev.open(host, address.nvmeA);
  refused(bind(again, { iommufd }), EINVAL, 'by another open file');
}

async function attachRefusals(host: ConformanceHost): Promise<void> {
  const { kernel } = host;
  using iommu = new ViommuFixture(host);
  using cdev = await Cdev.open(host, address.nvmeA);
  const deviceId = cdev.bind(iommu.fd);
  const ioas = iommu.allocIoas();
  const attach = (values: { argsz?: number; flags?: number; pt_id?: number; pasid?: number }): number =>
    issue(cdev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: ioas, ...values });
  const detach = (values: { argsz?: number; flags?: number; pasid?: number }): number =>
    issue(cdev, VFIO_DEVICE_DETACH_IOMMUFD_PT, values);
  for (const pt_id of [0, 0xffff_ffff]) refused(attach({ pt_id }), ENOENT, `object ${pt_id}`);
  refused(attach({ pt_id: deviceId }), EINVAL, 'a device');
  refused(attach({ argsz: 0 }), EINVAL, 'size 0');
  refused(attach({ argsz: 11 }), EINVAL, 'a size too small');
  refused(attach({ flags: 2 }), EINVAL, 'unknown flags');
  refused(kernel.ioctl(cdev.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT.number, 0), EFAULT, 'no struct');
  const flags = VFIO_DEVICE_ATTACH_PASID;
  refused(attach({ argsz: 12, flags, pasid: 1 }), EINVAL, 'a size too small for a PASID');
  refused(attach({ flags, pasid: 1 }), EINVAL, 'a PASID to an IOAS');
  const hwpt = iommu.allocHwpt(deviceId, ioas);
  refused(attach({ flags, pasid: 1, pt_id: hwpt }), EINVAL, 'a PASID to a table without');
  refused(detach({ argsz: 7 }), EINVAL, 'detach, a size too small');
  refused(detach({ flags: 2 }), EINVAL, 'detach, unknown flags');
  refused(detach({ argsz: 8, flags: VFIO_DEVICE_DETACH_PASID }), EINVAL, 'detach, too small for a PASID');
  equal(detach({ argsz: 8 }), 0, 'detach of nothing');
  equal(attach({ argsz: 12 }), 0, 'the smallest size');
  equal(detach({ argsz: 8 }), 0, 'detach');
  refused(kernel.ioctl(cdev.fd, 0x3bff, 0), ENOTTY, 'an unknown request');
  refused(iommu.tryDestroy(deviceId), EBUSY, 'destroying the device');
}

export const cases: readonly Case[] = hostRows(
  [
    [
      83,
      'cdev before its bind',
      async host => {
        using cdev = await Cdev.open(host, address.nvmeA);
        beforeBind(cdev);
      },
    ],
    [84, 'cdev bind', bindRefusals],
    [85, 'cdev attach', attachRefusals],
  ],
  iommufdProfiles,
);
