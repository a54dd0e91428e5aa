/** Sequences on the simulated host, in this very process. @module */
import { SimulatedHost } from '../../../src/sim/host.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';
import { makeRig } from '../../support/rig.js';
import { claimDevices } from './devices.js';
import { needsDevices } from './domains.js';
import { Interpreter } from './interpreter.js';
import type { Sequence } from './step.js';

/** Runs sequences of one domain, one after the other, on a simulated machine. */
export class Simulator {
  readonly #profile: MachineProfile;
  #interpreter: Interpreter | undefined;

  constructor(profile: string) {
    this.#profile = profile as MachineProfile;
  }

  #boot(domain: string): Interpreter {
    const devices = needsDevices(domain) ? makeRig().devices : [];
    const kernel = new SimulatedHost({ profile: this.#profile, devices }).process();
    if (needsDevices(domain)) claimDevices(kernel);
    return new Interpreter(kernel);
  }

  run(sequence: Sequence): string[] {
    try {
      this.#interpreter ??= this.#boot(sequence.domain);
      return this.#interpreter.run(sequence);
    } catch (error) {
      // Nothing that the machine holds can be trusted any more.
      this.#interpreter = undefined;
      const { message, stack = '' } = error as Error;
      return ['threw', message, ...stack.split('\n').slice(1, 4)];
    }
  }
}
