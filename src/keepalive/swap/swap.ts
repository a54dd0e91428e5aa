/**
 * Another address space under devices that go on: a fresh IOAS with page tables of its own, filled, compared with the old
 * one, and put in its place.
 *
 * How hitless the kernel makes it is up to the IOMMU. VT-d and AMD take the old table away before they put the new one in,
 * and DMA in between faults; without IOMMU nothing changes for the device. With drivers that are settled first there is no
 * DMA that could fault, so that is what is done with those that a {@link KeepAlive} knows.
 *
 * @module
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { EADDRINUSE, EBUSY } from '../../../bindings/uapi/errno.js';
import { VFIO_DEVICE_ATTACH_IOMMUFD_PT } from '../../../bindings/uapi/vfio.js';
import type { IovaRange } from '../../address.js';
import { checkInteger } from '../../check.js';
import { DeviceError, DeviceErrorCode, KernelError, runAll, undo } from '../../errors.js';
import { hex } from '../../hex.js';
import { type DmaFault, DmaFaultLog, type DmaFaults } from '../../iommufd/dma-faults.js';
import { Hwpt } from '../../iommufd/hwpt.js';
import { Ioas } from '../../iommufd/ioas.js';
import { shareBooks } from '../../memory/address-space.js';
import { memoryOf } from '../../memory/dma-memory.js';
import { pciAddress } from '../../pci/address.js';
import { readLinkName } from '../../pci/sysfs.js';
import { type Device, devicesOf } from '../../vfio/device.js';
import { type KeepAlive, keepAliveOf } from '../keep-alive.js';
import { type KeepableDriver, settleAll } from '../keepable-driver.js';
import { publish } from '../keepalive-events.js';
import { compareSpaces, placeOf, reasonOf } from './compare-spaces.js';
import { allocSpare, endSpare } from './spare.js';
import { SwapError, SwapErrorCode } from './swap-error.js';

const DEFAULT_TIMEOUT_MS = 5000;
const RETRY_MS = 10;
/** How long the kernel may take to write down a fault: it does so in an interrupt. */
const FAULT_DELAY_MS = 5;
const STILL_ATTACHED = 'The old address space is attached still';
const WHAT = 'an address-space swap';

export interface SwitchOptions {
  /**
   * Drivers of the devices: they are settled before and go on afterwards, so that no DMA can come in the middle. Where the
   * context is kept alive, those that its `KeepAlive` knows, by default; without any DMA may fault in the moment of the
   * switch, behind an IOMMU that has such a moment.
   */
  readonly quiesce?: readonly KeepableDriver[];
  /** How long drivers may take to settle, and a reset to end that is in the way, in ms; 5000 by default. */
  readonly timeout?: number;
}

/** How a switch went. */
export interface SwitchReport {
  /** How long it took the kernel, in ms. */
  readonly milliseconds: number;
  /** How long drivers issued nothing, in ms; 0 when none was settled. */
  readonly paused: number;
  /**
   * DMA of the devices that the IOMMU stopped in that time and a few milliseconds after it, as far as the kernel told of
   * it; `undefined` where that cannot be read.
   */
  readonly faults: DmaFaults | undefined;
}

/** A device on its way from one page table to the other. */
interface Move {
  readonly device: Device;
  readonly from: Hwpt;
  readonly to: Hwpt;
}

const spaceOf = (target: Ioas | Hwpt | undefined): Ioas | undefined =>
  target instanceof Hwpt ? target.ioas : target;

const names = (devices: readonly Device[]): string => devices.map(({ name }) => name).join(', ');

/** What says no without having touched the device: it is being reset, or a reserved IOVA is mapped. */
const refusals: readonly number[] = [EBUSY, EADDRINUSE];

/**
 * Two address spaces with the same mappings, of which one is under the devices.
 *
 * What is kept goes to a successor with that one: a state does not tell of the other. It ends with this kernel; where the
 * kernel stays the same, the successor lets go of it with `KeepAlive.releaseUnclaimed`.
 */
