/** From an open cdev to an attached device: tools/testing/selftests/vfio/vfio_iommufd_setup_test.c. @module */
import { EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import { IOMMU_IOAS_ALLOC } from '../../../bindings/uapi/iommufd.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  VFIO_DEVICE_GET_INFO,
} from '../../../bindings/uapi/vfio.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, refused, succeeds } from '../support/expect.js';
import { type Caller, call } from '../support/ioctl.js';
import { demand, translatedProfiles, vfioNode } from '../support/vfio.js';

const O_RDWR = 2;

/** An open cdev, not bound, and an open iommufd. */
interface Setup extends Caller {
  readonly cdev: number;
  readonly iommufd: number;
}

const bind = (setup: Setup, iommufd = setup.iommufd): number =>
  call(setup, setup.cdev, VFIO_DEVICE_BIND_IOMMUFD, { iommufd }).result;
const getInfo = (setup: Setup): number => call(setup, setup.cdev, VFIO_DEVICE_GET_INFO, {}).result;
const attach = (setup: Setup, pt_id: number): number =>
  call(setup, setup.cdev, VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id }).result;

const bodies: Readonly<Record<string, (setup: Setup) => void>> = {
  bind: setup => {
    equal(bind(setup), 0, 'bind');
    equal(getInfo(setup), 0, 'information');
  },
  get_info_without_bind_fails: setup => refused(getInfo(setup), EINVAL, 'information before the bind'),
  bind_bad_iommufd_fails: setup => refused(bind(setup, -2), EINVAL, 'bind to descriptor -2'),
  repeated_bind_fails: setup => {
    equal(bind(setup), 0, 'bind');
    refused(bind(setup), EINVAL, 'bind once more');
  },
  // The name as the selftest spells it.
  attach_detatch_pt: setup => {
    equal(bind(setup), 0, 'bind');
    const { out_ioas_id } = demand(setup, setup.iommufd, IOMMU_IOAS_ALLOC, {});
    equal(attach(setup, out_ioas_id), 0, 'attach');
    equal(call(setup, setup.cdev, VFIO_DEVICE_DETACH_IOMMUFD_PT, {}).result, 0, 'detach');
  },
  attach_invalid_pt_fails: setup => {
    equal(bind(setup), 0, 'bind');
    refused(attach(setup, 0xffff_ffff), ENOENT, 'attach to nothing');
  },
};

async function within(host: ConformanceHost, body: (setup: Setup) => void): Promise<void> {
  const { kernel } = host;
  const cdev = succeeds(kernel.open(await vfioNode(host, address.nvmeA), O_RDWR), 'open of the cdev');
  const iommufd = succeeds(kernel.open('/dev/iommu', O_RDWR), 'open of /dev/iommu');
  try {
    body({ kernel, cdev, iommufd });
  } finally {
    equal(kernel.close(cdev), 0, 'close of the cdev');
    equal(kernel.close(iommufd), 0, 'close of the iommufd');
  }
}

export const cases: readonly Case[] = Object.entries(bodies).map(([name, body]) => ({
  source: 'vfio/vfio_iommufd_setup_test.c',
  fixture: 'vfio_cdev',
  name,
  profiles: [...translatedProfiles, 'noiommu'],
  run: (_t, host) => within(host, body),
}));
