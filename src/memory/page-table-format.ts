/** The formats of page tables, and what a mapping may say in each. @module */

import { checkInteger, checkU64 } from '../check.js';
import { hex } from '../hex.js';

/** The hardware formats of {@link PageTable}. */
export const PageTableFormat = {
  /** AMD IOMMU v1 (host translations): 2 to 6 levels, leaves of every power of two, the root may grow. */
  AmdV1: 'amdv1',
  /** Intel VT-d second stage: 3, 4 or 5 levels. */
  VtdSecondStage: 'vtd-second-stage',
  /** x86-64 (VT-d first stage, AMD guest tables): 4 or 5 levels. */
  X86FirstStage: 'x86-first-stage',
  /** ARMv8 stage 1 with a granule of 4 KiB: 3 (39-bit) or 4 (48-bit) levels. */
  ArmStage1: 'arm-stage-1',
  /** ARMv8 stage 2, the same; roots of several concatenated tables are not supported. */
  ArmStage2: 'arm-stage-2',
} as const;
export type PageTableFormat = (typeof PageTableFormat)[keyof typeof PageTableFormat];

export interface PageTableOptions {
  /** How many levels of tables; each format has a usual number. An AMDv1 table may start smaller and grow. */
  readonly levels?: number;
  /** Every mapping forces accesses to be coherent: SNP in VT-d second stage, FC in AMDv1. */
  readonly snoop?: boolean;
  /** IOVAs of the upper half are sign-extended to 64 bits, as CPUs do; x86 first stage only. */
  readonly signExtend?: boolean;
  /** Writeable mappings let hardware track what is dirty (DBM); ARM stage 1 only, other formats always do. */
  readonly hardwareDirty?: boolean;
  /** The leaf sizes that may be written: bit n allows 2^n bytes, as a kernel domain's `pgsize_bitmap`. All unless told. */
  readonly pageSizes?: bigint;
}

/** What a device may do with a mapping, and how. */
export interface PagePermissions {
  /** True unless told. x86 and ARM stage 1 cannot withhold it. */
  readonly readable?: boolean;
  /** True unless told. */
  readonly writeable?: boolean;
  /** True unless told; false is refused where a format cannot express it (AMDv1, VT-d second stage). */
  readonly executable?: boolean;
  /** Only for privileged accesses; false unless told. x86 and ARM stage 1. */
  readonly privileged?: boolean;
  /** `'cached'` unless told; the others are for ARM. */
  readonly memoryType?: 'cached' | 'uncached' | 'device';
}

/** What a mapping found in a table says. */
export interface PageFlags {
  readonly readable: boolean;
  readonly writeable: boolean;
  readonly executable: boolean;
  readonly privileged: boolean;
  /** Coherent whatever the device asks for. */
  readonly snoop: boolean;
  /** `'other'`: an attribute that this library does not write. */
  readonly memoryType: 'cached' | 'uncached' | 'device' | 'other';
}

/** assembly/pagetable/flags.ts */
const Flag = { readable: 1, writeable: 2, noExecute: 4, privileged: 8, snoop: 16 } as const;
const memoryTypes = ['cached', 'uncached', 'device', 'other'] as const;
const MEMORY_SHIFT = 5;
const Option = { signExtend: 1, hardwareDirty: 2 } as const;

interface FormatRules {
  /** Its number in assembly/pagetable/formats/index.ts. */
  readonly number: number;
  readonly levels: { readonly least: number; readonly usual: number; readonly most: number };
  /** Flags a mapping may have, of `Flag` and the memory type. */
  readonly flags: number;
  readonly options: number;
}

