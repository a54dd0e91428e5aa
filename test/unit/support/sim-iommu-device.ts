// A device behind an IOMMU that exists for tests only.
import type {
  BlockedDomain,
  Domain,
  IommuDevice,
  IommuGroup,
  NestedDomain,
  PageFault,
  PagingDomain,
  ReservedRegion,
  UserData,
} from '../../../src/sim/iommu/domain.js';
import { TestDomain } from './sim-iommufd.js';

const blocked: BlockedDomain = { kind: 'blocked', free() {} };

export class TestDevice implements IommuDevice {
  readonly name: string;
  readonly group: IommuGroup;
  driver = 'test';
  noiommu = false;
  cacheCoherent = true;
  dirtyTracking = false;
  isolatedMsi = true;
  maxPasids = 0;
  reservedRegions: readonly ReservedRegion[] = [];
  hardwareCapabilities = 0n;
  info: { type: number; bytes: Uint8Array } | undefined;
  enforcesCacheCoherency = false;
  readonly blocked = blocked;
  /** What it is attached to, without PASID (-1) and by PASID. */
  readonly domains = new Map<number, Domain>();
  /** What {@link attach} answers to the domain. */
  refuse: (domain: Domain) => number = () => 0;
  readonly responses: { fault: PageFault; code: number }[] = [];
  /** What {@link allocatePaging} gives. */
  makeDomain: () => PagingDomain | number = () => new TestDomain({ driver: this.driver });

  constructor(name: string, group: IommuGroup) {
    this.name = name;
    this.group = group;
    group.devices.add(this);
  }

  hardwareInfo(): { type: number; bytes: Uint8Array } | undefined {
    return this.info;
  }

  allocatePaging(): PagingDomain | number {
    return this.makeDomain();
  }

  allocateNested(_parent: PagingDomain, _flags: number, _data: UserData): NestedDomain | number {
    return { kind: 'nested', free() {} };
  }

  attach(domain: Domain): number {
    return this.attachPasid(domain, -1);
  }

  attachPasid(domain: Domain, pasid: number): number {
    const result = this.refuse(domain);
    if (result === 0) this.domains.set(pasid, domain);
    return result;
  }

  pageResponse(fault: PageFault, code: number): void {
    this.responses.push({ fault, code });
  }
}
