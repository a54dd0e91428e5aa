/** What a device says of itself, its regions and its interrupts. @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_REGION_INFO_CAP_MSIX_MAPPABLE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_info_cap_header,
  vfio_irq_info,
  vfio_irq_set,
  vfio_region_info,
} from '../../../bindings/uapi/vfio.js';
import type { SimulatedProcess } from '../process/process.js';
import type { UserArgument } from '../process/user-argument.js';
import { readArgument, readIntegers, writeArgument } from './argument.js';
import type { PciCore } from './core.js';
import { regionOffset } from './region-offset.js';

const U32_MAX = 0xffff_ffff;

export function deviceInfo(core: PciCore, user: UserArgument): number {
  const { num_irqs } = vfio_device_info.fields;
  const info = readArgument(user, vfio_device_info, num_irqs.offset + num_irqs.size);
  if (typeof info === 'number') return info;
  info.flags = VFIO_DEVICE_FLAGS_PCI | (core.resetWorks ? VFIO_DEVICE_FLAGS_RESET : 0);
  info.num_regions = VFIO_PCI_NUM_REGIONS;
  info.num_irqs = VFIO_PCI_NUM_IRQS;
  return writeArgument(user, vfio_device_info, info, Math.min(info.argsz, vfio_device_info.size));
}

export function regionInfo(core: PciCore, user: UserArgument): number {
  const info = readArgument(user, vfio_region_info);
  if (typeof info === 'number') return info;
  const { index } = info;
  if (index > VFIO_PCI_CONFIG_REGION_INDEX) return -EINVAL;
  info.offset = regionOffset(index);
  info.size = 0n;
  info.flags = 0;
  let capability: number | undefined;
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) {
    info.size = BigInt(core.config.size);
    info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  } else if (index <= VFIO_PCI_BAR5_REGION_INDEX) {
    const bar = core.slot.bar(index);
    if (bar !== undefined) {
      info.size = BigInt(bar.size);
      info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
      if (bar.memory) {
        info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
        const table = core.slot.device.capabilities.msix?.tableBar;
        if (table === index) capability = VFIO_REGION_INFO_CAP_MSIX_MAPPABLE;
      }
    }
  } else if (index !== VFIO_PCI_ROM_REGION_INDEX) return -EINVAL;
  if (capability !== undefined) {
    info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
    const needed = vfio_region_info.size + vfio_info_cap_header.size;
    info.cap_offset = 0;
    if (info.argsz < needed) info.argsz = needed;
    else {
      const { bytes, view } = vfio_info_cap_header.allocate();
      vfio_info_cap_header.encode(view, { id: capability, version: 1 });
      const written = user.write(vfio_region_info.size, bytes);
      if (written < 0) return written;
      info.cap_offset = vfio_region_info.size;
    }
  }
  return writeArgument(user, vfio_region_info, info);
}

export function irqInfo(core: PciCore, user: UserArgument): number {
  const info = readArgument(user, vfio_irq_info);
  if (typeof info === 'number') return info;
  if (info.index >= VFIO_PCI_NUM_IRQS) return -EINVAL;
  info.flags = VFIO_IRQ_INFO_EVENTFD;
  info.count = core.interrupts.count(info.index);
  if (info.index === VFIO_PCI_INTX_IRQ_INDEX) {
    info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
  } else if (info.index !== VFIO_PCI_MSIX_IRQ_INDEX || core.slot.config.msix === undefined) {
    info.flags |= VFIO_IRQ_INFO_NORESIZE;
  }
  return writeArgument(user, vfio_irq_info, info);
}

export function setIrqs(core: PciCore, process: SimulatedProcess, user: UserArgument): number {
  const header = readArgument(user, vfio_irq_set);
  if (typeof header === 'number') return header;
  const { argsz, flags, index, start, count } = header;
  if (index >= VFIO_PCI_NUM_IRQS || count >= U32_MAX - start) return -EINVAL;
  if (flags & ~(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK)) return -EINVAL;
  const available = core.interrupts.count(index);
  if (start >= available || start + count > available) return -EINVAL;
  const type = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
  let bools: Uint8Array | number = new Uint8Array(0);
  let descriptors: Int32Array | number = new Int32Array(0);
  const room = argsz - vfio_irq_set.size;
  switch (type) {
    case VFIO_IRQ_SET_DATA_NONE:
      break;
    case VFIO_IRQ_SET_DATA_BOOL:
      if (room < count) return -EINVAL;
      bools = user.read(vfio_irq_set.size, count);
      break;
    case VFIO_IRQ_SET_DATA_EVENTFD:
      if (room < 4 * count) return -EINVAL;
      descriptors = readIntegers(user, vfio_irq_set.size, count);
      break;
    default:
      return -EINVAL;
  }
  if (typeof bools === 'number') return bools;
  if (typeof descriptors === 'number') return descriptors;
  return core.interrupts.set(process, { flags, index, start, count, bools, descriptors });
}
