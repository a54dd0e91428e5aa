/** An iommufd with a device that no IOMMU stands in front of. @module */
import { IOMMU_IOAS_NOIOMMU_GET_PA } from '../../../bindings/uapi/iommufd.js';
import { address } from '../../vm/topology.js';
import type { ConformanceHost } from './case.js';
import { Cdev } from './cdev.js';
import { equal } from './expect.js';
import { IommufdFixture } from './iommufd.js';

export interface PhysicalRange {
  readonly physical: bigint;
  /** Contiguous from there on, in bytes. */
  readonly length: bigint;
}

/** Open, and bound to each other. */
export class NoiommuFixture implements Disposable {
  readonly host: ConformanceHost;
  readonly iommufd: IommufdFixture;
  readonly cdev: Cdev;
  readonly deviceId: number;

  private constructor(host: ConformanceHost, iommufd: IommufdFixture, cdev: Cdev) {
    this.host = host;
    this.iommufd = iommufd;
    this.cdev = cdev;
    this.deviceId = cdev.bind(iommufd.fd);
  }

  static async open(host: ConformanceHost, bdf: string = address.nvmeA): Promise<NoiommuFixture> {
    const cdev = await Cdev.open(host, bdf);
    return new NoiommuFixture(host, new IommufdFixture(host), cdev);
  }

  tryGetPhysical(
    ioasId: number,
    iova: bigint,
    length: number | bigint,
    flags = 0,
    reserved = 0,
  ): PhysicalRange & { result: number } {
    const { result, values } = this.iommufd.call(IOMMU_IOAS_NOIOMMU_GET_PA, {
      flags,
      ioas_id: ioasId,
      __reserved: reserved,
      iova,
      length: BigInt(length),
    });
    return { result, physical: values.out_phys, length: values.length };
  }

  getPhysical(ioasId: number, iova: bigint, length: number | bigint): PhysicalRange {
    const answer = this.tryGetPhysical(ioasId, iova, length);
    equal(answer.result, 0, 'IOMMU_IOAS_NOIOMMU_GET_PA');
    return answer;
  }

  [Symbol.dispose](): void {
    this.cdev[Symbol.dispose]();
    this.iommufd[Symbol.dispose]();
  }
}
