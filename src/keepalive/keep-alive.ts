/**
 * What outlives this process: some iommufd contexts, with every device bound to them.
 *
 * @module
 */
import type { Syscalls } from '../../bindings/syscalls.js';
import { DeviceError, DeviceErrorCode, DisposedError, runAll, undo } from '../errors.js';
import type { Ioas } from '../iommufd/ioas.js';
import { Iommufd } from '../iommufd/iommufd.js';
import type { DmaArena } from '../memory/dma-memory.js';
import type { UnclaimedRange } from '../memory/quarantine.js';
import { claimOf } from '../open-device.js';
import { Device, devicesOf } from '../vfio/device.js';
import { arenasOf } from './arenas.js';
import { capture } from './capture.js';
import { type DriverRecord, type KeepableDriver, settleAll } from './keepable-driver.js';
import { KeepAliveError, KeepAliveErrorCode } from './keepalive-error.js';
import { publish } from './keepalive-events.js';
import { type DeviceOutcome, Outcome } from './outcome.js';
import { refusals } from './refusals.js';
import { encodeState } from './state/encode-state.js';
import type { Kept, SavedSession, State } from './state/saved-state.js';
import type { StoreNames, StorePlace } from './store/store-place.js';
import { endAbandonedSpare, isSpare } from './swap/spare.js';

/** How what is kept ended here. */
export type KeepAliveEnd = 'handed-over' | 'closed';

/** What a predecessor had in the descriptor store of the service manager, for whoever goes on with it. */
export interface InheritedStore extends StorePlace {
  readonly fd: number;
  /** The name that each descriptor is kept under. */
  readonly aliases: ReadonlyMap<string, string>;
}

/** Memory of a predecessor that nobody has claimed. */
export interface UnclaimedArena {
  readonly arena: DmaArena;
  readonly ranges: readonly UnclaimedRange[];
}

const known = new WeakMap<Iommufd, KeepAlive>();

/** What keeps a context alive; `undefined` when nothing does. */
export function keepAliveOf(iommufd: Iommufd): KeepAlive | undefined {
  return iommufd.kept ? known.get(iommufd) : undefined;
}

/** Undefined for one that is being closed, or is: nobody goes on with it. */
function recordOf(driver: KeepableDriver): DriverRecord | undefined {
  try {
    return driver.record();
  } catch (error) {
    if (error instanceof DisposedError) return undefined;
    throw error;
  }
}

/**
 * Contexts that are kept alive. Chosen per iommufd context, it reaches every device bound to it; from then on the context
 * takes no memory that could not be kept.
 *
 * ```ts
 * const kept = KeepAlive.of(device);
 * kept.add(controller);
 * await handOff(kept, channel);
 * ```
 *
 * What a predecessor left is a `KeepAlive`, too, with the devices, the arenas and the records of its drivers.
 */
export class KeepAlive implements Disposable {
  readonly kernel: Syscalls;
  readonly iommufds: readonly Iommufd[];
  readonly #drivers = new Map<Device, KeepableDriver>();
  /** What drivers of a predecessor wrote down, by device. */
  readonly #records: Map<string, DriverRecord>;
  /** Made by this object, and released with it. */
  readonly #owned: boolean;
  readonly #observing: Disposable[];
  readonly #observers = new Set<() => void>();
  readonly #endings = new Set<(how: KeepAliveEnd) => void>();
  /** @internal Where everything is in a descriptor store, once it is. */
  storeNames: (() => StoreNames) | undefined;
  #inheritedStore: InheritedStore | undefined;
  /** By device: how the kernel might reset it before keepalive took that away. */
  readonly resetMethods = new Map<string, string>();
  /** By device. */
  readonly #outcomes = new Map<Device, DeviceOutcome>();
  /** Arenas of a predecessor whose memory is not there any more; new memory is in its place. */
  readonly #lost: readonly DmaArena[];
  /** Other address spaces of swaps that a predecessor had prepared. */
  readonly #spares: readonly Ioas[];
  #frozen = false;
  /** What is being done with it that nothing else may get in the way of. */
  #underWay: string | undefined;
  #over: Error | undefined;

  /** What the state before said that is not understood here. */
  readonly #passedOn: Kept | undefined;

