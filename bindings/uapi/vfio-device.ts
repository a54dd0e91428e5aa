/**
 * `linux/vfio.h`: a device, its regions, its interrupts, its resets, and its tie to iommufd.
 *
 * @module
 */

import { request } from './request.js';
import { flexible, overlay, s32, struct, u8, u16, u32, u64 } from './struct.js';
import { vfio_info_cap_header } from './vfio-info.js';

// ---- The device ----

// vfio_device_info.flags
export const VFIO_DEVICE_FLAGS_RESET = 1 << 0;
export const VFIO_DEVICE_FLAGS_PCI = 1 << 1;
export const VFIO_DEVICE_FLAGS_PLATFORM = 1 << 2;
export const VFIO_DEVICE_FLAGS_AMBA = 1 << 3;
export const VFIO_DEVICE_FLAGS_CCW = 1 << 4;
export const VFIO_DEVICE_FLAGS_AP = 1 << 5;
export const VFIO_DEVICE_FLAGS_FSL_MC = 1 << 6;
export const VFIO_DEVICE_FLAGS_CAPS = 1 << 7;
export const VFIO_DEVICE_FLAGS_CDX = 1 << 8;

/**
 * The bus, the number of regions and interrupts, and the first capability. For {@link VFIO_DEVICE_GET_INFO}.
 */
export const vfio_device_info = struct('vfio_device_info', {
  argsz: u32,
  flags: u32,
  num_regions: u32,
  num_irqs: u32,
  cap_offset: u32,
  pad: u32,
});
export const VFIO_DEVICE_GET_INFO = request('VFIO_DEVICE_GET_INFO', 0x3b6b, vfio_device_info, 'num_irqs');

// The device_api attribute of mediated devices.
export const VFIO_DEVICE_API_PCI_STRING = 'vfio-pci';
export const VFIO_DEVICE_API_PLATFORM_STRING = 'vfio-platform';
export const VFIO_DEVICE_API_AMBA_STRING = 'vfio-amba';
export const VFIO_DEVICE_API_CCW_STRING = 'vfio-ccw';
export const VFIO_DEVICE_API_AP_STRING = 'vfio-ap';

// Capability ids. The first four are of s390, and described in another header.
export const VFIO_DEVICE_INFO_CAP_ZPCI_BASE = 1;
export const VFIO_DEVICE_INFO_CAP_ZPCI_GROUP = 2;
export const VFIO_DEVICE_INFO_CAP_ZPCI_UTIL = 3;
export const VFIO_DEVICE_INFO_CAP_ZPCI_PFIP = 4;
export const VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP = 5;

// vfio_device_info_cap_pci_atomic_comp.flags
export const VFIO_PCI_ATOMIC_COMP32 = 1 << 0;
export const VFIO_PCI_ATOMIC_COMP64 = 1 << 1;
export const VFIO_PCI_ATOMIC_COMP128 = 1 << 2;

/** Device capability: the widths of PCIe atomic operations that the root completes. */
export const vfio_device_info_cap_pci_atomic_comp = struct('vfio_device_info_cap_pci_atomic_comp', {
  header: vfio_info_cap_header,
  flags: u32,
  reserved: u32,
});

/** Resets the device, if {@link VFIO_DEVICE_FLAGS_RESET} is set. Takes no argument. */
export const VFIO_DEVICE_RESET = request('VFIO_DEVICE_RESET', 0x3b6f);

// ---- Regions ----

// vfio_region_info.flags
export const VFIO_REGION_INFO_FLAG_READ = 1 << 0;
export const VFIO_REGION_INFO_FLAG_WRITE = 1 << 1;
export const VFIO_REGION_INFO_FLAG_MMAP = 1 << 2;
export const VFIO_REGION_INFO_FLAG_CAPS = 1 << 3;

/**
 * A region's size, and its offset in the device's descriptor; a region that does not exist has size 0. When
 * the capabilities do not fit the call succeeds, with the bytes needed in `argsz` and no `cap_offset`. For
 * {@link VFIO_DEVICE_GET_REGION_INFO}.
 */
