/**
 * Commands in the hands of a controller: issued when that may be done, aborted when they are late, issued again after a
 * reset, left alone while the driver is frozen.
 *
 * A promise for a command settles only when the controller can no longer touch the command's memory: when the
 * command completed, or when the controller was disabled.
 *
 * @module
 */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkInteger, checkU64 } from '../../check.js';
import { DeviceError, DeviceErrorCode, DisposedError } from '../../errors.js';
import type { DriverRecord, KeepableDriver } from '../../keepalive/keepable-driver.js';
import type { Device } from '../../vfio/device.js';
import type { InterruptVector } from '../../vfio/interrupts.js';
import { AdminOpcode, type Command } from './command.js';
import { Gate } from './gate.js';
import type { Transfer } from './journal.js';
import type { CommandOptions } from './options.js';
import type { Pending, QueuePair } from './queue-pair.js';
import { RegisterInterface } from './register-interface.js';
import { NvmeError } from './status.js';

type State = 'starting' | 'live' | 'resetting' | 'failed' | 'closed';

/** Deadlines, lost interrupts and the controller's own status are looked at this often while commands are out, in ms. */
const WATCHDOG_MS = 100;
const POLL_MS = 2;
/** How often a command that fell victim to a reset is issued again. */
const RESET_RETRIES = 3;
/** A time in ms: no deadline. */
export const NEVER = Number.POSITIVE_INFINITY;

/** A command that was not issued after all: the controller was reset, or frozen, before its turn came. */
class NotIssued extends Error {}

/** What a command is to be, besides its slot. */
export interface Request {
  readonly command: Command;
  readonly transfer: Transfer | undefined;
  readonly tag: bigint;
  /** In ms. */
  readonly timeout: number;
  readonly signal: AbortSignal | undefined;
  readonly internal: boolean;
  /** It is issued again after a reset that took it away. */
  readonly reissue: boolean;
}

/** How long things may take, in ms: see `NvmeOptions`. */
export interface Timeouts {
  readonly commandTimeout: number;
  readonly abortTimeout: number;
}

export abstract class CommandEngine implements KeepableDriver {
  readonly device: Device;
  protected readonly registerInterface: RegisterInterface;
  protected readonly gate = new Gate();
  protected adminQueue: QueuePair | undefined;
  protected ioQueues: QueuePair[] = [];
  readonly #timeouts: Timeouts;
  #state: State = 'starting';
  #failure: Error | undefined;
  #resetting: Promise<void> | undefined;
  #resets = 0;
  #watchdog: NodeJS.Timeout | undefined;
  readonly #listening: Disposable[] = [];
  #closing: Promise<void> | undefined;
  /** When it was frozen, as `performance.now()` counts. */
  #frozenSince: number | undefined;
  /** What was put off: see {@link later}. */
  #owed: (() => void)[] = [];
  #telling: NodeJS.Immediate | undefined;
  #relinquished = false;
  /** It goes on where a predecessor ended, and may not succeed. */
  #restoring = false;

  protected constructor(device: Device, timeouts: Timeouts) {
    this.device = device;
    this.#timeouts = timeouts;
    this.registerInterface = new RegisterInterface(device);
  }

  /** Makes a disabled controller ready, with the queues that there are. */
  protected abstract bringUp(): Promise<void>;

  /** It is ready for commands. */
  protected abstract ready(): void;

  /** Ends what is in order, when nothing is in flight any more. */
  protected abstract shutDown(): Promise<void>;

  /** Gives back what the driver has, when the controller can reach no memory any more. */
  protected abstract dispose(): void;

  /** Slots of commands that ended are to be had again. */
  protected abstract told(): void;

  /** The device and the memory are somebody else's. */
  protected abstract ended(error: Error): void;

  abstract record(): DriverRecord;
  abstract get outcome(): KeepableDriver['outcome'];
  abstract get stoppedBecause(): string | undefined;

  /** How often it was reset since it was opened. */
  get resets(): number {
    return this.#resets;
  }

  protected get isLive(): boolean {
    return this.#state === 'live';
  }

  protected *queues(): Generator<QueuePair> {
    if (this.adminQueue) yield this.adminQueue;
    yield* this.ioQueues;
  }

  protected listen(vectors: readonly InterruptVector[]): void {
    for (const vector of vectors) {
      const listening = vector.listen(() => {
        try {
          for (const queue of this.queues()) {
            if (queue.vector === vector.index) this.drain(queue);
          }
        } catch (error) {
          this.fail(error as Error);
        }
      });
      this.#listening.push(listening);
    }
  }

