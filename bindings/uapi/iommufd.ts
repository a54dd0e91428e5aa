/**
 * `linux/iommufd.h`: the structs, requests and constants of /dev/iommu, under the header's own names.
 *
 * Every request takes a struct whose first field is its `size` in bytes. The kernel zero-fills what is
 * missing at the end of a shorter struct, and refuses a longer one (E2BIG) unless the part it does not know
 * is zero. Reserved fields and unknown flags must be zero (EOPNOTSUPP). Object ids are unique within one open
 * of /dev/iommu.
 *
 * Constants that are combined into a `u64` field are bigints; all others are numbers.
 *
 * @module
 */

import { request } from './request.js';
import { array, overlay, s32, struct, u8, u16, u32, u64 } from './struct.js';

/** The ioctl type, `';'`; shared with VFIO. */
export const IOMMUFD_TYPE = 0x3b;

// The low byte of each request number.
export const IOMMUFD_CMD_BASE = 0x80;
export const IOMMUFD_CMD_DESTROY = 0x80;
export const IOMMUFD_CMD_IOAS_ALLOC = 0x81;
export const IOMMUFD_CMD_IOAS_ALLOW_IOVAS = 0x82;
export const IOMMUFD_CMD_IOAS_COPY = 0x83;
export const IOMMUFD_CMD_IOAS_IOVA_RANGES = 0x84;
export const IOMMUFD_CMD_IOAS_MAP = 0x85;
export const IOMMUFD_CMD_IOAS_UNMAP = 0x86;
export const IOMMUFD_CMD_OPTION = 0x87;
export const IOMMUFD_CMD_VFIO_IOAS = 0x88;
export const IOMMUFD_CMD_HWPT_ALLOC = 0x89;
export const IOMMUFD_CMD_GET_HW_INFO = 0x8a;
export const IOMMUFD_CMD_HWPT_SET_DIRTY_TRACKING = 0x8b;
export const IOMMUFD_CMD_HWPT_GET_DIRTY_BITMAP = 0x8c;
export const IOMMUFD_CMD_HWPT_INVALIDATE = 0x8d;
export const IOMMUFD_CMD_FAULT_QUEUE_ALLOC = 0x8e;
export const IOMMUFD_CMD_IOAS_MAP_FILE = 0x8f;
export const IOMMUFD_CMD_VIOMMU_ALLOC = 0x90;
export const IOMMUFD_CMD_VDEVICE_ALLOC = 0x91;
export const IOMMUFD_CMD_IOAS_CHANGE_PROCESS = 0x92;
export const IOMMUFD_CMD_VEVENTQ_ALLOC = 0x93;
export const IOMMUFD_CMD_HW_QUEUE_ALLOC = 0x94;
export const IOMMUFD_CMD_IOAS_NOIOMMU_GET_PA = 0x95;

// ---- Objects ----

/** Destroys the object `id` of any kind, unless something still refers to it. For {@link IOMMU_DESTROY}. */
export const iommu_destroy = struct('iommu_destroy', { size: u32, id: u32 });
export const IOMMU_DESTROY = request('IOMMU_DESTROY', 0x3b80, iommu_destroy);

// ---- I/O address spaces ----

/** Makes an empty I/O address space. For {@link IOMMU_IOAS_ALLOC}. */
export const iommu_ioas_alloc = struct('iommu_ioas_alloc', { size: u32, flags: u32, out_ioas_id: u32 });
export const IOMMU_IOAS_ALLOC = request('IOMMU_IOAS_ALLOC', 0x3b81, iommu_ioas_alloc);

/** A range of IOVAs, both ends included: the element of the arrays in the two requests below. */
export const iommu_iova_range = struct('iommu_iova_range', { start: u64, last: u64 });

/**
 * Asks which IOVAs may be mapped; the answer changes with every attach and detach. `allowed_iovas` points at
 * `num_iovas` {@link iommu_iova_range}s; EMSGSIZE reports in `num_iovas` how many it takes. For
 * {@link IOMMU_IOAS_IOVA_RANGES}.
 */
