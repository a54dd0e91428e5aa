/** A domain whose page table lies in the simulated machine's memory, in the hardware's own format. @module */
import { EADDRINUSE, EINVAL, ENOMEM } from '../../../bindings/uapi/errno.js';
import type { Iova, PhysicalAddress } from '../../address.js';
import { PageTable, type PageTranslation } from '../../memory/page-table.js';
import { PageTableError, PageTableErrorCode } from '../../memory/page-table-error.js';
import type { PageTableFormat } from '../../memory/page-table-format.js';
import type { TableMemory } from '../../memory/table-memory.js';
import { type PagingDomain, Protection } from './domain.js';

export interface TableDomainOptions {
  readonly driver: string;
  readonly format: PageTableFormat;
  readonly levels: number;
  readonly pageSizes: bigint;
  /** The last IOVA it translates. */
  readonly last: bigint;
  readonly signExtend?: boolean;
  /** It can force coherence; {@link TableDomain.enforceCacheCoherency} then works. */
  readonly snoop?: boolean;
  /** Forces it from the start. */
  readonly alwaysSnoop?: boolean;
  /** Coherence can be forced outside the table. */
  readonly coherent?: boolean;
}

export class TableDomain implements PagingDomain {
  readonly kind = 'paging';
  readonly driver: string;
  readonly pageSizes: bigint;
  readonly aperture: { readonly first: bigint; readonly last: bigint };
  readonly #memory: TableMemory;
  readonly #options: TableDomainOptions;
  #table: PageTable;
  /** What was translated lately, by the number of the page; nothing stays that a change could make wrong. */
  readonly #tlb = new Map<number, PageTranslation>();

  /** @throws PageTableError NO_MEMORY */
  constructor(memory: TableMemory, options: TableDomainOptions) {
    this.#memory = memory;
    this.#options = options;
    this.driver = options.driver;
    this.pageSizes = options.pageSizes;
    this.aperture = { first: 0n, last: options.last };
    this.#table = PageTable.create(options.format, memory, this.#tableOptions(options.alwaysSnoop ?? false));
  }

  #tableOptions(snoop: boolean) {
    const { levels, pageSizes, signExtend = false } = this.#options;
    return { levels, pageSizes, signExtend, snoop };
  }

  /** The table as hardware reads it. */
  get table(): PageTable {
    return this.#table;
  }

  map(iova: bigint, address: bigint, length: bigint, protection: number): number {
    try {
      this.#table.map(iova as Iova, address as PhysicalAddress, length, {
        readable: (protection & Protection.Read) !== 0 || this.#options.format === 'x86-first-stage',
        writeable: (protection & Protection.Write) !== 0,
      });
      return 0;
    } catch (error) {
      if (error instanceof RangeError) return -EINVAL;
      if (!(error instanceof PageTableError)) throw error;
      if (error.code === PageTableErrorCode.Exists) return -EADDRINUSE;
      if (error.code === PageTableErrorCode.NoMemory) return -ENOMEM;
      throw error;
    }
  }

  unmap(iova: bigint, length: bigint): bigint {
    this.#tlb.clear();
    return this.#table.unmap(iova as Iova, length);
  }

  translate(iova: bigint): bigint | undefined {
    return this.#table.translate(iova as Iova)?.address;
  }

  /** What hardware finds for the page that `iova` is in. */
  walk(iova: bigint): PageTranslation | undefined {
    const page = Number(iova >> 12n);
    const cached = this.#tlb.get(page);
    if (cached !== undefined) return cached;
    const found = this.#table.translate((iova & ~0xfffn) as Iova);
    if (found !== undefined) {
      if (this.#tlb.size >= 4096) this.#tlb.clear();
      this.#tlb.set(page, found);
    }
    return found;
  }

  enforceCacheCoherency(): boolean {
    if (this.#options.coherent === true) return true;
    if (this.#options.snoop !== true) return false;
    const { format } = this.#options;
    this.#table = PageTable.open(format, this.#memory, this.#table.root, {
      ...this.#tableOptions(true),
      levels: this.#table.levels,
    });
    return true;
  }

  free(): void {
    this.#tlb.clear();
    this.#table[Symbol.dispose]();
  }
}
