/** Containers that translate (drivers/vfio/vfio_iommu_type1.c). @module */
import { EBUSY, EINVAL, ENOTTY, EPERM } from '../../../bindings/uapi/errno.js';
import {
  __VFIO_RESERVED_TYPE1_NESTING_IOMMU,
  VFIO_DMA_CC_IOMMU,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
} from '../../../bindings/uapi/vfio.js';
import type { IommuDevice, PagingDomain } from '../iommu/domain.js';
import { attachGroup, detachGroup } from '../iommu/group-attach.js';
import { commonPageSizes } from '../iommu/page-sizes.js';
import { holes, type Interval, max, merged, min, overlap, U64_MAX } from '../iommufd/intervals.js';
import type { SimulatedProcess } from '../process/process.js';
import type { UserArgument } from '../process/user-argument.js';
import type { ContainerDriver } from './container.js';
import type { VfioGroup } from './group.js';
import { dirtyPages } from './type1-dirty.js';
import { type DmaMapping, mapInto, unmapFrom } from './type1-dma.js';
import { getType1Info } from './type1-info.js';
import { Type1Mappings } from './type1-mappings.js';

/** Groups that share a page table. */
interface Type1Domain {
  readonly domain: PagingDomain;
  /** DMA is coherent whatever the device says. */
  readonly coherent: boolean;
  readonly groups: Set<VfioGroup>;
}

/** @param container undefined: no container has been made yet */
export function checkType1Extension(container: Type1Container | undefined, extension: number): number {
  switch (extension) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
      return 1;
    case VFIO_UPDATE_VADDR:
      return container === undefined ? 0 : 1;
    case VFIO_DMA_CC_IOMMU:
      return container?.coherent ? 1 : 0;
    default:
      return 0;
  }
}

/** @returns minus EINVAL for a type that it is not */
export function openType1(type: number): Type1Container | number {
  if (type === VFIO_TYPE1_IOMMU) return new Type1Container(false);
  const second = type === VFIO_TYPE1v2_IOMMU || type === __VFIO_RESERVED_TYPE1_NESTING_IOMMU;
  return second ? new Type1Container(true) : -EINVAL;
}

function reserved(devices: Iterable<IommuDevice>): Interval[] {
  const regions = [...devices].flatMap(device => device.reservedRegions);
  return regions.filter(region => region.kind !== 'direct-relaxable');
}

export class Type1Container implements ContainerDriver {
  readonly mappings: Type1Mappings;
  readonly #domains: Type1Domain[] = [];
  /** IOVAs that can be mapped, in order. */
  ranges: readonly Interval[] = [];
  /** Page sizes that all domains have, each its own bit. */
  pageSizes = commonPageSizes([]);

  constructor(second: boolean) {
    this.mappings = new Type1Mappings(this, second);
  }

  get coherent(): boolean {
    return this.#domains.every(domain => domain.coherent);
  }

  get domains(): readonly PagingDomain[] {
    return this.#domains.map(each => each.domain);
  }

  checkExtension(extension: number): number {
    return checkType1Extension(this, extension);
  }

  ioctl(process: SimulatedProcess, request: number, argument: UserArgument): number {
    switch (request) {
      case VFIO_IOMMU_GET_INFO.number:
        return getType1Info(this, argument);
      case VFIO_IOMMU_MAP_DMA.number:
        return this.mappings.map(process, argument);
      case VFIO_IOMMU_UNMAP_DMA.number:
        return this.mappings.unmap(process, argument);
      case VFIO_IOMMU_DIRTY_PAGES.number:
        return dirtyPages(this.mappings, process, argument);
      default:
        return -ENOTTY;
    }
  }

  attachGroup(group: VfioGroup): number {
    if (this.mappings.addressesInvalid) return -EBUSY;
    const devices = group.iommuGroup.devices;
    const [first] = devices;
    if (first === undefined) return -EINVAL;
    const domain = first.allocatePaging(0, undefined);
    if (typeof domain === 'number') return domain;
    const attached = attachGroup(group.iommuGroup, { domain, owner: this });
    if (attached < 0) {
      domain.free();
      return attached;
    }
    const refuse = (errno: number): number => {
      detachGroup(group.iommuGroup);
      domain.free();
      return -errno;
    };
    const ranges = this.#rangesWith([...this.domains, domain], [...this.#devices(), ...devices]);
    const conflict = [...this.mappings.all].some(
      mapping => !ranges.some(range => mapping.first >= range.first && mapping.last <= range.last),
    );
    if (ranges.length === 0 || conflict) return refuse(EINVAL);
    if ([...devices].some(device => !device.isolatedMsi)) return refuse(EPERM);
    const coherent = domain.enforceCacheCoherency?.() ?? false;
    const joined = this.#join(group, domain, coherent);
    if (!joined) {
      const result = this.#replay(domain);
      if (result < 0) return refuse(-result);
      this.#domains.push({ domain, coherent, groups: new Set([group]) });
    }
    this.#refresh();
    return 0;
  }

  /** Puts a group into a domain there is rather than its own. @returns whether there was one */
  #join(group: VfioGroup, own: PagingDomain, coherent: boolean): boolean {
    for (const each of this.#domains) {
      if (each.domain.driver !== own.driver || each.coherent !== coherent) continue;
      detachGroup(group.iommuGroup);
      if (attachGroup(group.iommuGroup, { domain: each.domain, owner: this }) === 0) {
        each.groups.add(group);
        own.free();
        return true;
      }
      attachGroup(group.iommuGroup, { domain: own, owner: this });
    }
    return false;
  }

  #replay(domain: PagingDomain): number {
    const done: DmaMapping[] = [];
    for (const mapping of this.mappings.all) {
      const result = mapInto(mapping, domain);
      if (result < 0) {
        for (const each of done) unmapFrom(each, domain);
        return result;
      }
      done.push(mapping);
    }
    return 0;
  }

  detachGroup(group: VfioGroup): void {
    const index = this.#domains.findIndex(each => each.groups.has(group));
    const found = this.#domains[index];
    if (found === undefined) return;
    detachGroup(group.iommuGroup);
    found.groups.delete(group);
    if (found.groups.size === 0) {
      if (this.#domains.length === 1) this.mappings.clear();
      else for (const mapping of this.mappings.all) unmapFrom(mapping, found.domain);
      this.#domains.splice(index, 1);
      found.domain.free();
    }
    if (this.#domains.length > 0) this.#refresh();
  }

  release(): void {
    this.mappings.clear();
    for (const { domain, groups } of this.#domains) {
      for (const group of groups) detachGroup(group.iommuGroup);
      domain.free();
    }
    this.#domains.length = 0;
  }

  #devices(): IommuDevice[] {
    return this.#domains.flatMap(({ groups }) => [...groups].flatMap(group => [...group.iommuGroup.devices]));
  }

  #rangesWith(domains: readonly PagingDomain[], devices: readonly IommuDevice[]): Interval[] {
    let aperture: Interval = { first: 0n, last: U64_MAX };
    for (const domain of domains) {
      const { first, last } = domain.aperture;
      if (!overlap(aperture, { first, last })) return [];
      aperture = { first: max(first, aperture.first), last: min(last, aperture.last) };
    }
    return [...holes(merged(reserved(devices)), aperture)];
  }

  #refresh(): void {
    this.ranges = this.#rangesWith(this.domains, this.#devices());
    this.pageSizes = commonPageSizes(this.domains);
  }
}
