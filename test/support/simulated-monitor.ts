/** QEMU's monitor, as far as the test programs use it, for the simulated machine. @module */
import { nvmeB, nvmeBDevice, qemuId } from '../vm/topology.js';
import type { Simulation } from './simulation.js';

/** @throws Error for what the simulated machine has no counterpart of */
export function simulatedMonitor(
  { host, rig }: Simulation,
  execute: string,
  args: Readonly<Record<string, unknown>>,
): unknown {
  switch (execute) {
    case 'block_set_io_throttle':
      if (args.device !== nvmeB.namespaces[0].disk) break;
      rig.nvmeB.throttle(Number(args.iops));
      return {};
    case 'device_del':
      if (args.id !== qemuId.nvmeB) break;
      void host.unplug(nvmeB.address);
      return {};
    case 'device_add': {
      if (args.id !== nvmeBDevice.id) break;
      const device = rig.devices.find(({ address }) => address === nvmeB.address);
      if (device === undefined) break;
      host.plug(device);
      return {};
    }
  }
  throw new Error(`the simulated machine cannot do this: ${execute} ${JSON.stringify(args)}`);
}
