/** Device interrupts: INTx, MSI and MSI-X vectors, error and release-request notifications, as eventfds. @module */
import type { Syscalls, Watch } from '../../bindings/syscalls.js';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../../bindings/uapi/eventfd.js';
import {
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
  vfio_irq_set,
} from '../../bindings/uapi/vfio.js';
import { checkFunction, checkInteger } from '../check.js';
import { DeviceError, DeviceErrorCode, DisposedError, runAll, undo } from '../errors.js';
import { check, ioctl, transact, watchFile } from '../ioctl.js';

/** The kinds of interrupt that a PCI device has, by VFIO's index. */
export const InterruptKind = {
  Intx: VFIO_PCI_INTX_IRQ_INDEX,
  Msi: VFIO_PCI_MSI_IRQ_INDEX,
  Msix: VFIO_PCI_MSIX_IRQ_INDEX,
  /** An uncorrectable error of the device (AER). */
  Error: VFIO_PCI_ERR_IRQ_INDEX,
  /** Someone wants the device back, and waits for it to be closed. */
  Request: VFIO_PCI_REQ_IRQ_INDEX,
} as const;
export type InterruptKind = (typeof InterruptKind)[keyof typeof InterruptKind];

/** @internal What kinds are called, by {@link InterruptKind}. */
export const kindNames = ['INTx', 'MSI', 'MSI-X', 'error', 'request'];

/** How often it is tried to wait for interrupts again, where the event loop had no room for it. */
const RESUME_RETRY_MS = 100;

/** What VFIO tells of one kind of interrupt. */
export interface InterruptInfo {
  /** Vectors the device has; 0 when it lacks this kind. */
  readonly count: number;
  /** They can be delivered through eventfds. */
  readonly eventfd: boolean;
  readonly maskable: boolean;
  /** Masked by each delivery, until unmasked (INTx). */
  readonly automasked: boolean;
  /** All vectors must be enabled at once. */
  readonly fixedSize: boolean;
}

/** Receives the number of interrupts since the last call: several in quick succession arrive as one. */
export type InterruptListener = (count: number) => void;

/**
 * One interrupt vector: call back with {@link listen}, or iterate. Waiting costs no thread and no polling. While it
 * is enabled it keeps the process alive, unless {@link unref} was called.
 */
export class InterruptVector implements AsyncIterable<number> {
  readonly kind: InterruptKind;
  readonly index: number;
  /** The eventfd that the kernel signals. */
  readonly eventfd: number;
  readonly #kernel: Syscalls;
  readonly #count = new BigUint64Array(1);
  readonly #countBytes = new Uint8Array(this.#count.buffer);
  readonly #listeners = new Set<InterruptListener>();
  readonly #waiting = new Set<() => void>();
  readonly #rearm: (() => void) | undefined;
  #watch: Watch | undefined;
  #unreferenced = false;
  #retry: NodeJS.Timeout | undefined;
  /** They are somebody else's still. */
  #held: boolean;
  #closed = false;

