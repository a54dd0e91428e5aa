/** Cuts the power of a device. @module */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { simulation } from '../../support/simulation.js';

/** PCI Express capability, Slot Control register. */
const SLOT_CONTROL = 0x18;
const POWER_OFF = 1 << 10;
const POWER_INDICATOR_OFF = 3 << 8;

/** Cuts the power of a hot-pluggable slot, as pulling the device would, without telling the kernel. */
export function cutPower(port: string): void {
  const simulated = simulation();
  if (simulated !== undefined) {
    const device = simulated.rig.devices.find(each => each.port === port);
    if (device !== undefined) void simulated.host.pull(device.address);
    return;
  }
  const path = `/sys/bus/pci/devices/${port}/config`;
  const config = readFileSync(path);
  let capability = config[0x34] ?? 0;
  while (capability !== 0 && config[capability] !== 0x10) capability = config[capability + 1] ?? 0;
  const control = config.readUInt16LE(capability + SLOT_CONTROL);
  const value = Buffer.alloc(2);
  value.writeUInt16LE(control | POWER_OFF | POWER_INDICATOR_OFF);
  const fd = openSync(path, 'r+');
  writeSync(fd, value, 0, 2, capability + SLOT_CONTROL);
  closeSync(fd);
}
