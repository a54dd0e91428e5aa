/**
 * `drivers/iommu/iommufd/iommufd_test.h`: the request by which a kernel built with CONFIG_IOMMUFD_TEST makes mock
 * devices and looks inside itself. No part of the stable user API.
 *
 * One struct there, `iommu_test_cmd`, holds a union with a member for each operation. Here every operation has a
 * struct of its own, `iommu_test_cmd_<member>`, of the same size and with the same fields around the member's.
 *
 * @module
 */

import { request } from './request.js';
import { array, type Fields, type Struct, s32, struct, u8, u32, u64 } from './struct.js';

// Operations
export const IOMMU_TEST_OP_ADD_RESERVED = 1;
export const IOMMU_TEST_OP_MOCK_DOMAIN = 2;
export const IOMMU_TEST_OP_MD_CHECK_MAP = 3;
export const IOMMU_TEST_OP_MD_CHECK_REFS = 4;
export const IOMMU_TEST_OP_CREATE_ACCESS = 5;
export const IOMMU_TEST_OP_DESTROY_ACCESS_PAGES = 6;
export const IOMMU_TEST_OP_ACCESS_PAGES = 7;
export const IOMMU_TEST_OP_ACCESS_RW = 8;
export const IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT = 9;
export const IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE = 10;
export const IOMMU_TEST_OP_ACCESS_REPLACE_IOAS = 11;
export const IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS = 12;
export const IOMMU_TEST_OP_DIRTY = 13;
export const IOMMU_TEST_OP_MD_CHECK_IOTLB = 14;
export const IOMMU_TEST_OP_TRIGGER_IOPF = 15;
export const IOMMU_TEST_OP_DEV_CHECK_CACHE = 16;
export const IOMMU_TEST_OP_TRIGGER_VEVENT = 17;
export const IOMMU_TEST_OP_PASID_ATTACH = 18;
export const IOMMU_TEST_OP_PASID_REPLACE = 19;
export const IOMMU_TEST_OP_PASID_DETACH = 20;
export const IOMMU_TEST_OP_PASID_CHECK_HWPT = 21;
export const IOMMU_TEST_OP_DMABUF_GET = 22;
export const IOMMU_TEST_OP_DMABUF_REVOKE = 23;

// Page tables of mock domains, see iommu_hwpt_selftest
export const MOCK_IOMMUPT_DEFAULT = 0;
export const MOCK_IOMMUPT_HUGE = 1;

// What MOCK_IOMMUPT_DEFAULT has, in bytes
export const MOCK_APERTURE_START = 2 ** 24;
export const MOCK_APERTURE_LAST = 2 ** 31 - 1;
export const MOCK_PAGE_SIZE = 2048;
export const MOCK_HUGE_PAGE_SIZE = 512 * MOCK_PAGE_SIZE;

export const MOCK_FLAGS_ACCESS_WRITE = 1 << 0;
export const MOCK_FLAGS_ACCESS_SYZ = 1 << 16;

export const MOCK_ACCESS_RW_WRITE = 1 << 0;
export const MOCK_ACCESS_RW_SLOW_PATH = 1 << 2;

export const MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES = 1 << 0;

export const MOCK_FLAGS_DEVICE_NO_DIRTY = 1 << 0;
export const MOCK_FLAGS_DEVICE_PASID = 1 << 2;

export const MOCK_NESTED_DOMAIN_IOTLB_ID_MAX = 3;
export const MOCK_NESTED_DOMAIN_IOTLB_NUM = 4;

export const MOCK_DEV_CACHE_ID_MAX = 3;
export const MOCK_DEV_CACHE_NUM = 4;

/** The first time that a mock device is to be moved to another domain on this PASID, it fails (ENOMEM). */
export const IOMMU_TEST_PASID_RESERVED = 1024;

/** In bits. */
export const MOCK_PASID_WIDTH = 20;

const UNION_BYTES = 48;
const head = { size: u32, op: u32, id: u32, __reserved: u32 };
// The C struct is aligned to 8 bytes whatever member is used.
const tail = { last: u32, __padding: u32 };

