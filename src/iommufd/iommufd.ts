/** An open `/dev/iommu`: the owner of address spaces, page tables and bound devices. @module */
import { constants } from 'node:fs';
import { linux } from '../../bindings/linux.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import {
  IOMMU_DESTROY,
  IOMMU_IOAS_ALLOC,
  IOMMU_OPTION,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
} from '../../bindings/uapi/iommufd.js';
import { checkInteger } from '../check.js';
import { DisposedError } from '../errors.js';
import { check, openFile, transact } from '../ioctl.js';
import { Ioas } from './ioas.js';

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
  #closed = false;

  private constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.#fd = fd;
  }

  /**
   * Opens `/dev/iommu`.
   *
   * @throws KernelError: ENOENT when the kernel has no iommufd, EACCES without permission.
   */
  static open(kernel: Syscalls = linux()): Iommufd {
    return new Iommufd(kernel, openFile(kernel, DEV_IOMMU, constants.O_RDWR));
  }

  /** True where this kernel offers iommufd. */
  static available(kernel: Syscalls = linux()): boolean {
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

  /** Makes an empty address space. @throws KernelError */
  allocIoas(): Ioas {
    return new Ioas(this, transact(this.kernel, this.fd, IOMMU_IOAS_ALLOC, {}).out_ioas_id);
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
