/** Sequences about physical addresses, on a device without an IOMMU. @module */
import type { Pick, Weighted } from '../pick.js';
import { type Integer, ioctl, latestFd, latestId, type Step } from '../step.js';

const PAGE = 4096;
const iommufd = latestFd('iommufd');
const device = latestFd('device');

const iova = (g: Pick): Integer =>
  g.often(85)
    ? 0x10_0000 + g.below(48) * PAGE
    : g.of<Integer>(0, PAGE, 0x10_0800, 0x10_0001, 0xfee0_0000, '0x8000000000', '0xfffffffffffff000');
const length = (g: Pick): Integer =>
  g.often(88)
    ? g.pages()
    : g.of<Integer>(0, 1, 100, 2048, 2 ** 21, '0xffffffffffffffff', '0xfffffffffffff000');
const flags = (g: Pick): number => g.mostly(g.of(7, 6, 5, 3), 0, 1, 8);

const table: readonly Weighted[] = [
  [3, g => ioctl(iommufd, 'IOMMU_IOAS_ALLOC', { flags: g.mostly(0, 1) })],
  [
    12,
    g =>
      ioctl(iommufd, 'IOMMU_IOAS_MAP', {
        flags: flags(g),
        ioas_id: g.id('ioas'),
        user_va: {
          at: g.of('shared', 'shared', 'anonymous', 'short', 'readonly', 'huge'),
          offset: g.below(24) * PAGE + g.mostly(0, 1, 2048),
        },
        length: length(g),
        iova: iova(g),
      }),
  ],
  [
    8,
    g =>
      ioctl(iommufd, 'IOMMU_IOAS_MAP_FILE', {
        flags: flags(g),
        ioas_id: g.id('ioas'),
        fd: { fd: g.of('memory:shared', 'memory:short', 'memory:huge'), back: 0 },
        start: g.mostly(g.below(16) * PAGE, 2048),
        length: length(g),
        iova: iova(g),
      }),
  ],
  [
    6,
    g => {
      const back = g.below(4);
      const whole = g.often(70);
      return ioctl(iommufd, 'IOMMU_IOAS_UNMAP', {
        ioas_id: g.id('ioas'),
        iova: whole ? { mapping: 'iova', back } : iova(g),
        length: whole ? { mapping: 'length', back } : length(g),
      });
    },
  ],
  [
    25,
    g =>
      ioctl(iommufd, 'IOMMU_IOAS_NOIOMMU_GET_PA', {
        flags: g.mostly(0, 1),
        ioas_id: g.id('ioas'),
        iova: g.often(85)
          ? {
              mapping: 'iova',
              back: g.below(4),
              plus: g.of<Integer>(0, 0, 1, 100, 4095, PAGE, 5 * PAGE, '0xffffffffffffffff'),
            }
          : iova(g),
        length: g.often(50) ? { mapping: 'length', back: g.below(3) } : length(g),
        ...(g.often(4) ? { __reserved: 1 } : {}),
      }),
  ],
  [
    3,
    g =>
      ioctl(iommufd, 'IOMMU_IOAS_COPY', {
        flags: flags(g),
        dst_ioas_id: g.id('ioas'),
        src_ioas_id: g.id('ioas'),
        length: { mapping: 'length', back: 0 },
        dst_iova: iova(g),
        src_iova: { mapping: 'iova', back: 0 },
      }),
  ],
  [
    3,
    g =>
      ioctl(iommufd, 'IOMMU_IOAS_IOVA_RANGES', {
        ioas_id: g.id('ioas'),
        num_iovas: 8,
        allowed_iovas: { buffer: 128 },
      }),
  ],
  [
    6,
    g =>
      ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', {
        flags: g.mostly(0, 1, 2),
        pt_id: g.id('ioas', 'ioas', 'hwpt'),
      }),
  ],
  [3, g => ioctl(device, 'VFIO_DEVICE_DETACH_IOMMUFD_PT', { flags: g.mostly(0, 1) })],
  [2, g => ioctl(device, 'VFIO_DEVICE_BIND_IOMMUFD', { flags: g.mostly(0, 1), iommufd })],
  [
    2,
    g =>
      ioctl(iommufd, 'IOMMU_HWPT_ALLOC', {
        flags: g.of(0, 0, 1, 2),
        dev_id: g.id('device'),
        pt_id: g.id('ioas'),
      }),
  ],
  [
    2,
    g =>
      ioctl(iommufd, 'IOMMU_GET_HW_INFO', {
        dev_id: g.id('device'),
        data_len: 16,
        data_uptr: { buffer: 16 },
      }),
  ],
  [3, g => ioctl(iommufd, 'IOMMU_DESTROY', { id: g.id('ioas', 'hwpt', 'device') })],
  [
    2,
    g =>
      ioctl(iommufd, 'IOMMU_OPTION', {
        option_id: 1,
        op: g.below(2),
        object_id: g.id('ioas'),
        val64: g.below(2),
      }),
  ],
  [1, () => ioctl(iommufd, 'IOMMU_IOAS_CHANGE_PROCESS')],
  [1, () => ioctl(device, 'VFIO_DEVICE_GET_INFO')],
];

/** @param count calls after the first ones */
export function noiommuSteps(g: Pick, count: number): Step[] {
  const attached = g.often(85);
  return [
    { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
    { call: 'open', path: g.of('@edu', '@nvme'), keep: 'device' },
    ioctl(device, 'VFIO_DEVICE_BIND_IOMMUFD', { iommufd }),
    ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
    ...(attached ? [ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { pt_id: latestId('ioas') })] : []),
    ...Array.from({ length: count }, () => g.step(table)),
  ];
}