export class AddressSpaceSwap implements Disposable {
  #current: Ioas;
  #spare: Ioas | undefined;
  /** Of each page table that in the other address space, for the same devices. */
  readonly #twins = new Map<Hwpt, Hwpt>();
  /** By IOMMU group: tables that were made here for devices that had the kernel's own. */
  readonly #homes = new Map<string, Hwpt>();
  /** Without IOMMU: they may hold physical addresses that only the other address space keeps pinned. */
  readonly #holders = new Set<Device>();
  /** When the two were found to be alike: how often each had changed by then. */
  #alike: { readonly current: number; readonly spare: number } | undefined;
  /** How often the other one had changed when this object last changed it. */
  #spareChanges: number;
  readonly #log: DmaFaultLog | 'no-iommu' | undefined;
  #switching = false;

  private constructor(current: Ioas, spare: Ioas, log: DmaFaultLog | 'no-iommu' | undefined) {
    this.#current = current;
    this.#spare = spare;
    this.#spareChanges = spare.changes;
    this.#log = log;
  }

  /**
   * Builds a fresh address space with the mappings of `current`, and a page table in it for each that devices now have.
   * Nothing changes for the devices yet. The memory is not pinned a second time, and cannot come to be elsewhere.
   *
   * @throws RangeError when no device is attached to it; SwapError: DIFFERENT, BUSY, FAILED. What was built is gone then.
   */
  static prepare(current: Ioas): AddressSpaceSwap {
    if (!(current instanceof Ioas)) throw new TypeError('current must be an Ioas');
    const { iommufd } = current;
    const devices = [...devicesOf(iommufd)].filter(({ attached }) => spaceOf(attached) === current);
    if (devices.length === 0) throw new RangeError('no device is attached to the address space');
    let made: AddressSpaceSwap | undefined;
    const undone = (): void => {
      if (made) made.#abandon();
    };
    try {
      using _turn = takeTurn(current);
      const swap = new AddressSpaceSwap(current, allocSpare(iommufd), openLog(devices));
      made = swap;
      iommufd.atOnce(() => swap.#build());
      return swap;
    } catch (error) {
      const all = withUndone(error, [undone]);
      throw failure(all, `no other address space was made for ${names(devices)}`, STILL_ATTACHED);
    }
  }

  /** The one that is under the devices, and where their memory is. */
  get current(): Ioas {
    return this.#current;
  }

  /** The other one; `undefined` once it was dropped. */
  get spare(): Ioas | undefined {
    return this.#spare;
  }

  #build(): void {
    const spare = this.#requireSpare();
    if (!this.#current.hugePages) spare.hugePages = false;
    this.#follow(spare);
    // These pin the memory: only then is there a place to compare.
    this.#moves(this.#current, spare);
    this.#match(spare);
  }

  #abandon(): void {
    runAll([() => this.#drop(this.#requireSpare()), () => this.#closeLog()]);
  }

  /**
   * Brings the other address space up to date with what came and went in this one: drivers make memory as they need it.
   *
   * @throws SwapError (BUSY) when something went that only the other one still pins, and a device may still use
   */
  #follow(spare: Ioas): void {
    const current = this.#current;
    // Whoever changed it is to know better.
    if (spare.changes !== this.#spareChanges) return;
    try {
      const gone = [...spare.mappings].filter(other => reasonOf(current.mapping(other.iova), other));
      const [first] = gone;
      if (first) this.#requireUnpinned(`the mapping at ${hex(first.iova)}, which went,`);
      for (const { iova, length } of gone) spare.unmap(iova, length);
      // The pages come with their mappings: they are pinned once, and cannot come to be elsewhere.
      for (const { iova, length, readable, writeable } of current.mappings) {
        if (spare.mapping(iova) === undefined)
          spare.copy(current, iova, length, iova, { readable, writeable });
      }
      if (!isSame(current.allowedIovas, spare.allowedIovas)) spare.allowIovas(current.allowedIovas);
    } finally {
      this.#spareChanges = spare.changes;
    }
  }

  #requireUnpinned(what: string): void {
    const holders = this.#pinning();
    if (holders.length === 0) return;
    throw busy(
      `${what} may still be used by ${names(holders)}, by physical addresses that the other address space keeps pinned`,
      `${STILL_ATTACHED}; reprogram the device, then drop(true), or close it`,
    );
  }

  /** The devices that are attached to one of the two. */
  #devices(): Device[] {
    return [...devicesOf(this.#current.iommufd)].filter(({ attached }) => {
      const space = spaceOf(attached);
      return space !== undefined && (space === this.#current || space === this.#spare);
    });
  }

  /** The devices that are attached to `from`, with their page tables; those that are missing are made. */
  #moves(from: Ioas, to: Ioas): Move[] {
    const devices = this.#devices().filter(({ attached }) => spaceOf(attached) === from);
    return devices.map(device => {
      const table = this.#home(device, from);
      // Whoever the table was made for: the new one then suits as well as that one did.
      const maker = devices.find(({ name }) => name === table.device) ?? device;
      return { device, from: table, to: this.#twin(table, maker, to) };
    });
  }

  /**
   * The page table of a device. The kernel's own goes, with its pins, as soon as it is replaced; so there is one beside it,
   * the same for all of a group, whose devices cannot have different ones.
   */
  #home(device: Device, space: Ioas): Hwpt {
    const { attached, kernel } = device;
    if (attached instanceof Hwpt) return attached;
    const group = readLinkName(kernel, pciAddress(device.name), 'iommu_group') ?? device.name;
    const known = this.#homes.get(group);
    if (known && space.hwpts.has(known)) return known;
    const made = device.allocHwpt(space);
    this.#homes.set(group, made);
    return made;
  }

