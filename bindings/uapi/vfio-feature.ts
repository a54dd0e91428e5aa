/**
 * `linux/vfio.h`: optional features of a device, all behind one request; those of migration are in a file of
 * their own.
 *
 * @module
 */

import { request } from './request.js';
import { flexible, s32, struct, u8, u32, u64 } from './struct.js';

// vfio_device_feature.flags: the number of a feature, and what to do.
export const VFIO_DEVICE_FEATURE_MASK = 0xffff;
export const VFIO_DEVICE_FEATURE_GET = 1 << 16;
export const VFIO_DEVICE_FEATURE_SET = 1 << 17;
export const VFIO_DEVICE_FEATURE_PROBE = 1 << 18;

/**
 * Gets, sets or probes for a feature; `data` depends on it. For {@link VFIO_DEVICE_FEATURE}, which may return
 * a descriptor.
 */
export const vfio_device_feature = struct('vfio_device_feature', {
  argsz: u32,
  flags: u32,
  data: flexible(u8),
});
export const VFIO_DEVICE_FEATURE = request('VFIO_DEVICE_FEATURE', 0x3b75, vfio_device_feature);

/** Set: the 16 bytes of a UUID, the secret shared between the drivers of a PF and its VFs. */
export const VFIO_DEVICE_FEATURE_PCI_VF_TOKEN = 0;

/** Set: lets the device sleep. No data. */
export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY = 3;

export const VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP = 4;

/** Lets the device sleep once, and signals an eventfd when it wakes. For the feature above. */
export const vfio_device_low_power_entry_with_wakeup = struct('vfio_device_low_power_entry_with_wakeup', {
  wakeup_eventfd: s32,
  reserved: u32,
});

/** Set: the device sleeps no more. No data. */
export const VFIO_DEVICE_FEATURE_LOW_POWER_EXIT = 5;

/** Set: starts logging, with {@link vfio_device_feature_dma_logging_control}. */
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_START = 6;

/** Set: stops logging. No data. */
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP = 7;

/** Get: reads the log, and clears it, with {@link vfio_device_feature_dma_logging_report}. */
export const VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT = 8;

/**
 * Which IOVAs the device is to log its writes to: `ranges` points at the structs below. `page_size` is a
 * hint.
 */
export const vfio_device_feature_dma_logging_control = struct('vfio_device_feature_dma_logging_control', {
  page_size: u64,
  num_ranges: u32,
  __reserved: u32,
  ranges: u64,
});

/** A range of IOVAs to log. */
export const vfio_device_feature_dma_logging_range = struct('vfio_device_feature_dma_logging_range', {
  iova: u64,
  length: u64,
});

/** Which pages of a range were written: `bitmap` points at one bit per page, and bits are only ever set. */
export const vfio_device_feature_dma_logging_report = struct('vfio_device_feature_dma_logging_report', {
  iova: u64,
  length: u64,
  page_size: u64,
  bitmap: u64,
});

/** Set: bus mastering of a CDX device; on PCI that is a bit in config space. */
export const VFIO_DEVICE_FEATURE_BUS_MASTER = 10;
export const VFIO_DEVICE_FEATURE_CLEAR_MASTER = 0;
export const VFIO_DEVICE_FEATURE_SET_MASTER = 1;

/** Switches bus mastering. For the feature above. */
export const vfio_device_feature_bus_master = struct('vfio_device_feature_bus_master', { op: u32 });

/** Get: returns a descriptor, a dma-buf of parts of a region. */
export const VFIO_DEVICE_FEATURE_DMA_BUF = 11;

/** A part of a region, for a dma-buf. */
export const vfio_region_dma_range = struct('vfio_region_dma_range', { offset: u64, length: u64 });

/** What the dma-buf is made of; `open_flags` are those of `open(2)`. For the feature above. */
export const vfio_device_feature_dma_buf = struct('vfio_device_feature_dma_buf', {
  region_index: u32,
  open_flags: u32,
  flags: u32,
  nr_ranges: u32,
  dma_ranges: flexible(vfio_region_dma_range),
});

/** Get: the error that a PCI device on s390 has pending; ENOMSG when there is none. */
export const VFIO_DEVICE_FEATURE_ZPCI_ERROR = 13;

/** Where to put that error, whose length a device capability gives. For the feature above. */
export const vfio_device_feature_zpci_err = struct('vfio_device_feature_zpci_err', { data: u64 });
