/** The life of a controller as its registers tell it: disabled, ready, failed, shut down, gone. @module */
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceAddress } from '../../address.js';
import { DeviceError, DeviceErrorCode } from '../../errors.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { Device } from '../../vfio/device.js';
import type { Region } from '../../vfio/region.js';
import {
  ALL_ONES,
  CC,
  type ControllerCapabilities,
  CSTS,
  decodeCapabilities,
  Register,
  versionText,
} from './registers.js';

const POLL_MS = 2;
const SHUTDOWN_TIMEOUT_MS = 10_000;

export class RegisterInterface {
  readonly device: Device;
  readonly region: Region;
  readonly capabilities: ControllerCapabilities;
  /** The register CAP. */
  readonly rawCapabilities: bigint;
  /** NVMe version, such as `1.4.0`. */
  readonly version: string;

  /** @throws DeviceError (GONE) when nothing answers, (UNSUPPORTED) when the driver cannot work with it */
  constructor(device: Device) {
    this.device = device;
    // Not written where it is on: the device of a predecessor is only looked at.
    if (!device.config.memory) device.config.memory = true;
    this.region = device.bar(0);
    if (this.region.size <= Register.DOORBELLS)
      throw this.#unsupported('is no NVMe controller: BAR 0 is too small');
    const low = this.#read(Register.CAP);
    const high = this.#read(Register.CAP + 4);
    if (low === ALL_ONES && high === ALL_ONES) throw this.#gone();
    this.rawCapabilities = (BigInt(high) << 32n) | BigInt(low);
    this.capabilities = decodeCapabilities(low, high);
    this.version = versionText(this.#read(Register.VS));
    if (!this.capabilities.nvmCommandSet) throw this.#unsupported('does not support the NVM command set');
    if (this.capabilities.minPageSize > DEVICE_PAGE) {
      throw this.#unsupported(
        `needs memory pages of ${this.capabilities.minPageSize} bytes, the driver uses 4096`,
      );
    }
  }

