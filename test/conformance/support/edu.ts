/**
 * A driver of QEMU's edu device (docs/specs/edu), in the shape that the kernel's VFIO selftests give a driver: it copies
 * memory, and it sends an interrupt. A copy goes through the device's own 4 KiB buffer, in and out again.
 *
 * Registers are reached through the device's file, so that the simulated host sees every access.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { EFD_NONBLOCK } from '../../../bindings/uapi/eventfd.js';
import { VFIO_PCI_BAR0_REGION_INDEX, VFIO_PCI_MSI_IRQ_INDEX } from '../../../bindings/uapi/vfio.js';
import { EDU_BUFFER, EDU_MAX_DMA, Edu, EduDma } from '../../support/edu-registers.js';
import { equal, holds, succeeds } from './expect.js';
import type { VfioDevice } from './vfio.js';

/** A transfer takes QEMU 100 ms. */
const POLL_MS = 5;
const PATIENCE_MS = 10_000;

const COMMAND = 0x04;
const MEMORY_AND_BUS_MASTER = 0b110;

export class EduDriver implements Disposable {
  readonly device: VfioDevice;
  /** Counts interrupts; reading it does not wait. */
  readonly eventfd: number;
  readonly #registers: number;

  /** Lets the device reach memory, and connects its interrupt. */
  constructor(device: VfioDevice) {
    this.device = device;
    this.#registers = Number(device.region(VFIO_PCI_BAR0_REGION_INDEX).offset);
    this.eventfd = succeeds(device.kernel.eventfd(0, EFD_NONBLOCK), 'eventfd');
    equal(device.connect(VFIO_PCI_MSI_IRQ_INDEX, 0, [this.eventfd]), 0, 'connecting the interrupt');
    const command = device.readConfig(COMMAND, 2);
    device.writeConfig(COMMAND, 2, command | MEMORY_AND_BUS_MASTER);
    equal(this.#read32(Edu.Identification) & 0xff, 0xed, 'the low byte of the identification');
  }

  /** Copies `size` bytes between IOVAs, in pieces that the device can take. */
  async copy(from: bigint, to: bigint, size: number): Promise<void> {
    for (let at = 0; at < size; at += EDU_MAX_DMA) {
      const count = BigInt(Math.min(EDU_MAX_DMA, size - at));
      await this.#transfer(from + BigInt(at), EDU_BUFFER, count, 0);
      await this.#transfer(EDU_BUFFER, to + BigInt(at), count, EduDma.FromDevice);
    }
  }

  async #transfer(from: bigint, to: bigint, count: bigint, direction: number): Promise<void> {
    this.#write64(Edu.DmaSource, from);
    this.#write64(Edu.DmaDestination, to);
    this.#write64(Edu.DmaCount, count);
    this.#write64(Edu.DmaCommand, BigInt(direction | EduDma.Start));
    const end = Date.now() + PATIENCE_MS;
    while (this.#read32(Edu.DmaCommand) & EduDma.Start) {
      holds(Date.now() < end, 'a transfer ends');
      await sleep(POLL_MS);
    }
  }

  /** Sends an interrupt, which has arrived when this resolves. */
  async sendInterrupt(): Promise<void> {
    const { kernel } = this.device;
    this.#write32(Edu.InterruptRaise, 1);
    const value = Buffer.alloc(8);
    const end = Date.now() + PATIENCE_MS;
    while (kernel.read(this.eventfd, value) !== 8) {
      holds(Date.now() < end, 'an interrupt arrives');
      await sleep(1);
    }
    equal(value.readBigUInt64LE(), 1n, 'interrupts');
    this.#write32(Edu.InterruptAcknowledge, this.#read32(Edu.InterruptStatus));
  }

  /** What {@link eventfd} has to say, or minus the errno. */
  interrupts(): number {
    return this.device.kernel.read(this.eventfd, Buffer.alloc(8));
  }

  #read32(register: number): number {
    const value = Buffer.alloc(4);
    const { kernel, fd } = this.device;
    equal(kernel.pread(fd, value, this.#registers + register), 4, 'reading a register');
    return value.readUInt32LE();
  }

  #write32(register: number, value: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    const { kernel, fd } = this.device;
    equal(kernel.pwrite(fd, bytes, this.#registers + register), 4, 'writing a register');
  }

  #write64(register: number, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    const { kernel, fd } = this.device;
    equal(kernel.pwrite(fd, bytes, this.#registers + register), 8, 'writing a register');
  }

  /** Takes the device's access to memory away, and disconnects the interrupt. */
  [Symbol.dispose](): void {
    const { device } = this;
    device.writeConfig(COMMAND, 2, device.readConfig(COMMAND, 2) & ~MEMORY_AND_BUS_MASTER);
    equal(device.disconnect(VFIO_PCI_MSI_IRQ_INDEX), 0, 'disconnecting the interrupt');
    device.kernel.close(this.eventfd);
  }
}
