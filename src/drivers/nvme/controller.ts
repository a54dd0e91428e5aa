/**
 * An NVMe controller: bring-up, identification, features, events, shutdown; and going on where a predecessor ended.
 *
 * @module
 */
import { checkAligned, checkFunction, checkInteger } from '../../check.js';
import { DeviceError, DeviceErrorCode, undo } from '../../errors.js';
import { Ioas } from '../../iommufd/ioas.js';
import type { DriverRecord } from '../../keepalive/keepable-driver.js';
import { StateError, StateErrorCode } from '../../keepalive/state/state-error.js';
import { DEVICE_PAGE } from '../../memory/device-pages.js';
import type { DmaBuffer } from '../../memory/dma-buffer.js';
import { DmaArena } from '../../memory/dma-memory.js';
import type { Device } from '../../vfio/device.js';
import { InterruptKind } from '../../vfio/interrupts.js';
import type { Region } from '../../vfio/region.js';
import { BouncePool } from './bounce-pool.js';
import { AdminOpcode, type Command, checkCommand, FeatureId, IdentifyTarget } from './command.js';
import { CommandEngine } from './command-engine.js';
import { EventRequests } from './event-requests.js';
import type { NvmeEvent } from './events.js';
import {
  type ControllerIdentity,
  decodeController,
  decodeNamespace,
  decodeNamespaceList,
  IDENTIFY_BYTES,
} from './identify.js';
import { Inheritance } from './inheritance.js';
import type { InheritedCommand } from './inherited.js';
import type { Transfer } from './journal.js';
import { Namespace } from './namespace.js';
import {
  type CommandOptions,
  completeOptions,
  type NvmeOptions,
  type NvmeRestoreOptions,
} from './options.js';
import { QueuePair } from './queue-pair.js';
import { encodeRecord, type NvmeRecord, type QueueRecord, transferOf } from './record.js';
import type { ControllerCapabilities } from './registers.js';
import { hasInFlight, planRestore, type RestorePlan } from './restore-plan.js';

/** Best first. */
const INTERRUPT_KINDS = [InterruptKind.Msix, InterruptKind.Msi, InterruptKind.Intx] as const;
const ADMIN_ENTRIES = 32;
/** The log page read after an event: as much as every page has. */
const EVENT_LOG_BYTES = 512;

/** How a controller came to be driven. */
export const NvmeOutcome = {
  /** Brought up from nothing. */
  Started: 'started',
  /** It never stopped: the predecessor's queues, no admin command, no reset. */
  KeptRunning: 'kept-running',
  /** Reset, and brought up again on the predecessor's memory. */
  Reinitialised: 're-initialised',
} as const;
export type NvmeOutcome = (typeof NvmeOutcome)[keyof typeof NvmeOutcome];

/** An NVMe controller and its namespaces. */
export class NvmeController extends CommandEngine implements AsyncDisposable {
  readonly #options: Required<NvmeOptions>;
  #identity: ControllerIdentity | undefined;
  #maxTransfer: number;
  #adminMemory: DmaArena | undefined;
  #ioMemory: DmaArena | undefined;
  #bounceMemory: DmaArena | undefined;
  #bounce: BouncePool | undefined;
  /** Interrupt vectors that the queues share. */
  #vectors = 1;
  #interruptKind: InterruptKind = InterruptKind.Msix;
  #identifyBuffer: DmaBuffer | undefined;
  #namespaces: Namespace[] = [];
  /** Identify data as it was returned, of the controller and of namespaces by id. */
  #identityData: Uint8Array | undefined;
  readonly #namespaceData = new Map<number, Uint8Array>();
  readonly #events: EventRequests;
  #outcome: NvmeOutcome = NvmeOutcome.Started;
  #stoppedBecause: string | undefined;
  #inherited: readonly InheritedCommand[] = [];
  /** What keeps the memory of inherited commands that ended from being used for others. */
  #endedHolds: Disposable[] = [];
  #relinquished = false;