  protected stopListening(): void {
    for (const listening of this.#listening.splice(0)) listening[Symbol.dispose]();
  }

  /** Commands of the application can be issued. */
  protected setLive(): void {
    this.#state = 'live';
    this.adminQueue!.journal.inUse = true;
  }

  protected fatal(what: string): DeviceError {
    return new DeviceError(DeviceErrorCode.Fatal, this.device.name, what);
  }

  #disposed(): DisposedError {
    return new DisposedError(`NvmeController ${this.device.name}`);
  }

  // Commands

  /** New commands are accepted. @throws otherwise */
  protected requireOpen(): void {
    if (this.#closing && !this.#relinquished) throw this.#disposed();
    this.#requireUsable();
  }

  /** Commands that were accepted can be issued. @throws otherwise */
  #requireUsable(): void {
    if (this.#relinquished || this.#state === 'failed') throw this.#failure!;
    if (this.#state === 'closed') throw this.#disposed();
  }

  protected request(
    command: Command,
    transfer: Transfer | undefined,
    { timeout, tag, signal }: CommandOptions,
    { internal = false, reissue = true } = {},
  ): Request {
    return {
      command,
      transfer,
      tag: tag === undefined ? 0n : checkU64('tag', tag),
      timeout: timeout === undefined ? this.#timeouts.commandTimeout : checkInteger('timeout', timeout, 1),
      signal,
      internal,
      reissue,
    };
  }

  /** Issues a command, when that may be done. */
  protected async execute(queue: () => QueuePair, request: Request): Promise<number> {
    for (;;) {
      while (this.gate.isShut || this.#resetting) await this.permission(request.signal);
      this.#requireUsable();
      request.signal?.throwIfAborted();
      try {
        return await this.#run(queue(), request, true);
      } catch (error) {
        if (!(error instanceof NotIssued)) throw error;
      }
    }
  }

  /** Waits until commands may be issued. @throws when none will be any more, or `signal` is aborted */
  protected async permission(signal: AbortSignal | undefined): Promise<void> {
    this.#requireUsable();
    while (this.gate.isShut || this.#resetting) {
      if (this.#resetting) await this.#resetting.catch(() => undefined);
      else await this.gate.wait(signal);
      this.#requireUsable();
      signal?.throwIfAborted();
    }
  }

  /** Issues an admin command by which the driver sets the controller up: at once, and not again after a reset. */
  protected configure(command: Command, transfer?: Transfer): Promise<number> {
    const request = this.request(command, transfer, {}, { internal: true, reissue: false });
    return this.#run(this.adminQueue!, request, false);
  }

  /**
   * Issues a command.
   *
   * @param gated it waits where commands have to
   * @throws NotIssued when things have changed before its turn came
   */
  async #run(queue: QueuePair, request: Request, gated: boolean): Promise<number> {
    // Whoever brings the controller up calls this again and again: it may have failed since the last time.
    this.#requireUsable();
    const { signal } = request;
    // One signal may well cover hundreds of commands, which is no leak.
    if (signal) setMaxListeners(0, signal);
    const epoch = this.#resets;
    let slot = queue.tryAcquire();
    if (slot < 0) {
      slot = await queue.acquire(signal);
      const changed = this.#resets !== epoch || this.#state === 'failed' || (gated && this.gate.isShut);
      if (slot < 0 || signal?.aborted || changed) {
        if (slot >= 0) queue.release(slot);
        this.#requireUsable();
        signal?.throwIfAborted();
        throw new NotIssued();
      }
    }
    return new Promise<number>((resolve, reject) => {
      const pending = this.pendingFor(queue, slot, request, resolve, reject);
      try {
        queue.submit(pending);
      } catch (error) {
        queue.release(slot);
        pending.cancel(error);
        return;
      }
      this.watch();
    });
  }

  protected pendingFor(
    queue: QueuePair,
    slot: number,
    { command, transfer, tag, timeout, signal, internal, reissue }: Request,
    resolve: (result: number) => void,
    reject: (error: unknown) => void,
  ): Pending {
    const pending: Pending = {
      queue,
      slot,
      command,
      transfer,
      tag,
      internal,
      holdsSlot: false,
      timeout,
      deadline: performance.now() + timeout,
      aborting: undefined,
      reissue,
      resets: 0,
      complete: (status, result) => {
        signal?.removeEventListener('abort', onAbort);
        if (status === 0) resolve(result);
        else reject(pending.aborting ?? new NvmeError(status, command, this.device.name, queue.id));
      },
      cancel: error => {
        signal?.removeEventListener('abort', onAbort);
        reject(error);
      },
    };
    const onAbort = (): void => this.#abort(pending, signal!.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    return pending;
  }

  /** Asks the controller to abort a command; the watchdog resets the controller when that does not end it. */
  #abort(pending: Pending, reason: unknown): void {
    if (pending.aborting !== undefined || !pending.queue.holds(pending)) return;
    if (this.#frozenSince !== undefined) {
      this.later(() => this.#abort(pending, reason));
      return;
    }
    pending.aborting = reason;
    // The reset that is going on ends it.
    if (this.#resetting) return;
    pending.deadline = performance.now() + this.#timeouts.abortTimeout;
    const admin = this.adminQueue!;
    const slot = admin.tryAcquire();
    // Without a slot the deadline alone decides.
    if (slot < 0 || pending.queue.id === 0) {
      if (slot >= 0) admin.release(slot);
      return;
    }
    const command = {
      opcode: AdminOpcode.Abort,
      cdw10: ((pending.queue.commandId(pending.slot) << 16) | pending.queue.id) >>> 0,
    };
    const request = this.request(command, undefined, {}, { internal: true, reissue: false });
    const nothing = (): void => undefined;
    admin.submit(this.pendingFor(admin, slot, { ...request, timeout: NEVER }, nothing, nothing));
  }

  /** Takes what the controller completed. */
  protected drain(queue: QueuePair): void {
    if (this.#frozenSince !== undefined) return;
    if (this.#state === 'closed' || this.#state === 'failed' || this.#state === 'resetting') return;
    const sane = queue.drain();
    if (queue.hasTold) this.tellLater();
    if (!sane) this.#recover(this.fatal('completed a command that it did not have'));
  }

  /** The command in a slot ended some time ago, and the application is told now. */
  protected noteTold(queue: QueuePair, slot: number): void {
    if (this.#state === 'closed') return;
    queue.noteTold(slot);
    this.tellLater();
  }

  /** Slots of commands that ended can be had again when the application has run. */
  protected tellLater(): void {
    this.#telling ??= setImmediate(() => {
      this.#telling = undefined;
      this.#forgetTold();
    });
  }

  #forgetTold(): void {
    for (const queue of this.queues()) queue.forgetTold();
    this.told();
  }

  // Watchdog and reset

  /** Runs while commands are out. */
  protected watch(): void {
    this.#watchdog ??= setInterval(() => this.#inspect(), WATCHDOG_MS);
  }

  #stopWatching(): void {
    clearInterval(this.#watchdog);
    this.#watchdog = undefined;
  }

  #inspect(): void {
    if (this.#state === 'resetting' || this.#frozenSince !== undefined) return;
    let late: Pending | undefined;
    let waiting = false;
    try {
      // While it starts it need not be ready yet, but it must answer.
      if (this.#state === 'starting') this.registerInterface.status();
      const problem = this.#state === 'live' ? this.registerInterface.problem() : undefined;
      if (problem) {
        this.#recover(problem);
        return;
      }
      // Looking by itself finds completions whose interrupt was lost.
      for (const queue of this.queues()) this.drain(queue);
    } catch (error) {
      this.fail(error as Error);
      return;
    }
    const now = performance.now();
    for (const queue of this.queues()) {
      for (const pending of queue.inFlight()) {
        if (pending.deadline === NEVER) continue;
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
      this.fail(cause);
      return;
    }
    if (this.#state !== 'live') return;
    void this.#reset().catch(() => undefined);
  }

  /**
   * Disables the controller and brings it up again. Commands in flight are issued again, unless they are what it
   * was reset for.
   *
   * @throws DeviceError when it does not come back; it is then of no further use
   */
  async reset(): Promise<void> {
    this.requireOpen();
    while (this.#frozenSince !== undefined) {
      await this.gate.wait();
      this.requireOpen();
    }
    return this.#reset();
  }

  #reset(): Promise<void> {
    this.#resetting ??= this.#restart().finally(() => {
      this.#resetting = undefined;
    });
    return this.#resetting;
  }

  async #restart(): Promise<void> {
    this.#resets++;
    await this.#reinitialise(true);
  }

  /** Brings the controller up with a predecessor's queues. */
  protected async restart(taken: boolean): Promise<void> {
    this.#restoring = true;
    await this.#reinitialise(taken);
    this.#restoring = false;
  }

  /**
   * Disables the controller, and brings it up with the same queues. What is to be issued again stays in its slot meanwhile,
   * and in the journal.
   *
   * @param taken completions in the rings count: what was completed before it was disabled is completed
   */
  async #reinitialise(taken: boolean): Promise<void> {
    this.#state = 'resetting';
    this.adminQueue!.journal.inUse = false;
    try {
      await this.registerInterface.disable();
      const again: Pending[] = [];
      for (const queue of this.queues()) {
        if (taken) queue.drain(false);
        queue.cancelAll(pending => this.#endsByReset(pending));
        again.push(...queue.rewind());
      }
      // Until it is submitted no watchdog has a say.
      for (const pending of again) pending.deadline = NEVER;
      this.tellLater();
      this.#state = 'starting';
      await this.bringUp();
      for (const pending of again) this.#resubmit(pending);
      this.setLive();
      this.ready();
      this.watch();
    } catch (error) {
      this.fail(error as Error);
      throw error;
    }
  }

  /** The error with which a reset ends a command at once; `undefined` when it stays where it is. */
  #endsByReset(pending: Pending): unknown {
    if (pending.aborting !== undefined) return pending.aborting;
    if (!pending.reissue) return pending.internal ? new NotIssued() : undefined;
    if (pending.resets++ < RESET_RETRIES) return undefined;
    const had = `while it had command 0x${pending.command.opcode.toString(16)}`;
    return this.fatal(`the controller had to be reset ${pending.resets} times ${had}`);
  }

  /** After a reset: issues a command again, or ends it. */
  #resubmit(pending: Pending): void {
    const { queue, command } = pending;
    if (!queue.holds(pending)) return;
    const lost = `command 0x${command.opcode.toString(16)} was lost in a reset; nobody knows if it was executed`;
    const error = pending.aborting ?? (pending.reissue ? undefined : this.fatal(lost));
    if (error !== undefined) {
      queue.cancel(pending, error);
      return;
    }
    pending.deadline = performance.now() + pending.timeout;
    try {
      queue.submit(pending);
    } catch (error) {
      queue.release(pending.slot);
      pending.cancel(error);
      throw error;
    }
  }

  #cancelAll(errorFor: (pending: Pending) => unknown): void {
    for (const queue of this.queues()) queue.cancelAll(errorFor);
    for (const queue of this.queues()) queue.dismissAll();
    this.gate.wake();
  }

