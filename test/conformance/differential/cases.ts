/**
 * Sequences that once told the simulated host from the kernel, made as short as they get, with what Linux 7.3 says.
 *
 * @module
 */
import { ioctl, latestFd, latestId, type Sequence } from './step.js';

const iommufd = latestFd('iommufd');
const device = latestFd('device');

export interface RecordedSequence extends Sequence {
  readonly profile: string;
  /** A line for each step. */
  readonly seen: readonly string[];
}

export const recorded: readonly RecordedSequence[] = [
  {
    domain: 'noiommu',
    profile: 'noiommu',
    name: 'PASID 0 is attached as the device itself, and not as a PASID twice',
    steps: [
      { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
      { call: 'open', path: '@edu', keep: 'device' },
      ioctl(device, 'VFIO_DEVICE_BIND_IOMMUFD', { iommufd }),
      ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
      ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { pt_id: latestId('ioas') }),
      ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { flags: 1, pt_id: latestId('hwpt') }),
      ioctl(device, 'VFIO_DEVICE_DETACH_IOMMUFD_PT'),
      ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { flags: 1, pt_id: latestId('ioas') }),
      ioctl(device, 'VFIO_DEVICE_DETACH_IOMMUFD_PT'),
      ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { pt_id: latestId('ioas') }),
      ioctl(device, 'VFIO_DEVICE_DETACH_IOMMUFD_PT', { flags: 1 }),
      ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { pt_id: latestId('ioas') }),
    ],
    seen: [
      'fd1',
      'fd2',
      '0 out_devid=1',
      '0 out_ioas_id=2',
      '0 pt_id=3',
      'EBUSY',
      '0',
      '0 pt_id=3',
      '0',
      'EBUSY',
      '0',
      '0 pt_id=3',
    ],
  },
  {
    domain: 'iommufd',
    profile: 'noiommu',
    name: 'the last page of all addresses',
    steps: [
      { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
      ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
      ioctl(iommufd, 'TEST_MOCK_DOMAIN', { id: latestId('ioas') }),
      ioctl(iommufd, 'IOMMU_IOAS_MAP', {
        flags: 3,
        ioas_id: latestId('ioas'),
        user_va: '0xfffffffffffff000',
        length: 2048,
        iova: 16777216,
      }),
      ioctl(iommufd, 'TEST_MD_CHECK_MAP', {
        id: latestId('hwpt'),
        iova: 16777216,
        length: 2048,
        uptr: '0xfffffffffffff000',
      }),
    ],
    seen: [
      'fd1',
      '0 out_ioas_id=1',
      '0 out_stdev_id=2 out_hwpt_id=4 out_idev_id=3',
      'EOVERFLOW',
      'EOVERFLOW',
    ],
  },
  {
    domain: 'iommufd',
    profile: 'noiommu',
    name: 'a hardware queue of more pages than a list can have',
    steps: [
      { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
      ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
      ioctl(iommufd, 'TEST_MOCK_DOMAIN', { id: latestId('ioas') }),
      ioctl(
        iommufd,
        'IOMMU_HWPT_ALLOC',
        { flags: 1, dev_id: latestId('device'), pt_id: latestId('ioas') },
        'parent',
      ),
      ioctl(iommufd, 'IOMMU_VIOMMU_ALLOC', {
        type: '0xdeadbeef',
        dev_id: latestId('device'),
        hwpt_id: latestId('parent'),
      }),
      ioctl(iommufd, 'IOMMU_HW_QUEUE_ALLOC', {
        viommu_id: latestId('viommu'),
        type: '0xdeadbeef',
        index: 0,
        nesting_parent_iova: 16777216,
        length: '0x10000000000',
      }),
      ioctl(iommufd, 'IOMMU_HW_QUEUE_ALLOC', {
        viommu_id: latestId('viommu'),
        type: '0xdeadbeef',
        index: 0,
        nesting_parent_iova: 16777216,
        length: 4096,
      }),
    ],
    seen: [
      'fd1',
      '0 out_ioas_id=1',
      '0 out_stdev_id=2 out_hwpt_id=4 out_idev_id=3',
      '0 out_hwpt_id=5',
      '0 out_viommu_id=6',
      'ENOMEM',
      'ENOENT',
    ],
  },
  {
    domain: 'iommufd',
    profile: 'noiommu',
    name: 'the mock driver forgets the first queue, whichever is destroyed',
    steps: [
      { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
      ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
      ioctl(iommufd, 'TEST_MOCK_DOMAIN', { id: latestId('ioas') }),
      ioctl(
        iommufd,
        'IOMMU_HWPT_ALLOC',
        { flags: 1, dev_id: latestId('device'), pt_id: latestId('ioas') },
        'parent',
      ),
      ioctl(iommufd, 'IOMMU_VIOMMU_ALLOC', {
        type: '0xdeadbeef',
        dev_id: latestId('device'),
        hwpt_id: latestId('parent'),
      }),
      ioctl(iommufd, 'IOMMU_IOAS_MAP', {
        flags: 6,
        ioas_id: 1,
        user_va: { at: 'shared', offset: 0 },
        length: 4096,
      }),
      ...[0, 1].map(index =>
        ioctl(iommufd, 'IOMMU_HW_QUEUE_ALLOC', {
          viommu_id: latestId('viommu'),
          type: '0xdeadbeef',
          index,
          nesting_parent_iova: { mapping: 'iova', back: 0 },
          length: 100,
        }),
      ),
      ioctl(iommufd, 'IOMMU_DESTROY', { id: latestId('hwqueue') }),
      ioctl(iommufd, 'IOMMU_HW_QUEUE_ALLOC', {
        viommu_id: latestId('viommu'),
        type: '0xdeadbeef',
        index: 1,
        nesting_parent_iova: { mapping: 'iova', back: 0 },
        length: 100,
      }),
    ],
    seen: [
      'fd1',
      '0 out_ioas_id=1',
      '0 out_stdev_id=2 out_hwpt_id=4 out_idev_id=3',
      '0 out_hwpt_id=5',
      '0 out_viommu_id=6',
      '0 iova=0x1000000',
      '0 out_hw_queue_id=7',
      '0 out_hw_queue_id=9',
      '0',
      'EEXIST',
    ],
  },
  {
    domain: 'liveupdate',
    profile: 'noiommu',
    name: 'reads at an offset: the device has positions, a session has none',
    steps: [
      { call: 'open', path: '/dev/liveupdate', keep: 'device' },
      ioctl(device, 'LIVEUPDATE_IOCTL_CREATE_SESSION', { name: { bytes: '78' } }),
      { call: 'read', on: device, length: 8 },
      { call: 'read', on: device, length: 8, offset: 8 },
      { call: 'write', on: device, bytes: '00', offset: 8 },
      { call: 'read', on: latestFd('file'), length: 8 },
      { call: 'read', on: latestFd('file'), length: 8, offset: 8 },
      { call: 'write', on: latestFd('file'), bytes: '00', offset: 8 },
    ],
    seen: ['fd1', '0 fd=fd2', 'EINVAL ', 'EINVAL ', 'EINVAL', 'EINVAL ', 'ESPIPE ', 'ESPIPE'],
  },
  {
    domain: 'liveupdate',
    profile: 'noiommu',
    name: 'a name ends with zeroes up to a word, and then come the bytes of the caller',
    steps: [
      { call: 'open', path: '/dev/liveupdate', keep: 'device' },
      ioctl(device, 'LIVEUPDATE_IOCTL_CREATE_SESSION', { name: { bytes: '78797a' } }),
      ioctl(latestFd('file'), 'LIVEUPDATE_SESSION_GET_NAME', {
        name: {
          bytes:
            'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee',
        },
      }),
    ],
    seen: [
      'fd1',
      '0 fd=fd2',
      '0 name=78797a0000000000eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee',
    ],
  },
];
