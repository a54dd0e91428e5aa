/** The simulated machine that a test program runs on, where it does: see simulated-machine.ts. @module */
import type { SimulatedHost } from '../../src/sim/host.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import type { Rig } from './rig.js';

export interface Simulation {
  readonly host: SimulatedHost;
  /** The program's own process there. */
  readonly process: SimulatedProcess;
  readonly rig: Rig;
}

let current: Simulation | undefined;

/** Undefined on a real machine. */
export function simulation(): Simulation | undefined {
  return current;
}

export function setSimulation(simulation: Simulation): void {
  current = simulation;
}
