/**
 * `linux/vfio.h`: the legacy container (/dev/vfio/vfio) and group (/dev/vfio/GROUP).
 *
 * @module
 */

import { request } from './request.js';
import { struct, u32 } from './struct.js';

/** What {@link VFIO_GET_API_VERSION} returns. */
export const VFIO_API_VERSION = 0;

// Extensions, for VFIO_CHECK_EXTENSION; those that name an IOMMU are also the argument of VFIO_SET_IOMMU.
export const VFIO_TYPE1_IOMMU = 1;
export const VFIO_SPAPR_TCE_IOMMU = 2;
export const VFIO_TYPE1v2_IOMMU = 3;
/** DMA is always coherent with the processor's caches. */
export const VFIO_DMA_CC_IOMMU = 4;
export const VFIO_EEH = 5;
export const __VFIO_RESERVED_TYPE1_NESTING_IOMMU = 6;
export const VFIO_SPAPR_TCE_v2_IOMMU = 7;
/** No translation, no isolation and no mapping requests; taints the kernel. */
export const VFIO_NOIOMMU_IOMMU = 8;
export const VFIO_UNMAP_ALL = 9;
export const VFIO_UPDATE_VADDR = 10;

/** On a container: returns {@link VFIO_API_VERSION}. Takes no argument. */
export const VFIO_GET_API_VERSION = request('VFIO_GET_API_VERSION', 0x3b64);

/** On a container: takes the number of an extension, returns whether it is supported. */
export const VFIO_CHECK_EXTENSION = request('VFIO_CHECK_EXTENSION', 0x3b65);

/** On a container that has a group: takes the number of an IOMMU type. */
export const VFIO_SET_IOMMU = request('VFIO_SET_IOMMU', 0x3b66);

// vfio_group_status.flags
export const VFIO_GROUP_FLAGS_VIABLE = 1 << 0;
export const VFIO_GROUP_FLAGS_CONTAINER_SET = 1 << 1;

/**
 * Whether every device of a group can be used, and whether it is in a container. For
 * {@link VFIO_GROUP_GET_STATUS}.
 */
export const vfio_group_status = struct('vfio_group_status', { argsz: u32, flags: u32 });
export const VFIO_GROUP_GET_STATUS = request('VFIO_GROUP_GET_STATUS', 0x3b67, vfio_group_status);

/** On a group: takes a pointer to an `s32`, the container's descriptor. */
export const VFIO_GROUP_SET_CONTAINER = request('VFIO_GROUP_SET_CONTAINER', 0x3b68);

/** On a group whose devices are all closed. Takes no argument. */
export const VFIO_GROUP_UNSET_CONTAINER = request('VFIO_GROUP_UNSET_CONTAINER', 0x3b69);

/**
 * On a group in a container: takes a pointer to the device's name, NUL-terminated, and returns a descriptor.
 */
export const VFIO_GROUP_GET_DEVICE_FD = request('VFIO_GROUP_GET_DEVICE_FD', 0x3b6a);
