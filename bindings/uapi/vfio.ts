/**
 * `linux/vfio.h`: the structs, requests and constants of VFIO, under the header's own names, in one file per
 * concept.
 *
 * The first field of a struct is `argsz`, the bytes the caller provides; the kernel refuses less than it
 * needs (EINVAL) and reads no further than it knows. Information that does not fit into a struct comes as a
 * chain of capabilities behind it. Flags that are unknown are refused with EINVAL, requests with ENOTTY.
 *
 * Constants that are combined into a `u64` field are bigints; all others are numbers, and unsigned where the
 * field they are for is.
 *
 * @module
 */

export * from './vfio-container.js';
export * from './vfio-device.js';
export * from './vfio-feature.js';
export * from './vfio-info.js';
export * from './vfio-legacy.js';
export * from './vfio-migration.js';
export * from './vfio-spapr.js';
export * from './vfio-type1.js';
