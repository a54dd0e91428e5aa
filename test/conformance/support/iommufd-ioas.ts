/** FIXTURE(iommufd_ioas): an I/O address space, with mock devices attached or not. @module */
import {
  IOMMU_TEST_DEV_CACHE_DEFAULT,
  MOCK_APERTURE_START,
  MOCK_FLAGS_DEVICE_PASID,
} from '../../../bindings/uapi/iommufd-test.js';
import type { ConformanceHost } from './case.js';
import { IommufdFixture, type MockDevice } from './iommufd.js';

export interface IoasVariant {
  readonly mockDevices: number;
  /** What the kernel may use while it pins, in bytes; see {@link IommufdFixture.limitMemory}. */
  readonly memoryLimit?: number;
  /** One more device, which has PASIDs. */
  readonly pasid?: boolean;
}

export class IoasFixture extends IommufdFixture {
  readonly variant: IoasVariant;
  readonly ioas: number;
  /** The last of the mock devices. */
  readonly device: MockDevice | undefined;
  readonly pasidDevice: MockDevice | undefined;
  /** Where mappings can begin: 0, or the beginning of what a mock device can reach. */
  readonly base: bigint;

  constructor(host: ConformanceHost, variant: IoasVariant) {
    super(host);
    this.variant = variant;
    this.ioas = this.allocIoas();
    this.limitMemory(variant.memoryLimit);
    let device: MockDevice | undefined;
    for (let i = 0; i < variant.mockDevices; i++) {
      device = this.mockDevice(this.ioas);
      this.checkDeviceCache(device.deviceId, IOMMU_TEST_DEV_CACHE_DEFAULT);
    }
    this.device = device;
    this.base = device === undefined ? 0n : BigInt(MOCK_APERTURE_START);
    this.pasidDevice = variant.pasid ? this.mockDeviceFlags(this.ioas, MOCK_FLAGS_DEVICE_PASID) : undefined;
  }

  override [Symbol.dispose](): void {
    // It is the kernel's, not the descriptor's.
    this.limitMemory();
    super[Symbol.dispose]();
  }
}

/** Tests of the fixture, by name. */
export type IoasTests = Readonly<Record<string, (fixture: IoasFixture) => void | Promise<void>>>;
