/**
 * Configuration space, BARs, interrupts and reset: tools/testing/selftests/vfio/vfio_pci_device_test.c.
 *
 * @module
 */
import { EAGAIN } from '../../../bindings/uapi/errno.js';
import { EFD_NONBLOCK } from '../../../bindings/uapi/eventfd.js';
import { MAP_SHARED, PROT_READ } from '../../../bindings/uapi/mman.js';
import {
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_PCI_BAR5_REGION_INDEX,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_REGION_INFO_FLAG_MMAP,
} from '../../../bindings/uapi/vfio.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, refused, succeeds } from '../support/expect.js';
import { defaultMode, demand, Iommu, translatedProfiles, VfioDevice } from '../support/vfio.js';

const source = 'vfio/vfio_pci_device_test.c';
const profiles = translatedProfiles;
/** Interrupts are scarce; no device is made to use more of them than this. */
const MAX_VECTORS = 16;

// Registers of configuration space.
const VENDOR = 0x00;
const DEVICE = 0x02;
const COMMAND = 0x04;
const BUS_MASTER = 1 << 2;

function attribute({ kernel }: ConformanceHost, bdf: string, name: string): number {
  const text = kernel.readText(`/sys/bus/pci/devices/${bdf}/${name}`);
  holds(typeof text === 'string', `${name} of ${bdf} can be read`);
  return Number(text);
}

function configSpace(host: ConformanceHost, device: VfioDevice): void {
  equal(device.readConfig(VENDOR, 2), attribute(host, address.nvmeA, 'vendor'), 'vendor');
  equal(device.readConfig(DEVICE, 2), attribute(host, address.nvmeA, 'device'), 'device');
  const command = device.readConfig(COMMAND, 2);
  equal(command & BUS_MASTER, 0, 'bus mastering at first');
  device.writeConfig(COMMAND, 2, command | BUS_MASTER);
  equal(device.readConfig(COMMAND, 2) & BUS_MASTER, BUS_MASTER, 'bus mastering, switched on');
  device.writeConfig(COMMAND, 2, command & ~BUS_MASTER);
  equal(device.readConfig(COMMAND, 2) & BUS_MASTER, 0, 'bus mastering, switched off');
}

function validateBars({ kernel }: ConformanceHost, device: VfioDevice): void {
  const config = device.region(VFIO_PCI_CONFIG_REGION_INDEX);
  equal(config.flags & VFIO_REGION_INFO_FLAG_MMAP, 0, 'configuration space cannot be mapped');
  for (let index = 0; index <= VFIO_PCI_BAR5_REGION_INDEX; index++) {
    const { flags, size, offset } = device.region(index);
    if (!(flags & VFIO_REGION_INFO_FLAG_MMAP)) continue;
    const length = Number(size);
    holds(length > 0, `BAR ${index} has a size`);
    const memory = kernel.mmap(length, PROT_READ, MAP_SHARED, device.fd, Number(offset));
    holds(memory > 0n, `BAR ${index} can be mapped`);
    equal(kernel.munmap(memory, length), 0, 'munmap');
  }
}

async function reset(host: ConformanceHost, device: VfioDevice): Promise<void> {
  const { flags } = demand(host, device.fd, VFIO_DEVICE_GET_INFO, {});
  equal(flags & VFIO_DEVICE_FLAGS_RESET, VFIO_DEVICE_FLAGS_RESET, 'the device can be reset');
  equal(await device.reset(), 0, 'reset');
}

/** @param bdf a device that has interrupts of this kind */
async function triggerEach(host: ConformanceHost, bdf: string, index: number): Promise<void> {
  const { kernel } = host;
  using iommu = new Iommu(kernel, defaultMode);
  using device = await VfioDevice.open(host, bdf, iommu);
  const count = Math.min(device.interruptCount(index), MAX_VECTORS);
  holds(count > 0, 'the device has such interrupts');
  const eventfds = Array.from({ length: count }, () => succeeds(kernel.eventfd(0, EFD_NONBLOCK), 'eventfd'));
  try {
    equal(device.connect(index, 0, eventfds), 0, 'connect');
    const value = Buffer.alloc(8);
    for (const [vector, eventfd] of eventfds.entries()) {
      refused(kernel.read(eventfd, value), EAGAIN, `vector ${vector} before`);
      equal(device.trigger(index, vector), 0, `trigger ${vector}`);
      equal(kernel.read(eventfd, value), 8, `vector ${vector} after`);
      equal(value.readBigUInt64LE(), 1n, 'times');
    }
    equal(device.disconnect(index), 0, 'disconnect');
  } finally {
    for (const eventfd of eventfds) kernel.close(eventfd);
  }
}

const bodies: Readonly<Record<string, (host: ConformanceHost, device: VfioDevice) => void | Promise<void>>> =
  {
    config_space_read_write: configSpace,
    validate_bars: validateBars,
    reset,
  };

const interruptKinds = [
  { variant: 'msi', bdf: address.edu, index: VFIO_PCI_MSI_IRQ_INDEX },
  { variant: 'msix', bdf: address.nvmeA, index: VFIO_PCI_MSIX_IRQ_INDEX },
];

export const cases: readonly Case[] = [
  ...Object.entries(bodies).map(
    ([name, body]): Case => ({
      source,
      fixture: 'vfio_pci_device_test',
      name,
      profiles,
      run: async (_t, host) => {
        using iommu = new Iommu(host.kernel, defaultMode);
        using device = await VfioDevice.open(host, address.nvmeA, iommu);
        await body(host, device);
      },
    }),
  ),
  ...interruptKinds.map(
    ({ variant, bdf, index }): Case => ({
      source,
      fixture: 'vfio_pci_irq_test',
      name: 'enable_trigger_disable',
      variant,
      profiles,
      run: (_t, host) => triggerEach(host, bdf, index),
    }),
  ),
];