export const vfio_region_info = struct('vfio_region_info', {
  argsz: u32,
  flags: u32,
  index: u32,
  cap_offset: u32,
  size: u64,
  offset: u64,
});
export const VFIO_DEVICE_GET_REGION_INFO = request('VFIO_DEVICE_GET_REGION_INFO', 0x3b6c, vfio_region_info);

// Capability ids; those of NVLink are with the legacy parts.
export const VFIO_REGION_INFO_CAP_SPARSE_MMAP = 1;
export const VFIO_REGION_INFO_CAP_TYPE = 2;
/** The pages of a BAR that hold the MSI-X table may be mapped too. The header alone, nothing behind it. */
export const VFIO_REGION_INFO_CAP_MSIX_MAPPABLE = 3;

/** A part of a region that may be mapped. */
export const vfio_region_sparse_mmap_area = struct('vfio_region_sparse_mmap_area', {
  offset: u64,
  size: u64,
});

/** Region capability: only these parts may be mapped. */
export const vfio_region_info_cap_sparse_mmap = struct('vfio_region_info_cap_sparse_mmap', {
  header: vfio_info_cap_header,
  nr_areas: u32,
  reserved: u32,
  areas: flexible(vfio_region_sparse_mmap_area),
});

/** Region capability: what a device-specific region is. */
export const vfio_region_info_cap_type = struct('vfio_region_info_cap_type', {
  header: vfio_info_cap_header,
  type: u32,
  subtype: u32,
});

// vfio_region_info_cap_type.type; with the PCI bit set, the low bits are a vendor id.
export const VFIO_REGION_TYPE_PCI_VENDOR_TYPE = 0x8000_0000;
export const VFIO_REGION_TYPE_PCI_VENDOR_MASK = 0xffff;
export const VFIO_REGION_TYPE_GFX = 1;
export const VFIO_REGION_TYPE_CCW = 2;
export const VFIO_REGION_TYPE_MIGRATION_DEPRECATED = 3;

// Subtypes of Intel's regions.
export const VFIO_REGION_SUBTYPE_INTEL_IGD_OPREGION = 1;
export const VFIO_REGION_SUBTYPE_INTEL_IGD_HOST_CFG = 2;
export const VFIO_REGION_SUBTYPE_INTEL_IGD_LPC_CFG = 3;

// Subtypes of channel I/O.
export const VFIO_REGION_SUBTYPE_CCW_ASYNC_CMD = 1;
export const VFIO_REGION_SUBTYPE_CCW_SCHIB = 2;
export const VFIO_REGION_SUBTYPE_CCW_CRW = 3;

// Region indexes on PCI.
export const VFIO_PCI_BAR0_REGION_INDEX = 0;
export const VFIO_PCI_BAR1_REGION_INDEX = 1;
export const VFIO_PCI_BAR2_REGION_INDEX = 2;
export const VFIO_PCI_BAR3_REGION_INDEX = 3;
export const VFIO_PCI_BAR4_REGION_INDEX = 4;
export const VFIO_PCI_BAR5_REGION_INDEX = 5;
export const VFIO_PCI_ROM_REGION_INDEX = 6;
export const VFIO_PCI_CONFIG_REGION_INDEX = 7;
export const VFIO_PCI_VGA_REGION_INDEX = 8;
/** Indexes from here on are device-specific. */
export const VFIO_PCI_NUM_REGIONS = 9;

// Region indexes of channel I/O.
export const VFIO_CCW_CONFIG_REGION_INDEX = 0;
export const VFIO_CCW_NUM_REGIONS = 1;

// ---- Interrupts ----

// vfio_irq_info.flags
export const VFIO_IRQ_INFO_EVENTFD = 1 << 0;
export const VFIO_IRQ_INFO_MASKABLE = 1 << 1;
export const VFIO_IRQ_INFO_AUTOMASKED = 1 << 2;
export const VFIO_IRQ_INFO_NORESIZE = 1 << 3;

