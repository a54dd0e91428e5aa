/**
 * An NVMe driver and its successor in one process: what passes from one to the other is the device, the memory files and
 * the record, as if each had a process of its own.
 *
 * @module
 */

import { setImmediate } from 'node:timers/promises';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { F_DUPFD_CLOEXEC } from '../../../bindings/uapi/fcntl.js';
import { NvmeController, type NvmeRestoreOptions } from '../../../src/drivers/nvme/index.js';
import type { DriverRecord } from '../../../src/keepalive/keepable-driver.js';
import { DmaArena, memoryOf } from '../../../src/memory/dma-memory.js';
import { openDevice } from '../../../src/open-device.js';
import { claim } from '../../../src/pci/claim.js';
import {
  Lies,
  NvmeModel,
  type NvmeModelOptions,
  type ScriptedLie,
} from '../../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../../src/sim/host.js';
import type { Device } from '../../../src/vfio/device.js';

const ADDRESS = '0000:00:04.0';

export interface StageOptions {
  readonly profile?: 'vtd' | 'noiommu';
  readonly lies?: readonly ScriptedLie[];
  readonly model?: NvmeModelOptions;
  /** What the driver is to have in place of the kernel. */
  readonly wrap?: (kernel: Syscalls) => Syscalls;
}

export class Succession implements Disposable {
  readonly host: SimulatedHost;
  readonly model: NvmeModel;
  readonly device: Device;
  readonly #claimed: Disposable;

  private constructor(host: SimulatedHost, model: NvmeModel, device: Device, claimed: Disposable) {
    this.host = host;
    this.model = model;
    this.device = device;
    this.#claimed = claimed;
  }

  static async make(options: StageOptions = {}): Promise<Succession> {
    const { profile = 'vtd', lies, wrap = kernel => kernel } = options;
    const model = new NvmeModel({ ...options.model, ...(lies && { lies: new Lies(lies) }) });
    const host = new SimulatedHost({ profile, devices: [{ address: ADDRESS, function: model }] });
    const claimed = await claim(ADDRESS, { kernel: wrap(host.process()) });
    const device = openDevice(claimed, { noiommu: profile === 'noiommu' });
    return new Succession(host, model, device, claimed);
  }

  /** Lets the controller take what was submitted, however slow the machine is. */
  async turns(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) await setImmediate();
  }

  /** The arenas in the address space of the device as a successor gets them. Those before are of no use any more. */
  passArenas(): (token: bigint) => DmaArena | undefined {
    const { space, kernel } = this.device;
    const arenas = new Map<bigint, DmaArena>();
    for (const memory of [...memoryOf(space)]) {
      const arena = memory as DmaArena;
      const { token, name, pageSize, size, iova, access } = arena;
      const fd = kernel.fcntl(arena.fd, F_DUPFD_CLOEXEC, 0);
      arena.relinquish();
      const adopted = DmaArena.adopt(space, fd, {
        token,
        name,
        pageSize,
        size,
        iova,
        mapped: true,
        ...access,
      });
      arenas.set(token, adopted);
    }
    return token => arenas.get(token);
  }

  /** Hands over from `controller`, with what it has in flight. */
  async handOver(
    controller: NvmeController,
    options: Omit<NvmeRestoreOptions, 'memory'> = {},
  ): Promise<NvmeController> {
    controller.freeze();
    const record = controller.record();
    controller.relinquish(new Error('handed over'));
    return this.restore(record, options);
  }

  restore(record: DriverRecord, options: Omit<NvmeRestoreOptions, 'memory'> = {}): Promise<NvmeController> {
    return NvmeController.restore(this.device, record, { memory: this.passArenas(), ...options });
  }

  /** What was asked of the controller that a successor need not ask. */
  get trace(): { adminCommands: number; registerWrites: number } {
    const { adminCommands, registerWrites } = this.model.trace;
    return { adminCommands: adminCommands.length, registerWrites: registerWrites.length };
  }

  [Symbol.dispose](): void {
    this.device[Symbol.dispose]();
    this.#claimed[Symbol.dispose]();
    this.host[Symbol.dispose]();
  }
}