  /**
   * @internal Use {@link Interrupts.enable}. `rearm` is called after each delivery to the listeners.
   *
   * @param eventfd one that the kernel signals already, which is taken over, and left alone until {@link begin}; a new one
   * when left out
   */
  constructor(
    kernel: Syscalls,
    kind: InterruptKind,
    index: number,
    rearm: (() => void) | undefined,
    eventfd?: number,
  ) {
    this.#kernel = kernel;
    this.kind = kind;
    this.index = index;
    this.#rearm = rearm;
    this.#held = eventfd !== undefined;
    this.eventfd = eventfd ?? check(kernel.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd');
    try {
      this.resume();
    } catch (error) {
      this.pause();
      kernel.close(this.eventfd);
      throw error;
    }
  }

  /** @internal They are this process's from now on, those signalled in the meantime as well. Makes no system call. */
  begin(): void {
    this.#held = false;
  }

  #deliver(): void {
    if (this.#closed || this.#held || this.#kernel.read(this.eventfd, this.#countBytes) !== 8) return;
    const count = Number(this.#count[0]);
    // One listener's exception must not cost the others their interrupt.
    runAll([...[...this.#listeners].map(listener => () => listener(count)), () => this.#rearm?.()]);
  }

  /**
   * Calls `listener` from the event loop after each interrupt. An exception it throws is an uncaught exception of
   * the process.
   *
   * @returns disposing it ends the calls
   */
  listen(listener: InterruptListener): Disposable {
    checkFunction('listener', listener);
    if (this.#closed) throw new DisposedError(this.#name());
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /**
   * Counts of interrupts, from the first `next()` until the vector is disabled. What arrives between two steps is added
   * up.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, undefined> {
    let pending = 0;
    let wake: (() => void) | undefined;
    using _listening = this.listen(count => {
      pending += count;
      wake?.();
    });
    const end = (): void => wake?.();
    this.#waiting.add(end);
    try {
      while (!this.#closed) {
        if (pending === 0) {
          await new Promise<void>(resolve => {
            wake = resolve;
          });
          wake = undefined;
          continue;
        }
        const count = pending;
        pending = 0;
        yield count;
      }
    } finally {
      this.#waiting.delete(end);
    }
  }

  /** Lets the process end although the vector is enabled. */
  unref(): this {
    this.#unreferenced = true;
    this.#watch?.unref();
    return this;
  }

  /** @internal Leaves interrupts in the eventfd, for {@link resume} or for a successor: none is lost, all are counted. */
  pause(): void {
    clearTimeout(this.#retry);
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
  }

  /**
   * @internal Delivers again, first what came meanwhile.
   *
   * @throws KernelError when that cannot be had now; it is tried again, for as long as it takes
   */
  resume(): void {
    if (this.#closed || this.#watch) return;
    try {
      this.#watch = watchFile(this.#kernel, this.eventfd, 'eventfd', () => this.#deliver());
    } catch (error) {
      const again = (): void => {
        try {
          this.resume();
        } catch {
          // It was told the first time.
        }
      };
      this.#retry = setTimeout(again, RESUME_RETRY_MS);
      throw error;
    }
    if (this.#unreferenced) this.#watch.unref();
  }

  #name(): string {
    return `${kindNames[this.kind]} vector ${this.index}`;
  }

  /** @internal {@link Interrupts} calls it when it has told the kernel. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#listeners.clear();
    for (const end of this.#waiting) end();
    this.pause();
    check(this.#kernel.close(this.eventfd), 'close', { path: 'eventfd' });
  }
}

/** The interrupts of a device. INTx, MSI and MSI-X exclude each other: one kind at a time. */
export class Interrupts implements Disposable {
  readonly #kernel: Syscalls;
  readonly #fd: () => number;
  readonly #device: string;
  readonly #enabled = new Map<InterruptKind, InterruptVector[]>();

  readonly #noteChange: () => void;

  /** @internal Use `Device.interrupts`. `noteChange` is called when vectors come and go. */
  constructor(kernel: Syscalls, fd: () => number, device: string, noteChange: () => void = () => undefined) {
    this.#kernel = kernel;
    this.#fd = fd;
    this.#device = device;
    this.#noteChange = noteChange;
  }

  /** What the device has of a kind. */
  info(kind: InterruptKind): InterruptInfo {
    checkInteger('interrupt kind', kind, 0, InterruptKind.Request);
    const info = transact(this.#kernel, this.#fd(), VFIO_DEVICE_GET_IRQ_INFO, { index: kind });
    return {
      count: info.count,
      eventfd: (info.flags & VFIO_IRQ_INFO_EVENTFD) !== 0,
      maskable: (info.flags & VFIO_IRQ_INFO_MASKABLE) !== 0,
      automasked: (info.flags & VFIO_IRQ_INFO_AUTOMASKED) !== 0,
      fixedSize: (info.flags & VFIO_IRQ_INFO_NORESIZE) !== 0,
    };
  }

  /** The vectors enabled now. */
  vectors(kind: InterruptKind): readonly InterruptVector[] {
    return this.#enabled.get(kind) ?? [];
  }

  /**
   * Enables vectors 0 to `count - 1`. With INTx the line is unmasked again after the listeners have run.
   *
   * @throws RangeError when the device has fewer; DeviceError (UNSUPPORTED) when it has none, (BUSY) when this or an
   * excluding kind is enabled; KernelError.
   */
  enable(kind: InterruptKind, count = 1): readonly InterruptVector[] {
    checkInteger('count', count, 1, 2048);
    const info = this.info(kind);
    const name = kindNames[kind];
    if (info.count === 0) {
      throw new DeviceError(DeviceErrorCode.Unsupported, this.#device, `has no ${name} interrupt`);
    }
    if (count > info.count)
      throw new RangeError(`the device has ${info.count} ${name} vectors, not ${count}`);
    this.#refuseSecond(kind);
    const vectors: InterruptVector[] = [];
    const rearm = info.automasked ? () => this.#unmask(kind) : undefined;
    try {
      for (let index = 0; index < count; index++) {
        vectors.push(new InterruptVector(this.#kernel, kind, index, rearm));
      }
      this.#setEventfds(
        kind,
        vectors.map(vector => vector.eventfd),
      );
    } catch (error) {
      undo(
        error,
        vectors.map(vector => () => vector.close()),
      );
    }
    this.#enabled.set(kind, vectors);
    try {
      this.#noteChange();
    } catch (error) {
      undo(error, [() => this.disable(kind)]);
    }
    return vectors;
  }

  /**
   * @internal Takes over vectors that are enabled: `eventfds` are what the kernel signals, one for each vector from 0 on.
   * They are this object's from now on, also when this throws. What is signalled stays in them until {@link begin}: a
   * predecessor may still have a use for it.
   */
  adopt(kind: InterruptKind, eventfds: readonly number[]): void {
    const vectors: InterruptVector[] = [];
    let taken = 0;
    try {
      this.#refuseSecond(kind);
      const rearm = this.info(kind).automasked ? () => this.#unmask(kind) : undefined;
      for (const [index, eventfd] of eventfds.entries()) {
        taken++;
        vectors.push(new InterruptVector(this.#kernel, kind, index, rearm, eventfd));
      }
    } catch (error) {
      // A vector that could not be made has closed its eventfd itself.
      undo(error, [
        ...vectors.map(vector => () => vector.close()),
        ...eventfds.slice(taken).map(eventfd => () => void this.#kernel.close(eventfd)),
      ]);
    }
    this.#enabled.set(kind, vectors);
  }

  /** @internal Begins to deliver what {@link adopt} took over, with what was signalled meanwhile. Cannot fail. */
  begin(): void {
    for (const vectors of this.#enabled.values()) for (const vector of vectors) vector.begin();
  }

  /** @internal Nothing is delivered until {@link resume}; what comes meanwhile stays in the eventfds. */
  pause(): void {
    for (const vectors of this.#enabled.values()) for (const vector of vectors) vector.pause();
  }

  /** @internal @throws KernelError as `InterruptVector.resume` */
  resume(): void {
    runAll([...this.#enabled.values()].flat().map(vector => () => vector.resume()));
  }

  /** The kinds that are enabled. */
  get enabled(): readonly InterruptKind[] {
    return [...this.#enabled.keys()];
  }

  #refuseSecond(kind: InterruptKind): void {
    const excludes =
      kind <= InterruptKind.Msix ? [InterruptKind.Intx, InterruptKind.Msi, InterruptKind.Msix] : [kind];
    const other = excludes.find(candidate => this.#enabled.has(candidate));
    if (other === undefined) return;
    throw new DeviceError(
      DeviceErrorCode.Busy,
      this.#device,
      `${kindNames[other]} interrupts are enabled`,
      'Disable them first; all vectors of a kind are enabled in one call',
    );
  }

  #setEventfds(kind: InterruptKind, eventfds: readonly number[]): void {
    const data = vfio_irq_set.fields.data.offset;
    const { bytes, view } = vfio_irq_set.allocate(4 * eventfds.length);
    vfio_irq_set.encode(view, {
      argsz: bytes.byteLength,
      flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
      index: kind,
      count: eventfds.length,
    });
    for (const [index, eventfd] of eventfds.entries()) view.setInt32(data + 4 * index, eventfd, true);
    const available = ioctl(this.#kernel, this.#fd(), VFIO_DEVICE_SET_IRQS, bytes, {
      index: kindNames[kind],
      count: eventfds.length,
    });
    if (available > 0) {
      throw new DeviceError(
        DeviceErrorCode.Unsupported,
        this.#device,
        `only ${available} of ${eventfds.length} ${kindNames[kind]} vectors can be had now`,
        'Enable fewer',
      );
    }
  }

  /** A request without data about `count` vectors from `start`; (0, 0) concerns the whole index. */
  #act(kind: InterruptKind, action: number, start: number, count: number): void {
    const values = { flags: VFIO_IRQ_SET_DATA_NONE | action, index: kind, start, count };
    transact(this.#kernel, this.#fd(), VFIO_DEVICE_SET_IRQS, values);
  }

  #unmask(kind: InterruptKind): void {
    if (this.#enabled.has(kind)) this.#act(kind, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1);
  }

  /** Makes the kernel signal a vector as if the device had interrupted: for testing a handler. */
  trigger(kind: InterruptKind, index = 0): void {
    const vectors = this.vectors(kind);
    checkInteger('index', index, 0, vectors.length - 1);
    this.#act(kind, VFIO_IRQ_SET_ACTION_TRIGGER, index, 1);
  }

  /** Disables every vector of a kind and ends their iterations. Fine when none is enabled. */
  disable(kind: InterruptKind): void {
    const vectors = this.#enabled.get(kind);
    if (!vectors) return;
    this.#enabled.delete(kind);
    runAll([
      // Count must be 0: anything else would fire the vectors.
      () => this.#act(kind, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0),
      ...vectors.map(vector => () => vector.close()),
      () => this.#noteChange(),
    ]);
  }

  /** @internal They are somebody else's now: lets go of them without telling the kernel. */
  relinquish(): void {
    const vectors = [...this.#enabled.values()].flat();
    this.#enabled.clear();
    runAll(vectors.map(vector => () => vector.close()));
  }

  /** @internal The device calls it when it is closed. */
  [Symbol.dispose](): void {
    runAll([...this.#enabled.keys()].map(kind => () => this.disable(kind)));
  }
}
