/**
 * The inside of a simulated NVMe controller: its queues, what becomes of commands, interrupts. It behaves as QEMU's
 * does, so that a driver sees the same on both.
 *
 * A doorbell only marks a queue. Commands are fetched in the event loop, all that there are; those for namespaces are
 * executed after that, and completions are written last. What was executed is complete whatever the driver does then.
 *
 * @module
 */
import type { FunctionPort } from '../pci-function.js';
import { executeAdmin } from './admin.js';
import { DataPointer, type DmaAccess, PointerError } from './data-pointer.js';
import { Doorbells } from './doorbells.js';
import { Events } from './events.js';
import { Features } from './features.js';
import { CqInterrupts } from './interrupts.js';
import { executeIo, isLimited } from './io.js';
import type { Lie } from './lies.js';
import type { NvmeNamespaceModel } from './namespace.js';
import type { CompleteNvmeOptions } from './options.js';
import { CommandSets, CQ_ENTRY, Csts, DNR, Register, SQ_ENTRY, Status } from './protocol.js';
import { CompletionQueue, Request, SubmissionQueue } from './request.js';
import { Work } from './work.js';

/** Commands are executed until so many bytes were moved; then others get a turn. */
const BYTES_PER_TURN = 4 * 2 ** 20;
/** Entries are 2^6 and 2^4 bytes. */
const ENTRY_SIZES = 0x46;
const MAX_PAGE_SHIFT = 4;
const ALL_COMMAND_SETS: readonly number[] = Object.values(CommandSets);

/** What a driver did that it need not do again as long as the controller runs. */
export interface NvmeTrace {
  /** Opcodes of admin commands, in the order in which they were fetched. */
  readonly adminCommands: number[];
  /** Writes to registers other than doorbells. */
  readonly registerWrites: { readonly offset: number; readonly value: bigint }[];
}

export class Controller {
  readonly options: CompleteNvmeOptions;
  /** Registers, up to the doorbells. */
  readonly registers = new DataView(new ArrayBuffer(Register.DOORBELLS));
  readonly trace: NvmeTrace = { adminCommands: [], registerWrites: [] };
  readonly dma: DmaAccess;
  readonly events = new Events(this);
  readonly doorbells = new Doorbells(this);
  features = new Features();
  readonly startedAt = performance.now();
  readonly submissionQueues = new Map<number, SubmissionQueue>();
  readonly completionQueues = new Map<number, CompletionQueue>();
  /** A completion queue was created since the controller was enabled. */
  queuesCreated = false;
  /** Memory page size that the driver chose, in bytes. */
  pageSize = 4096;
  readonly interrupts: CqInterrupts;
  readonly #port: () => FunctionPort | undefined;
  readonly #work = new Work();
  #moved = 0;
  #turn: NodeJS.Immediate | undefined;
  readonly #timers = new Set<NodeJS.Timeout>();
  /** It pretends to be broken: nothing happens any more until it is reset. */
  #dead = false;

  constructor(options: CompleteNvmeOptions, port: () => FunctionPort | undefined, dma: DmaAccess) {
    this.options = options;
    this.dma = dma;
    this.#port = port;
    this.interrupts = new CqInterrupts(this, port);
  }

  get namespaces(): readonly NvmeNamespaceModel[] {
    return this.options.namespaces;
  }

  namespace(id: number): NvmeNamespaceModel | undefined {
    return this.options.namespaces.find(namespace => namespace.id === id);
  }

  get configuration(): number {
    return this.registers.getUint32(Register.CC, true);
  }

  set configuration(value: number) {
    this.registers.setUint32(Register.CC, value, true);
  }

  get status(): number {
    return this.registers.getUint32(Register.CSTS, true);
  }

  set status(value: number) {
    this.registers.setUint32(Register.CSTS, value, true);
  }

  /** The driver has enabled messages: completion queues can have vectors of their own. */
  get hasVectors(): boolean {
    return this.#port()?.interruptMode === 'msix';
  }

  /** CC.CSS: which commands are to be had. */
  get commandSets(): number {
    return (this.configuration >>> 4) & 7;
  }

  // Life

  /** CC.EN was set. @returns false when what the driver wrote makes no sense */
  start(): boolean {
    const configuration = this.configuration;
    const asq = this.registers.getBigUint64(Register.ASQ, true);
    const acq = this.registers.getBigUint64(Register.ACQ, true);
    const aqa = this.registers.getUint32(Register.AQA, true);
    const pageShift = (configuration >>> 7) & 0xf;
    const pageSize = 2 ** (12 + pageShift);
    if ((asq | acq) & BigInt(pageSize - 1)) return false;
    if (!ALL_COMMAND_SETS.includes(this.commandSets)) return false;
    if (pageShift > MAX_PAGE_SHIFT || ((configuration >>> 16) & 0xff) !== ENTRY_SIZES) return false;
    const submissions = aqa & 0xfff;
    const completions = (aqa >>> 16) & 0xfff;
    if (submissions === 0 || completions === 0) return false;
    this.pageSize = pageSize;
    const queue = this.addCompletionQueue(0, completions + 1, acq, 0, true);
    this.addSubmissionQueue(0, submissions + 1, asq, queue);
    this.features.setTimestamp(0n);
    return true;
  }

