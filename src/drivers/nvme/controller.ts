/**
 * An NVMe controller: bring-up, command execution with deadlines and aborts, reset, shutdown.
 *
 * A promise for a command settles only when the controller can no longer touch the command's memory: when the
 * command completed, or when the controller was disabled.
 *
 * @module
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkAligned, checkFunction, checkInteger } from '../../check.js';
import { DeviceError, DeviceErrorCode, DisposedError } from '../../errors.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import { DmaArena } from '../../memory/dma-memory.js';
import type { Device } from '../../vfio/device.js';
import { InterruptKind } from '../../vfio/interrupts.js';
import type { Region } from '../../vfio/region.js';
import { BouncePool } from './bounce-pool.js';
import { AdminOpcode, type Command, checkCommand, FeatureId, IdentifyTarget } from './command.js';
import { decodeEvent, type NvmeEvent } from './events.js';
import {
  type ControllerIdentity,
  decodeController,
  decodeNamespace,
  decodeNamespaceList,
  IDENTIFY_BYTES,
} from './identify.js';
import { Namespace } from './namespace.js';
import { type CommandOptions, completeOptions, type NvmeOptions } from './options.js';
import { type Pending, QueuePair, type Transfer } from './queue-pair.js';
import { RegisterInterface } from './register-interface.js';
import type { ControllerCapabilities } from './registers.js';
import { NvmeError } from './status.js';

type State = 'starting' | 'live' | 'resetting' | 'failed' | 'closed';

/** Best first. */
const INTERRUPT_KINDS = [InterruptKind.Msix, InterruptKind.Msi, InterruptKind.Intx] as const;
const ADMIN_ENTRIES = 32;
const MAX_ASYNC_EVENTS = 4;
/** Deadlines, lost interrupts and the controller's own status are looked at this often while commands are out, in ms. */
const WATCHDOG_MS = 100;
const POLL_MS = 2;
/** How often a command that fell victim to a reset is issued again. */
const RESET_RETRIES = 3;
/** The log page read after an event: as much as every page has. */
const EVENT_LOG_BYTES = 512;
const AER_NEVER = Number.POSITIVE_INFINITY;

/** A command that a reset took away, through no fault of its own: it is issued again. */
class TakenByReset extends Error {}

/** An NVMe controller and its namespaces. */
export class NvmeController implements AsyncDisposable {
  readonly device: Device;
  readonly #registers: RegisterInterface;
  readonly #options: Required<NvmeOptions>;
  #identity: ControllerIdentity | undefined;
  #maxTransfer: number;
  #adminMemory: DmaArena | undefined;
  #ioMemory: DmaArena | undefined;
  #bounceMemory: DmaArena | undefined;
  #bounce: BouncePool | undefined;
  #admin: QueuePair | undefined;
  #io: QueuePair[] = [];
  /** Interrupt vectors that the queues share. */
  #vectors = 1;
  #identifyBuffer: DmaBuffer | undefined;
  #state: State = 'starting';
  #failure: Error | undefined;
  #resetting: Promise<void> | undefined;
  #resets = 0;
  #watchdog: NodeJS.Timeout | undefined;
  #namespaces: Namespace[] = [];
  readonly #eventListeners = new Set<(event: NvmeEvent) => void>();
  #closing: Promise<void> | undefined;

  private constructor(device: Device, options: Required<NvmeOptions>) {
    this.device = device;
    this.#options = options;
    this.#maxTransfer = options.maxTransfer;
    this.#registers = new RegisterInterface(device);
  }

  /**
   * Brings a controller up: reset, admin queue, identification, I/O queues, interrupts, asynchronous events.
   *
   * @param device an open device; it stays the caller's, and must be closed after the controller
   * @throws DeviceError: UNSUPPORTED when it is no NVMe controller that this driver can work with, TIMEOUT when it
   * does not become ready, FATAL when it says that it failed, GONE when nothing answers; KernelError.
   */
  static async open(device: Device, options: NvmeOptions = {}): Promise<NvmeController> {
    const controller = new NvmeController(device, completeOptions(options));
    try {
      await controller.#start();
    } catch (error) {
      controller.#fail(error as Error);
      await controller.close().catch(() => undefined);
      throw error;
    }
    return controller;
  }