/** An operation whose member of the union has the given fields. */
function command<const F extends Fields>(member: string, fields: F): Struct<typeof head & F & typeof tail> {
  const used = Object.values(struct(member, fields).fields).map(field => field.offset + field.size);
  const missing = UNION_BYTES - Math.max(...used);
  const rest = missing > 0 ? { __union: array(u8, missing) } : {};
  const all: Fields = { ...head, ...fields, ...rest, ...tail };
  return struct(`iommu_test_cmd_${member}`, all) as unknown as Struct<typeof head & F & typeof tail>;
}

/** Any operation: what the request takes. */
export const iommu_test_cmd = struct('iommu_test_cmd', {
  ...head,
  __union: array(u8, UNION_BYTES),
  ...tail,
});
export const IOMMU_TEST_CMD = request('IOMMU_TEST_CMD', 0x3ba0, iommu_test_cmd, 'last');

/** ADD_RESERVED: IOVAs of the IOAS `id` that nothing may use. */
export const iommu_test_cmd_add_reserved = command('add_reserved', { start: u64, length: u64 });
/** MOCK_DOMAIN: makes a mock device, attached to `id`, an IOAS or HWPT. */
export const iommu_test_cmd_mock_domain = command('mock_domain', {
  out_stdev_id: u32,
  out_hwpt_id: u32,
  /** The object that a bind gives. */
  out_idev_id: u32,
});
/** MOCK_DOMAIN_FLAGS: the same with `MOCK_FLAGS_DEVICE_*`. */
export const iommu_test_cmd_mock_domain_flags = command('mock_domain_flags', {
  out_stdev_id: u32,
  out_hwpt_id: u32,
  out_idev_id: u32,
  dev_flags: u32,
});
/** MOCK_DOMAIN_REPLACE: moves the mock device `id` to another IOAS or HWPT. */
export const iommu_test_cmd_mock_domain_replace = command('mock_domain_replace', { pt_id: u32 });
/** MD_CHECK_MAP: does the HWPT `id` translate to the caller's memory at `uptr`? EINVAL if not. */
export const iommu_test_cmd_check_map = command('check_map', { iova: u64, length: u64, uptr: u64 });
/** MD_CHECK_REFS: has each page at `uptr` `refs` pins? EIO if not. */
export const iommu_test_cmd_check_refs = command('check_refs', { length: u64, uptr: u64, refs: u32 });
/** CREATE_ACCESS: an access by the kernel itself, with a descriptor that it lives by; `id` is an IOAS. */
export const iommu_test_cmd_create_access = command('create_access', { out_access_fd: u32, flags: u32 });
/** DESTROY_ACCESS_PAGES: gives pages back. `id` is the descriptor of an access. */
export const iommu_test_cmd_destroy_access_pages = command('destroy_access_pages', { access_pages_id: u32 });
/** ACCESS_PAGES: pins pages and compares them with those at `uptr`. `id` is the descriptor of an access. */
export const iommu_test_cmd_access_pages = command('access_pages', {
  flags: u32,
  out_access_pages_id: u32,
  iova: u64,
  length: u64,
  uptr: u64,
});
/** ACCESS_RW: copies between IOVAs and the caller's buffer at `uptr`. `id` is the descriptor of an access. */
export const iommu_test_cmd_access_rw = command('access_rw', {
  iova: u64,
  length: u64,
  uptr: u64,
  flags: u32,
});
/** SET_TEMP_MEMORY_LIMIT: how much memory the kernel may use while it pins, in bytes. */
export const iommu_test_cmd_memory_limit = command('memory_limit', { limit: u32 });
/** ACCESS_REPLACE_IOAS: moves an access to another IOAS. `id` is the descriptor of an access. */
export const iommu_test_cmd_access_replace_ioas = command('access_replace_ioas', { ioas_id: u32 });
/** DIRTY: sets dirty bits of the HWPT `id` from the bitmap at `uptr`. */
export const iommu_test_cmd_dirty = command('dirty', {
  flags: u32,
  iova: u64,
  length: u64,
  page_size: u64,
  uptr: u64,
  out_nr_dirty: u64,
});
/** MD_CHECK_IOTLB: has entry `iotlb_id` of the nested HWPT `id` the value `iotlb`? EINVAL if not. */
export const iommu_test_cmd_check_iotlb = command('check_iotlb', {
  /** `id` in the header. */
  iotlb_id: u32,
  iotlb: u32,
});
/** TRIGGER_IOPF: a page fault by a device. */
export const iommu_test_cmd_trigger_iopf = command('trigger_iopf', {
  dev_id: u32,
  pasid: u32,
  grpid: u32,
  perm: u32,
  addr: u64,
});
/** DEV_CHECK_CACHE: has entry `cache_id` of the device `id` the value `cache`? EINVAL if not. */
export const iommu_test_cmd_check_dev_cache = command('check_dev_cache', {
  /** `id` in the header. */
  cache_id: u32,
  cache: u32,
});
/** TRIGGER_VEVENT: an event of the virtual IOMMU behind a device. */
export const iommu_test_cmd_trigger_vevent = command('trigger_vevent', { dev_id: u32 });
/** PASID_ATTACH: attaches a PASID of the mock device `id`. */
export const iommu_test_cmd_pasid_attach = command('pasid_attach', { pasid: u32, pt_id: u32 });
/** PASID_REPLACE: moves a PASID of the mock device `id`. */
export const iommu_test_cmd_pasid_replace = command('pasid_replace', { pasid: u32, pt_id: u32 });
/** PASID_DETACH: detaches a PASID of the mock device `id`. */
export const iommu_test_cmd_pasid_detach = command('pasid_detach', { pasid: u32 });
/** PASID_CHECK_HWPT: is the PASID of the mock device `id` attached to `hwpt_id` (0: to nothing)? EINVAL if not. */
export const iommu_test_cmd_pasid_check = command('pasid_check', { pasid: u32, hwpt_id: u32 });
/** DMABUF_GET: a dma-buf of `length` bytes. Its descriptor is the lowest that was free; Linux 7.3 answers 0. */
export const iommu_test_cmd_dmabuf_get = command('dmabuf_get', { length: u32, open_flags: u32 });
/** DMABUF_REVOKE: takes the memory of a dma-buf away, or (0) gives it back. */
export const iommu_test_cmd_dmabuf_revoke = command('dmabuf_revoke', { dmabuf_fd: s32, revoked: u32 });