/** How many interrupts an index has, and how they behave. For {@link VFIO_DEVICE_GET_IRQ_INFO}. */
export const vfio_irq_info = struct('vfio_irq_info', { argsz: u32, flags: u32, index: u32, count: u32 });
export const VFIO_DEVICE_GET_IRQ_INFO = request('VFIO_DEVICE_GET_IRQ_INFO', 0x3b6d, vfio_irq_info);

// vfio_irq_set.flags: one kind of data and one action.
export const VFIO_IRQ_SET_DATA_NONE = 1 << 0;
export const VFIO_IRQ_SET_DATA_BOOL = 1 << 1;
export const VFIO_IRQ_SET_DATA_EVENTFD = 1 << 2;
export const VFIO_IRQ_SET_ACTION_MASK = 1 << 3;
export const VFIO_IRQ_SET_ACTION_UNMASK = 1 << 4;
export const VFIO_IRQ_SET_ACTION_TRIGGER = 1 << 5;
export const VFIO_IRQ_SET_DATA_TYPE_MASK =
  VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD;
export const VFIO_IRQ_SET_ACTION_TYPE_MASK =
  VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER;

/**
 * Connects, masks, unmasks or triggers `count` interrupts from `start`. `data` is one byte per interrupt with
 * `DATA_BOOL`, and one `s32`, a descriptor or -1, with `DATA_EVENTFD`. For {@link VFIO_DEVICE_SET_IRQS},
 * which may return a positive number: how many vectors there are, when that is fewer than asked for.
 */
export const vfio_irq_set = struct('vfio_irq_set', {
  argsz: u32,
  flags: u32,
  index: u32,
  start: u32,
  count: u32,
  data: flexible(u8),
});
export const VFIO_DEVICE_SET_IRQS = request('VFIO_DEVICE_SET_IRQS', 0x3b6e, vfio_irq_set);

// Interrupt indexes on PCI.
export const VFIO_PCI_INTX_IRQ_INDEX = 0;
export const VFIO_PCI_MSI_IRQ_INDEX = 1;
export const VFIO_PCI_MSIX_IRQ_INDEX = 2;
export const VFIO_PCI_ERR_IRQ_INDEX = 3;
export const VFIO_PCI_REQ_IRQ_INDEX = 4;
export const VFIO_PCI_NUM_IRQS = 5;

// Interrupt indexes of channel I/O.
export const VFIO_CCW_IO_IRQ_INDEX = 0;
export const VFIO_CCW_CRW_IRQ_INDEX = 1;
export const VFIO_CCW_REQ_IRQ_INDEX = 2;
export const VFIO_CCW_NUM_IRQS = 3;

// Interrupt indexes of the s390 adjunct processor.
export const VFIO_AP_REQ_IRQ_INDEX = 0;
export const VFIO_AP_CFG_CHG_IRQ_INDEX = 1;
export const VFIO_AP_NUM_IRQS = 2;

// ---- Hot reset ----

// vfio_pci_dependent_device.devid, where it is no id.
export const VFIO_PCI_DEVID_OWNED = 0;
/** -1 in the header; unsigned here, as `devid` is. */
export const VFIO_PCI_DEVID_NOT_OWNED = 0xffff_ffff;

/** A device that a hot reset would also reset: `devid` from a cdev, `group_id` from a group. */
export const vfio_pci_dependent_device = struct('vfio_pci_dependent_device', {
  group_id: u32,
  devid: overlay('group_id', u32),
  segment: u16,
  bus: u8,
  devfn: u8,
});

// vfio_pci_hot_reset_info.flags
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID = 1 << 0;
export const VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED = 1 << 1;

/**
 * Which devices a hot reset affects; ENOSPC reports their `count`. For
 * {@link VFIO_DEVICE_GET_PCI_HOT_RESET_INFO}.
 */
