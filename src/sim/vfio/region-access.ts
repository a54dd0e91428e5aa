/** Reading and writing the regions of a device (drivers/vfio/pci/vfio_pci_rdwr.c). @module */
import { EINVAL, EIO } from '../../../bindings/uapi/errno.js';
import { VFIO_PCI_BAR5_REGION_INDEX, VFIO_PCI_CONFIG_REGION_INDEX } from '../../../bindings/uapi/vfio.js';
import type { FunctionBar } from '../devices/pci-function.js';
import { Msix } from '../pci/registers.js';
import type { PciCore } from './core.js';
import { regionOf } from './region-offset.js';

/** Registers of these widths, in bytes, widest first. */
const WIDTHS = [8, 4, 2, 1];

/**
 * @param place in the device's file, in bytes
 * @returns how many bytes, or minus the errno
 */
export function accessRegion(core: PciCore, buffer: Uint8Array, place: number, write: boolean): number {
  if (buffer.byteLength === 0) return 0;
  const { index, offset } = regionOf(place);
  if (index === VFIO_PCI_CONFIG_REGION_INDEX) {
    return write ? core.config.write(offset, buffer) : core.config.read(offset, buffer);
  }
  // No function here has a ROM or VGA.
  const bar = index <= VFIO_PCI_BAR5_REGION_INDEX ? core.slot.bar(index) : undefined;
  if (bar === undefined || offset >= bar.size) return -EINVAL;
  return accessBar(
    core,
    bar,
    buffer.subarray(0, Math.min(buffer.byteLength, bar.size - offset)),
    offset,
    write,
  );
}

/** In naturally aligned pieces; the MSI-X table is the kernel's own, reads as ones and cannot be written. */
function accessBar(
  core: PciCore,
  bar: FunctionBar,
  buffer: Uint8Array,
  offset: number,
  write: boolean,
): number {
  const { slot } = core;
  const msix = slot.device.capabilities.msix;
  const hidden = msix?.tableBar === bar.index;
  const first = hidden ? msix.tableOffset : 0;
  const end = hidden ? first + msix.vectors * Msix.EntrySize : 0;
  for (let done = 0; done < buffer.byteLength; ) {
    const at = offset + done;
    const left = buffer.byteLength - done;
    const open = at < first ? Math.min(left, first - at) : at >= end ? left : 0;
    if (open === 0) {
      const length = Math.min(left, end - at);
      if (!write) buffer.fill(0xff, done, done + length);
      done += length;
      continue;
    }
    if (!core.accessible(bar.kind)) return -EIO;
    const width = WIDTHS.find(each => each <= open && at % each === 0) as number;
    const piece = buffer.subarray(done, done + width);
    if (write) slot.writeRegister(bar, at, piece);
    else slot.readRegister(bar, at, piece);
    done += width;
  }
  return buffer.byteLength;
}