export const IOMMU_HW_INFO_TYPE_SELFTEST = 0xfeedbeef;
export const IOMMU_HW_INFO_SELFTEST_REGVAL = 0xdeadbeef;

/** What a mock device says of its IOMMU. */
export const iommu_test_hw_info = struct('iommu_test_hw_info', { flags: u32, test_reg: u32 });

export const IOMMU_HWPT_DATA_SELFTEST = 0xdead;
export const IOMMU_TEST_IOTLB_DEFAULT = 0xbadbeef;
export const IOMMU_TEST_DEV_CACHE_DEFAULT = 0xbaddad;

/** A nested page table: `iotlb` in each of its entries. A paging one: `pagetable_type`, a `MOCK_IOMMUPT_*`. */
export const iommu_hwpt_selftest = struct('iommu_hwpt_selftest', { iotlb: u32, pagetable_type: u32 });

export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST = 0xdeadbeef;
export const IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID = 0xdadbeef;
export const IOMMU_TEST_INVALIDATE_FLAG_ALL = 1 << 0;

/** Invalidates entry `iotlb_id` of a nested HWPT, or all of them. */
export const iommu_hwpt_invalidate_selftest = struct('iommu_hwpt_invalidate_selftest', {
  flags: u32,
  iotlb_id: u32,
});

export const IOMMU_VIOMMU_TYPE_SELFTEST = 0xdeadbeef;

/** A virtual IOMMU: `out_data` comes back as `in_data`, with a page to `mmap`. */
export const iommu_viommu_selftest = struct('iommu_viommu_selftest', {
  in_data: u32,
  out_data: u32,
  out_mmap_offset: u64,
  out_mmap_length: u64,
});

export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST = 0xdeadbeef;
export const IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID = 0xdadbeef;

/** Invalidates entry `cache_id` of a virtual device, or all of them. */
export const iommu_viommu_invalidate_selftest = struct('iommu_viommu_invalidate_selftest', {
  flags: u32,
  vdev_id: u32,
  cache_id: u32,
});

export const IOMMU_VEVENTQ_TYPE_SELFTEST = 0xbeefbeef;

/** An event, after an `iommufd_vevent_header`. */
export const iommu_viommu_event_selftest = struct('iommu_viommu_event_selftest', { virt_id: u32 });

export const IOMMU_HW_QUEUE_TYPE_SELFTEST = 0xdeadbeef;
export const IOMMU_TEST_HW_QUEUE_MAX = 2;