  /** Everything that was going on ends, without a word. */
  stop(): void {
    this.#dead = false;
    this.submissionQueues.clear();
    this.completionQueues.clear();
    this.#work.clear();
    this.events.reset();
    this.queuesCreated = false;
    this.doorbells.reset();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    clearImmediate(this.#turn);
    this.#turn = undefined;
    this.configuration = 0;
    this.status = 0;
    this.registers.setUint32(Register.INTMS, 0, true);
    this.registers.setUint32(Register.INTMC, 0, true);
    this.interrupts.update();
  }

  /** As after power-on, but for what namespaces hold. */
  reset(): void {
    this.stop();
    this.features = new Features();
    for (const register of [Register.AQA, Register.ASQ, Register.ASQ + 4, Register.ACQ, Register.ACQ + 4]) {
      this.registers.setUint32(register, 0, true);
    }
  }

  /** It cannot go on, and says so. */
  #fail(): void {
    this.status = Csts.FATAL;
  }

  // Queues

  addCompletionQueue(
    id: number,
    size: number,
    address: bigint,
    vector: number,
    interrupts: boolean,
  ): CompletionQueue {
    const queue = new CompletionQueue(id, size, address, vector, interrupts);
    this.doorbells.attach(queue);
    this.completionQueues.set(id, queue);
    return queue;
  }

  addSubmissionQueue(id: number, size: number, address: bigint, completions: CompletionQueue): void {
    const queue = new SubmissionQueue(id, size, address, completions);
    this.doorbells.attach(queue);
    this.submissionQueues.set(id, queue);
  }

  removeSubmissionQueue(queue: SubmissionQueue): void {
    const { completions } = queue;
    this.#work.remove(request => request.queue === queue);
    for (const request of queue.inFlight) {
      if (request.waiting) this.complete(request, Status.ABORTED_SQ_DELETION);
    }
    completions.submissionQueues.delete(queue);
    this.#write(completions);
    // For what did not find room there is no place any more.
    const others = completions.completed.filter(request => request.queue !== queue);
    completions.completed.splice(0, completions.completed.length, ...others);
    this.submissionQueues.delete(queue.id);
  }

  removeCompletionQueue(queue: CompletionQueue): void {
    this.completionQueues.delete(queue.id);
    this.interrupts.lower(queue);
  }

  // Work

  /** There is something to do for a queue. */
  mark(queue: SubmissionQueue | CompletionQueue): void {
    queue.due = true;
    this.#wake();
  }

