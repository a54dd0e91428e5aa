/** FIXTURE(iommufd_ioas): I/O address spaces, with and without something that translates. @module */
import { EBUSY, EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
} from '../../../bindings/uapi/iommufd.js';
import type { Case } from '../support/case.js';
import { equal, refused } from '../support/expect.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import { IoasFixture, type IoasTests, type IoasVariant } from '../support/iommufd-ioas.js';
import { PAGE } from '../support/memory.js';
import { accessTests } from './iommufd-ioas-access.js';
import { areaTests } from './iommufd-ioas-areas.js';
import { fileTests } from './iommufd-ioas-files.js';
import { hwptTests } from './iommufd-ioas-hwpt.js';
import { iovaTests } from './iommufd-ioas-iovas.js';

const variants: Readonly<Record<string, IoasVariant>> = {
  no_domain: { mockDevices: 0 },
  mock_domain: { mockDevices: 1, pasid: true },
  two_mock_domain: { mockDevices: 2 },
  mock_domain_limit: { mockDevices: 1, memoryLimit: 16 },
};

const lifetimeTests: IoasTests = {
  ioas_auto_destroy() {},

  ioas_destroy(f) {
    if (f.device === undefined) f.destroy(f.ioas);
    else refused(f.tryDestroy(f.ioas), EBUSY, 'a device is attached');
  },

  hwpt_attach(f) {
    if (f.device === undefined) refused(f.tryMockDevice(0).result, ENOENT, 'attach to nothing');
    else f.mockDevice(f.device.hwptId);
  },

  ioas_area_destroy(f) {
    f.map(f.ioas, f.buffer.address, PAGE, f.base);
    if (f.device === undefined) f.destroy(f.ioas);
    else refused(f.tryDestroy(f.ioas), EBUSY, 'a device is attached');
  },

  ioas_area_auto_destroy(f) {
    for (let page = 0; page < 10; page++) {
      f.map(f.ioas, f.buffer.address, PAGE, f.base + BigInt(page * PAGE));
    }
  },

  ioas_option_huge_pages(f) {
    const option = { option_id: IOMMU_OPTION_HUGE_PAGES, object_id: f.ioas };
    const is = (expected: bigint): void => {
      const { result, values } = f.call(IOMMU_OPTION, { ...option, op: IOMMU_OPTION_OP_GET, val64: 3n });
      equal(result, 0, 'get HUGE_PAGES');
      equal(values.val64, expected, 'HUGE_PAGES');
    };
    const set = (val64: bigint): number =>
      f.call(IOMMU_OPTION, { ...option, op: IOMMU_OPTION_OP_SET, val64 }).result;
    is(1n);
    equal(set(0n), 0, 'set HUGE_PAGES to 0');
    is(0n);
    refused(set(2n), EINVAL, 'set HUGE_PAGES to 2');
    equal(set(1n), 0, 'set HUGE_PAGES to 1');
  },
};

const tests: IoasTests = {
  ...lifetimeTests,
  ...hwptTests,
  ...areaTests,
  ...iovaTests,
  ...accessTests,
  ...fileTests,
};

export const cases: readonly Case[] = Object.entries(variants).flatMap(([name, variant]) =>
  fixtureCases('iommufd_ioas', host => new IoasFixture(host, variant), tests, name),
);