const rules: Readonly<Record<PageTableFormat, FormatRules>> = {
  amdv1: { number: 0, levels: { least: 2, usual: 3, most: 6 }, flags: 0x13, options: 0 },
  'vtd-second-stage': { number: 1, levels: { least: 3, usual: 4, most: 5 }, flags: 0x13, options: 0 },
  'x86-first-stage': { number: 2, levels: { least: 4, usual: 4, most: 5 }, flags: 0x0f, options: 1 },
  'arm-stage-1': { number: 3, levels: { least: 3, usual: 4, most: 4 }, flags: 0x6f, options: 2 },
  'arm-stage-2': { number: 4, levels: { least: 3, usual: 4, most: 4 }, flags: 0x67, options: 0 },
};

/** What the core needs to know of a table's format and options. */
export interface TableRules {
  readonly format: PageTableFormat;
  readonly number: number;
  readonly levels: number;
  readonly options: number;
  readonly sizes: bigint;
  /** Flags that every mapping gets. */
  readonly always: number;
  readonly allowed: number;
}

/** @throws TypeError, RangeError */
export function tableRules(format: PageTableFormat, options: PageTableOptions): TableRules {
  if (!Object.hasOwn(rules, format)) {
    throw new TypeError(`format must be one of ${Object.keys(rules).join(', ')}, got ${String(format)}`);
  }
  const { number, levels, flags, options: allowed } = rules[format];
  const { snoop = false, signExtend = false, hardwareDirty = false, pageSizes = 2n ** 64n - 1n } = options;
  const wanted = (signExtend ? Option.signExtend : 0) | (hardwareDirty ? Option.hardwareDirty : 0);
  const refused = wanted & ~allowed;
  if (refused !== 0) {
    throw new RangeError(
      `${refused & Option.signExtend ? 'signExtend' : 'hardwareDirty'} is not for ${format}`,
    );
  }
  if (snoop && !(flags & Flag.snoop)) throw new RangeError(`snoop is not for ${format}`);
  checkU64('pageSizes', pageSizes);
  if (!(pageSizes & 0x1000n)) {
    throw new RangeError(`pageSizes must allow 4096 bytes, got ${hex(pageSizes)}`);
  }
  return {
    format,
    number,
    levels: checkInteger(`levels of ${format}`, options.levels ?? levels.usual, levels.least, levels.most),
    options: wanted,
    sizes: pageSizes,
    always: snoop ? Flag.snoop : 0,
    allowed: flags,
  };
}

/** @throws TypeError, RangeError when the format cannot express them */
export function encodeFlags(rules: TableRules, permissions: PagePermissions): number {
  const {
    readable = true,
    writeable = true,
    executable = true,
    privileged = false,
    memoryType = 'cached',
  } = permissions;
  const type = memoryTypes.indexOf(memoryType);
  if (type < 0 || type === 3) throw new TypeError(`memoryType must be 'cached', 'uncached' or 'device'`);
  const flags =
    (readable ? Flag.readable : 0) |
    (writeable ? Flag.writeable : 0) |
    (executable ? 0 : Flag.noExecute) |
    (privileged ? Flag.privileged : 0) |
    (type << MEMORY_SHIFT) |
    rules.always;
  if (!(flags & (Flag.readable | Flag.writeable))) {
    throw new RangeError(
      'permissions: a mapping must be readable or writeable; what is neither is left unmapped',
    );
  }
  const refused = flags & ~rules.allowed;
  if (refused !== 0) {
    const what =
      refused & Flag.noExecute
        ? 'executable: false'
        : refused & Flag.privileged
          ? 'privileged'
          : 'memoryType';
    throw new RangeError(`permissions: ${rules.format} has no way to say ${what}`);
  }
  return flags;
}

export function decodeFlags(flags: number): PageFlags {
  return {
    readable: (flags & Flag.readable) !== 0,
    writeable: (flags & Flag.writeable) !== 0,
    executable: (flags & Flag.noExecute) === 0,
    privileged: (flags & Flag.privileged) !== 0,
    snoop: (flags & Flag.snoop) !== 0,
    memoryType: memoryTypes[(flags >>> MEMORY_SHIFT) & 3] as PageFlags['memoryType'],
  };
}
