/**
 * `linux/vfio.h`: the legacy container on POWER servers, and their error handling (EEH).
 *
 * @module
 */

import { request } from './request.js';
import { struct, u32, u64 } from './struct.js';

export const VFIO_IOMMU_SPAPR_INFO_DDW = 1 << 0;

/** What windows can be made beside the fixed one. Part of {@link vfio_iommu_spapr_tce_info}. */
export const vfio_iommu_spapr_tce_ddw_info = struct('vfio_iommu_spapr_tce_ddw_info', {
  pgsizes: u64,
  max_dynamic_windows_supported: u32,
  levels: u32,
});

/** The bus addresses of the 32-bit window. For {@link VFIO_IOMMU_SPAPR_TCE_GET_INFO}. */
export const vfio_iommu_spapr_tce_info = struct('vfio_iommu_spapr_tce_info', {
  argsz: u32,
  flags: u32,
  dma32_window_start: u32,
  dma32_window_size: u32,
  ddw: vfio_iommu_spapr_tce_ddw_info,
});
export const VFIO_IOMMU_SPAPR_TCE_GET_INFO = request(
  'VFIO_IOMMU_SPAPR_TCE_GET_INFO',
  0x3b70,
  vfio_iommu_spapr_tce_info,
  'dma32_window_size',
);

/** Makes a container usable. Takes no argument. */
export const VFIO_IOMMU_ENABLE = request('VFIO_IOMMU_ENABLE', 0x3b73);

/** The opposite of {@link VFIO_IOMMU_ENABLE}. Takes no argument. */
export const VFIO_IOMMU_DISABLE = request('VFIO_IOMMU_DISABLE', 0x3b74);

/** Memory of the caller to pin, before mapping it, or to let go. For the two requests below. */
export const vfio_iommu_spapr_register_memory = struct('vfio_iommu_spapr_register_memory', {
  argsz: u32,
  flags: u32,
  vaddr: u64,
  size: u64,
});
export const VFIO_IOMMU_SPAPR_REGISTER_MEMORY = request(
  'VFIO_IOMMU_SPAPR_REGISTER_MEMORY',
  0x3b75,
  vfio_iommu_spapr_register_memory,
);
export const VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY = request(
  'VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY',
  0x3b76,
  vfio_iommu_spapr_register_memory,
);

/** Makes a window; its bus address comes back. For {@link VFIO_IOMMU_SPAPR_TCE_CREATE}. */
export const vfio_iommu_spapr_tce_create = struct('vfio_iommu_spapr_tce_create', {
  argsz: u32,
  flags: u32,
  page_shift: u32,
  __resv1: u32,
  window_size: u64,
  levels: u32,
  __resv2: u32,
  start_addr: u64,
});
export const VFIO_IOMMU_SPAPR_TCE_CREATE = request(
  'VFIO_IOMMU_SPAPR_TCE_CREATE',
  0x3b77,
  vfio_iommu_spapr_tce_create,
);

/** Removes the window at a bus address. For {@link VFIO_IOMMU_SPAPR_TCE_REMOVE}. */
export const vfio_iommu_spapr_tce_remove = struct('vfio_iommu_spapr_tce_remove', {
  argsz: u32,
  flags: u32,
  start_addr: u64,
});
export const VFIO_IOMMU_SPAPR_TCE_REMOVE = request(
  'VFIO_IOMMU_SPAPR_TCE_REMOVE',
  0x3b78,
  vfio_iommu_spapr_tce_remove,
);

// vfio_eeh_pe_op.op
export const VFIO_EEH_PE_DISABLE = 0;
export const VFIO_EEH_PE_ENABLE = 1;
export const VFIO_EEH_PE_UNFREEZE_IO = 2;
export const VFIO_EEH_PE_UNFREEZE_DMA = 3;
export const VFIO_EEH_PE_GET_STATE = 4;
export const VFIO_EEH_PE_RESET_DEACTIVATE = 5;
export const VFIO_EEH_PE_RESET_HOT = 6;
export const VFIO_EEH_PE_RESET_FUNDAMENTAL = 7;
export const VFIO_EEH_PE_CONFIGURE = 8;
export const VFIO_EEH_PE_INJECT_ERR = 9;

// What VFIO_EEH_PE_GET_STATE returns.
export const VFIO_EEH_PE_STATE_NORMAL = 0;
export const VFIO_EEH_PE_STATE_RESET = 1;
export const VFIO_EEH_PE_STATE_STOPPED = 2;
export const VFIO_EEH_PE_STATE_STOPPED_DMA = 4;
export const VFIO_EEH_PE_STATE_UNAVAIL = 5;

/** The error to inject with {@link VFIO_EEH_PE_INJECT_ERR}. */
export const vfio_eeh_pe_err = struct('vfio_eeh_pe_err', { type: u32, func: u32, addr: u64, mask: u64 });

/** An operation on a partitionable endpoint, the unit of error isolation. For {@link VFIO_EEH_PE_OP}. */
export const vfio_eeh_pe_op = struct('vfio_eeh_pe_op', {
  argsz: u32,
  flags: u32,
  op: u32,
  // The only member of an anonymous union, which is why it starts at its own alignment.
  err: vfio_eeh_pe_err,
});
export const VFIO_EEH_PE_OP = request('VFIO_EEH_PE_OP', 0x3b79, vfio_eeh_pe_op, 'op');
