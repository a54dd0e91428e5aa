/** An open `/dev/iommu`: the owner of address spaces, page tables and bound devices. @module */
import { constants } from 'node:fs';
import { defaultKernel } from '../../bindings/kernel.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EINVAL, ENOENT, ENOTTY, EOPNOTSUPP, EOVERFLOW } from '../../bindings/uapi/errno.js';
import {
  IOMMU_DESTROY,
  IOMMU_GET_HW_INFO,
  IOMMU_HWPT_GET_DIRTY_BITMAP,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_OPTION,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
} from '../../bindings/uapi/iommufd.js';
import { checkInteger } from '../check.js';
import { DisposedError, KernelError, undo } from '../errors.js';
import { check, openFile, transact } from '../ioctl.js';
import { Ioas } from './ioas.js';

/** How the kernel refuses a question about dirty pages that makes no sense. */
const harmless = new Set<number>([EINVAL, EOPNOTSUPP, EOVERFLOW]);

const DEV_IOMMU = '/dev/iommu';

/** How pinned memory is charged against the locked-memory limit. */
export const RlimitMode = {
  /** To the user, across all of their processes (the kernel's default). */
  User: 0,
  /** To the process, as `mlock` is. */
  Process: 1,
} as const;
export type RlimitMode = (typeof RlimitMode)[keyof typeof RlimitMode];

/**
 * An iommufd context. Every object in it has an id; ids mean nothing outside it.
 *
 * Closing it does not undo what devices bound to it still use: the kernel keeps the context until the last of them
 * is closed, too.
 */
export class Iommufd implements Disposable {
  readonly kernel: Syscalls;
  readonly #fd: number;
  readonly #ioases = new Set<Ioas>();
  readonly #observers = new Set<() => void>();
  #closed = false;
  #kept = false;
  /** While changes are made at once: whether there were any yet. */
  #changing: { changed: boolean } | undefined;

