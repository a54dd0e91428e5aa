/** What tests look at, and what they make happen. @module */
import { EFAULT, EINVAL, EIO, ENOENT, EOVERFLOW } from '../../../../bindings/uapi/errno.js';
import {
  iommu_test_cmd_add_reserved,
  iommu_test_cmd_check_dev_cache,
  iommu_test_cmd_check_iotlb,
  iommu_test_cmd_check_map,
  iommu_test_cmd_check_refs,
  iommu_test_cmd_dirty,
  iommu_test_cmd_memory_limit,
  iommu_test_cmd_trigger_iopf,
  iommu_test_cmd_trigger_vevent,
} from '../../../../bindings/uapi/iommufd-test.js';
import { pasidKey } from '../../iommu/group-attach.js';
import { reportFault } from '../../iommu/page-fault.js';
import { PAGE } from '../../machine/physical-memory.js';
import type { IommufdContext } from '../context.js';
import { getDevice } from '../device.js';
import { getHwptPaging, HwptNested } from '../hwpt.js';
import { U64_MAX } from '../intervals.js';
import { getIoas } from '../ioas-object.js';
import { ObjectType } from '../objects.js';
import { MockDevice } from './device.js';
import { MockDomain, MockNestedDomain } from './domain.js';
import type { TestCommand } from './test-command.js';
import { userPage } from './user-pages.js';

const PAGE_BYTES = BigInt(PAGE);
/** A bitmap is at most this long, in bits. */
const MAX_DIRTY_BITS = 8n * 16n * 2n ** 20n;

/** The mock domain behind a page table. @returns minus ENOENT, or EINVAL for the table of another IOMMU */
function getMockDomain(context: IommufdContext, id: number): MockDomain | number {
  const hwpt = getHwptPaging(context, id);
  if (typeof hwpt === 'number') return hwpt;
  return hwpt.domain instanceof MockDomain ? hwpt.domain : -EINVAL;
}

/** @returns minus ENOENT, or EINVAL for a device that is no mock */
function getMockDevice(context: IommufdContext, id: number): MockDevice | number {
  const bound = getDevice(context, id);
  if (typeof bound === 'number') return bound;
  return bound.device instanceof MockDevice ? bound.device : -EINVAL;
}

export function addReserved({ view, context, values }: TestCommand): number {
  const { start, length } = iommu_test_cmd_add_reserved.decode(view);
  if (length === 0n) return -EINVAL;
  const last = start + length - 1n;
  if (last > U64_MAX) return -EOVERFLOW;
  const ioas = getIoas(context, values.id);
  return ioas === undefined ? -ENOENT : ioas.table.reserveIova(start, last, undefined);
}

export function checkMap({ view, context, values, process }: TestCommand): number {
  const { iova, length, uptr } = iommu_test_cmd_check_map.decode(view);
  const domain = getMockDomain(context, values.id);
  if (typeof domain === 'number') return domain;
  const pageSize = domain.pageSizes & -domain.pageSizes;
  if ((iova | length | uptr) % pageSize !== 0n || uptr + length > U64_MAX) return -EINVAL;
  for (let at = 0n; at < length; at += pageSize) {
    const page = userPage(process, uptr + at);
    if (typeof page === 'number') return page;
    const expected = BigInt(page.frame) * PAGE_BYTES + ((uptr + at) % PAGE_BYTES);
    // Where nothing is mapped the kernel's answer is 0.
    if ((domain.translate(iova + at) ?? 0n) !== expected) return -EINVAL;
  }
  return 0;
}

export function checkRefs({ view, process }: TestCommand): number {
  const { length, uptr, refs } = iommu_test_cmd_check_refs.decode(view);
  if ((length | uptr) % PAGE_BYTES !== 0n || uptr + length > U64_MAX) return -EINVAL;
  for (let at = 0n; at < length; at += PAGE_BYTES) {
    const page = userPage(process, uptr + at);
    if (typeof page === 'number') return page;
    // The kernel does not count the pins of parts of huge pages.
    if (!page.huge && process.host.physical.pins(page.frame) !== refs) return -EIO;
  }
  return 0;
}

export function checkIotlb({ view, context, values }: TestCommand): number {
  const { iotlb_id, iotlb } = iommu_test_cmd_check_iotlb.decode(view);
  const hwpt = context.get(values.id, ObjectType.HwptNested);
  if (!(hwpt instanceof HwptNested)) return -ENOENT;
  const { domain } = hwpt;
  return domain instanceof MockNestedDomain && domain.iotlb[iotlb_id] === iotlb ? 0 : -EINVAL;
}

export function checkDeviceCache({ view, context, values }: TestCommand): number {
  const { cache_id, cache } = iommu_test_cmd_check_dev_cache.decode(view);
  const device = getMockDevice(context, values.id);
  if (typeof device === 'number') return device;
  return device.cache[cache_id] === cache ? 0 : -EINVAL;
}

/** The kernel could be made to use less memory while it pins; here it needs none. */
export function setMemoryLimit({ view }: TestCommand): number {
  return iommu_test_cmd_memory_limit.get(view, 'limit') < 12 ? -EINVAL : 0;
}

export function makeDirty(command: TestCommand): number {
  const { view, context, values, process } = command;
  const { iova, length, page_size: pageSize, uptr } = iommu_test_cmd_dirty.decode(view);
  if (pageSize === 0n || length === 0n || uptr === 0n) return -EINVAL;
  if (iova % pageSize !== 0n || length % pageSize !== 0n) return -EINVAL;
  const bits = length / pageSize;
  if (bits > MAX_DIRTY_BITS) return -EOVERFLOW;
  const domain = getMockDomain(context, values.id);
  if (typeof domain === 'number') return domain;
  if (domain.dirty?.enabled !== true) return -EINVAL;
  const bitmap = process.copyIn(uptr, Math.ceil(Number(bits) / 8));
  if (typeof bitmap === 'number') return -EFAULT;
  let count = 0n;
  for (let bit = 0; bit < Number(bits); bit++) {
    if (((bitmap[bit >> 3] as number) & (1 << (bit & 7))) === 0) continue;
    domain.setDirty(iova + BigInt(bit) * pageSize);
    count++;
  }
  iommu_test_cmd_dirty.set(view, 'out_nr_dirty', count);
  return command.respond();
}

export function triggerFault({ view, context }: TestCommand): number {
  const {
    dev_id,
    pasid,
    grpid: group,
    perm: permissions,
    addr: address,
  } = iommu_test_cmd_trigger_iopf.decode(view);
  const device = getMockDevice(context, dev_id);
  if (typeof device === 'number') return device;
  // Whether somebody takes it is not for the one who makes it to know.
  reportFault(device, { pasid: pasidKey(pasid), group, permissions, address, last: true });
  return 0;
}

export function triggerEvent({ view, context }: TestCommand): number {
  const device = getMockDevice(context, iommu_test_cmd_trigger_vevent.get(view, 'dev_id'));
  if (typeof device === 'number') return device;
  const { viommu, virtualId } = device;
  return viommu === undefined || virtualId === 0n ? -ENOENT : viommu.event(virtualId);
}