export const iommu_ioas_iova_ranges = struct('iommu_ioas_iova_ranges', {
  size: u32,
  ioas_id: u32,
  num_iovas: u32,
  __reserved: u32,
  allowed_iovas: u64,
  out_iova_alignment: u64,
});
export const IOMMU_IOAS_IOVA_RANGES = request('IOMMU_IOAS_IOVA_RANGES', 0x3b84, iommu_ioas_iova_ranges);

/**
 * Replaces the list of IOVAs that must stay usable: an attach that would take one away then fails instead.
 * For {@link IOMMU_IOAS_ALLOW_IOVAS}.
 */
export const iommu_ioas_allow_iovas = struct('iommu_ioas_allow_iovas', {
  size: u32,
  ioas_id: u32,
  num_iovas: u32,
  __reserved: u32,
  allowed_iovas: u64,
});
export const IOMMU_IOAS_ALLOW_IOVAS = request('IOMMU_IOAS_ALLOW_IOVAS', 0x3b82, iommu_ioas_allow_iovas);

// iommufd_ioas_map_flags, for map, map_file and copy.
export const IOMMU_IOAS_MAP_FIXED_IOVA = 1 << 0;
export const IOMMU_IOAS_MAP_WRITEABLE = 1 << 1;
export const IOMMU_IOAS_MAP_READABLE = 1 << 2;

/**
 * Maps `length` bytes of the caller's memory at `user_va`. `iova` is an input with
 * `IOMMU_IOAS_MAP_FIXED_IOVA`, and always an output. For {@link IOMMU_IOAS_MAP}.
 */
export const iommu_ioas_map = struct('iommu_ioas_map', {
  size: u32,
  flags: u32,
  ioas_id: u32,
  __reserved: u32,
  user_va: u64,
  length: u64,
  iova: u64,
});
export const IOMMU_IOAS_MAP = request('IOMMU_IOAS_MAP', 0x3b85, iommu_ioas_map);

/**
 * The physical address behind `iova` in an address space used without an IOMMU. `length` is the most to
 * report on the way in, and what is physically contiguous from `out_phys` on the way out. For
 * {@link IOMMU_IOAS_NOIOMMU_GET_PA}.
 */
export const iommu_ioas_noiommu_get_pa = struct('iommu_ioas_noiommu_get_pa', {
  size: u32,
  flags: u32,
  ioas_id: u32,
  __reserved: u32,
  iova: u64,
  length: u64,
  out_phys: u64,
});
export const IOMMU_IOAS_NOIOMMU_GET_PA = request(
  'IOMMU_IOAS_NOIOMMU_GET_PA',
  0x3b95,
  iommu_ioas_noiommu_get_pa,
);

/**
 * Maps `length` bytes of a memfd, or of a VFIO dma-buf, from the file offset `start`; otherwise as
 * {@link iommu_ioas_map}. For {@link IOMMU_IOAS_MAP_FILE}.
 */
export const iommu_ioas_map_file = struct('iommu_ioas_map_file', {
  size: u32,
  flags: u32,
  ioas_id: u32,
  fd: s32,
  start: u64,
  length: u64,
  iova: u64,
});
export const IOMMU_IOAS_MAP_FILE = request('IOMMU_IOAS_MAP_FILE', 0x3b8f, iommu_ioas_map_file);

/**
 * Maps again, in the same or another address space, what is mapped at `src_iova`. For
 * {@link IOMMU_IOAS_COPY}.
 */
export const iommu_ioas_copy = struct('iommu_ioas_copy', {
  size: u32,
  flags: u32,
  dst_ioas_id: u32,
  src_ioas_id: u32,
  length: u64,
  dst_iova: u64,
  src_iova: u64,
});
export const IOMMU_IOAS_COPY = request('IOMMU_IOAS_COPY', 0x3b83, iommu_ioas_copy);

/**
 * Unmaps every mapping inside a range of IOVAs; none may be cut in two. `length` comes back as the bytes
 * unmapped. 0 and 2^64 - 1 unmap everything. For {@link IOMMU_IOAS_UNMAP}.
 */
export const iommu_ioas_unmap = struct('iommu_ioas_unmap', {
  size: u32,
  ioas_id: u32,
  iova: u64,
  length: u64,
});
export const IOMMU_IOAS_UNMAP = request('IOMMU_IOAS_UNMAP', 0x3b86, iommu_ioas_unmap);