  #wake(): void {
    this.#turn ??= setImmediate(() => this.takeTurn());
  }

  /** Does at once what it would do when the event loop comes to it. */
  takeTurn(): void {
    clearImmediate(this.#turn);
    this.#turn = undefined;
    if (this.#dead) return;
    for (const queue of this.submissionQueues.values()) if (queue.due) this.#fetch(queue);
    this.#moved = 0;
    while (this.#work.pending && this.#moved < BYTES_PER_TURN) this.#execute(this.#work.take() as Request);
    for (const queue of this.completionQueues.values()) if (queue.due) this.#write(queue);
    if (this.#work.pending) this.#wake();
  }

  #fetch(queue: SubmissionQueue): void {
    queue.due = false;
    this.doorbells.followTail(queue);
    while (queue.ready && !this.#dead && this.submissionQueues.get(queue.id) === queue) {
      const entry = new Uint8Array(SQ_ENTRY);
      if (!this.dma.read(queue.address + BigInt(queue.head * SQ_ENTRY), entry)) {
        this.#fail();
        return;
      }
      queue.head = (queue.head + 1) % queue.size;
      const request = new Request(queue, entry);
      queue.inFlight.add(request);
      if (queue.id === 0) this.trace.adminCommands.push(request.opcode);
      request.lie = this.options.lies?.about(request);
      if (request.lie !== undefined && this.#lieInstead(request, request.lie)) continue;
      if (queue.id === 0) this.#finish(request, () => executeAdmin(this, request));
      else this.#work.add(request);
      this.doorbells.followTail(queue);
    }
  }

  #execute(request: Request): void {
    const namespace = this.namespace(request.namespaceId);
    if (namespace !== undefined && isLimited(request)) {
      const wake = (milliseconds: number): void => this.later(milliseconds, () => this.resume(namespace));
      if (this.#work.holdBack(request, namespace, wake)) return;
    }
    request.waiting = false;
    this.#finish(request, () => executeIo(this, request));
  }

  /** Commands that a namespace did not take are tried again. */
  resume(namespace: NvmeNamespaceModel): void {
    this.#work.resume(namespace);
    this.#wake();
  }

  /** Calls `what` later, unless the controller is reset before. */
  later(milliseconds: number, what: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      what();
    }, milliseconds);
    this.#timers.add(timer);
  }

  /** Does what a command asks for, and completes it unless that is for later. */
  #finish(request: Request, execute: () => number | undefined): void {
    let status: number | undefined;
    try {
      status = execute();
    } catch (error) {
      if (!(error instanceof PointerError)) throw error;
      status = error.status;
    }
    if (status !== undefined) this.complete(request, status);
  }

  /** The memory that a command points at. @throws PointerError */
  pointer(request: Request, length: number): DataPointer {
    this.#moved += length;
    return new DataPointer(this.dma, this.pageSize, request, length);
  }

  /** @returns a status when a transfer of `length` bytes is more than a command may ask for; 0 */
  checkLength(length: number): number {
    const { mdts } = this.options;
    return mdts !== 0 && length > this.pageSize * 2 ** mdts ? Status.INVALID_FIELD | DNR : Status.SUCCESS;
  }

  /** Ends a command of queue `id`, if it is not being executed. @returns false when it is not there */
  abort(queue: SubmissionQueue, id: number): boolean {
    for (const request of queue.inFlight) {
      if (request.id !== id || !request.waiting) continue;
      this.#work.remove(other => other === request);
      this.complete(request, Status.ABORT_REQUESTED);
      return true;
    }
    return false;
  }

  // Completions

  complete(request: Request, status: number): void {
    request.waiting = false;
    request.status = status;
    const { lie } = request;
    if (lie?.kind === 'never') return;
    if (lie?.kind === 'late') {
      request.lie = undefined;
      this.later(lie.milliseconds, () => this.complete(request, status));
      return;
    }
    const queue = this.#destination(request);
    queue.completed.push(request);
    if (lie?.kind === 'twice') queue.completed.push(request);
    this.mark(queue);
  }

  /** Writes completions as far as there is room. */
  #write(queue: CompletionQueue): void {
    queue.due = false;
    while (queue.completed.length > 0) {
      this.doorbells.followHead(queue);
      if (queue.full) break;
      const request = queue.completed[0] as Request;
      if (!this.#writeEntry(queue, request)) {
        this.#fail();
        break;
      }
      queue.completed.shift();
      queue.advance();
      const { queue: submissions } = request;
      submissions.inFlight.delete(request);
      if (submissions.ready) this.mark(submissions);
    }
    if (!queue.empty) this.interrupts.raise(queue);
  }

  #writeEntry(queue: CompletionQueue, request: Request): boolean {
    const bytes = new Uint8Array(CQ_ENTRY);
    const view = new DataView(bytes.buffer);
    const { lie } = request;
    view.setUint32(0, request.result, true);
    view.setUint16(8, request.queue.head, true);
    view.setUint16(10, request.queue.id, true);
    view.setUint16(12, lie?.kind === 'wrong-id' ? request.id ^ 0x4000 : request.id, true);
    const phase = lie?.kind === 'wrong-phase' ? queue.phase ^ 1 : queue.phase;
    view.setUint16(14, (request.status << 1) | phase, true);
    return this.dma.write(queue.address + BigInt(queue.tail * CQ_ENTRY), bytes);
  }

  // Lies

  #destination(request: Request): CompletionQueue {
    const right = request.queue.completions;
    if (request.lie?.kind !== 'wrong-queue') return right;
    for (const queue of this.completionQueues.values()) if (queue !== right) return queue;
    return right;
  }

  /** @returns true when the command is not to be executed */
  #lieInstead(request: Request, lie: Lie): boolean {
    switch (lie.kind) {
      case 'status':
        this.complete(request, (lie.sct << 8) | lie.sc | (lie.dnr ? DNR : 0));
        return true;
      case 'fatal':
        this.status |= Csts.FATAL;
        this.#dead = true;
        return true;
      case 'register-all-ones':
        this.silence(lie.milliseconds);
        return true;
      case 'reset-in-flight':
        this.stop();
        return true;
      default:
        return false;
    }
  }

  /** Registers read as all ones, and nothing happens. */
  silent = false;

  /** It no longer answers, for so long, or until the function is reset. */
  silence(milliseconds: number | undefined): void {
    this.silent = true;
    this.#dead = true;
    if (milliseconds === undefined) return;
    this.later(milliseconds, () => {
      this.silent = false;
      this.#dead = false;
      for (const queue of this.submissionQueues.values()) this.mark(queue);
      for (const queue of this.completionQueues.values()) this.mark(queue);
    });
  }
}