  #twin(table: Hwpt, maker: Device, space: Ioas): Hwpt {
    const known = this.#twins.get(table);
    if (known && space.hwpts.has(known)) return known;
    const made = maker.allocHwpt(space, table.flags);
    this.#twins.set(table, made).set(made, table);
    return made;
  }

  /** Makes the other address space as this one is, and checks it. @throws SwapError: DIFFERENT, BUSY */
  #match(spare: Ioas): void {
    const current = this.#current;
    // Both keep their memory pinned, so that only what is mapped can change.
    if (this.#alike?.current === current.changes && this.#alike.spare === spare.changes) return;
    this.#alike = undefined;
    this.#follow(spare);
    const difference = compareSpaces(current, spare);
    if (difference) {
      const at = hex(placeOf(difference));
      different(`it does not translate as this one does at ${at}: ${difference.reason}`);
    }
    if (!isSame(current.allowedIovas, spare.allowedIovas)) different('it has other claims (allowIovas)');
    this.#alike = { current: current.changes, spare: spare.changes };
  }

  /**
   * Puts the other address space under the devices: those that are attached to it now, whenever they came. The memory of
   * the one before belongs to it from then on, and so do the IOVAs that were taken there. May be called again to go back.
   *
   * @throws RangeError when the other one was dropped, no device is attached any more, or `quiesce` has a driver of another
   * device; SwapError: DIFFERENT when the two do not translate alike (any more), BUSY when a driver does not settle, a
   * reset does not end or a hand-off is going on, FAILED. The old one is attached then, unless the error says otherwise.
   */
  async switch(options: SwitchOptions = {}): Promise<SwitchReport> {
    const timeout = checkInteger('timeout', options.timeout ?? DEFAULT_TIMEOUT_MS);
    const spare = this.#requireSpare();
    this.#checkDrivers(options.quiesce ?? []);
    const reason = `the address space of ${names(this.#devices())} was not switched`;
    try {
      if (this.#switching) throw busy('it is being switched already', 'Wait for that to end');
      this.#switching = true;
      try {
        using _turn = takeTurn(this.#current);
        // Before anything comes to a halt.
        this.#match(spare);
        return await this.#repeat(options.quiesce, performance.now() + timeout, timeout);
      } finally {
        this.#switching = false;
      }
    } catch (error) {
      throw failure(error, reason, this.#whatIsAttached());
    }
  }

  #requireSpare(): Ioas {
    const spare = this.#spare;
    if (spare?.alive) return spare;
    throw new RangeError('the other address space was dropped');
  }

  #checkDrivers(drivers: readonly KeepableDriver[]): void {
    const devices = this.#devices();
    if (devices.length === 0) throw new RangeError('no device is attached to the address space any more');
    const stranger = drivers.find(({ device }) => !devices.includes(device));
    if (stranger) throw new RangeError(`${stranger.device.name} is not attached to the address space`);
  }

  /** Tries again while a device is being reset: one with a translation cache of its own cannot be attached then. */
  async #repeat(
    quiesce: readonly KeepableDriver[] | undefined,
    deadline: number,
    timeout: number,
  ): Promise<SwitchReport> {
    for (;;) {
      try {
        return await this.#attempt(quiesce ?? this.#knownDrivers(), deadline, timeout);
      } catch (error) {
        if (!isRefusal(error, [EBUSY])) throw error;
        if (performance.now() + RETRY_MS > deadline) {
          throw busy(
            `a device was still being reset after ${timeout} ms`,
            `${STILL_ATTACHED}; try again when that is done`,
            error,
          );
        }
      }
      // With the drivers at work: it may be one of them that resets.
      await sleep(RETRY_MS);
    }
  }

  #knownDrivers(): KeepableDriver[] {
    const devices = this.#devices();
    const { drivers = [] } = keepAliveOf(this.#current.iommufd) ?? {};
    return drivers.filter(({ device }) => devices.includes(device));
  }

  async #attempt(
    drivers: readonly KeepableDriver[],
    deadline: number,
    timeout: number,
  ): Promise<SwitchReport> {
    const began = performance.now();
    const kept = keepAliveOf(this.#current.iommufd);
    // Not those that somebody has frozen meanwhile, with all that is kept.
    const letGoOn = (): void => {
      if (!kept?.frozen) runAll(drivers.map(driver => () => driver.thaw()));
    };
    let milliseconds: number;
    try {
      requireThawed(kept);
      if (drivers.length > 0) await settle(drivers, deadline, timeout);
      // Much can have changed while they settled.
      requireThawed(kept);
      const spare = this.#requireSpare();
      this.#match(spare);
      this.#faults([]);
      const started = performance.now();
      this.#move(this.#current, spare);
      milliseconds = performance.now() - started;
    } catch (error) {
      undo(error, [letGoOn]);
    }
    letGoOn();
    const paused = drivers.length === 0 ? 0 : performance.now() - began;
    return this.#report(milliseconds, paused);
  }

  /** All devices, or none. */
  #move(from: Ioas, to: Ioas): void {
    try {
      this.#moveAtOnce(from, to);
    } catch (error) {
      if (this.#current !== to) throw error;
      // It was done, and whoever writes it down did not manage to.
      undo(error, [() => this.#moveAtOnce(to, from)]);
    }
  }

  #moveAtOnce(from: Ioas, to: Ioas): void {
    from.iommufd.atOnce(() => {
      this.#attach(this.#moves(from, to), to);
      this.#take(from, to);
    });
  }

  #attach(moves: readonly Move[], to: Ioas): void {
    for (const move of moves) {
      try {
        move.device.attach(move.to);
      } catch (error) {
        const back = moves.filter(({ device }) => spaceOf(device.attached) === to);
        undo(error, [
          ...back.map(
            ({ device, from }) =>
              () =>
                device.attach(from),
          ),
          ...(isRefusal(error, refusals) ? [] : [() => this.#attachAgain(move, moves)]),
        ]);
      }
    }
  }

  /**
   * VT-d and AMD may have cut off a device whose attach failed, although iommufd has it as attached still (Linux
   * __iommu_group_set_domain_internal). To attach it to what it is attached to would do nothing: it takes another table.
   */
  #attachAgain({ device, from }: Move, moves: readonly Move[]): void {
    const { attached } = device;
    if (!(attached instanceof Hwpt)) {
      device.attach(from);
      return;
    }
    const table = device.allocHwpt(from.ioas, from.flags);
    for (const other of moves) if (other.device.attached === attached) other.device.attach(table);
  }

  /** What is noted of `from` is noted of `to` from now on. Makes no system call, so that nothing can fail. */
  #take(from: Ioas, to: Ioas): void {
    const { iommufd } = from;
    shareBooks(from, to);
    for (const memory of [...memoryOf(from)]) memory.moveTo(to);
    for (const device of devicesOf(iommufd)) if (device.space === from) device.moveTo(to);
    for (const device of this.#devices()) if (device.noiommu) this.#holders.add(device);
    if (this.#alike) this.#alike = { current: this.#alike.spare, spare: this.#alike.current };
    this.#current = to;
    this.#spare = from;
    to.spare = false;
    from.spare = true;
    this.#spareChanges = from.changes;
    iommufd.noteChange();
  }

  async #report(milliseconds: number, paused: number): Promise<SwitchReport> {
    const devices = this.#devices();
    if (this.#log instanceof DmaFaultLog) await sleep(FAULT_DELAY_MS);
    const faults = this.#faults(devices);
    for (const { name } of devices) {
      const count = faults?.faults.filter(({ device }) => device === name).length;
      publish({ kind: 'swapped', device: name, milliseconds, paused, faults: count });
    }
    return { milliseconds, paused, faults };
  }

  /** Those of some devices since the last time. */
  #faults(devices: readonly Device[]): DmaFaults | undefined {
    if (this.#log === 'no-iommu') return { faults: [], complete: true };
    try {
      const read = this.#log?.read();
      const isTheirs = (fault: DmaFault): boolean => devices.some(({ name }) => name === fault.device);
      return read && { faults: read.faults.filter(isTheirs), complete: read.complete };
    } catch (error) {
      // It is a report, and no reason to have a switch fail.
      if (error instanceof KernelError) return undefined;
      throw error;
    }
  }

  /**
   * Destroys the other address space, with its page tables; the memory that it alone still pins is let go.
   *
   * @param reprogrammed without IOMMU: the drivers say that no device uses an address any more that it was given before
   * the last switch. Until then, or until the devices are closed, the old pins stay
   * @throws SwapError: BUSY when that was not said, a device is attached to it or it is being switched; FAILED. It is there
   * still then, or what is left of it: try again
   */
  drop(reprogrammed = false): void {
    const spare = this.#spare;
    if (spare === undefined) return;
    if (spare.alive) {
      if (this.#switching) throw busy('it is being switched', 'Wait for that to end');
      const holders = this.#pinning();
      if (holders.length > 0 && !reprogrammed) {
        throw busy(
          `${names(holders)} may still use physical addresses that the old address space keeps pinned`,
          'It is kept; reprogram the device, then drop(true), or close it',
        );
      }
      const attached = this.#devices().filter(device => spaceOf(device.attached) === spare);
      if (attached.length > 0)
        throw busy(`${names(attached)} is attached to the other address space`, 'switch() first');
      try {
        using _turn = takeTurn(this.#current);
        this.#drop(spare);
      } catch (error) {
        throw failure(error, 'the other address space was not dropped', 'It is there still; try again');
      }
    }
    this.#spare = undefined;
    this.#holders.clear();
    this.#closeLog();
  }

  /** Devices that may use what the other address space pins. */
  #pinning(): Device[] {
    const open = devicesOf(this.#current.iommufd);
    return [...this.#holders].filter(device => open.has(device));
  }

  /** Destroys `spare`, and what was made in the current one and is not used. */
  #drop(spare: Ioas): void {
    const { iommufd } = spare;
    const inUse = new Set([...devicesOf(iommufd)].map(({ attached }) => attached));
    iommufd.atOnce(() => {
      for (const table of this.#homes.values()) if (!inUse.has(table)) table[Symbol.dispose]();
      endSpare(spare);
    });
  }

  #closeLog(): void {
    if (this.#log instanceof DmaFaultLog) this.#log[Symbol.dispose]();
  }

  #whatIsAttached(): string {
    const moved = this.#devices().filter(({ attached }) => spaceOf(attached) === this.#spare);
    if (moved.length === 0) return STILL_ATTACHED;
    return `${names(moved)} could not be taken back and is attached to the other address space; switch() again`;
  }

  /** {@link drop}, where that is safe; otherwise the other address space stays until its context is closed. */
  [Symbol.dispose](): void {
    if (this.#pinning().length === 0 || !this.#spare?.alive) this.drop();
    this.#closeLog();
  }
}

function different(reason: string): never {
  throw new SwapError(
    SwapErrorCode.Different,
    `the other address space cannot be used: ${reason}`,
    `${STILL_ATTACHED}; drop the other one and prepare it anew`,
  );
}

function isSame(some: readonly IovaRange[], others: readonly IovaRange[]): boolean {
  return (
    some.length === others.length &&
    some.every(({ first, last }, index) => others[index]?.first === first && others[index]?.last === last)
  );
}

function busy(reason: string, hint: string, cause?: unknown): SwapError {
  return new SwapError(SwapErrorCode.Busy, reason, hint, cause);
}

/** With what became of it. */
function failure(error: unknown, reason: string, hint: string): unknown {
  // A wrong argument is no failure.
  if (error instanceof TypeError || error instanceof RangeError) return error;
  if (error instanceof SwapError) return error;
  const code =
    error instanceof DeviceError && error.code === DeviceErrorCode.Busy
      ? SwapErrorCode.Busy
      : SwapErrorCode.Failed;
  const causes = error instanceof AggregateError ? error.errors : [error];
  return new SwapError(code, `${reason}: ${causes.map(messageOf).join('; ')}`, hint, error);
}

/** @throws SwapError (BUSY) */
function requireThawed(kept: KeepAlive | undefined): void {
  if (kept?.frozen) {
    throw busy('drivers are frozen', `${STILL_ATTACHED}; let them go on first (KeepAlive.thaw)`);
  }
}

/** An error, and what could not be undone after it. */
function withUndone(error: unknown, steps: readonly (() => void)[]): unknown {
  try {
    return undo(error, steps);
  } catch (all) {
    return all;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function isRefusal(error: unknown, errnos: readonly number[]): boolean {
  return (
    error instanceof KernelError &&
    error.request === VFIO_DEVICE_ATTACH_IOMMUFD_PT.name &&
    errnos.includes(error.errno)
  );
}

/** Nothing else is done meanwhile with what is kept alive. @throws DeviceError (BUSY) */
function takeTurn({ iommufd }: Ioas): Disposable | undefined {
  return keepAliveOf(iommufd)?.takeTurn(WHAT);
}

async function settle(drivers: readonly KeepableDriver[], deadline: number, timeout: number): Promise<void> {
  const settled = await settleAll(drivers, deadline);
  const late = drivers.filter((_, index) => !settled[index]).map(({ device }) => device);
  if (late.length === 0) return;
  throw busy(
    `commands of ${names(late)} were still in flight after ${timeout} ms`,
    `${STILL_ATTACHED}; try again with a longer timeout`,
  );
}

/** Where faults of the devices are told: in the kernel log, by the drivers of some IOMMUs. */
function openLog(devices: readonly Device[]): DmaFaultLog | 'no-iommu' | undefined {
  const translated = devices.filter(({ noiommu }) => !noiommu);
  const [first] = translated;
  if (first === undefined) return 'no-iommu';
  try {
    const isTold = translated.every(({ kernel, name }) =>
      /^(?:dmar|ivhd)\d+$/.test(readLinkName(kernel, pciAddress(name), 'iommu') ?? ''),
    );
    return isTold ? DmaFaultLog.open(first.kernel) : undefined;
  } catch (error) {
    if (error instanceof KernelError) return undefined;
    throw error;
  }
}