  /** Its registers, for whoever needs them. */
  get registers(): Region {
    return this.#registers.region;
  }

  get capabilities(): ControllerCapabilities {
    return this.#registers.capabilities;
  }

  /** NVMe version it implements, such as `1.4.0`. */
  get version(): string {
    return this.#registers.version;
  }

  /** What the controller says of itself. */
  get identity(): ControllerIdentity {
    return this.#identity!;
  }

  /** Its active namespaces. */
  get namespaces(): readonly Namespace[] {
    return this.#namespaces;
  }

  /** The namespace with this id. @throws RangeError when there is none */
  namespace(id: number): Namespace {
    const found = this.#namespaces.find(entry => entry.id === id);
    if (found) return found;
    const ids = this.#namespaces.map(entry => entry.id).join(', ');
    throw new RangeError(`${this.device.name} has no namespace ${id}; it has ${ids || 'none'}`);
  }

  /** Largest transfer of one command, in bytes. Longer ones are split. */
  get maxTransfer(): number {
    return this.#maxTransfer;
  }

  /** Commands that can be in flight at a time, over all I/O queues. */
  get queueDepth(): number {
    return this.#io.reduce((sum, queue) => sum + queue.entries - 1, 0);
  }

  /** How often it was reset since it was opened. */
  get resets(): number {
    return this.#resets;
  }

  // Bring-up