  private constructor(
    iommufds: readonly Iommufd[],
    records: Map<string, DriverRecord>,
    owned: boolean,
    passedOn?: Kept,
    lost: readonly DmaArena[] = [],
  ) {
    this.iommufds = iommufds;
    this.#lost = lost;
    this.#spares = owned ? iommufds.flatMap(({ ioases }) => [...ioases].filter(isSpare)) : [];
    this.#passedOn = passedOn;
    this.kernel = (iommufds[0] as Iommufd).kernel;
    this.#records = records;
    this.#owned = owned;
    for (const iommufd of iommufds) {
      iommufd.kept = true;
      known.set(iommufd, this);
    }
    this.#observing = iommufds.map(iommufd => iommufd.observe(() => this.#changed()));
    publish({ kind: 'kept', devices: this.#names(), arenas: this.arenas.length });
  }

  /**
   * Keeps contexts alive, each given by itself or by a device that is bound to it.
   *
   * @throws KeepAliveError (CANNOT_BE_KEPT) when something in them cannot be kept: memory of the process, a mapping of a
   * file that is no arena, a device that is open through the legacy interface. Nothing has changed then.
   */
  static of(...contexts: readonly (Iommufd | Device)[]): KeepAlive {
    const reasons: string[] = [];
    const iommufds = new Set<Iommufd>();
    for (const context of contexts) {
      if (context instanceof Iommufd) iommufds.add(context);
      else if (!(context instanceof Device))
        throw new TypeError('contexts must be Iommufd or Device objects');
      else if (context.iommufd === undefined) {
        reasons.push(`${context.name} is open through the legacy interface, which ends with this process`);
      } else iommufds.add(context.iommufd);
    }
    if (contexts.length === 0) throw new RangeError('there must be a context to keep');
    reasons.push(...refusals([...iommufds]));
    for (const iommufd of iommufds) if (iommufd.kept) reasons.push('a context is kept alive already');
    if (reasons.length > 0) {
      const hint =
        'Use DmaArena for memory, Ioas.mapFile with an arena for more mappings of it, and a kernel with iommufd';
      throw new KeepAliveError(KeepAliveErrorCode.CannotBeKept, reasons, hint);
    }
    return new KeepAlive([...iommufds], new Map(), false);
  }

  /**
   * @internal What was taken over or rebuilt from `state`; it is released with the result.
   *
   * @param lost arenas with new memory in place of what was there
   */
  static taken(
    iommufds: readonly Iommufd[],
    { drivers, kept }: State,
    lost: readonly DmaArena[] = [],
  ): KeepAlive {
    const records = new Map<string, DriverRecord>(
      drivers.map(({ device, compatible, properties, children }) => {
        return [device, { compatible, properties, children }];
      }),
    );
    return new KeepAlive(iommufds, records, true, kept, lost);
  }

  #names(): string[] {
    return this.devices.map(({ name }) => name);
  }

  #require(): void {
    if (this.#over) throw this.#over;
  }

  get devices(): readonly Device[] {
    return this.iommufds.flatMap(iommufd => [...devicesOf(iommufd)]);
  }

  /** The device at a PCI address. @throws RangeError when there is none */
  device(address: string): Device {
    const found = this.devices.find(({ name }) => name === address);
    if (found) return found;
    throw new RangeError(`${address} is not kept here; ${this.#names().join(', ') || 'no device'} is`);
  }

  get arenas(): readonly DmaArena[] {
    return arenasOf(this.iommufds);
  }

  /** The arena of a token; `undefined` when there is none, so that drivers say what they miss. */
  arena(token: bigint): DmaArena | undefined {
    return this.arenas.find(arena => arena.token === token);
  }

  /** What the device's driver wrote down in the process before, until a driver is added for it. */
  record(address: string): DriverRecord | undefined {
    return this.#records.get(address);
  }

  get drivers(): readonly KeepableDriver[] {
    return [...this.#drivers.values()];
  }

  /** What became of the devices of a predecessor: of each, once a driver was added for it. */
  get outcomes(): readonly DeviceOutcome[] {
    return [...this.#outcomes.values()];
  }

  /**
   * The driver of a device: it is frozen, settled and written down with the rest.
   *
   * @returns disposing it forgets the driver; one that is closed is forgotten anyway
   * @throws DeviceError when it cannot be kept; RangeError when its device is not bound to one of the contexts, or has a
   * driver already
   */
  add(driver: KeepableDriver): Disposable {
    this.#require();
    const { device } = driver;
    if (this.device(device.name) !== device) throw new RangeError(`${device.name} is open a second time`);
    if (this.#drivers.has(device)) throw new RangeError(`${device.name} has a driver already`);
    driver.record();
    this.#drivers.set(device, driver);
    try {
      this.#changed();
    } catch (error) {
      this.#drivers.delete(device);
      throw error;
    }
    this.#records.delete(device.name);
    this.#noteOutcome(driver);
    return {
      [Symbol.dispose]: () => {
        if (this.#drivers.get(device) === driver && this.#drivers.delete(device)) this.#changed();
      },
    };
  }

  /** Of the first driver of each device of a predecessor. */
  #noteOutcome({ device, outcome, stoppedBecause }: KeepableDriver): void {
    if (!this.#owned || this.#outcomes.has(device)) return;
    const lost = this.#lost.filter(({ space }) => space === device.space).map(({ name }) => name);
    const noted = ((): Omit<DeviceOutcome, 'device'> => {
      if (outcome === 'kept-running') return { outcome, reason: undefined };
      if (lost.length > 0) return { outcome: Outcome.Cold, reason: `its memory is lost: ${lost.join(', ')}` };
      if (outcome === 'started') return { outcome: Outcome.Cold, reason: 'its driver started from nothing' };
      return { outcome, reason: stoppedBecause };
    })();
    const entry = { device: device.name, ...noted };
    this.#outcomes.set(device, entry);
    publish({ kind: 'device', ...entry });
  }

  /** @internal Calls `observer` when something changed that a state tells of. */
  observe(observer: () => void): Disposable {
    this.#observers.add(observer);
    return { [Symbol.dispose]: () => void this.#observers.delete(observer) };
  }

  /** @internal Calls `listener` before anything is let go of. */
  onEnd(listener: (how: KeepAliveEnd) => void): Disposable {
    this.#endings.add(listener);
    return { [Symbol.dispose]: () => void this.#endings.delete(listener) };
  }

  /** @internal What the predecessor had in a descriptor store; whoever takes it has its descriptor. */
  takeInheritedStore(): InheritedStore | undefined {
    const store = this.#inheritedStore;
    this.#inheritedStore = undefined;
    return store;
  }

  /** @internal */
  set inheritedStore(store: InheritedStore) {
    this.#inheritedStore = store;
  }

  #changed(): void {
    if (this.#over) return;
    for (const observer of this.#observers) observer();
  }

  /**
   * What would have to be rebuilt, now.
   *
   * @throws KeepAliveError (CANNOT_BE_KEPT); DeviceError of a driver that cannot be kept; KernelError
   */
  capture(sessions: readonly SavedSession[] = []): State {
    this.#require();
    const reasons = refusals(this.iommufds);
    if (reasons.length > 0) {
      throw new KeepAliveError(
        KeepAliveErrorCode.CannotBeKept,
        reasons,
        'Unmap it, or map it as part of an arena',
      );
    }
    const drivers = new Map(this.#records);
    // A driver's own record takes the place of its predecessor's.
    for (const [device, driver] of this.#drivers) {
      const record = recordOf(driver);
      if (record) drivers.set(device.name, record);
    }
    const state = capture({ iommufds: this.iommufds, drivers, resetMethods: this.resetMethods, sessions });
    return { ...state, ...(this.#passedOn && { kept: this.#passedOn }) };
  }

  /** {@link capture}, as bytes. */
  serialise(sessions: readonly SavedSession[] = []): Uint8Array {
    return encodeState(this.capture(sessions));
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  /** Those that come now are for whoever goes on: this process, or a successor. */
  #pauseInterrupts(): void {
    for (const device of this.devices) device.interrupts.pause();
  }

  /**
   * Stops every driver from touching its device; what is in flight stays there, and interrupts wait. Idempotent.
   *
   * @throws DeviceError (BUSY) of a driver that cannot stop now; none has stopped then
   */
  freeze(): void {
    this.#require();
    if (this.#frozen) return;
    const frozen: KeepableDriver[] = [];
    try {
      for (const driver of this.drivers) {
        driver.freeze();
        frozen.push(driver);
      }
    } catch (error) {
      undo(
        error,
        frozen.map(driver => () => driver.thaw()),
      );
    }
    this.#frozen = true;
    this.#pauseInterrupts();
    publish({ kind: 'frozen', devices: this.#names() });
  }

  /** Lets the drivers go on. Idempotent. */
  thaw(): void {
    this.#require();
    if (!this.#frozen) return;
    this.#frozen = false;
    runAll([
      ...this.devices.map(device => () => device.interrupts.resume()),
      ...this.drivers.map(driver => () => driver.thaw()),
    ]);
    publish({ kind: 'thawed', devices: this.#names() });
  }

  /**
   * Waits until no device has anything in flight, and freezes.
   *
   * @param timeout in ms
   * @returns the devices that were not through by then; they are frozen, too
   * @throws DeviceError (BUSY) as {@link freeze}; everything goes on then
   */
  async settle(timeout: number): Promise<readonly Device[]> {
    this.#require();
    const deadline = performance.now() + timeout;
    const { drivers } = this;
    this.#frozen = true;
    let settled: boolean[];
    try {
      settled = await settleAll(drivers, deadline);
      this.#pauseInterrupts();
    } catch (error) {
      undo(error, [() => this.thaw()]);
    }
    publish({ kind: 'frozen', devices: this.#names() });
    return drivers.filter((_, index) => !settled[index]).map(({ device }) => device);
  }

  /**
   * @internal One thing at a time is done with it of those that stop drivers and let them go on: each would let them go on
   * under the feet of the other.
   *
   * @param what such as `'a hand-off'`
   * @returns disposing it ends that
   * @throws DeviceError (BUSY) when there is something under way
   */
  takeTurn(what: string): Disposable {
    this.#require();
    if (this.#underWay !== undefined) {
      throw new DeviceError(
        DeviceErrorCode.Busy,
        this.#names().join(', '),
        `${this.#underWay} is under way, and ${what} would get in its way`,
        'Nothing was changed; try again when it has ended',
      );
    }
    this.#underWay = what;
    return {
      [Symbol.dispose]: () => {
        this.#underWay = undefined;
      },
    };
  }

  /** Memory that a predecessor had, and that nobody has claimed: devices may still write there, so it is kept. */
  get unclaimed(): readonly UnclaimedArena[] {
    this.#require();
    return this.arenas
      .map(arena => ({ arena, ranges: arena.unclaimed }))
      .filter(({ ranges }) => ranges.length > 0);
  }

  /**
   * Lets go of what nobody has claimed: of arenas of which something is claimed it can be allocated again; the others are
   * unmapped and freed, and so is the other address space of a swap that a predecessor did not drop. Only when no device can
   * still write there: its driver is restored, or it was reset.
   *
   * @throws KernelError; what could not be released is there still
   */
  releaseUnclaimed(): void {
    let bytes = 0;
    for (const { arena, ranges } of this.unclaimed) {
      const length = ranges.reduce((sum, { length }) => sum + length, 0);
      if (length === arena.size) arena[Symbol.dispose]();
      else arena.releaseUnclaimed();
      bytes += length;
    }
    for (const spare of this.#spares) endAbandonedSpare(spare);
    publish({ kind: 'released', devices: this.#names(), bytes });
  }

  /**
   * @internal It is somebody else's: drivers end with `error`, and everything is let go of without a word to a device or
   * a change to what the kernel has.
   */
  relinquish(error: Error): void {
    if (this.#over) return;
    const { devices, arenas, drivers } = this;
    this.#over = error;
    runAll([
      () => this.#end('handed-over'),
      ...drivers.map(driver => () => driver.relinquish(error)),
      ...arenas.map(arena => () => arena.relinquish()),
      ...devices.flatMap(device => [() => claimOf(device)?.relinquish(), () => device.relinquish()]),
      ...this.iommufds.flatMap(iommufd => [
        ...[...iommufd.ioases].flatMap(ioas => [
          ...[...ioas.hwpts].map(hwpt => () => hwpt.relinquish()),
          () => ioas.relinquish(),
        ]),
        () => iommufd[Symbol.dispose](),
      ]),
    ]);
  }

  #end(how: KeepAliveEnd): void {
    for (const observing of this.#observing) observing[Symbol.dispose]();
    this.#observers.clear();
    const store = this.takeInheritedStore();
    runAll([
      ...[...this.#endings].map(listener => () => listener(how)),
      () => store && void this.kernel.close(store.fd),
    ]);
  }

  /**
   * Keeps nothing any longer. What was taken over or rebuilt is closed with it, its devices first; drivers must be closed
   * by then. What {@link of} was given stays open.
   */
  [Symbol.dispose](): void {
    if (this.#over) return;
    const { devices, arenas } = this;
    const reasons = ['nothing is kept any longer'];
    this.#over = new KeepAliveError(KeepAliveErrorCode.NotOurs, reasons, 'Keep it anew: KeepAlive.of');
    for (const iommufd of this.iommufds) iommufd.kept = false;
    if (!this.#owned) {
      this.#end('closed');
      return;
    }
    runAll([
      // The store first: a device cannot be given back while somebody has it open.
      () => this.#end('closed'),
      ...devices.map(device => () => device[Symbol.dispose]()),
      ...devices.map(device => () => claimOf(device)?.release()),
      ...arenas.map(arena => () => arena[Symbol.dispose]()),
      ...this.iommufds.map(iommufd => () => iommufd[Symbol.dispose]()),
    ]);
  }
}