/**
 * Charges every pinned page to the calling process, after a hand-off. For {@link IOMMU_IOAS_CHANGE_PROCESS}.
 */
export const iommu_ioas_change_process = struct('iommu_ioas_change_process', { size: u32, __reserved: u32 });
export const IOMMU_IOAS_CHANGE_PROCESS = request(
  'IOMMU_IOAS_CHANGE_PROCESS',
  0x3b92,
  iommu_ioas_change_process,
);

// ---- Options and VFIO compatibility ----

// iommufd_option
export const IOMMU_OPTION_RLIMIT_MODE = 0;
export const IOMMU_OPTION_HUGE_PAGES = 1;

// iommufd_option_ops
export const IOMMU_OPTION_OP_SET = 0;
export const IOMMU_OPTION_OP_GET = 1;

/**
 * Sets or gets one option of the whole context (`object_id` 0) or of one object. For {@link IOMMU_OPTION}.
 */
export const iommu_option = struct('iommu_option', {
  size: u32,
  option_id: u32,
  op: u16,
  __reserved: u16,
  object_id: u32,
  val64: u64,
});
export const IOMMU_OPTION = request('IOMMU_OPTION', 0x3b87, iommu_option);

// iommufd_vfio_ioas_op
export const IOMMU_VFIO_IOAS_GET = 0;
export const IOMMU_VFIO_IOAS_SET = 1;
export const IOMMU_VFIO_IOAS_CLEAR = 2;

/**
 * The address space used when this descriptor poses as a legacy VFIO container. For {@link IOMMU_VFIO_IOAS}.
 */
export const iommu_vfio_ioas = struct('iommu_vfio_ioas', {
  size: u32,
  ioas_id: u32,
  op: u16,
  __reserved: u16,
});
export const IOMMU_VFIO_IOAS = request('IOMMU_VFIO_IOAS', 0x3b88, iommu_vfio_ioas);

// ---- Hardware page tables ----

// iommufd_hwpt_alloc_flags
export const IOMMU_HWPT_ALLOC_NEST_PARENT = 1 << 0;
export const IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 1 << 1;
export const IOMMU_HWPT_FAULT_ID_VALID = 1 << 2;
export const IOMMU_HWPT_ALLOC_PASID = 1 << 3;

// iommu_hwpt_vtd_s1_flags
export const IOMMU_VTD_S1_SRE = 1n << 0n;
export const IOMMU_VTD_S1_EAFE = 1n << 1n;
export const IOMMU_VTD_S1_WPE = 1n << 2n;

/** A stage-1 table for Intel VT-d: what `data_uptr` of {@link iommu_hwpt_alloc} points at. */
export const iommu_hwpt_vtd_s1 = struct('iommu_hwpt_vtd_s1', {
  flags: u64,
  pgtbl_addr: u64,
  addr_width: u32,
  __reserved: u32,
});

/** The first two words of a guest's stream table entry, for a nested table on Arm SMMUv3. */
export const iommu_hwpt_arm_smmuv3 = struct('iommu_hwpt_arm_smmuv3', { ste: array(u64, 2) });

/** A guest's device table entry, for a nested table on an AMD IOMMU. */
export const iommu_hwpt_amd_guest = struct('iommu_hwpt_amd_guest', { dte: array(u64, 4) });

// iommu_hwpt_data_type
export const IOMMU_HWPT_DATA_NONE = 0;
export const IOMMU_HWPT_DATA_VTD_S1 = 1;
export const IOMMU_HWPT_DATA_ARM_SMMUV3 = 2;
export const IOMMU_HWPT_DATA_AMD_GUEST = 3;

/**
 * Makes a hardware page table for `dev_id` from an IOAS, or a nested one from a parent table or a vIOMMU;
 * `pt_id` says which. For {@link IOMMU_HWPT_ALLOC}.
 */
export const iommu_hwpt_alloc = struct('iommu_hwpt_alloc', {
  size: u32,
  flags: u32,
  dev_id: u32,
  pt_id: u32,
  out_hwpt_id: u32,
  __reserved: u32,
  data_type: u32,
  data_len: u32,
  data_uptr: u64,
  fault_id: u32,
  __reserved2: u32,
});
export const IOMMU_HWPT_ALLOC = request('IOMMU_HWPT_ALLOC', 0x3b89, iommu_hwpt_alloc, '__reserved');

