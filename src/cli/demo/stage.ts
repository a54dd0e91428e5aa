/** Where drivers are replaced: a simulated host with an NVMe controller that keeps account of what it sees. @module */
import { NvmeModel, NvmeNamespaceModel } from '../../sim/devices/nvme/index.js';
import { Register } from '../../sim/devices/nvme/protocol.js';
import { SimulatedHost } from '../../sim/host.js';
import type { Mode } from './mode.js';

export const NVME = '0000:00:04.0';

/** What the controller has seen, by its own account. */
export interface Seen {
  /** Reads and writes that it executed. */
  readonly ioCommands: number;
  readonly adminCommands: number;
  /** Of the function, and what was written to reset or enable the controller. */
  readonly resets: number;
}

/** What the controller has seen, beside what was asked of it. */
export interface Tally {
  /** I/O commands that it executed. */
  readonly ios: number;
  /** Commands that were told of and not executed, and lanes that did not go on from where they were. */
  readonly lost: number;
  /** Commands that were executed more often than they were asked for. */
  readonly repeated: number;
  /** Since the bring-up. */
  readonly adminCommands: number;
  /** Since the bring-up. */
  readonly resets: number;
}

class CountingNvme extends NvmeModel {
  functionResets = 0;

  override reset(): void {
    this.functionResets++;
    super.reset();
  }
}

export class Stage implements Disposable {
  readonly mode: Mode;
  readonly host: SimulatedHost;
  readonly namespace = new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 16 * 2 ** 20 });
  readonly model = new CountingNvme({ serial: 'simulated-2', namespaces: [this.namespace] });

  constructor(mode: Mode) {
    this.mode = mode;
    this.host = new SimulatedHost({ profile: mode, devices: [{ address: NVME, function: this.model }] });
  }

  /** So far. */
  get seen(): Seen {
    const { adminCommands, registerWrites } = this.model.trace;
    const { reads, writes } = this.namespace.counters;
    const configured = registerWrites.filter(({ offset }) => offset === Register.CC).length;
    return {
      ioCommands: reads + writes,
      adminCommands: adminCommands.length,
      resets: this.model.functionResets + configured,
    };
  }

  /** Ends all processes of the host. */
  [Symbol.dispose](): void {
    this.host[Symbol.dispose]();
  }
}

/** What came after `before`. */
export function seenSince(before: Seen, now: Seen): Seen {
  return {
    ioCommands: now.ioCommands - before.ioCommands,
    adminCommands: now.adminCommands - before.adminCommands,
    resets: now.resets - before.resets,
  };
}

export function describeTally({ ios, lost, repeated, adminCommands, resets }: Tally): string {
  return `${ios} I/O commands, ${lost} lost and ${repeated} repeated; since the bring-up ${adminCommands} admin commands, ${resets} resets`;
}
