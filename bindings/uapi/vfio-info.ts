/**
 * `linux/vfio.h`: what all of VFIO's requests share.
 *
 * @module
 */

import { struct, u16, u32 } from './struct.js';

/** The ioctl type, `';'`; shared with iommufd. */
export const VFIO_TYPE = 0x3b;

/** The low byte of the first request number. */
export const VFIO_BASE = 100;

/**
 * Starts each capability behind a device, region or container info struct. `next` is the offset of the next
 * one, counted from the start of the info struct; 0 ends the chain.
 */
export const vfio_info_cap_header = struct('vfio_info_cap_header', { id: u16, version: u16, next: u32 });