// ---- What the hardware can do ----

// iommu_hw_info_vtd_flags
export const IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17 = 1 << 0;

/** Intel VT-d: the capability registers. Filled in by {@link IOMMU_GET_HW_INFO}. */
export const iommu_hw_info_vtd = struct('iommu_hw_info_vtd', {
  flags: u32,
  __reserved: u32,
  cap_reg: u64,
  ecap_reg: u64,
});

// iommu_hw_info_arm_smmuv3_flags
export const IOMMU_HW_INFO_ARM_SMMUV3_ERRATA_REPEAT_TLBI_CFGI = 1 << 0;

/** Arm SMMUv3: the identification registers. Filled in by {@link IOMMU_GET_HW_INFO}. */
export const iommu_hw_info_arm_smmuv3 = struct('iommu_hw_info_arm_smmuv3', {
  flags: u32,
  __reserved: u32,
  idr: array(u32, 6),
  iidr: u32,
  aidr: u32,
});

/** NVIDIA Tegra241 CMDQV: the sizes of its virtual command queues. Filled in by {@link IOMMU_GET_HW_INFO}. */
export const iommu_hw_info_tegra241_cmdqv = struct('iommu_hw_info_tegra241_cmdqv', {
  flags: u32,
  version: u8,
  log2vcmdqs: u8,
  log2vsids: u8,
  __reserved: u8,
});

/** AMD: the two extended feature registers. Filled in by {@link IOMMU_GET_HW_INFO}. */
export const iommu_hw_info_amd = struct('iommu_hw_info_amd', { efr: u64, efr2: u64 });

// iommu_hw_info_type
export const IOMMU_HW_INFO_TYPE_NONE = 0;
export const IOMMU_HW_INFO_TYPE_DEFAULT = 0;
export const IOMMU_HW_INFO_TYPE_INTEL_VTD = 1;
export const IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2;
export const IOMMU_HW_INFO_TYPE_TEGRA241_CMDQV = 3;
export const IOMMU_HW_INFO_TYPE_AMD = 4;

// iommufd_hw_capabilities
export const IOMMU_HW_CAP_DIRTY_TRACKING = 1n << 0n;
export const IOMMU_HW_CAP_PCI_PASID_EXEC = 1n << 1n;
export const IOMMU_HW_CAP_PCI_PASID_PRIV = 1n << 2n;
export const IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 1n << 3n;

// iommufd_hw_info_flags
export const IOMMU_HW_INFO_FLAG_INPUT_TYPE = 1 << 0;

/**
 * Asks about the IOMMU behind a device. `data_uptr` and `data_len` give a buffer for one of the structs
 * above; `data_len` comes back as what the kernel has. For {@link IOMMU_GET_HW_INFO}.
 */
export const iommu_hw_info = struct('iommu_hw_info', {
  size: u32,
  flags: u32,
  dev_id: u32,
  data_len: u32,
  data_uptr: u64,
  in_data_type: u32,
  out_data_type: overlay('in_data_type', u32),
  out_max_pasid_log2: u8,
  __reserved: array(u8, 3),
  out_capabilities: u64,
});
export const IOMMU_GET_HW_INFO = request('IOMMU_GET_HW_INFO', 0x3b8a, iommu_hw_info, '__reserved');

// ---- Dirty tracking ----

// iommufd_hwpt_set_dirty_tracking_flags
export const IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1;

/** Starts or stops recording which IOVAs are written. For {@link IOMMU_HWPT_SET_DIRTY_TRACKING}. */
export const iommu_hwpt_set_dirty_tracking = struct('iommu_hwpt_set_dirty_tracking', {
  size: u32,
  flags: u32,
  hwpt_id: u32,
  __reserved: u32,
});
export const IOMMU_HWPT_SET_DIRTY_TRACKING = request(
  'IOMMU_HWPT_SET_DIRTY_TRACKING',
  0x3b8b,
  iommu_hwpt_set_dirty_tracking,
);

// iommufd_hwpt_get_dirty_bitmap_flags
export const IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1;

