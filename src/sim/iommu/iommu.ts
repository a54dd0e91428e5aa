/** The IOMMU of a simulated machine: it makes page tables, walks them for every DMA, and records what it refuses. @module */
import { EINVAL, ENOMEM, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import { IOMMU_HW_INFO_TYPE_DEFAULT } from '../../../bindings/uapi/iommufd.js';
import type { PhysicalAddress } from '../../address.js';
import type { PageTable } from '../../memory/page-table.js';
import { PageTableError } from '../../memory/page-table-error.js';
import { TableMemory } from '../../memory/table-memory.js';
import { PAGE, type PhysicalMemory } from '../machine/physical-memory.js';
import type {
  BlockedDomain,
  Domain,
  IommuDevice,
  IommuGroup,
  NestedDomain,
  PagingDomain,
  ReservedRegion,
  UserData,
} from './domain.js';
import { bookkeeping, hardware, type IommuHardware, type MachineProfile } from './hardware.js';
import { TableDomain } from './table-domain.js';

/** A DMA that the IOMMU stopped. */
export interface DmaFault {
  /** The device's PCI address. */
  readonly device: string;
  /** The IOVA it asked for. */
  readonly address: bigint;
  readonly access: 'read' | 'write';
  readonly reason: 'blocked' | 'not mapped' | 'not readable' | 'not writeable';
}

/**
 * Called between two page tables of a device.
 *
 * @param device its PCI address
 * @returns 0, or minus the errno of an attach that fails there: the device stays cut off, whatever iommufd believes
 */
export type GapListener = (device: string) => number;

/** How a device reaches memory. */
export interface DmaPath {
  /** False where it was refused; what came before the place at fault was done. */
  read(address: bigint, into: Uint8Array): boolean;
  write(address: bigint, from: Uint8Array): boolean;
}

/** Page tables begin here: below the memory that processes get. */
const TABLES_AT = 0x10_0000;
const TABLE_PAGES = 3840;
/** Faults that are kept; a device that goes wild makes many. */
const MAX_FAULTS = 1000;

export class Iommu {
  readonly profile: MachineProfile;
  readonly #physical: PhysicalMemory;
  readonly #hardware: IommuHardware | undefined;
  readonly #tables: TableMemory;
  readonly #devices = new Map<string, TranslatedDevice>();
  readonly #faults: DmaFault[] = [];
  readonly #listeners = new Set<(fault: DmaFault) => void>();
  readonly #gapListeners = new Set<GapListener>();
  #faultCount = 0;

  constructor(profile: MachineProfile, physical: PhysicalMemory) {
    this.profile = profile;
    this.#physical = physical;
    this.#hardware = hardware[profile];
    this.#tables = new TableMemory({ base: BigInt(TABLES_AT) as PhysicalAddress, pages: TABLE_PAGES });
    const empty = new Uint8Array(PAGE);
    const owner = {
      name: 'IO page tables',
      page: (index: number): Uint8Array => {
        const place = this.#tables.core.pageTablePage(BigInt(TABLES_AT + index * PAGE)) >>> 0;
        return place === 0 ? empty.fill(0) : new Uint8Array(this.#tables.memory.buffer, place, PAGE);
      },
    };
    for (let index = 0; index < TABLE_PAGES; index++) physical.place(TABLES_AT / PAGE + index, owner, index);
  }

  /** The last DMAs that were stopped, at most 1000. */
  get faults(): readonly DmaFault[] {
    return this.#faults;
  }

  /** How many were stopped in all. */
  get faultCount(): number {
    return this.#faultCount;
  }

  /** Calls `listener` for every DMA that is stopped. */
  onFault(listener: (fault: DmaFault) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }

  /**
   * Calls `listener` whenever a device has lost a page table and not got the next one yet: Linux has such a moment with
   * VT-d and AMD. Devices work in the event loop, and so never then, unless the listener makes them.
   */
  onGap(listener: GapListener): Disposable {
    this.#gapListeners.add(listener);
    return { [Symbol.dispose]: () => this.#gapListeners.delete(listener) };
  }

  /** Puts a device behind it. */
  device(name: string, group: IommuGroup): TranslatedDevice {
    const gap = (): number => {
      for (const listener of [...this.#gapListeners]) {
        const result = listener(name);
        if (result < 0) return result;
      }
      return 0;
    };
    const device = new TranslatedDevice(name, group, this.#hardware, this.#tables, gap);
    this.#devices.set(name, device);
    return device;
  }

  /** The page table that translates for a device now; undefined when none does. */
  view(name: string): { table: PageTable; last: bigint; reserved: readonly ReservedRegion[] } | undefined {
    const device = this.#devices.get(name);
    if (device === undefined || device.noiommu || !(device.domain instanceof TableDomain)) return undefined;
    return {
      table: device.domain.table,
      last: device.domain.aperture.last,
      reserved: device.reservedRegions,
    };
  }

  /** How the device gets at memory, from now on and whatever it is attached to then. */
  path(device: TranslatedDevice): DmaPath {
    const physical = this.#physical;
    if (device.noiommu) {
      return {
        read(address, into) {
          physical.read(address, into);
          return true;
        },
        write(address, from) {
          physical.write(address, from);
          return true;
        },
      };
    }
    const pieces = (
      address: bigint,
      length: number,
      access: DmaFault['access'],
      move: (physicalAddress: bigint, at: number, length: number) => void,
    ): boolean => {
      for (let at = 0; at < length; ) {
        const iova = address + BigInt(at);
        const offset = Number(iova & 0xfffn);
        const piece = Math.min(PAGE - offset, length - at);
        const found = this.#translate(device, iova, access);
        if (found === undefined) return false;
        move(found + BigInt(offset), at, piece);
        at += piece;
      }
      return true;
    };
    return {
      read: (address, into) =>
        pieces(address, into.byteLength, 'read', (from, at, length) =>
          physical.read(from, into.subarray(at, at + length)),
        ),
      write: (address, bytes) =>
        pieces(address, bytes.byteLength, 'write', (to, at, length) =>
          physical.write(to, bytes.subarray(at, at + length)),
        ),
    };
  }

  /** The physical address of the page that `iova` is in. */
  #translate(device: TranslatedDevice, iova: bigint, access: DmaFault['access']): bigint | undefined {
    const { domain } = device;
    const fault = (reason: DmaFault['reason']): undefined => {
      const record: DmaFault = { device: device.name, address: iova, access, reason };
      this.#faultCount++;
      this.#faults.push(record);
      if (this.#faults.length > MAX_FAULTS) this.#faults.shift();
      for (const listener of [...this.#listeners]) listener(record);
      return undefined;
    };
    if (domain === undefined || domain.kind === 'blocked') return fault('blocked');
    if (domain.kind === 'identity') return iova & ~0xfffn;
    if (!(domain instanceof TableDomain)) return fault('not mapped');
    if (iova > domain.aperture.last) return fault('not mapped');
    const found = domain.walk(iova);
    if (found === undefined) return fault('not mapped');
    if (access === 'read' && !found.readable) return fault('not readable');
    if (access === 'write' && !found.writeable) return fault('not writeable');
    return found.address;
  }
}

const blocked: BlockedDomain = { kind: 'blocked', free() {} };

/** A device behind the machine's IOMMU, or without one. */
export class TranslatedDevice implements IommuDevice {
  readonly name: string;
  readonly group: IommuGroup;
  readonly noiommu: boolean;
  readonly driver: string;
  readonly cacheCoherent = true;
  readonly dirtyTracking = false;
  readonly isolatedMsi = true;
  readonly maxPasids = 0;
  readonly reservedRegions: readonly ReservedRegion[];
  readonly hardwareCapabilities: bigint;
  readonly enforcesCacheCoherency: boolean;
  readonly blocked = blocked;
  readonly #hardware: IommuHardware | undefined;
  readonly #tables: TableMemory;
  readonly #gap: () => number;
  #domain: Domain | undefined;

  /** @param gap called between two page tables; minus the errno when it ends there */
  constructor(
    name: string,
    group: IommuGroup,
    hardwareOrNone: IommuHardware | undefined,
    tables: TableMemory,
    gap: () => number,
  ) {
    this.name = name;
    this.group = group;
    this.#hardware = hardwareOrNone;
    this.#tables = tables;
    this.#gap = gap;
    this.noiommu = hardwareOrNone === undefined;
    this.driver = hardwareOrNone?.driver ?? 'noiommu';
    this.reservedRegions = hardwareOrNone?.reserved ?? [];
    this.hardwareCapabilities = hardwareOrNone?.hardwareCapabilities ?? 0n;
    this.enforcesCacheCoherency = hardwareOrNone?.snoop ?? false;
    group.devices.add(this);
  }

  /** What translates for it now. */
  get domain(): Domain | undefined {
    return this.#domain;
  }

  hardwareInfo(type: number): { type: number; bytes: Uint8Array } | number | undefined {
    const info = this.#hardware?.info;
    if (info === undefined) return undefined;
    return type === IOMMU_HW_INFO_TYPE_DEFAULT || type === info.type ? info : -EOPNOTSUPP;
  }

  allocatePaging(flags: number, data: UserData | undefined): PagingDomain | number {
    const { driver } = this;
    const model = this.#hardware;
    try {
      if (model === undefined) {
        if (flags !== 0 || data !== undefined) return -EOPNOTSUPP;
        return new TableDomain(this.#tables, { driver, ...bookkeeping });
      }
      if (data !== undefined || flags & ~model.allocationFlags) return -EOPNOTSUPP;
      return new TableDomain(this.#tables, {
        driver,
        format: model.format,
        levels: model.levels,
        pageSizes: model.pageSizes,
        last: model.last,
        signExtend: model.signExtend,
        snoop: model.snoop,
        alwaysSnoop: model.driver === 'amd',
        // First-stage tables: the PASID entry has a bit for it.
        coherent: model.driver === 'amd' || model.signExtend,
      });
    } catch (error) {
      if (error instanceof PageTableError) return -ENOMEM;
      throw error;
    }
  }

  allocateNested(_parent: PagingDomain, _flags: number, _data: UserData): NestedDomain | number {
    return -EOPNOTSUPP;
  }

  attach(domain: Domain): number {
    if (domain.kind === 'paging' && domain.driver !== this.driver) return -EINVAL;
    if (domain.kind === 'paging' && this.#domain?.kind === 'paging' && domain !== this.#domain) {
      this.#domain = blocked;
      const result = this.#gap();
      if (result < 0) return result;
    }
    this.#domain = domain;
    return 0;
  }

  attachPasid(): number {
    return -EOPNOTSUPP;
  }
}
