/**
 * To be preloaded (`node --import`): the program then finds the machine of the test VMs, simulated, in place of the
 * running kernel. The environment says which profile, and where results go, as in a VM; disk images go there too.
 */
import { join } from 'node:path';
import { useKernel } from '../../bindings/kernel.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { MachineProfile } from '../../src/sim/iommu/hardware.js';
import { type DiskName, guestEnv } from '../vm/topology.js';
import { makeRig } from './rig.js';
import { setSimulation } from './simulation.js';

const directory = process.env[guestEnv.results];
const images =
  directory === undefined ? undefined : (name: DiskName): string => join(directory, `${name}.img`);
const rig = makeRig(images);
const profile = (process.env[guestEnv.profile] ?? 'vtd') as MachineProfile;
const host = new SimulatedHost({ profile, devices: rig.devices });
const simulated = host.process();
useKernel(simulated);
setSimulation({ host, process: simulated, rig });
