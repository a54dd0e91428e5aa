/**
 * All devices of the machine initialised at a time, on one address space:
 * tools/testing/selftests/vfio/vfio_pci_device_init_perf_test.c.
 *
 * The selftest has a thread for each device. A process here makes its calls from one thread, so they are initialised
 * one after the other; the times are noted as the selftest prints them, and none is a failure.
 *
 * @module
 */
import { address } from '../../vm/topology.js';
import type { Case } from '../support/case.js';
import { Iommu, iommuModes, profilesOf, VfioDevice, vfioNode } from '../support/vfio.js';

const devices = [address.nvmeA, address.edu, address.nvmeB];

export const cases: readonly Case[] = iommuModes.map(mode => ({
  source: 'vfio/vfio_pci_device_init_perf_test.c',
  fixture: 'vfio_pci_device_init_perf_test',
  name: 'init',
  variant: mode.name,
  profiles: profilesOf(mode),
  run: async (t, host) => {
    for (const bdf of devices) await vfioNode(host, bdf);
    using iommu = new Iommu(host.kernel, mode);
    const opened: VfioDevice[] = [];
    const times: number[] = [];
    try {
      for (const bdf of devices) {
        const start = performance.now();
        opened.push(await VfioDevice.open(host, bdf, iommu));
        times.push(performance.now() - start);
      }
    } finally {
      for (const device of opened) device[Symbol.dispose]();
    }
    const [wall, least, most] = [times.reduce((a, b) => a + b), Math.min(...times), Math.max(...times)];
    const show = (ms: number): string => `${ms.toFixed(1)} ms`;
    t.comment(`${devices.length} devices: ${show(wall)}, each ${show(least)} to ${show(most)}`);
  },
}));