  private constructor(device: Device, options: Required<NvmeOptions>) {
    super(device, options);
    this.#options = options;
    this.#maxTransfer = options.maxTransfer;
    this.#events = this.#makeEvents();
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
      controller.fail(error as Error);
      await controller.close().catch(() => undefined);
      throw error;
    }
    return controller;
  }

  /**
   * Checks what {@link restore} would check before it touches the device: for the moment of a hand-off in which the
   * predecessor can still go on (`TakeOverOptions.verify`). Touches nothing.
   *
   * @throws as {@link restore} for a record or a journal that cannot be
   */
  static verify(
    device: Device,
    record: DriverRecord | undefined,
    options: Pick<NvmeRestoreOptions, 'memory'>,
  ): void {
    checkFunction('memory', options.memory);
    planRestore(device, record, options.memory);
  }

  /**
   * Goes on where a predecessor ended, in another process or under another kernel, which recorded itself with
   * {@link record}. Where the controller still runs as it was set up, it goes on as it is: no admin command, no reset, and
   * what was in flight completes here. Otherwise it is reset and brought up again on the same memory, and what was in
   * flight is issued again, as far as that can be done safely.
   *
   * New commands wait until all {@link inherited} ones have ended.
   *
   * @param device the device, with its memory mapped and attached, and its interrupt vectors if they are enabled still; it
   * stays the caller's, and must be closed after the controller
   * @param record what `KeepAlive.record` has of it
   * @throws StateError for a record or a journal that cannot be; DeviceError: GONE when nothing answers, FATAL when it does
   * not run and must not be initialised again, BUSY when other interrupts are enabled, and as {@link open}; KernelError.
   * Nothing was taken over then, and the journals are as they were. The device was not touched, or its DMA is off.
   */
  static async restore(
    device: Device,
    record: DriverRecord | undefined,
    options: NvmeRestoreOptions,
  ): Promise<NvmeController> {
    checkFunction('memory', options.memory);
    const plan = planRestore(device, record, options.memory);
    checkInterrupts(device, plan.record);
    const { maxTransfer, bounceSize, commandTimeout, abortTimeout } = plan.record;
    const controller = new NvmeController(device, {
      ioQueues: plan.record.queues.length - 1,
      queueEntries: (plan.record.queues[1] as QueueRecord).entries,
      maxTransfer,
      bounceSize,
      commandTimeout,
      abortTimeout,
    });
    if (controller.registerInterface.rawCapabilities !== plan.record.capabilities) {
      throw new StateError(
        StateErrorCode.Invalid,
        { path: plan.path, property: 'capabilities' },
        `the controller of ${device.name} has others: it is another, or has other firmware`,
      );
    }
    const stopped = controller.#whyStopped(plan);
    if (stopped !== undefined && options.allowReinitialise === false) {
      throw new DeviceError(
        DeviceErrorCode.Fatal,
        device.name,
        `the controller cannot go on as it is: ${stopped}`,
        'Allow it to be initialised again (allowReinitialise), or start cold: NvmeController.open',
      );
    }
    const adopted = device.interrupts.vectors(plan.record.interruptKind).length > 0;
    controller.#stoppedBecause = stopped;
    const inheritance = controller.#takeOver(plan, stopped === undefined);
    try {
      if (stopped === undefined) controller.#goOn(inheritance);
      else {
        controller.#outcome = NvmeOutcome.Reinitialised;
        await controller.restart(plan.inUse);
      }
    } catch (error) {
      controller.#giveBack(error as Error, adopted);
      throw error;
    }
    controller.catchUp();
    controller.tellLater();
    return controller;
  }

  /** How it came to be driven. */
  get outcome(): NvmeOutcome {
    return this.#outcome;
  }

  /** Why it had to be initialised again; undefined unless that is its {@link outcome}. */
  get stoppedBecause(): string | undefined {
    return this.#stoppedBecause;
  }

  /**
   * The commands of a predecessor's application that it may not have been told the end of, oldest first in each queue. A
   * command that it issued and that is not among them never reached the controller, or was told to it.
   */
  get inherited(): readonly InheritedCommand[] {
    return this.#inherited;
  }

  /** Its registers, for whoever needs them. */
  get registers(): Region {
    return this.registerInterface.region;
  }

  get capabilities(): ControllerCapabilities {
    return this.registerInterface.capabilities;
  }

  /** NVMe version it implements, such as `1.4.0`. */
  get version(): string {
    return this.registerInterface.version;
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
    return this.ioQueues.reduce((sum, queue) => sum + queue.entries - 1, 0);
  }

  // Bring-up

  async #start(): Promise<void> {
    await this.registerInterface.disable();
    this.#enableInterrupts();
    const size = QueuePair.memorySize(ADMIN_ENTRIES, IDENTIFY_BYTES) + IDENTIFY_BYTES;
    this.#adminMemory = DmaArena.create(this.device.space, size, { name: 'nvme-admin' });
    this.adminQueue = new QueuePair({
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
    this.#identityData = await this.#identify(IdentifyTarget.Controller, 0);
    const identity = decodeController(this.#identityData, this.capabilities.minPageSize);
    this.#identity = identity;
    this.#maxTransfer = Math.min(
      this.#options.maxTransfer,
      identity.maxTransfer ?? this.#options.maxTransfer,
    );
    await this.#makeIoQueues();
    this.setLive();
    await this.#findNamespaces();
    this.#events.request();
  }

  #enableInterrupts(): void {
    const { interrupts } = this.device;
    const offers = INTERRUPT_KINDS.map(kind => ({ kind, count: interrupts.info(kind).count }));
    const best = offers.find(({ count }) => count > 0);
    if (best === undefined) {
      throw new DeviceError(DeviceErrorCode.Unsupported, this.device.name, 'has no interrupts');
    }
    this.#vectors = best.kind === InterruptKind.Intx ? 1 : Math.min(best.count, this.#options.ioQueues + 1);
    this.#interruptKind = best.kind;
    this.listen(interrupts.enable(best.kind, this.#vectors));
  }

  /** From disabled to ready, with the admin queue. */
  #enable(): Promise<void> {
    const { entries, submissionBuffer, completionBuffer } = this.adminQueue!;
    return this.registerInterface.enable(
      entries,
      submissionBuffer.deviceAddress(),
      completionBuffer.deviceAddress(),
    );
  }

  async #makeIoQueues(): Promise<void> {
    const count = await this.#requestQueues(this.#options.ioQueues);
    const entries = Math.min(this.#options.queueEntries, this.capabilities.maxQueueEntries);
    const size = count * QueuePair.memorySize(entries, this.#maxTransfer);
    this.#ioMemory = DmaArena.create(this.device.space, size, { name: 'nvme-io' });
    for (let id = 1; id <= count; id++) {
      this.ioQueues.push(
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
    for (const queue of this.ioQueues) await this.#createQueue(queue);
  }

  /** @returns how many of the `wanted` I/O queues the controller grants */
  async #requestQueues(wanted: number): Promise<number> {
    const granted = await this.configure({
      opcode: AdminOpcode.SetFeatures,
      cdw10: FeatureId.NumberOfQueues,
      cdw11: (((wanted - 1) << 16) | (wanted - 1)) >>> 0,
    });
    return Math.min(wanted, (granted & 0xffff) + 1, (granted >>> 16) + 1);
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
    await this.configure(
      {
        opcode: AdminOpcode.CreateIoCompletionQueue,
        cdw10: cdw10 >>> 0,
        cdw11: ((queue.vector << 16) | interruptsEnabled | contiguous) >>> 0,
      },
      prp(queue.completionBuffer),
    );
    await this.configure(
      {
        opcode: AdminOpcode.CreateIoSubmissionQueue,
        cdw10: cdw10 >>> 0,
        cdw11: ((queue.id << 16) | contiguous) >>> 0,
      },
      prp(queue.submissionBuffer),
    );
  }

  protected override async bringUp(): Promise<void> {
    await this.#enable();
    await this.#requestQueues(this.ioQueues.length);
    for (const queue of this.ioQueues) await this.#createQueue(queue);
  }

  protected override ready(): void {
    this.#events.request();
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
      const request = this.request(command, transfer, {}, { internal: true });
      await this.execute(() => this.adminQueue!, request);
      return buffer.bytes.slice(0, length);
    });
    this.#identifying = next.catch(() => undefined);
    return next;
  }

  async #findNamespaces(): Promise<void> {
    const ids = decodeNamespaceList(await this.#identify(IdentifyTarget.ActiveNamespaces, 0));
    const namespaces: Namespace[] = [];
    for (const id of ids) {
      const data = await this.#identify(IdentifyTarget.Namespace, id);
      this.#namespaceData.set(id, data);
      namespaces.push(new Namespace(this, decodeNamespace(data, id)));
    }
    this.#namespaces = namespaces;
  }

  // Commands

  /**
   * Runs an admin command without data.
   *
   * @returns dword 0 of the completion
   * @throws NvmeError with the controller's status; DeviceError (TIMEOUT, GONE, FATAL)
   */
  async admin(command: Command, options: CommandOptions = {}): Promise<number> {
    this.requireOpen();
    checkCommand(command);
    return this.execute(() => this.adminQueue!, this.request(command, undefined, options));
  }

  /** Runs an I/O command on the least busy queue. @internal {@link Namespace} calls it. */
  async io(command: Command, transfer: Transfer | undefined, options: CommandOptions): Promise<number> {
    this.requireOpen();
    return this.execute(() => this.#leastBusy(), this.request(command, transfer, options));
  }

  #leastBusy(): QueuePair {
    let best = this.ioQueues[0]!;
    for (const queue of this.ioQueues) if (queue.outstanding < best.outstanding) best = queue;
    return best;
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
    this.requireOpen();
    const command = {
      opcode: AdminOpcode.GetLogPage,
      namespaceId: 0xffff_ffff,
      cdw10: (((length / 4 - 1) << 16) | page) >>> 0,
    };
    return this.#readAdmin(command, length);
  }

  /** Calls `listener` for what the controller reports by itself. @returns disposing it ends the calls */
  onEvent(listener: (event: NvmeEvent) => void): Disposable {
    return this.#events.listen(listener);
  }

  #makeEvents(): EventRequests {
    const controller = this;
    return new EventRequests({
      get admin() {
        return controller.adminQueue!;
      },
      get limit() {
        return controller.identity.asyncEventLimit;
      },
      get isLive() {
        return controller.isLive;
      },
      get isRelinquished() {
        return controller.#relinquished;
      },
      readLog: page => this.getLogPage(page, EVENT_LOG_BYTES).catch(() => undefined),
      noteTold: slot => this.noteTold(this.adminQueue!, slot),
      unlessFrozen: action => this.unlessFrozen(action),
    });
  }

  // Memory for data in ordinary memory

  /** Largest buffer that {@link acquireBounce} can ever give, in bytes. @internal */
  get bounceCapacity(): number {
    return this.#bounce?.capacity ?? this.#options.bounceSize;
  }

  /** A buffer for data in ordinary memory, as soon as there is room. @internal */
  async acquireBounce(size: number, signal: AbortSignal | undefined): Promise<DmaBuffer> {
    for (;;) {
      await this.permission(signal);
      const pool = this.#bouncePool();
      const buffer = await pool.acquire(size);
      // While it is frozen the memory is not touched either.
      if (!this.gate.isShut) return buffer;
      pool.release(buffer);
    }
  }

  /** @internal */
  releaseBounce(buffer: DmaBuffer): void {
    this.#bounce?.release(buffer);
  }

  /** The pool, made at first use. */
  #bouncePool(): BouncePool {
    if (!this.#bounce) {
      const { space } = this.device;
      this.#bounceMemory = DmaArena.create(space, this.#options.bounceSize, { name: 'nvme-bounce' });
      this.#bounce = new BouncePool(this.#bounceMemory);
      // The record has it from now on.
      if (space instanceof Ioas) space.iommufd.noteChange();
    }
    return this.#bounce;
  }

  // Shutdown

  protected override async shutDown(): Promise<void> {
    for (const { id } of this.ioQueues) {
      await this.configure({ opcode: AdminOpcode.DeleteIoSubmissionQueue, cdw10: id });
      await this.configure({ opcode: AdminOpcode.DeleteIoCompletionQueue, cdw10: id });
    }
    await this.registerInterface.shutDown();
  }

  protected override dispose(): void {
    const { interrupts } = this.device;
    for (const kind of INTERRUPT_KINDS) interrupts.disable(kind);
    this.#adminMemory?.[Symbol.dispose]();
    this.#ioMemory?.[Symbol.dispose]();
    this.#bounceMemory?.[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  // Keepalive

  /**
   * What a successor needs to go on with {@link restore}, besides the memory.
   *
   * @throws DeviceError (BUSY) while it is reset, and whatever it failed with; DisposedError
   */
  record(): DriverRecord {
    this.requireOpen();
    if (!this.isLive) throw this.busy('is being reset');
    const queues = [...this.queues()];
    return encodeRecord({
      capabilities: this.registerInterface.rawCapabilities,
      adminArena: this.#adminMemory!.token,
      ioArena: this.#ioMemory!.token,
      bounceArena: this.#bounceMemory?.token,
      identifyBuffer: this.#identifyBuffer!.offset,
      maxTransfer: this.#maxTransfer,
      bounceSize: this.#options.bounceSize,
      commandTimeout: this.#options.commandTimeout,
      abortTimeout: this.#options.abortTimeout,
      interruptKind: this.#interruptKind,
      vectors: this.#vectors,
      identity: this.#identityData!,
      queues: queues.map(({ id, entries, vector, layout }) => ({ id, entries, vector, layout })),
      namespaces: this.#namespaceData,
    });
  }

  protected override told(): void {
    if (this.#endedHolds.length === 0) return;
    for (const hold of this.#endedHolds.splice(0)) hold[Symbol.dispose]();
    this.#bounce?.noteRoom();
  }

  protected override ended(error: Error): void {
    this.#relinquished = true;
    this.#bounce?.end(error);
  }

  // Going on where a predecessor ended

  /** Why the controller does not run as it was left; `undefined` when it does. */
  #whyStopped({ record, admin, inUse, left }: RestorePlan): string | undefined {
    if (!inUse) return 'its predecessor had stopped it';
    // Over a kexec what was in flight went on without the memory: it is not known what of it was done.
    if (!this.device.config.busMaster && hasInFlight(left)) {
      return 'commands were in flight when it was cut off from memory';
    }
    const { entries, layout } = record.queues[0] as QueueRecord;
    return this.registerInterface.whyStopped(
      entries,
      admin.deviceAddress(layout.submission),
      admin.deviceAddress(layout.completion),
    );
  }

  /**
   * Makes everything a predecessor had this one's. Of the device it touches interrupts and bus mastering.
   *
   * @param running the controller goes on as it is
   */
  #takeOver(plan: RestorePlan, running: boolean): Inheritance {
    const { record } = plan;
    const { interrupts, config } = this.device;
    const adopted = interrupts.vectors(record.interruptKind);
    const made: QueuePair[] = [];
    try {
      for (const queue of record.queues) {
        made.push(
          new QueuePair({
            id: queue.id,
            entries: queue.entries,
            vector: queue.vector,
            maxTransfer: transferOf(record, queue),
            doorbellStride: this.capabilities.doorbellStride,
            registers: this.registers,
            memory: queue.id === 0 ? plan.admin : plan.io,
            layout: queue.layout,
          }),
        );
      }
      this.#identifyBuffer = plan.admin.allocateAt(record.identifyBuffer, IDENTIFY_BYTES);
      this.listen(adopted.length > 0 ? adopted : interrupts.enable(record.interruptKind, record.vectors));
      // A kernel that opens the device switches it off, after a live update.
      if (running && !config.busMaster) config.busMaster = true;
    } catch (error) {
      undo(error, [
        () => this.stopListening(),
        () => {
          if (adopted.length === 0) interrupts.disable(record.interruptKind);
        },
        () => this.#identifyBuffer?.[Symbol.dispose](),
        ...made.map(queue => () => queue.dispose()),
      ]);
    }
    [this.adminQueue, ...this.ioQueues] = made as [QueuePair, ...QueuePair[]];
    this.#adminMemory = plan.admin;
    this.#ioMemory = plan.io;
    this.#interruptKind = record.interruptKind;
    this.#vectors = record.vectors;
    this.#identityData = record.identity;
    this.#identity = record.controller;
    for (const [id, data] of record.namespaces) this.#namespaceData.set(id, data);
    this.#namespaces = record.decodedNamespaces.map(identity => new Namespace(this, identity));
    const inheritance = this.#inherit(plan);
    if (plan.bounce) {
      plan.bounce.releaseUnclaimed();
      this.#bounceMemory = plan.bounce;
      this.#bounce = new BouncePool(plan.bounce);
    }
    return inheritance;
  }

  #inherit({ left }: RestorePlan): Inheritance {
    const inheritance = new Inheritance({
      events: this.#events,
      commandTimeout: this.#options.commandTimeout,
      pendingFor: (...args) => this.pendingFor(...args),
      later: action => this.later(action),
      release: hold => this.#endedHolds.push(hold),
      allEnded: () => this.gate.open('inherited'),
    });
    for (const queue of this.queues()) inheritance.take(queue, left.get(queue.id) ?? []);
    this.#inherited = inheritance.commands;
    if (inheritance.left > 0) this.gate.shut('inherited');
    return inheritance;
  }

  /** Goes on with a controller that never stopped. */
  #goOn({ unsubmitted }: Inheritance): void {
    this.#outcome = NvmeOutcome.KeptRunning;
    this.setLive();
    for (const queue of this.queues()) queue.ringAgain();
    for (const pending of unsubmitted) pending.queue.submitAdopted(pending);
    // What came while nobody listened.
    for (const queue of this.queues()) this.drain(queue);
    this.#events.request();
    this.watch();
  }

  /** The restoration failed: all is the caller's again, and the journals are as they were. */
  #giveBack(error: Error, adopted: boolean): void {
    this.registerInterface.stopDma();
    this.end(error);
    for (const queue of this.queues()) queue.dispose();
    this.#identifyBuffer?.[Symbol.dispose]();
    if (!adopted) this.device.interrupts.disable(this.#interruptKind);
  }
}

/** Interrupts that are enabled must be those that the driver had. */
function checkInterrupts(device: Device, { interruptKind, vectors }: NvmeRecord): void {
  for (const kind of INTERRUPT_KINDS) {
    const { length } = device.interrupts.vectors(kind);
    if (length === 0 || (kind === interruptKind && length === vectors)) continue;
    throw new DeviceError(
      DeviceErrorCode.Busy,
      device.name,
      'has other interrupts enabled than those the driver had',
      'Disable them first (Interrupts.disable)',
    );
  }
}
