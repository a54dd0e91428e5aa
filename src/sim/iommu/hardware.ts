/** The IOMMUs of the simulated machines, as data: what each machine of the test rig has (QEMU's models). @module */
import {
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_INFO_TYPE_AMD,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HWPT_ALLOC_PASID,
  iommu_hw_info_amd,
  iommu_hw_info_vtd,
} from '../../../bindings/uapi/iommufd.js';
import { PageTableFormat } from '../../memory/page-table-format.js';
import type { ReservedRegion } from './domain.js';

/** Which machine: as the profiles of the test rig are called. */
export const MachineProfile = {
  /** Intel VT-d, legacy mode: second-stage tables of three levels. */
  Vtd: 'vtd',
  /** Intel VT-d, scalable mode: second-stage tables of four levels, snoop control. */
  VtdScalable: 'vtd-scalable',
  /** Intel VT-d, scalable mode: first-stage tables, as CPUs have them. */
  VtdFirstStage: 'vtd-first-stage',
  /** AMD: tables that grow. */
  Amd: 'amd',
  /** No IOMMU: a device reaches all of memory. */
  Noiommu: 'noiommu',
  /** VT-d, with a kernel that has neither iommufd nor VFIO's character devices. */
  Legacy: 'legacy',
} as const;
export type MachineProfile = (typeof MachineProfile)[keyof typeof MachineProfile];

export interface IommuHardware {
  /** The driver in the kernel. */
  readonly driver: 'vtd' | 'amd';
  readonly format: PageTableFormat;
  readonly levels: number;
  /** Mappings can be made to force coherence (VT-d snoop control). */
  readonly snoop: boolean;
  readonly signExtend: boolean;
  /** Page sizes that the kernel uses, each its own bit. */
  readonly pageSizes: bigint;
  /** The last IOVA. */
  readonly last: bigint;
  /** IOMMU_HWPT_ALLOC_* that it accepts. */
  readonly allocationFlags: number;
  readonly reserved: readonly ReservedRegion[];
  readonly info: { readonly type: number; readonly bytes: Uint8Array };
  readonly hardwareCapabilities: bigint;
}

const SIZES_4K_2M_1G = 0x4020_1000n;
/** Every power of two from 4 KiB to 2^51 but 512 GiB, which a level of its own would map (linux generic_pt, AMDv1). */
const SIZES_AMD_V1 = ((1n << 52n) - 1n) & ~0xfffn & ~(1n << 39n);

const msiWindow: ReservedRegion = { first: 0xfee0_0000n, last: 0xfeef_ffffn, kind: 'msi' };
const hyperTransport: ReservedRegion = {
  first: 0xfd_0000_0000n,
  last: 0xff_ffff_ffffn,
  kind: 'reserved',
};

function vtd(cap_reg: bigint, ecap_reg: bigint): IommuHardware['info'] {
  const { bytes, view } = iommu_hw_info_vtd.allocate();
  // The kernel sets the erratum for every IOMMU that does not prove to be free of it.
  iommu_hw_info_vtd.encode(view, { flags: 1, cap_reg, ecap_reg });
  return { type: IOMMU_HW_INFO_TYPE_INTEL_VTD, bytes };
}

function amd(efr: bigint): IommuHardware['info'] {
  const { bytes, view } = iommu_hw_info_amd.allocate();
  iommu_hw_info_amd.encode(view, { efr });
  return { type: IOMMU_HW_INFO_TYPE_AMD, bytes };
}

const vtdCommon = {
  driver: 'vtd',
  pageSizes: SIZES_4K_2M_1G,
  allocationFlags: IOMMU_HWPT_ALLOC_PASID,
  reserved: [msiWindow],
  hardwareCapabilities: IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
} as const;

const vtdLegacyMode: IommuHardware = {
  ...vtdCommon,
  format: PageTableFormat.VtdSecondStage,
  levels: 3,
  snoop: false,
  signExtend: false,
  last: (1n << 39n) - 1n,
  info: vtd(0xd2_008c_2226_0286n, 0xf0_0f4an),
};

/** The registers are those that QEMU's models have in the test rig. */
export const hardware: Readonly<Record<MachineProfile, IommuHardware | undefined>> = {
  vtd: vtdLegacyMode,
  legacy: vtdLegacyMode,
  'vtd-scalable': {
    ...vtdCommon,
    format: PageTableFormat.VtdSecondStage,
    levels: 4,
    snoop: true,
    signExtend: false,
    last: (1n << 48n) - 1n,
    info: vtd(0xd2_008c_222f_0686n, 0x4800_80f0_0fcan),
  },
  'vtd-first-stage': {
    ...vtdCommon,
    format: PageTableFormat.X86FirstStage,
    levels: 4,
    snoop: false,
    signExtend: true,
    last: (1n << 47n) - 1n,
    info: vtd(0x1d2_008c_222f_0686n, 0x8800_00f0_0f4an),
  },
  amd: {
    driver: 'amd',
    format: PageTableFormat.AmdV1,
    levels: 3,
    // Every leaf forces coherence anyway.
    snoop: true,
    signExtend: false,
    pageSizes: SIZES_AMD_V1,
    last: (1n << 48n) - 1n,
    allocationFlags: 0,
    reserved: [msiWindow, hyperTransport],
    info: amd(0x29d3n),
    hardwareCapabilities: IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  },
  noiommu: undefined,
};

/** What a device without IOMMU gets for its books: a table that no hardware reads (linux hwpt_noiommu.c). */
export const bookkeeping = {
  format: PageTableFormat.AmdV1,
  levels: 3,
  pageSizes: SIZES_AMD_V1,
  last: 0xffff_ffff_ffff_ffffn,
} as const;