  async #start(): Promise<void> {
    await this.#registers.disable();
    this.#enableInterrupts();
    const size = QueuePair.memorySize(ADMIN_ENTRIES, IDENTIFY_BYTES) + IDENTIFY_BYTES;
    this.#adminMemory = DmaArena.create(this.device.space, size, { name: 'nvme-admin' });
    this.#admin = new QueuePair({
      id: 0,
      entries: Math.min(ADMIN_ENTRIES, this.capabilities.maxQueueEntries),
      vector: 0,
      maxTransfer: IDENTIFY_BYTES,
      doorbellStride: this.capabilities.doorbellStride,
      registers: this.registers,
      memory: this.#adminMemory,
    });
    this.#identifyBuffer = this.#adminMemory.allocate(IDENTIFY_BYTES, { alignment: DEVICE_PAGE });
    await this.#enable();
    const identity = decodeController(
      await this.#identify(IdentifyTarget.Controller, 0),
      this.capabilities.minPageSize,
    );
    this.#identity = identity;
    this.#maxTransfer = Math.min(
      this.#options.maxTransfer,
      identity.maxTransfer ?? this.#options.maxTransfer,
    );
    await this.#makeIoQueues();
    this.#state = 'live';
    await this.#findNamespaces();
    this.#requestEvents();
  }

  #enableInterrupts(): void {
    const { interrupts } = this.device;
    const offers = INTERRUPT_KINDS.map(kind => ({ kind, count: interrupts.info(kind).count }));
    const best = offers.find(({ count }) => count > 0);
    if (best === undefined) {
      throw new DeviceError(DeviceErrorCode.Unsupported, this.device.name, 'has no interrupts');
    }
    this.#vectors = best.kind === InterruptKind.Intx ? 1 : Math.min(best.count, this.#options.ioQueues + 1);
    for (const vector of interrupts.enable(best.kind, this.#vectors)) {
      vector.listen(() => {
        for (const queue of this.#queues()) {
          if (queue.vector === vector.index) this.#drain(queue);
        }
      });
    }
  }

  *#queues(): Generator<QueuePair> {
    if (this.#admin) yield this.#admin;
    yield* this.#io;
  }

  /** From disabled to ready, with the admin queue. */
  #enable(): Promise<void> {
    const { entries, submissionBuffer, completionBuffer } = this.#admin!;
    return this.#registers.enable(
      entries,
      submissionBuffer.deviceAddress(),
      completionBuffer.deviceAddress(),
    );
  }

  async #makeIoQueues(): Promise<void> {
    const wanted = this.#options.ioQueues;
    const granted = await this.#setFeature(FeatureId.NumberOfQueues, ((wanted - 1) << 16) | (wanted - 1));
    const count = Math.min(wanted, (granted & 0xffff) + 1, (granted >>> 16) + 1);
    const entries = Math.min(this.#options.queueEntries, this.capabilities.maxQueueEntries);
    const size = count * QueuePair.memorySize(entries, this.#maxTransfer);
    this.#ioMemory = DmaArena.create(this.device.space, size, { name: 'nvme-io' });
    for (let id = 1; id <= count; id++) {
      this.#io.push(
        new QueuePair({
          id,
          entries,
          vector: id % this.#vectors,
          maxTransfer: this.#maxTransfer,
          doorbellStride: this.capabilities.doorbellStride,
          registers: this.registers,
          memory: this.#ioMemory,
        }),
      );
    }
    for (const queue of this.#io) await this.#createQueue(queue);
  }

  /** Tells the controller of an I/O queue pair. */
  async #createQueue(queue: QueuePair): Promise<void> {
    const cdw10 = ((queue.entries - 1) << 16) | queue.id;
    const contiguous = 1;
    const interruptsEnabled = 2;
    const prp = (buffer: DmaBuffer): Transfer => ({
      memory: buffer.memory,
      offset: buffer.offset,
      length: 1,
    });
    await this.#run(
      this.#admin!,
      {
        opcode: AdminOpcode.CreateIoCompletionQueue,
        cdw10: cdw10 >>> 0,
        cdw11: ((queue.vector << 16) | interruptsEnabled | contiguous) >>> 0,
      },
      prp(queue.completionBuffer),
      {},
    );
    await this.#run(
      this.#admin!,
      {
        opcode: AdminOpcode.CreateIoSubmissionQueue,
        cdw10: cdw10 >>> 0,
        cdw11: ((queue.id << 16) | contiguous) >>> 0,
      },
      prp(queue.submissionBuffer),
      {},
    );
  }

  /** One at a time: the structure is returned in one buffer. */
  #identifying: Promise<unknown> = Promise.resolve();

  #identify(target: number, namespaceId: number): Promise<Uint8Array> {
    return this.#readAdmin({ opcode: AdminOpcode.Identify, namespaceId, cdw10: target }, IDENTIFY_BYTES);
  }

  /** An admin command that returns up to 4096 bytes. */
  #readAdmin(command: Command, length: number): Promise<Uint8Array> {
    const next = this.#identifying.then(async () => {
      const buffer = this.#identifyBuffer!;
      const transfer = { memory: buffer.memory, offset: buffer.offset, length };
      await this.#execute(() => this.#admin!, command, transfer, {});
      return buffer.bytes.slice(0, length);
    });
    this.#identifying = next.catch(() => undefined);
    return next;
  }

  async #findNamespaces(): Promise<void> {
    const ids = decodeNamespaceList(await this.#identify(IdentifyTarget.ActiveNamespaces, 0));
    const namespaces: Namespace[] = [];
    for (const id of ids) {
      const identity = decodeNamespace(await this.#identify(IdentifyTarget.Namespace, id), id);
      namespaces.push(new Namespace(this, identity));
    }
    this.#namespaces = namespaces;
  }

  // Features, log pages, events

  #setFeature(feature: number, value: number): Promise<number> {
    const command = { opcode: AdminOpcode.SetFeatures, cdw10: feature, cdw11: value >>> 0 };
    return this.#run(this.#admin!, command, undefined, {});
  }

  /** Sets a feature. @returns dword 0 of the completion @throws NvmeError */
  async setFeature(feature: number, value: number, options: CommandOptions = {}): Promise<number> {
    checkInteger('feature', feature, 0, 0xff);
    checkInteger('value', value, 0, 0xffff_ffff);
    return this.admin({ opcode: AdminOpcode.SetFeatures, cdw10: feature, cdw11: value }, options);
  }

  /** The value of a feature. @throws NvmeError */
  async getFeature(feature: number, options: CommandOptions = {}): Promise<number> {
    checkInteger('feature', feature, 0, 0xff);
    return this.admin({ opcode: AdminOpcode.GetFeatures, cdw10: feature }, options);
  }

  /** The first `length` bytes, up to 4096 and a multiple of 4, of a log page. @throws NvmeError */
  async getLogPage(page: number, length: number): Promise<Uint8Array> {
    checkInteger('page', page, 0, 0xff);
    checkInteger('length', length, 4, IDENTIFY_BYTES);
    checkAligned('length', length, 4);
    this.#requireOpen();
    const command = {
      opcode: AdminOpcode.GetLogPage,
      namespaceId: 0xffff_ffff,
      cdw10: (((length / 4 - 1) << 16) | page) >>> 0,
    };
    return this.#readAdmin(command, length);
  }

  /** Calls `listener` for what the controller reports by itself. @returns disposing it ends the calls */
  onEvent(listener: (event: NvmeEvent) => void): Disposable {
    checkFunction('listener', listener);
    this.#eventListeners.add(listener);
    return { [Symbol.dispose]: () => void this.#eventListeners.delete(listener) };
  }

  #requestEvents(): void {
    const count = Math.min(MAX_ASYNC_EVENTS, this.identity.asyncEventLimit);
    for (let i = 0; i < count; i++) this.#requestEvent();
  }

  #requestEvent(): void {
    const admin = this.#admin!;
    const slot = admin.tryAcquire();
    if (slot < 0) return;
    admin.submit({
      queue: admin,
      slot,
      command: { opcode: AdminOpcode.AsynchronousEventRequest },
      deadline: AER_NEVER,
      aborting: undefined,
      complete: (status, result) => {
        // An error (the limit was less than announced, say) would only repeat itself.
        if (status === 0 && this.#state === 'live') void this.#reportEvent(result);
      },
      cancel: () => undefined,
    });
  }

  async #reportEvent(result: number): Promise<void> {
    const event = decodeEvent(result);
    const log = await this.getLogPage(event.logPage, EVENT_LOG_BYTES).catch(() => undefined);
    if (this.#state === 'live') this.#requestEvent();
    for (const listener of this.#eventListeners) listener({ ...event, log });
  }

  // Commands

  #requireOpen(): void {
    if (this.#closing || this.#state === 'closed')
      throw new DisposedError(`NvmeController ${this.device.name}`);
    if (this.#state === 'failed') throw this.#failure!;
  }

  /**
   * Runs an admin command without data.
   *
   * @returns dword 0 of the completion
   * @throws NvmeError with the controller's status; DeviceError (TIMEOUT, GONE, FATAL)
   */
  async admin(command: Command, options: CommandOptions = {}): Promise<number> {
    this.#requireOpen();
    checkCommand(command);
    return this.#execute(() => this.#admin!, command, undefined, options);
  }

  /** Runs an I/O command on the least busy queue. @internal {@link Namespace} calls it. */
  async io(command: Command, transfer: Transfer | undefined, options: CommandOptions): Promise<number> {
    this.#requireOpen();
    return this.#execute(() => this.#leastBusy(), command, transfer, options);
  }

  #leastBusy(): QueuePair {
    let best = this.#io[0]!;
    for (const queue of this.#io) if (queue.outstanding < best.outstanding) best = queue;
    return best;
  }

  /** The pool for data in ordinary memory, made at first use. @internal */
  get bounce(): BouncePool {
    this.#requireOpen();
    if (!this.#bounce) {
      this.#bounceMemory = DmaArena.create(this.device.space, this.#options.bounceSize, {
        name: 'nvme-bounce',
      });
      this.#bounce = new BouncePool(this.#bounceMemory);
    }
    return this.#bounce;
  }

  /** Issues a command, again when a reset got in its way. */
  async #execute(
    queue: () => QueuePair,
    command: Command,
    transfer: Transfer | undefined,
    options: CommandOptions,
  ): Promise<number> {
    if (options.timeout !== undefined) checkInteger('timeout', options.timeout, 1);
    for (let attempt = 0; ; attempt++) {
      if (this.#resetting) await this.#resetting.catch(() => undefined);
      this.#requireUsable();
      options.signal?.throwIfAborted();
      try {
        return await this.#run(queue(), command, transfer, options);
      } catch (error) {
        if (!(error instanceof TakenByReset)) throw error;
        if (attempt === RESET_RETRIES) {
          throw new DeviceError(
            DeviceErrorCode.Fatal,
            this.device.name,
            `the controller had to be reset ${attempt + 1} times while it had command 0x${command.opcode.toString(16)}`,
          );
        }
      }
    }
  }

  #requireUsable(): void {
    if (this.#state === 'closed') throw new DisposedError(`NvmeController ${this.device.name}`);
    if (this.#state === 'failed') throw this.#failure!;
  }

  /** Issues a command once. */
  async #run(
    queue: QueuePair,
    command: Command,
    transfer: Transfer | undefined,
    options: CommandOptions,
  ): Promise<number> {
    const { signal } = options;
    // One signal may well cover hundreds of commands, which is no leak.
    if (signal) setMaxListeners(0, signal);
    const epoch = this.#resets;
    let slot = queue.tryAcquire();
    if (slot < 0) {
      slot = await queue.acquire(signal);
      if (slot < 0 || signal?.aborted || this.#resets !== epoch || this.#state === 'failed') {
        if (slot >= 0) queue.release(slot);
        this.#requireUsable();
        signal?.throwIfAborted();
        throw new TakenByReset();
      }
    }
    const timeout = options.timeout ?? this.#options.commandTimeout;
    return new Promise<number>((resolve, reject) => {
      const onAbort = (): void => this.#abort(pending, signal!.reason);
      const done = (): void => signal?.removeEventListener('abort', onAbort);
      const pending: Pending = {
        queue,
        slot,
        command,
        deadline: performance.now() + timeout,
        aborting: undefined,
        complete: (status, result) => {
          done();
          if (status === 0) resolve(result);
          else reject(pending.aborting ?? new NvmeError(status, command, this.device.name, queue.id));
        },
        cancel: error => {
          done();
          reject(error);
        },
      };
      try {
        queue.submit(pending, transfer);
      } catch (error) {
        queue.release(slot);
        throw error;
      }
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#watch();
    });
  }

  /** Asks the controller to abort a command; the watchdog resets the controller when that does not end it. */
  #abort(pending: Pending, reason: unknown): void {
    if (pending.aborting !== undefined || !pending.queue.holds(pending)) return;
    pending.aborting = reason;
    pending.deadline = performance.now() + this.#options.abortTimeout;
    const slot = this.#admin!.tryAcquire();
    // Without a slot the deadline alone decides.
    if (slot < 0 || pending.queue.id === 0) {
      if (slot >= 0) this.#admin!.release(slot);
      return;
    }
    this.#admin!.submit({
      queue: this.#admin!,
      slot,
      command: { opcode: AdminOpcode.Abort, cdw10: ((pending.slot << 16) | pending.queue.id) >>> 0 },
      deadline: AER_NEVER,
      aborting: undefined,
      complete: () => undefined,
      cancel: () => undefined,
    });
  }

  #drain(queue: QueuePair): void {
    if (this.#state === 'closed' || this.#state === 'failed' || this.#state === 'resetting') return;
    if (queue.drain()) return;
    this.#recover(
      new DeviceError(DeviceErrorCode.Fatal, this.device.name, 'completed a command that it did not have'),
    );
  }

  // Watchdog and reset

  /** Runs while commands are out. */
  #watch(): void {
    this.#watchdog ??= setInterval(() => this.#inspect(), WATCHDOG_MS);
  }

  #stopWatching(): void {
    clearInterval(this.#watchdog);
    this.#watchdog = undefined;
  }

  #inspect(): void {
    if (this.#state === 'resetting') return;
    let late: Pending | undefined;
    let waiting = false;
    try {
      const problem = this.#state === 'live' ? this.#registers.problem() : undefined;
      if (problem) {
        this.#recover(problem);
        return;
      }
      // Looking by itself finds completions whose interrupt was lost.
      for (const queue of this.#queues()) this.#drain(queue);
    } catch (error) {
      this.#fail(error as Error);
      return;
    }
    const now = performance.now();
    for (const queue of this.#queues()) {
      for (const pending of queue.inFlight()) {
        if (pending.deadline === AER_NEVER) continue;
        waiting = true;
        if (pending.deadline > now) continue;
        if (pending.aborting !== undefined || pending.queue.id === 0) late = pending;
        else this.#abort(pending, this.#timeoutError(pending));
      }
    }
    if (late) {
      late.aborting ??= this.#timeoutError(late);
      this.#recover(late.aborting as Error);
    }
    if (!waiting) this.#stopWatching();
  }

  #timeoutError(pending: Pending): DeviceError {
    const queue = pending.queue.id === 0 ? 'admin' : `I/O queue ${pending.queue.id}`;
    return new DeviceError(
      DeviceErrorCode.Timeout,
      this.device.name,
      `command 0x${pending.command.opcode.toString(16)} on ${queue} was not completed in time`,
      'It was aborted; see NvmeOptions.commandTimeout',
    );
  }

  /** Resets a controller that has come to grief, or gives it up. */
  #recover(cause: Error): void {
    if (this.#state === 'starting') {
      this.#fail(cause);
      return;
    }
    if (this.#state !== 'live') return;
    void this.reset().catch(() => undefined);
  }

  /**
   * Disables the controller and brings it up again. Commands in flight are issued again, unless they are what it
   * was reset for.
   *
   * @throws DeviceError when it does not come back; it is then of no further use
   */
  async reset(): Promise<void> {
    this.#requireOpen();
    this.#resetting ??= this.#restart().finally(() => {
      this.#resetting = undefined;
    });
    return this.#resetting;
  }

  async #restart(): Promise<void> {
    this.#state = 'resetting';
    this.#resets++;
    try {
      await this.#registers.disable();
      for (const queue of this.#queues()) {
        // What it completed before it was disabled counts as completed.
        queue.drain(false);
        queue.cancelAll(pending => pending.aborting ?? new TakenByReset());
        queue.rewind();
      }
      this.#state = 'starting';
      await this.#enable();
      const count = this.#io.length;
      await this.#setFeature(FeatureId.NumberOfQueues, ((count - 1) << 16) | (count - 1));
      for (const queue of this.#io) await this.#createQueue(queue);
      this.#state = 'live';
      this.#requestEvents();
    } catch (error) {
      this.#fail(error as Error);
      throw error;
    }
  }

  #cancelAll(errorFor: (pending: Pending) => unknown): void {
    for (const queue of this.#queues()) queue.cancelAll(errorFor);
  }

  /** The controller is of no further use. Nothing may be in its hands when commands are told. */
  #fail(error: Error): void {
    if (this.#state === 'failed' || this.#state === 'closed') return;
    this.#state = 'failed';
    this.#failure = error;
    this.#stopWatching();
    this.#registers.stopDma();
    this.#cancelAll(pending => pending.aborting ?? error);
    for (const queue of this.#queues()) queue.dismissAll();
  }

  // Shutdown

  /**
   * Shuts the controller down in order: waits for commands in flight, deletes the I/O queues, notifies the controller
   * and waits until its data is safe. New commands are refused from now on. Idempotent.
   *
   * @throws DeviceError (TIMEOUT) when the shutdown did not finish; everything is released nevertheless
   */
  close(): Promise<void> {
    this.#closing ??= this.#shutdown();
    return this.#closing;
  }

  async #shutdown(): Promise<void> {
    let problem: unknown;
    try {
      if (this.#resetting) await this.#resetting.catch(() => undefined);
      if (this.#state === 'live') {
        await this.#settle();
        await this.#deleteQueues();
        await this.#registers.shutDown();
      }
    } catch (error) {
      problem = error;
    }
    this.#stopWatching();
    this.#registers.stopDma();
    this.#state = 'closed';
    this.#cancelAll(() => new DisposedError(`NvmeController ${this.device.name}`));
    for (const queue of this.#queues()) queue.dismissAll();
    const { interrupts } = this.device;
    for (const kind of INTERRUPT_KINDS) interrupts.disable(kind);
    this.#adminMemory?.[Symbol.dispose]();
    this.#ioMemory?.[Symbol.dispose]();
    this.#bounceMemory?.[Symbol.dispose]();
    if (problem !== undefined) throw problem;
  }

  /** Waits for I/O in flight; deadlines bound it. */
  async #settle(): Promise<void> {
    while (this.#state === 'live' && this.#io.some(queue => queue.outstanding > 0)) await sleep(POLL_MS);
  }

  async #deleteQueues(): Promise<void> {
    for (const queue of this.#io) {
      await this.#run(
        this.#admin!,
        { opcode: AdminOpcode.DeleteIoSubmissionQueue, cdw10: queue.id },
        undefined,
        {},
      );
      await this.#run(
        this.#admin!,
        { opcode: AdminOpcode.DeleteIoCompletionQueue, cdw10: queue.id },
        undefined,
        {},
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
