/** Sequences on a PCI device behind VFIO: its node, its configuration space, its interrupts, its page tables. @module */
import type { Pick, Weighted } from '../pick.js';
import { type Integer, type Ioctl, ioctl, latestFd, latestId, type Step, type Value } from '../step.js';

const PAGE = 4096;
const iommufd = latestFd('iommufd');
const CONFIG = 7;
const REGION = 2 ** 40;
const LOW_POWER_ENTRY_WITH_WAKEUP = 4;

function onDevice(g: Pick, request: string, fields: Ioctl['fields'] = {}): Ioctl {
  return ioctl(g.fd('device'), request, fields);
}

/** Sizes around that of a struct. */
const sized = (g: Pick, step: Ioctl, size: number): Ioctl =>
  g.often(80) ? step : { ...step, size: g.of(0, 4, 8, size - 4, size + 8, size + 100) };

/** What no machine says in another way: not the BARs, and not the interrupt line. */
function configOffset(g: Pick): number {
  for (;;) {
    const offset = g.often(60) ? g.below(0x40) : g.below(0x100);
    if ((offset < 0x10 || offset >= 0x28) && offset !== 0x3c) return offset;
  }
}

function readConfig(g: Pick): Step {
  const length = g.of(1, 2, 4);
  const offset = configOffset(g);
  // Not across what is left out.
  const end = offset + length;
  const clear = (end <= 0x10 || offset >= 0x28) && (end <= 0x3c || offset > 0x3c);
  return { call: 'read', on: g.fd('device'), length: clear ? length : 1, offset: CONFIG * REGION + offset };
}

/** Only what does not leave a mark on the device itself: the command register, and what is read-only anyway. */
function writeConfig(g: Pick): Step {
  const place = CONFIG * REGION;
  if (g.often(60)) {
    return {
      call: 'write',
      on: g.fd('device'),
      bytes: g.of('0000', '0200', '0600', '0004', '0604', '4701', 'ffff', '02'),
      offset: place + 4,
    };
  }
  return {
    call: 'write',
    on: g.fd('device'),
    bytes: g.of('ff', '0000', 'ffffffff', '55'),
    offset: place + g.of(0, 2, 6, 8, 0xc, 0xe, 0x2c, 0x34, 0x3d),
  };
}

/** An eventfd, a number that is none, or none. */
const eventfd = (g: Pick): Value => g.mostly<Value>(g.fd('event'), '0xffffffff', 1000, iommufd);

function setIrqs(g: Pick): Step {
  const index = g.mostly(g.of(0, 1, 2, 4), 3, 5);
  const data = g.of(1, 2, 4, 4, 4);
  const action = g.of(8, 16, 32, 32, 32);
  const start = g.mostly(0, 1, 5);
  const count = g.of(0, 1, 1, 1, 2, 3);
  const step: Ioctl = onDevice(g, 'VFIO_DEVICE_SET_IRQS', {
    flags: g.mostly(data | action, data, action, data | action | 64, 0),
    index,
    start,
    count,
  });
  if (data === 1) return sized(g, step, 20);
  const width = data === 2 ? 1 : 4;
  const list = Array.from({ length: count }, (): Value => (data === 2 ? g.below(2) : eventfd(g)));
  return sized(g, { ...step, trailing: { list, width } }, 20);
}

/** Switches MSI-X on and off, as drivers do. */
function enable(g: Pick): Step {
  const count = g.of(1, 2);
  return {
    ...onDevice(g, 'VFIO_DEVICE_SET_IRQS', { flags: 4 | 32, index: g.of(0, 1, 2), start: 0, count }),
    trailing: { list: Array.from({ length: count }, () => ({ fd: 'event', back: g.below(2) })), width: 4 },
  };
}

function feature(g: Pick): Step {
  const number = g.of(0, 3, 4, 5, 6, 7, 8, 10, 10, 10, 11, 13, 99);
  const how = g.of(0x1_0000, 0x2_0000, 0x4_0000, 0x5_0000, 0x6_0000, 0x7_0000, 0);
  const step: Ioctl = onDevice(g, 'VFIO_DEVICE_FEATURE', { flags: number | how });
  // That one wants an eventfd.
  const data = (): Value => (number === LOW_POWER_ENTRY_WITH_WAKEUP ? eventfd(g) : g.below(2));
  return { ...step, trailing: { list: Array.from({ length: g.of(0, 1, 2) }, data), width: 4 } };
}

