/**
 * `linux/vfio.h`: moving the state of a device that knows how to give it up and take it back.
 *
 * @module
 */

import { request } from './request.js';
import { s32, struct, u32, u64 } from './struct.js';

/** Get: which states, beyond running and error, the device has. */
export const VFIO_DEVICE_FEATURE_MIGRATION = 1;

// vfio_device_feature_migration.flags
export const VFIO_MIGRATION_STOP_COPY = 1n << 0n;
export const VFIO_MIGRATION_P2P = 1n << 1n;
export const VFIO_MIGRATION_PRE_COPY = 1n << 2n;

/** The states supported. For {@link VFIO_DEVICE_FEATURE_MIGRATION}. */
export const vfio_device_feature_migration = struct('vfio_device_feature_migration', { flags: u64 });

/** Get or set: the state of the device. */
export const VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE = 2;

/**
 * A state, and the descriptor through which its data flows, or -1. For
 * {@link VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE}.
 */
export const vfio_device_feature_mig_state = struct('vfio_device_feature_mig_state', {
  device_state: u32,
  data_fd: s32,
});

// vfio_device_mig_state
export const VFIO_DEVICE_STATE_ERROR = 0;
export const VFIO_DEVICE_STATE_STOP = 1;
export const VFIO_DEVICE_STATE_RUNNING = 2;
export const VFIO_DEVICE_STATE_STOP_COPY = 3;
export const VFIO_DEVICE_STATE_RESUMING = 4;
export const VFIO_DEVICE_STATE_RUNNING_P2P = 5;
export const VFIO_DEVICE_STATE_PRE_COPY = 6;
export const VFIO_DEVICE_STATE_PRE_COPY_P2P = 7;
export const VFIO_DEVICE_STATE_NR = 8;

/** Get: an estimate of the bytes that stopping and copying will take. */
export const VFIO_DEVICE_FEATURE_MIG_DATA_SIZE = 9;

/** That estimate. For {@link VFIO_DEVICE_FEATURE_MIG_DATA_SIZE}. */
export const vfio_device_feature_mig_data_size = struct('vfio_device_feature_mig_data_size', {
  stop_copy_length: u64,
});

/** Set: makes `flags` of {@link vfio_precopy_info} an output. No data. */
export const VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 = 12;

export const VFIO_PRECOPY_INFO_REINIT = 1 << 0;

/**
 * What is left to copy while the device still runs. For {@link VFIO_MIG_GET_PRECOPY_INFO}, on the data
 * descriptor.
 */
export const vfio_precopy_info = struct('vfio_precopy_info', {
  argsz: u32,
  flags: u32,
  initial_bytes: u64,
  dirty_bytes: u64,
});
export const VFIO_MIG_GET_PRECOPY_INFO = request('VFIO_MIG_GET_PRECOPY_INFO', 0x3b79, vfio_precopy_info);