export const vfio_pci_hot_reset_info = struct('vfio_pci_hot_reset_info', {
  argsz: u32,
  flags: u32,
  count: u32,
  devices: flexible(vfio_pci_dependent_device),
});
export const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO = request(
  'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO',
  0x3b70,
  vfio_pci_hot_reset_info,
);

/**
 * Resets the bus or the slot. Groups prove ownership by their descriptors; a cdev gives none. For
 * {@link VFIO_DEVICE_PCI_HOT_RESET}.
 */
export const vfio_pci_hot_reset = struct('vfio_pci_hot_reset', {
  argsz: u32,
  flags: u32,
  count: u32,
  group_fds: flexible(s32),
});
export const VFIO_DEVICE_PCI_HOT_RESET = request('VFIO_DEVICE_PCI_HOT_RESET', 0x3b71, vfio_pci_hot_reset);

// ---- Writing on an eventfd ----

// vfio_device_ioeventfd.flags: the width of the write.
export const VFIO_DEVICE_IOEVENTFD_8 = 1 << 0;
export const VFIO_DEVICE_IOEVENTFD_16 = 1 << 1;
export const VFIO_DEVICE_IOEVENTFD_32 = 1 << 2;
export const VFIO_DEVICE_IOEVENTFD_64 = 1 << 3;
export const VFIO_DEVICE_IOEVENTFD_SIZE_MASK = 0xf;

/**
 * Makes the kernel write `data` to a register whenever the eventfd `fd` is signalled. For
 * {@link VFIO_DEVICE_IOEVENTFD}.
 */
export const vfio_device_ioeventfd = struct('vfio_device_ioeventfd', {
  argsz: u32,
  flags: u32,
  offset: u64,
  data: u64,
  fd: s32,
  reserved: u32,
});
export const VFIO_DEVICE_IOEVENTFD = request('VFIO_DEVICE_IOEVENTFD', 0x3b74, vfio_device_ioeventfd, 'fd');

// ---- iommufd ----

export const VFIO_DEVICE_BIND_FLAG_TOKEN = 1 << 0;

/**
 * Takes possession of a device opened as a cdev, before anything else. For {@link VFIO_DEVICE_BIND_IOMMUFD}.
 */
export const vfio_device_bind_iommufd = struct('vfio_device_bind_iommufd', {
  argsz: u32,
  flags: u32,
  iommufd: s32,
  out_devid: u32,
  token_uuid_ptr: u64,
});
export const VFIO_DEVICE_BIND_IOMMUFD = request(
  'VFIO_DEVICE_BIND_IOMMUFD',
  0x3b76,
  vfio_device_bind_iommufd,
  'out_devid',
);

export const VFIO_DEVICE_ATTACH_PASID = 1 << 0;

/**
 * Attaches the device, or one of its PASIDs, to an IOAS or a page table, in place of the one it had. `pt_id`
 * comes back as the page table in use. For {@link VFIO_DEVICE_ATTACH_IOMMUFD_PT}.
 */
export const vfio_device_attach_iommufd_pt = struct('vfio_device_attach_iommufd_pt', {
  argsz: u32,
  flags: u32,
  pt_id: u32,
  pasid: u32,
});
export const VFIO_DEVICE_ATTACH_IOMMUFD_PT = request(
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
  0x3b77,
  vfio_device_attach_iommufd_pt,
  'pt_id',
);

export const VFIO_DEVICE_DETACH_PASID = 1 << 0;

/**
 * Detaches the device, or one of its PASIDs: its DMA is blocked from then on. For
 * {@link VFIO_DEVICE_DETACH_IOMMUFD_PT}.
 */
export const vfio_device_detach_iommufd_pt = struct('vfio_device_detach_iommufd_pt', {
  argsz: u32,
  flags: u32,
  pasid: u32,
});
export const VFIO_DEVICE_DETACH_IOMMUFD_PT = request(
  'VFIO_DEVICE_DETACH_IOMMUFD_PT',
  0x3b78,
  vfio_device_detach_iommufd_pt,
  'flags',
);
