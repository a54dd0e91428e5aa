/** A driver that reads and writes an address space without DMA: the counterpart of `struct iommufd_access`. @module */
import { EINVAL, ENOENT, EOVERFLOW, EPERM } from '../../../bindings/uapi/errno.js';
import { Protection } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import type { SimulatedProcess } from '../process/process.js';
import type { Area, Piece } from './area.js';
import type { IommufdContext } from './context.js';
import { U64_MAX } from './intervals.js';
import type { TableAccess } from './io-page-table.js';
import { getIoas, type IoasObject } from './ioas-object.js';
import { IommufdObject, ObjectType } from './objects.js';
import { AccessFlag } from './pages.js';

const PAGE_BYTES = BigInt(PAGE);

/** What the driver does for it. */
export interface AccessOperations {
  /** It pins pages, so that everything it maps must be made of whole ones. */
  readonly needsPinPages: boolean;
  /** Lets go of all pages in the range. */
  unmap?(iova: bigint, length: bigint): void;
}

export class IommufdAccess extends IommufdObject implements TableAccess {
  override readonly type = ObjectType.Access;
  readonly context: IommufdContext;
  readonly iovaAlignment: bigint;
  ioas: IoasObject | undefined;
  /** Pages can be put back, but no more be had: it is on its way from one address space to another. */
  #changing = false;
  /** Absent for an access of iommufd's own, whose pages cannot be unmapped. */
  readonly #operations: AccessOperations | undefined;

  private constructor(context: IommufdContext, operations: AccessOperations | undefined) {
    super();
    this.context = context;
    this.#operations = operations;
    this.iovaAlignment = operations?.needsPinPages === false ? 1n : PAGE_BYTES;
  }

  /** A new one, which its driver destroys with {@link IommufdContext.destroyUser}. It keeps the context alive. */
  static create(context: IommufdContext, operations: AccessOperations): IommufdAccess {
    context.file.get();
    return IommufdAccess.#add(context, operations);
  }

  /** One for iommufd's own use: what it has pinned cannot be unmapped. */
  static createInternal(context: IommufdContext): IommufdAccess {
    return IommufdAccess.#add(context, undefined);
  }

  static #add(context: IommufdContext, operations: AccessOperations | undefined): IommufdAccess {
    const access = context.reserve(new IommufdAccess(context, operations));
    access.users++;
    context.finalize(access);
    return access;
  }

  override destroy(): void {
    this.#change(undefined);
    if (this.#operations !== undefined) this.context.file.put();
  }

  // Which address space

  /** @returns 0, or minus EINVAL, ENOENT or EADDRINUSE */
  attach(ioasId: number): number {
    return this.ioas === undefined ? this.#changeTo(ioasId) : -EINVAL;
  }

  /** For iommufd's own accesses. @returns 0, or minus EINVAL or EADDRINUSE */
  attachInternal(ioas: IoasObject): number {
    return this.ioas === undefined ? this.#change(ioas) : -EINVAL;
  }

  /** @returns 0, or minus ENOENT or EADDRINUSE */
  replace(ioasId: number): number {
    return this.ioas === undefined ? -ENOENT : this.#changeTo(ioasId);
  }

  detach(): void {
    this.#change(undefined);
  }

  #changeTo(ioasId: number): number {
    const ioas = getIoas(this.context, ioasId);
    return ioas === undefined ? -ENOENT : this.#change(ioas);
  }

  #change(ioas: IoasObject | undefined): number {
    const old = this.ioas;
    if (old === ioas) return 0;
    const result = ioas?.table.addAccess(this) ?? 0;
    if (result < 0) return result;
    if (ioas !== undefined) ioas.users++;
    if (old !== undefined) {
      this.#changing = true;
      this.#operations?.unmap?.(0n, U64_MAX);
      this.#changing = false;
      old.table.removeAccess(this);
      old.users--;
    }
    this.ioas = ioas;
    return 0;
  }

  notifyUnmap(iova: bigint, length: bigint): void {
    this.#operations?.unmap?.(iova, length);
  }

  // Memory

  /**
   * Pins the pages of a range, and gives their frames.
   *
   * @param flags or-ed from {@link AccessFlag}
   * @returns minus the errno, with nothing pinned
   */
  pinPages(iova: bigint, length: bigint, flags: number): number[] | number {
    const range = this.#range(iova, length);
    if (typeof range === 'number') return range;
    const frames: number[] = [];
    const done: Piece[] = [];
    const internal = this.#operations === undefined;
    const fail = (result: number): number => {
      for (const piece of done) removeAccess(piece, internal);
      return result;
    };
    for (const [index, piece] of range.pieces.entries()) {
      const { area } = piece;
      const last = range.complete && index === range.pieces.length - 1;
      if (area.preventAccess || !isAligned(piece, last)) return fail(-EINVAL);
      if (!permits(area, flags)) return fail(-EPERM);
      const firstPage = area.pageAt(piece.first);
      const lastPage = area.pageAt(piece.last);
      const result = area.pages.addAccess(firstPage, lastPage, (flags & AccessFlag.Write) !== 0);
      if (result < 0) return fail(result);
      area.accesses++;
      if (internal) area.locks++;
      done.push(piece);
      for (let page = firstPage; page <= lastPage; page++) frames.push(area.pages.frame(page));
    }
    return range.complete ? frames : fail(-ENOENT);
  }

  /** Undoes {@link pinPages} of the same range. */
  unpinPages(iova: bigint, length: bigint): void {
    if (this.ioas === undefined) throw new Error('pages are put back by an access that has no address space');
    const { pieces } = this.ioas.table.areas.contiguous(iova, iova + length - 1n);
    for (const piece of pieces) removeAccess(piece, this.#operations === undefined);
  }

  /**
   * Copies from (or to, with {@link AccessFlag}.Write) the memory behind a range.
   *
   * @param current who makes the system call
   * @returns 0, or minus the errno; what comes before the place at fault is copied then
   */
  copy(current: SimulatedProcess, iova: bigint, data: Uint8Array, flags: number): number {
    const range = this.#range(iova, BigInt(data.byteLength));
    if (typeof range === 'number') return range;
    let at = 0;
    for (const { area, first, last } of range.pieces) {
      if (area.preventAccess) return -EINVAL;
      if (!permits(area, flags)) return -EPERM;
      const part = data.subarray(at, at + Number(last - first + 1n));
      const result = area.pages.copy(current, area.byteAt(first), part, flags);
      if (result < 0) return result;
      at += part.byteLength;
    }
    return range.complete ? 0 : -ENOENT;
  }

  #range(iova: bigint, length: bigint): { pieces: Piece[]; complete: boolean } | number {
    if (length === 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.ioas === undefined || this.#changing) return -ENOENT;
    return this.ioas.table.areas.contiguous(iova, last);
  }
}

function removeAccess({ area, first, last }: Piece, internal: boolean): void {
  area.pages.removeAccess(area.pageAt(first), area.pageAt(last));
  area.accesses--;
  if (internal) area.locks--;
}

/** Whether it begins with a page, and ends with one unless it is the last. */
function isAligned({ area, first }: Piece, last: boolean): boolean {
  if (area.byteAt(first) % PAGE_BYTES !== 0n) return false;
  return last || (area.byteAt(area.last) + 1n) % PAGE_BYTES === 0n;
}

function permits(area: Area, flags: number): boolean {
  const needed = flags & AccessFlag.Write ? Protection.Write : Protection.Read;
  return (area.protection & needed) !== 0;
}