  private constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.#fd = fd;
  }

  /**
   * Opens `/dev/iommu`.
   *
   * @throws KernelError: ENOENT when the kernel has no iommufd, EACCES without permission.
   */
  static open(kernel: Syscalls = defaultKernel()): Iommufd {
    return new Iommufd(kernel, openFile(kernel, DEV_IOMMU, constants.O_RDWR));
  }

  /** @internal One that was open already, in whichever process. Takes the descriptor over. */
  static adopt(kernel: Syscalls, fd: number): Iommufd {
    return new Iommufd(kernel, fd);
  }

  /** True where this kernel offers iommufd. */
  static available(kernel: Syscalls = defaultKernel()): boolean {
    return kernel.access(DEV_IOMMU, 0) === 0;
  }

  /** The open file. @throws DisposedError */
  get fd(): number {
    if (this.#closed) throw new DisposedError('Iommufd');
    return this.#fd;
  }

  /** True until it is disposed. */
  get open(): boolean {
    return !this.#closed;
  }

  /** Makes an empty address space. @throws KernelError, and what observers throw; there is none then */
  allocIoas(): Ioas {
    return this.announce(new Ioas(this, transact(this.kernel, this.fd, IOMMU_IOAS_ALLOC, {}).out_ioas_id));
  }

  /** @internal Tells observers of something that was just made; where one objects it is gone again. @throws what it throws */
  announce<T extends Disposable>(made: T): T {
    try {
      this.noteChange();
      return made;
    } catch (error) {
      undo(error, [() => made[Symbol.dispose]()]);
    }
  }

  /** Its address spaces, in the order in which they were made. */
  get ioases(): ReadonlySet<Ioas> {
    return this.#ioases;
  }

  /** @internal An address space calls it when it is made. */
  addIoas(ioas: Ioas): void {
    this.#ioases.add(ioas);
  }

  /** @internal An address space calls it when it is gone. */
  removeIoas(ioas: Ioas): void {
    this.#ioases.delete(ioas);
    this.noteChange();
  }

  /** True once it is to outlive this process: it then takes no memory that would not. See `KeepAlive`. */
  get kept(): boolean {
    return this.#kept;
  }

  /** @internal `KeepAlive` decides it. */
  set kept(kept: boolean) {
    this.#kept = kept;
  }

  /** @internal Calls `observer` when something of the context comes, goes or is attached elsewhere. */
  observe(observer: () => void): Disposable {
    this.#observers.add(observer);
    return { [Symbol.dispose]: () => void this.#observers.delete(observer) };
  }

  /** @internal Whoever changes something of the context calls it afterwards. @throws what observers throw */
  noteChange(): void {
    if (this.#changing) this.#changing.changed = true;
    else for (const observer of this.#observers) observer();
  }

  /**
   * @internal Observers see all that `change` does at once, when it has returned or thrown: nobody writes down what is
   * true in between only.
   *
   * @throws what `change` throws, and what observers throw
   */
  atOnce<T>(change: () => T): T {
    // Within another one, which tells observers.
    if (this.#changing) return change();
    const changing = { changed: false };
    this.#changing = changing;
    const tell = (): void => {
      this.#changing = undefined;
      if (changing.changed) this.noteChange();
    };
    let result: T;
    try {
      result = change();
    } catch (error) {
      undo(error, [tell]);
    }
    tell();
    return result;
  }

  /**
   * Moves the accounting of all pinned memory to this process, as a successor does that took the context over.
   *
   * @throws KernelError: EINVAL when a mapping is not of a file, ENOMEM over the locked-memory limit; nothing has
   * changed then.
   */
  changeProcess(): void {
    transact(this.kernel, this.fd, IOMMU_IOAS_CHANGE_PROCESS, {});
  }

  /** @internal Whether a device with this id is bound here. Nothing changes. @throws KernelError */
  hasDevice(id: number): boolean {
    try {
      transact(this.kernel, this.fd, IOMMU_GET_HW_INFO, { dev_id: id });
      return true;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (error.errno === ENOENT) return false;
      // Without IOMMU there is nothing to tell of; before Linux 6.6 nothing tells.
      if (error.errno === EOPNOTSUPP || error.errno === ENOTTY) return true;
      throw error;
    }
  }

  /** @internal Whether there is a page table (of an address space) with this id. Nothing changes. @throws KernelError */
  hasPageTable(id: number): boolean {
    try {
      // A question about no pages at all, which is refused whatever it is asked of.
      const values = { hwpt_id: id, flags: IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR };
      transact(this.kernel, this.fd, IOMMU_HWPT_GET_DIRTY_BITMAP, values);
      return true;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (error.errno === ENOENT) return false;
      if (harmless.has(error.errno)) return true;
      throw error;
    }
  }

  /**
   * Destroys any object by its id; objects have methods that do this for them.
   *
   * @throws KernelError: ENOENT for an unknown id, EBUSY while something uses the object.
   */
  destroy(id: number): void {
    transact(this.kernel, this.fd, IOMMU_DESTROY, { id: checkInteger('id', id, 0, 0xffff_ffff) }, { id });
  }

  /** How pinned memory is charged. */
  get rlimitMode(): RlimitMode {
    const { val64 } = this.#option(IOMMU_OPTION_OP_GET, 0n);
    return val64 === 1n ? RlimitMode.Process : RlimitMode.User;
  }

  /** @throws KernelError: EPERM without CAP_SYS_RESOURCE, EBUSY once the context has any object. */
  set rlimitMode(mode: RlimitMode) {
    this.#option(IOMMU_OPTION_OP_SET, BigInt(checkInteger('rlimitMode', mode, 0, 1)));
  }

  #option(op: number, val64: bigint) {
    return transact(this.kernel, this.fd, IOMMU_OPTION, { option_id: IOMMU_OPTION_RLIMIT_MODE, op, val64 });
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    check(this.kernel.close(this.#fd), 'close', { path: DEV_IOMMU });
  }
}