// Not the region of BAR 0: its registers can be mapped on a real machine, and on no simulated one.
const table: readonly Weighted[] = [
  [
    4,
    g =>
      sized(
        g,
        onDevice(g, 'VFIO_DEVICE_BIND_IOMMUFD', {
          flags: g.mostly(0, 1),
          iommufd: g.mostly<Value>(iommufd, g.fd('event'), '0xffffffff'),
        }),
        16,
      ),
  ],
  [
    6,
    g =>
      sized(
        g,
        onDevice(g, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', {
          flags: g.mostly(0, 1, 2),
          pt_id: g.id('ioas', 'hwpt'),
        }),
        12,
      ),
  ],
  [3, g => sized(g, onDevice(g, 'VFIO_DEVICE_DETACH_IOMMUFD_PT', { flags: g.mostly(0, 1, 2) }), 8)],
  [3, g => sized(g, onDevice(g, 'VFIO_DEVICE_GET_INFO'), 24)],
  [8, g => sized(g, onDevice(g, 'VFIO_DEVICE_GET_REGION_INFO', { index: 1 + g.below(10) }), 32)],
  [5, g => sized(g, onDevice(g, 'VFIO_DEVICE_GET_IRQ_INFO', { index: g.below(7) }), 16)],
  [14, setIrqs],
  [10, enable],
  [2, g => ({ call: 'ioctl', on: g.fd('device'), request: 'VFIO_DEVICE_RESET', argument: 0 })],
  [8, feature],
  [12, readConfig],
  [8, writeConfig],
  [4, g => ({ call: 'read', on: g.fd('event'), length: 8 })],
  [
    2,
    g => ({
      call: 'read',
      on: g.fd('device'),
      length: g.of(1, 4, 8),
      offset: g.of(6, 8, 9, 12) * REGION + g.of(0, 0xfff),
    }),
  ],
  [
    2,
    g => ({
      call: 'read',
      on: g.fd('device'),
      length: 4,
      ...(g.often(50) ? { offset: g.of(1, 2, 3) * REGION } : {}),
    }),
  ],
  [2, g => ({ call: 'open', path: g.of('@edu', '@nvme'), keep: 'device' })],
  [3, g => ({ call: 'close', on: g.fd(g.of('device', 'event', 'event')) })],
  [2, () => ({ call: 'eventfd', keep: 'event' })],
  [2, g => ({ call: 'ioctl', on: g.fd('device'), request: g.of('0x3b64', '0x3b7f', '0x1234', '0x3b6a') })],
  [3, () => ioctl(iommufd, 'IOMMU_IOAS_ALLOC')],
  [
    4,
    g =>
      ioctl(iommufd, 'IOMMU_HWPT_ALLOC', {
        flags: g.of(0, 0, 1, 2, 4, 8),
        dev_id: g.id('device'),
        pt_id: g.id('ioas'),
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
    5,
    g =>
      ioctl(iommufd, 'IOMMU_IOAS_MAP', {
        flags: g.mostly(g.of(6, 7), 5, 3),
        ioas_id: g.id('ioas'),
        user_va: { at: 'shared', offset: g.below(24) * PAGE },
        length: g.mostly<Integer>(g.pages(), 2 ** 20, 100),
        iova: g.mostly<Integer>(
          0x10_0000 + g.below(48) * PAGE,
          0xfee0_0000,
          '0x7ffffff000',
          '0x8000000000',
          0,
        ),
      }),
  ],
  [
    3,
    g => {
      const back = g.below(4);
      return ioctl(iommufd, 'IOMMU_IOAS_UNMAP', {
        ioas_id: g.id('ioas'),
        iova: { mapping: 'iova', back },
        length: { mapping: 'length', back },
      });
    },
  ],
  [
    2,
    g =>
      ioctl(iommufd, 'IOMMU_GET_HW_INFO', {
        dev_id: g.id('device'),
        data_len: g.of(0, 24, 64),
        data_uptr: { buffer: 64 },
      }),
  ],
  [4, g => ioctl(iommufd, 'IOMMU_DESTROY', { id: g.id('ioas', 'hwpt', 'device') })],
];

/** @param count calls after the first ones */
export function vfioSteps(g: Pick, count: number): Step[] {
  const device = latestFd('device');
  const bound = g.often(90);
  const bind = ioctl(device, 'VFIO_DEVICE_BIND_IOMMUFD', { iommufd });
  const attach = ioctl(device, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', { pt_id: latestId('ioas') });
  return [
    { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
    { call: 'open', path: g.of('@edu', '@nvme'), keep: 'device' },
    { call: 'eventfd', keep: 'event' },
    { call: 'eventfd', keep: 'event' },
    ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
    ...(bound ? [bind, ...(g.often(70) ? [attach] : [])] : []),
    ...Array.from({ length: count }, () => g.step(table)),
  ];
}
