/** What one open of `/dev/iommu` has: the counterpart of `struct iommufd_ctx`. @module */
import { EBUSY, ENOENT } from '../../../bindings/uapi/errno.js';
import type { Mappable, OpenFile } from '../process/open-file.js';
import type { ProcessHost } from '../process/process.js';
import { AccountMode } from './accounting.js';
import type { IoasObject } from './ioas-object.js';
import type { IommufdObject, ObjectType } from './objects.js';

/** Something of an object that user mode can map, through the offset that the kernel chose for it. */
export interface MapOffset {
  readonly owner: IommufdObject;
  /** In bytes, a multiple of the page size. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
  readonly memory: Mappable['memory'];
}

/** An id that is taken although there is no object: not finished yet, or destroyed and not to be used again. */
const RESERVED = Symbol('reserved');

export class IommufdContext {
  /** The open file; whoever keeps the context alive takes a reference to it. */
  readonly file: OpenFile;
  readonly host: ProcessHost;
  /** How pages that are pinned without CAP_IPC_LOCK are charged. */
  accountMode: AccountMode = AccountMode.None;
  /** The address space that VFIO's own requests work on. */
  vfioIoas: IoasObject | undefined;
  /** A device without an IOMMU is in the container. */
  noIommuMode = false;
  /** What is known about groups of devices in this context, by the group. */
  readonly groups = new Map<object, object>();
  readonly mapOffsets = new Set<MapOffset>();
  readonly #objects = new Map<number, IommufdObject | typeof RESERVED>();
  #lowestFree = 1;

  constructor(file: OpenFile, host: ProcessHost) {
    this.file = file;
    this.host = host;
  }

  /** No id is taken. */
  get empty(): boolean {
    return this.#objects.size === 0;
  }

  /** Every object that is finished, by ascending id. */
  *objects(): IterableIterator<IommufdObject> {
    for (const id of [...this.#objects.keys()].sort((a, b) => a - b)) {
      const object = this.#objects.get(id);
      if (object !== undefined && object !== RESERVED) yield object;
    }
  }

  /** Gives the object the smallest id that is free. Nobody finds it before {@link finalize}. */
  reserve<T extends IommufdObject>(object: T): T {
    while (this.#objects.has(this.#lowestFree)) this.#lowestFree++;
    object.id = this.#lowestFree++;
    this.#objects.set(object.id, RESERVED);
    return object;
  }

  /** The object is complete and can be found. */
  finalize(object: IommufdObject): void {
    if (this.#objects.get(object.id) !== RESERVED) throw new Error(`object ${object.id}: not reserved`);
    this.#objects.set(object.id, object);
  }

  /** Gives the id back of an object that was reserved and not finalised, and destroys what it holds. */
  abort(object: IommufdObject): void {
    object.abort();
    this.release(object);
  }

  /** Gives the id back of an object that was reserved and not finalised, and leaves the object alone. */
  release(object: IommufdObject): void {
    if (this.#objects.get(object.id) !== RESERVED) throw new Error(`object ${object.id}: not reserved`);
    this.#erase(object.id);
  }

  #erase(id: number): void {
    this.#objects.delete(id);
    if (id < this.#lowestFree) this.#lowestFree = id;
  }

  /** The object with that id if it is of one of the types, any unless told. Undefined stands for ENOENT. */
  get(id: number, ...types: ObjectType[]): IommufdObject | undefined {
    const object = this.#objects.get(id);
    if (object === undefined || object === RESERVED) return undefined;
    return types.length === 0 || types.includes(object.type) ? object : undefined;
  }

  /** Whether the object is in the table, so that more references may be taken to it (iommufd_try_inc_users). */
  holds(object: IommufdObject): boolean {
    return this.#objects.get(object.id) === object;
  }

  /** What IOMMU_DESTROY does. @returns 0, minus ENOENT, or minus EBUSY while it is used */
  remove(id: number): number {
    const object = this.get(id);
    if (object === undefined) return -ENOENT;
    if (object.users > 0) return -EBUSY;
    this.#erase(id);
    this.#destroy(object);
    return 0;
  }

  /**
   * Puts back the reference of the object's maker, the caller, and destroys it. Linux warns when somebody else uses it
   * still, and leaves it until the file is closed.
   */
  destroyUser(object: IommufdObject): void {
    if (!this.#prepare(object)) return;
    this.#erase(object.id);
    this.#destroy(object);
  }

  /** As {@link destroyUser}; its id is never given out again. */
  tombstone(object: IommufdObject): void {
    if (!this.#prepare(object)) return;
    this.#objects.set(object.id, RESERVED);
    this.#destroy(object);
  }

  #prepare(object: IommufdObject): boolean {
    if (object.waits > 0) object.preDestroy();
    object.users--;
    return object.users === 0 && this.holds(object);
  }

  #destroy(object: IommufdObject): void {
    if (this.vfioIoas === object) this.vfioIoas = undefined;
    object.destroy();
  }

  /**
   * The last reference to the file is gone: destroys everything, leaves first. What is still used when nothing more can
   * be destroyed is lost; Linux warns then.
   */
  destroy(): void {
    for (let destroyed = -1; destroyed !== 0; ) {
      destroyed = 0;
      for (const object of this.objects()) {
        // Destroying one may have destroyed others.
        if (!this.holds(object) || object.users > 0) continue;
        destroyed++;
        this.#erase(object.id);
        this.#destroy(object);
      }
    }
  }
}