  /** The controller is of no further use. Nothing may be in its hands when commands are told. */
  protected fail(error: Error): void {
    if (this.#state === 'failed' || this.#state === 'closed') return;
    this.#state = 'failed';
    this.#failure = error;
    this.#stopWatching();
    this.registerInterface.stopDma();
    if (this.#restoring) {
      // Whoever tries again has to find everything as it was.
      this.#abandon(error);
      return;
    }
    if (this.adminQueue) this.adminQueue.journal.inUse = false;
    this.#cancelAll(pending => pending.aborting ?? error);
    this.tellLater();
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
      while (this.#frozenSince !== undefined) {
        await this.gate.wait();
        // Those who waited before come first.
        await sleep(POLL_MS);
      }
      if (this.#relinquished) return;
      await this.#finish();
      if (this.#state === 'live') {
        this.adminQueue!.journal.inUse = false;
        await this.shutDown();
      }
    } catch (error) {
      problem = error;
    }
    this.#stopWatching();
    this.registerInterface.stopDma();
    this.#state = 'closed';
    this.#cancelAll(() => this.#disposed());
    clearImmediate(this.#telling);
    this.stopListening();
    this.dispose();
    if (problem !== undefined) throw problem;
  }

  /** Waits for commands, and for a reset; deadlines bound it. */
  async #finish(): Promise<void> {
    const busy = (): boolean =>
      this.#isBusy() || this.gate.hasWaiting || this.ioQueues.some(queue => queue.outstanding > 0);
    while (this.#resetting || (this.#state === 'live' && busy())) {
      if (this.#resetting) await this.#resetting.catch(() => undefined);
      else await sleep(POLL_MS);
    }
  }

  // Keepalive

  protected busy(what: string): DeviceError {
    return new DeviceError(DeviceErrorCode.Busy, this.device.name, what, 'Try again when that is done');
  }

  /**
   * Leaves the device and all memory alone from now on. What is in flight stays so; commands and aborts that are asked for
   * wait for {@link thaw}. Idempotent. One thing is still to come: commands whose end the application is being told at this
   * moment are noted as told in the next turn of the event loop, when it has been.
   *
   * @throws DeviceError (BUSY) while it is reset or closed, which cannot stop halfway
   */
  freeze(): void {
    if (this.#frozenSince !== undefined || this.#state === 'closed') return;
    if (this.#closing) throw this.busy('is being closed');
    if (this.#resetting) throw this.busy('is being reset');
    this.#stopWatching();
    this.#frozenSince = performance.now();
    this.gate.shut('frozen');
  }

  /**
   * Goes on after {@link freeze} or {@link settle}, with what happened meanwhile. Where a successor has used the queues
   * meanwhile, it fails instead.
   */
  thaw(): void {
    if (this.#frozenSince === undefined || this.#relinquished) return;
    const duration = performance.now() - this.#frozenSince;
    this.#frozenSince = undefined;
    for (const queue of this.queues()) {
      for (const pending of queue.inFlight()) pending.deadline += duration;
    }
    if ([...this.queues()].some(queue => !queue.isUntouched)) {
      this.fail(this.fatal('a successor has used the queues while the driver was frozen'));
    }
    this.catchUp();
    this.gate.open('settling');
    this.gate.open('frozen');
    this.tellLater();
    if (this.#state !== 'live') return;
    // Interrupts that came meanwhile are gone.
    this.watch();
    this.#inspect();
  }

  /** Does something that is no command: at {@link thaw} if it is frozen, or when it goes on where a predecessor ended. */
  protected later(action: () => void): void {
    this.#owed.push(action);
  }

  protected unlessFrozen(action: () => void): void {
    if (this.#frozenSince === undefined) action();
    else this.later(action);
  }

  protected catchUp(): void {
    for (const action of this.#owed.splice(0)) action();
  }

  /**
   * Waits until nothing is in flight but requests for events, and the application was told of everything, and freezes. What
   * is asked for meanwhile waits for {@link thaw}. A reset that is going on is waited for, however long it takes.
   *
   * @param deadline as `performance.now()` counts
   * @returns false when the deadline came first; it is frozen then, too, with commands in flight
   * @throws DeviceError (BUSY) while it is closed
   */
  async settle(deadline: number): Promise<boolean> {
    this.gate.shut('settling');
    try {
      const waits = (): boolean => this.#state !== 'closed' && (this.#isBusy() || this.#isTelling());
      while (this.#resetting || (waits() && performance.now() < deadline)) {
        if (this.#resetting) await this.#resetting.catch(() => undefined);
        else await sleep(POLL_MS);
      }
      this.freeze();
      return this.#state === 'closed' || !this.#isBusy();
    } catch (error) {
      this.gate.open('settling');
      throw error;
    }
  }

  /** There is something in flight that the controller must complete in time. */
  #isBusy(): boolean {
    for (const queue of this.queues()) {
      for (const { timeout } of queue.inFlight()) if (timeout !== NEVER) return true;
    }
    return false;
  }

  /** The application is being told of commands that ended. */
  #isTelling(): boolean {
    for (const queue of this.queues()) if (queue.hasTold) return true;
    return false;
  }

  /**
   * The device and the memory are a successor's now: ends without a word to either. Commands here end with `error`, those
   * in flight as well. {@link close} has nothing to do afterwards.
   *
   * @throws DeviceError (BUSY) as {@link freeze}
   */
  relinquish(error: Error): void {
    if (this.#state === 'closed') return;
    this.freeze();
    this.#relinquished = true;
    this.end(error);
    this.#frozenSince = undefined;
    this.ended(error);
    this.gate.wake();
    this.#closing ??= Promise.resolve();
  }

  /** Ends, and leaves the memory, with what is in it for a successor, as it is. */
  protected end(error: Error): void {
    this.#state = 'closed';
    this.#failure = error;
    this.#stopWatching();
    this.stopListening();
    this.#owed = [];
    this.#abandon(error);
  }

  #abandon(error: Error): void {
    clearImmediate(this.#telling);
    for (const queue of this.queues()) queue.relinquish(error);
  }
}