/**
 * Reads, and normally clears, the record for a range of IOVAs: `data` points at a bitmap with one bit per
 * `page_size` bytes. For {@link IOMMU_HWPT_GET_DIRTY_BITMAP}.
 */
export const iommu_hwpt_get_dirty_bitmap = struct('iommu_hwpt_get_dirty_bitmap', {
  size: u32,
  hwpt_id: u32,
  flags: u32,
  __reserved: u32,
  iova: u64,
  length: u64,
  page_size: u64,
  data: u64,
});
export const IOMMU_HWPT_GET_DIRTY_BITMAP = request(
  'IOMMU_HWPT_GET_DIRTY_BITMAP',
  0x3b8c,
  iommu_hwpt_get_dirty_bitmap,
);

// ---- Invalidation ----

// iommu_hwpt_invalidate_data_type
export const IOMMU_HWPT_INVALIDATE_DATA_VTD_S1 = 0;
export const IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 = 1;

// iommu_hwpt_vtd_s1_invalidate_flags
export const IOMMU_VTD_INV_FLAGS_LEAF = 1 << 0;

/** One invalidation on VT-d, `npages` pages of 4 KiB from `addr`; 0 and 2^64 - 1 invalidate everything. */
export const iommu_hwpt_vtd_s1_invalidate = struct('iommu_hwpt_vtd_s1_invalidate', {
  addr: u64,
  npages: u64,
  flags: u32,
  __reserved: u32,
});

/** One invalidation command as the SMMUv3 command queue takes it. */
export const iommu_viommu_arm_smmuv3_invalidate = struct('iommu_viommu_arm_smmuv3_invalidate', {
  cmd: array(u64, 2),
});

/**
 * Flushes caches of a nested table or of a vIOMMU, `entry_num` entries of `entry_len` bytes at `data_uptr`;
 * `entry_num` comes back as the number handled, even on failure. For {@link IOMMU_HWPT_INVALIDATE}.
 */
export const iommu_hwpt_invalidate = struct('iommu_hwpt_invalidate', {
  size: u32,
  hwpt_id: u32,
  data_uptr: u64,
  data_type: u32,
  entry_len: u32,
  entry_num: u32,
  __reserved: u32,
});
export const IOMMU_HWPT_INVALIDATE = request('IOMMU_HWPT_INVALIDATE', 0x3b8d, iommu_hwpt_invalidate);

// ---- I/O page faults ----

// iommu_hwpt_pgfault_flags
export const IOMMU_PGFAULT_FLAGS_PASID_VALID = 1 << 0;
export const IOMMU_PGFAULT_FLAGS_LAST_PAGE = 1 << 1;

// iommu_hwpt_pgfault_perm
export const IOMMU_PGFAULT_PERM_READ = 1 << 0;
export const IOMMU_PGFAULT_PERM_WRITE = 1 << 1;
export const IOMMU_PGFAULT_PERM_EXEC = 1 << 2;
export const IOMMU_PGFAULT_PERM_PRIV = 1 << 3;

/** A page fault, read from the descriptor of a fault queue. */
export const iommu_hwpt_pgfault = struct('iommu_hwpt_pgfault', {
  flags: u32,
  dev_id: u32,
  pasid: u32,
  grpid: u32,
  perm: u32,
  __reserved: u32,
  addr: u64,
  length: u32,
  cookie: u32,
});

// iommufd_page_response_code
export const IOMMUFD_PAGE_RESP_SUCCESS = 0;
export const IOMMUFD_PAGE_RESP_INVALID = 1;

/** The answer to a group of faults, written to the descriptor of the fault queue. */
export const iommu_hwpt_page_response = struct('iommu_hwpt_page_response', { cookie: u32, code: u32 });

/** Makes a fault queue: an object to name when making a page table, and a descriptor to read faults from. */
export const iommu_fault_alloc = struct('iommu_fault_alloc', {
  size: u32,
  flags: u32,
  out_fault_id: u32,
  out_fault_fd: u32,
});
export const IOMMU_FAULT_QUEUE_ALLOC = request('IOMMU_FAULT_QUEUE_ALLOC', 0x3b8e, iommu_fault_alloc);

// ---- Virtual IOMMUs ----

