// A machine with nothing but /dev/iommu, made by hand, and calls to it.

import { IOMMU_IOAS_ALLOC } from '../../../bindings/uapi/iommufd.js';
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { Struct, StructInput, StructValue } from '../../../bindings/uapi/struct.js';
import type { DirtyTracking, PagingDomain } from '../../../src/sim/iommu/domain.js';
import type { IommufdContext } from '../../../src/sim/iommufd/context.js';
import { DmaBufFile, type PhysicalRange } from '../../../src/sim/iommufd/dma-buf.js';
import { IommufdFile, openIommufd } from '../../../src/sim/iommufd/file.js';
import type { IoPageTable } from '../../../src/sim/iommufd/io-page-table.js';
import { getIoas, type IoasObject } from '../../../src/sim/iommufd/ioas-object.js';
import {
  PAGE,
  PhysicalMemory,
  type PhysicalMemoryOptions,
} from '../../../src/sim/machine/physical-memory.js';
import { Directory } from '../../../src/sim/process/file-tree.js';
import { SimulatedProcess } from '../../../src/sim/process/process.js';
import { processHost } from './sim-process-host.js';

export const page = BigInt(PAGE);
export const U64_MAX = 2n ** 64n - 1n;

/** A machine. */
export function machine(options?: PhysicalMemoryOptions) {
  const physical = new PhysicalMemory(options);
  const files = new Directory();
  files.directory('dev').set('iommu', { kind: 'device', open: openIommufd });
  const host = processHost(physical, files);
  let pid = 100;
  return {
    physical,
    newProcess: (options?: ConstructorParameters<typeof SimulatedProcess>[2]) =>
      new SimulatedProcess(host, pid++, options),
  };
}

/** An open /dev/iommu. */
export class Iommufd {
  readonly process: SimulatedProcess;
  readonly fd: number;

  constructor(process: SimulatedProcess, fd: number = process.open('/dev/iommu', 2)) {
    this.process = process;
    this.fd = fd;
  }

  get context(): IommufdContext {
    const file = this.process.file(this.fd);
    if (!(file instanceof IommufdFile)) throw new Error('not /dev/iommu');
    return file.context;
  }

  /** Makes a call; its size is that of the struct unless given. */
  call<S extends Struct>(
    request: Request<S>,
    input: StructInput<S>,
  ): { result: number; out: StructValue<S> } {
    const struct = request.argument;
    const { bytes, view } = struct.allocate();
    struct.encode(view, { size: struct.size, ...input } as never);
    const result = this.process.ioctl(this.fd, request.number, bytes);
    return { result, out: struct.decode(view) as StructValue<S> };
  }

  /** What a call answers. */
  result<S extends Struct>(request: Request<S>, input: StructInput<S>): number {
    return this.call(request, input).result;
  }

  newIoas(): number {
    return this.call(IOMMU_IOAS_ALLOC, {}).out.out_ioas_id;
  }

  ioas(id: number): IoasObject {
    return getIoas(this.context, id) as IoasObject;
  }

  table(id: number): IoPageTable {
    return this.ioas(id).table;
  }

  /** So many pages of fresh memory. */
  memory(pages: number, protection = PROT_READ | PROT_WRITE): bigint {
    return this.process.mmap(pages * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
}

/** A page table that remembers what is in it. */
export class TestDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly driver: string;
  readonly pageSizes: bigint;
  readonly aperture: { readonly first: bigint; readonly last: bigint };
  readonly dirty: DirtyTracking | undefined;
  /** Every call to {@link map}. */
  readonly maps: { iova: bigint; address: bigint; length: bigint; protection: number }[] = [];
  readonly #pages = new Map<bigint, bigint>();
  /** How many calls to {@link map} may still succeed. */
  patience = Number.POSITIVE_INFINITY;

  constructor(
    options: { driver?: string; pageSizes?: bigint; last?: bigint; dirty?: DirtyTracking | undefined } = {},
  ) {
    this.driver = options.driver ?? 'test';
    this.pageSizes = options.pageSizes ?? page;
    this.aperture = { first: 0n, last: options.last ?? U64_MAX };
    this.dirty = options.dirty;
  }

  get #step(): bigint {
    return this.pageSizes & -this.pageSizes;
  }

  /** How many bytes are mapped. */
  get mapped(): bigint {
    return BigInt(this.#pages.size) * this.#step;
  }

  map(iova: bigint, address: bigint, length: bigint, protection: number): number {
    if (this.patience-- <= 0) return -12;
    this.maps.push({ iova, address, length, protection });
    for (let at = 0n; at < length; at += this.#step) this.#pages.set(iova + at, address + at);
    return 0;
  }

  unmap(iova: bigint, length: bigint): bigint {
    let count = 0n;
    for (const at of [...this.#pages.keys()]) {
      if (at >= iova && at < iova + length && this.#pages.delete(at)) count += this.#step;
    }
    return count;
  }

  translate(iova: bigint): bigint | undefined {
    const offset = iova % this.#step;
    const found = this.#pages.get(iova - offset);
    return found === undefined ? undefined : found + offset;
  }

  free(): void {}
}

/** Memory of a device that is not there. */
export class TestDmaBuf extends DmaBufFile {
  readonly size: number;
  #range: PhysicalRange | number;

  constructor(range: PhysicalRange) {
    super();
    this.size = range.length;
    this.#range = range;
  }

  override physicalRange(): PhysicalRange | number {
    return this.#range;
  }

  revoke(): void {
    this.revokeAll();
    this.#range = -19;
  }

  protected override release(): void {}
}
