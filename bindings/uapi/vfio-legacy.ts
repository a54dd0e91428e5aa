/**
 * `linux/vfio.h`: displays of mediated graphics devices, and what kernels no longer provide (NVLink, the
 * first version of migration).
 *
 * @module
 */

import { request } from './request.js';
import { overlay, struct, u32, u64 } from './struct.js';
import { vfio_info_cap_header } from './vfio-info.js';

// ---- Displays ----

export const VFIO_REGION_SUBTYPE_GFX_EDID = 1;

// vfio_region_gfx_edid.link_state
export const VFIO_DEVICE_GFX_LINK_STATE_UP = 1;
export const VFIO_DEVICE_GFX_LINK_STATE_DOWN = 2;

/** The start of a region through which a virtual monitor is described. Not the argument of a request. */
export const vfio_region_gfx_edid = struct('vfio_region_gfx_edid', {
  edid_offset: u32,
  edid_max_size: u32,
  edid_size: u32,
  max_xres: u32,
  max_yres: u32,
  link_state: u32,
});

// vfio_device_gfx_plane_info.flags
export const VFIO_GFX_PLANE_TYPE_PROBE = 1 << 0;
export const VFIO_GFX_PLANE_TYPE_DMABUF = 1 << 1;
export const VFIO_GFX_PLANE_TYPE_REGION = 1 << 2;

/**
 * Where the picture is, in a region or in a dma-buf, and its geometry. For
 * {@link VFIO_DEVICE_QUERY_GFX_PLANE}.
 */
export const vfio_device_gfx_plane_info = struct('vfio_device_gfx_plane_info', {
  argsz: u32,
  flags: u32,
  drm_plane_type: u32,
  drm_format: u32,
  drm_format_mod: u64,
  width: u32,
  height: u32,
  stride: u32,
  size: u32,
  x_pos: u32,
  y_pos: u32,
  x_hot: u32,
  y_hot: u32,
  region_index: u32,
  dmabuf_id: overlay('region_index', u32),
  reserved: u32,
});
export const VFIO_DEVICE_QUERY_GFX_PLANE = request(
  'VFIO_DEVICE_QUERY_GFX_PLANE',
  0x3b72,
  vfio_device_gfx_plane_info,
  'dmabuf_id',
);

/** Takes a pointer to a `u32`, the dma-buf's id, and returns a descriptor. */
export const VFIO_DEVICE_GET_GFX_DMABUF = request('VFIO_DEVICE_GET_GFX_DMABUF', 0x3b73);

// ---- NVLink ----

export const VFIO_REGION_SUBTYPE_NVIDIA_NVLINK2_RAM = 1;
export const VFIO_REGION_SUBTYPE_IBM_NVLINK2_ATSD = 1;
export const VFIO_REGION_INFO_CAP_NVLINK2_SSATGT = 4;
export const VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD = 5;

/** Region capability: where a GPU's memory is on the system bus. */
export const vfio_region_info_cap_nvlink2_ssatgt = struct('vfio_region_info_cap_nvlink2_ssatgt', {
  header: vfio_info_cap_header,
  tgt: u64,
});

/** Region capability: the speed of the link. */
export const vfio_region_info_cap_nvlink2_lnkspd = struct('vfio_region_info_cap_nvlink2_lnkspd', {
  header: vfio_info_cap_header,
  link_speed: u32,
  __pad: u32,
});

// ---- The first version of migration ----

export const VFIO_REGION_SUBTYPE_MIGRATION_DEPRECATED = 1;

// vfio_device_migration_info.device_state
export const VFIO_DEVICE_STATE_V1_STOP = 0;
export const VFIO_DEVICE_STATE_V1_RUNNING = 1 << 0;
export const VFIO_DEVICE_STATE_V1_SAVING = 1 << 1;
export const VFIO_DEVICE_STATE_V1_RESUMING = 1 << 2;
export const VFIO_DEVICE_STATE_MASK =
  VFIO_DEVICE_STATE_V1_RUNNING | VFIO_DEVICE_STATE_V1_SAVING | VFIO_DEVICE_STATE_V1_RESUMING;

/** The start of a region through which state was copied. Not the argument of a request. */
export const vfio_device_migration_info = struct('vfio_device_migration_info', {
  device_state: u32,
  reserved: u32,
  pending_bytes: u64,
  data_offset: u64,
  data_size: u64,
});