  #read(offset: number): number {
    return this.region.read32(offset);
  }

  #write(offset: number, value: number): void {
    this.region.write32(offset, value >>> 0);
  }

  #read64(offset: number): bigint {
    return (BigInt(this.#read(offset + 4)) << 32n) | BigInt(this.#read(offset));
  }

  #write64(offset: number, value: bigint): void {
    this.#write(offset, Number(value & 0xffff_ffffn));
    this.#write(offset + 4, Number(value >> 32n));
  }

  #error(code: DeviceErrorCode, message: string, hint?: string): DeviceError {
    return new DeviceError(code, this.device.name, message, hint);
  }

  #gone(): DeviceError {
    return this.#error(
      DeviceErrorCode.Gone,
      'the controller does not answer: it was removed',
      'Close it, and look for the device ("iommufd devices")',
    );
  }

  #unsupported(what: string): DeviceError {
    return this.#error(DeviceErrorCode.Unsupported, what);
  }

  /**
   * CSTS. A removed device reads as all ones on most machines; some return zeroes for memory that nobody answers for,
   * but ones in configuration space all the same.
   *
   * @throws DeviceError (GONE) when nothing answers
   */
  status(): number {
    const status = this.#read(Register.CSTS);
    if (status === ALL_ONES || (status === 0 && !this.device.config.present)) throw this.#gone();
    return status;
  }

  /** What is wrong with a controller that should be running, if anything is. @throws DeviceError (GONE) */
  problem(): DeviceError | undefined {
    const status = this.status();
    if (status & CSTS.CFS) return this.#error(DeviceErrorCode.Fatal, 'reports a fatal error (CSTS.CFS)');
    if (!(status & CSTS.RDY)) return this.#error(DeviceErrorCode.Fatal, 'was disabled behind the driver');
    return undefined;
  }

  async #waitReady(ready: boolean): Promise<void> {
    const { readyTimeout } = this.capabilities;
    const deadline = performance.now() + readyTimeout;
    for (;;) {
      const status = this.status();
      if (((status & CSTS.RDY) !== 0) === ready) return;
      if (ready && status & CSTS.CFS) {
        throw this.#error(DeviceErrorCode.Fatal, 'reports a fatal error while it starts');
      }
      if (performance.now() > deadline) {
        const state = ready ? 'ready' : 'disabled';
        throw this.#error(DeviceErrorCode.Timeout, `did not become ${state} within ${readyTimeout} ms`);
      }
      await sleep(POLL_MS);
    }
  }

  /**
   * Why a controller cannot go on with an admin queue of `entries` at these addresses, as it was enabled by a predecessor.
   *
   * @returns undefined when it can
   * @throws DeviceError (GONE)
   */
  whyStopped(entries: number, submissions: DeviceAddress, completions: DeviceAddress): string | undefined {
    const status = this.status();
    if (status & CSTS.CFS) return 'it reports a fatal error (CSTS.CFS)';
    if (!(status & CSTS.RDY)) return 'it is not ready';
    if (this.#read(Register.CC) !== (CC.ENTRY_SIZES | CC.EN))
      return 'it is configured otherwise, or shut down';
    const size = entries - 1;
    if (this.#read(Register.AQA) !== ((size << 16) | size)) return 'its admin queue has another size';
    const elsewhere =
      this.#read64(Register.ASQ) !== submissions || this.#read64(Register.ACQ) !== completions;
    return elsewhere ? 'its admin queue is elsewhere' : undefined;
  }

  /** From disabled to ready, with an admin queue of `entries` at these addresses. Lets it do DMA. */
  async enable(entries: number, submissions: DeviceAddress, completions: DeviceAddress): Promise<void> {
    const size = entries - 1;
    this.#write(Register.AQA, (size << 16) | size);
    this.#write64(Register.ASQ, submissions);
    this.#write64(Register.ACQ, completions);
    // Last of all: everything that the controller may reach now is mapped and initialised.
    this.device.config.busMaster = true;
    this.#write(Register.CC, CC.ENTRY_SIZES | CC.EN);
    await this.#waitReady(true);
  }

  async #disable(): Promise<void> {
    const configuration = this.#read(Register.CC);
    if (configuration & CC.EN) {
      // CC must not be touched between enabling and ready (3.1.3.5), unless the controller has failed.
      if (!(this.status() & CSTS.CFS)) await this.#waitReady(true);
      this.#write(Register.CC, configuration & ~CC.EN);
    }
    await this.#waitReady(false);
  }

  /**
   * Disables the controller by its own register or, where that fails, by a reset of the PCI function. It reaches no
   * memory afterwards.
   */
  async disable(): Promise<void> {
    try {
      await this.#disable();
    } catch (error) {
      const hopeless = !(error instanceof DeviceError) || error.code === DeviceErrorCode.Gone;
      if (hopeless || !this.device.info.canReset) throw error;
      this.stopDma();
      await this.device.reset();
      await this.#waitReady(false);
    }
  }

  /** Whatever state the controller is in, it reaches no memory afterwards. */
  stopDma(): void {
    try {
      this.device.config.busMaster = false;
    } catch {
      // The device is closed or gone, and its DMA with it.
    }
  }

  /** Announces the shutdown, waits until the controller has made its data safe, and disables it. */
  async shutDown(): Promise<void> {
    this.#write(Register.CC, (this.#read(Register.CC) & ~CC.SHN_MASK) | CC.SHN_NORMAL);
    const deadline = performance.now() + SHUTDOWN_TIMEOUT_MS;
    while ((this.status() & CSTS.SHST_MASK) !== CSTS.SHST_COMPLETE) {
      if (performance.now() > deadline) {
        throw this.#error(
          DeviceErrorCode.Timeout,
          `did not finish its shutdown within ${SHUTDOWN_TIMEOUT_MS} ms`,
        );
      }
      await sleep(POLL_MS);
    }
    await this.#disable();
  }
}
