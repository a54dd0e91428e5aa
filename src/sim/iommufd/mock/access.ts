/** Accesses that user mode drives, for tests. @module */
import { EBADE, EBADFD, EFAULT, ENOENT, ENOMEM, EOPNOTSUPP } from '../../../../bindings/uapi/errno.js';
import {
  iommu_test_cmd_access_pages,
  iommu_test_cmd_access_replace_ioas,
  iommu_test_cmd_access_rw,
  iommu_test_cmd_create_access,
  iommu_test_cmd_destroy_access_pages,
  MOCK_ACCESS_RW_SLOW_PATH,
  MOCK_ACCESS_RW_WRITE,
  MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES,
  MOCK_FLAGS_ACCESS_SYZ,
  MOCK_FLAGS_ACCESS_WRITE,
} from '../../../../bindings/uapi/iommufd-test.js';
import { PAGE } from '../../machine/physical-memory.js';
import { OpenFile } from '../../process/open-file.js';
import type { SimulatedProcess } from '../../process/process.js';
import { IommufdAccess } from '../access.js';
import type { IommufdContext } from '../context.js';
import { U64_MAX } from '../intervals.js';
import type { TestCommand } from './test-command.js';
import { userPage } from './user-pages.js';

const PAGE_BYTES = BigInt(PAGE);
/** Nobody asks for more in one go, in bytes. */
const MAX_LENGTH = 16n * 2n ** 20n;

/** Pages that are pinned. */
interface Item {
  readonly id: number;
  readonly iova: bigint;
  readonly length: bigint;
}

/** The access lives as long as its descriptor. */
class AccessFile extends OpenFile {
  override readonly name = 'anon_inode:[iommufd_test_staccess]';
  readonly access: IommufdAccess;
  readonly needsPinPages: boolean;
  #items: Item[] = [];
  #nextId = 0;

  constructor(context: IommufdContext, needsPinPages: boolean) {
    super();
    this.needsPinPages = needsPinPages;
    const unmap = (iova: bigint, length: bigint): void => this.#unmap(iova, length);
    this.access = IommufdAccess.create(context, { needsPinPages, unmap });
  }

  #unmap(iova: bigint, length: bigint): void {
    const last = iova + length - 1n;
    for (const item of this.#items) {
      if (iova <= item.iova + item.length - 1n && last >= item.iova) this.drop(item.id);
    }
  }

  /** Remembers what has been pinned. @returns its id */
  add(iova: bigint, length: bigint): number {
    const id = this.#nextId++;
    this.#items.push({ id, iova, length });
    return id;
  }

  /** Unpins. @returns 0, or minus ENOENT */
  drop(id: number): number {
    const item = this.#items.find(each => each.id === id);
    if (item === undefined) return -ENOENT;
    this.#items = this.#items.filter(each => each !== item);
    this.access.unpinPages(item.iova, item.length);
    return 0;
  }

  /** The IOVA that stands for an area by its number (low half) and an offset in it (high half). */
  areaIova(iova: bigint): bigint {
    let left = Number(iova & 0xffff_ffffn);
    for (const area of this.access.ioas?.table.areas ?? []) {
      if (left-- === 0) return area.first + (iova >> 32n);
    }
    return 0n;
  }

  protected override release(): void {
    this.#unmap(0n, U64_MAX);
    this.access.context.destroyUser(this.access);
  }
}

/** The access behind a descriptor. @returns minus EBADFD */
function accessOf({ values, process }: TestCommand): AccessFile | number {
  const file = process.file(values.id);
  return file instanceof AccessFile ? file : -EBADFD;
}

export function createAccess(command: TestCommand): number {
  const { view, context, process, values } = command;
  const flags = iommu_test_cmd_create_access.get(view, 'flags');
  if (flags & ~MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES) return -EOPNOTSUPP;
  const file = new AccessFile(context, flags !== 0);
  const attached = file.access.attach(values.id);
  if (attached < 0) {
    file.put();
    return attached;
  }
  const fd = process.install(file);
  if (fd < 0) return -ENOMEM;
  iommu_test_cmd_create_access.set(view, 'out_access_fd', fd);
  const result = command.respond();
  if (result < 0) process.close(fd);
  return result;
}

export function replaceAccessIoas(command: TestCommand): number {
  const file = accessOf(command);
  if (typeof file === 'number') return file;
  return file.access.replace(iommu_test_cmd_access_replace_ioas.get(command.view, 'ioas_id'));
}

export function destroyAccessPages(command: TestCommand): number {
  const file = accessOf(command);
  if (typeof file === 'number') return file;
  return file.drop(iommu_test_cmd_destroy_access_pages.get(command.view, 'access_pages_id'));
}

/** Whether frames are those behind the addresses from `address` on. @returns 0, or minus EBADE or EFAULT */
function compare(process: SimulatedProcess, address: bigint, frames: readonly number[]): number {
  for (const [index, frame] of frames.entries()) {
    const page = userPage(process, address + BigInt(index) * PAGE_BYTES);
    if (typeof page === 'number') return page;
    if (page.frame !== frame) return -EBADE;
  }
  return 0;
}

export function pinAccessPages(command: TestCommand): number {
  const { view, process } = command;
  const { flags, length, uptr, ...given } = iommu_test_cmd_access_pages.decode(view);
  if (length > MAX_LENGTH) return -ENOMEM;
  if (flags & ~(MOCK_FLAGS_ACCESS_WRITE | MOCK_FLAGS_ACCESS_SYZ)) return -EOPNOTSUPP;
  const file = accessOf(command);
  if (typeof file === 'number') return file;
  if (!file.needsPinPages) return -EOPNOTSUPP;
  const iova = flags & MOCK_FLAGS_ACCESS_SYZ ? file.areaIova(given.iova) : given.iova;
  const frames = file.access.pinPages(iova, length, flags & MOCK_FLAGS_ACCESS_WRITE);
  if (typeof frames === 'number') return frames;
  const same = uptr === 0n ? 0 : compare(process, uptr - (iova % PAGE_BYTES), frames);
  if (same < 0) {
    file.access.unpinPages(iova, length);
    return same;
  }
  const id = file.add(iova, length);
  iommu_test_cmd_access_pages.set(view, 'out_access_pages_id', id);
  const result = command.respond();
  if (result < 0) file.drop(id);
  return result;
}

export function copyAccess(command: TestCommand): number {
  const { process } = command;
  const { flags, length, uptr, ...given } = iommu_test_cmd_access_rw.decode(command.view);
  if (length > MAX_LENGTH) return -ENOMEM;
  const known = MOCK_ACCESS_RW_WRITE | MOCK_ACCESS_RW_SLOW_PATH | MOCK_FLAGS_ACCESS_SYZ;
  if (flags & ~known) return -EOPNOTSUPP;
  const file = accessOf(command);
  if (typeof file === 'number') return file;
  const write = (flags & MOCK_ACCESS_RW_WRITE) !== 0;
  const data = write ? process.copyIn(uptr, Number(length)) : new Uint8Array(Number(length));
  if (typeof data === 'number') return data;
  const iova = flags & MOCK_FLAGS_ACCESS_SYZ ? file.areaIova(given.iova) : given.iova;
  const result = file.access.copy(process, iova, data, flags);
  if (result < 0 || write) return result;
  return process.copyOut(uptr, data) < 0 ? -EFAULT : 0;
}
