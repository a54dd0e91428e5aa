/** What the kernel of OpenHCL (OHCL-Linux-Kernel) has beyond Linux. @module */
import { request } from './request.js';

/**
 * On an open group: the device of that name, a C string, is not reset when the kernel is replaced. Other kernels answer
 * ENOTTY. OpenVMM, vm/devices/user_driver/vfio_sys.
 */
export const VFIO_GROUP_SET_KEEP_ALIVE = request('VFIO_GROUP_SET_KEEP_ALIVE', 0x3bc8);