// iommu_viommu_type
export const IOMMU_VIOMMU_TYPE_DEFAULT = 0;
export const IOMMU_VIOMMU_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VIOMMU_TYPE_TEGRA241_CMDQV = 2;

/**
 * Where to `mmap` the virtual interface page of a Tegra241 CMDQV; filled in by {@link IOMMU_VIOMMU_ALLOC}.
 */
export const iommu_viommu_tegra241_cmdqv = struct('iommu_viommu_tegra241_cmdqv', {
  out_vintf_mmap_offset: u64,
  out_vintf_mmap_length: u64,
});

/** Makes a virtual IOMMU on top of the nesting parent `hwpt_id`. For {@link IOMMU_VIOMMU_ALLOC}. */
export const iommu_viommu_alloc = struct('iommu_viommu_alloc', {
  size: u32,
  flags: u32,
  type: u32,
  dev_id: u32,
  hwpt_id: u32,
  out_viommu_id: u32,
  data_len: u32,
  __reserved: u32,
  data_uptr: u64,
});
export const IOMMU_VIOMMU_ALLOC = request('IOMMU_VIOMMU_ALLOC', 0x3b90, iommu_viommu_alloc, 'out_viommu_id');

/** Gives a device the id by which a virtual IOMMU's guest knows it. For {@link IOMMU_VDEVICE_ALLOC}. */
export const iommu_vdevice_alloc = struct('iommu_vdevice_alloc', {
  size: u32,
  viommu_id: u32,
  dev_id: u32,
  out_vdevice_id: u32,
  virt_id: u64,
});
export const IOMMU_VDEVICE_ALLOC = request('IOMMU_VDEVICE_ALLOC', 0x3b91, iommu_vdevice_alloc);

// iommu_veventq_flag
export const IOMMU_VEVENTQ_FLAG_LOST_EVENTS = 1 << 0;

/** Goes before each event read from a virtual event queue; a gap in `sequence` counts the events lost. */
export const iommufd_vevent_header = struct('iommufd_vevent_header', { flags: u32, sequence: u32 });

// iommu_veventq_type
export const IOMMU_VEVENTQ_TYPE_DEFAULT = 0;
export const IOMMU_VEVENTQ_TYPE_ARM_SMMUV3 = 1;
export const IOMMU_VEVENTQ_TYPE_TEGRA241_CMDQV = 2;

/** An SMMUv3 event record, after an {@link iommufd_vevent_header}. */
export const iommu_vevent_arm_smmuv3 = struct('iommu_vevent_arm_smmuv3', { evt: array(u64, 4) });

/** The map of failed command queues of a Tegra241 CMDQV, after an {@link iommufd_vevent_header}. */
export const iommu_vevent_tegra241_cmdqv = struct('iommu_vevent_tegra241_cmdqv', {
  lvcmdq_err_map: array(u64, 2),
});

/**
 * Makes a queue, and a descriptor to read, for the events of a virtual IOMMU. For
 * {@link IOMMU_VEVENTQ_ALLOC}.
 */
export const iommu_veventq_alloc = struct('iommu_veventq_alloc', {
  size: u32,
  flags: u32,
  viommu_id: u32,
  type: u32,
  veventq_depth: u32,
  out_veventq_id: u32,
  out_veventq_fd: u32,
  __reserved: u32,
});
export const IOMMU_VEVENTQ_ALLOC = request(
  'IOMMU_VEVENTQ_ALLOC',
  0x3b93,
  iommu_veventq_alloc,
  'out_veventq_fd',
);

// iommu_hw_queue_type
export const IOMMU_HW_QUEUE_TYPE_DEFAULT = 0;
export const IOMMU_HW_QUEUE_TYPE_TEGRA241_CMDQV = 1;

/** Gives hardware a queue in guest memory to work on directly. For {@link IOMMU_HW_QUEUE_ALLOC}. */
export const iommu_hw_queue_alloc = struct('iommu_hw_queue_alloc', {
  size: u32,
  flags: u32,
  viommu_id: u32,
  type: u32,
  index: u32,
  out_hw_queue_id: u32,
  nesting_parent_iova: u64,
  length: u64,
});
export const IOMMU_HW_QUEUE_ALLOC = request('IOMMU_HW_QUEUE_ALLOC', 0x3b94, iommu_hw_queue_alloc);
