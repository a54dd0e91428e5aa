/** All cases of the suite, in the order in which they run. @module */
import type { Case } from '../support/case.js';
import { cases as errnoCommon } from './errno-common.js';
import { cases as errnoCompat } from './errno-compat.js';
import { cases as errnoHwpt } from './errno-hwpt.js';
import { cases as errnoIoas } from './errno-ioas.js';
import { cases as errnoLiveupdate } from './errno-liveupdate.js';
import { cases as errnoMap } from './errno-map.js';
import { cases as errnoVfio } from './errno-vfio.js';
import { cases as errnoViommu } from './errno-viommu.js';
import { cases as iommufdBasic } from './iommufd-basic.js';
import { cases as iommufdBehaviour } from './iommufd-behaviour.js';
import { cases as iommufdChangeProcess } from './iommufd-change-process.js';
import { cases as iommufdDirty } from './iommufd-dirty.js';
import { cases as iommufdFailNth } from './iommufd-fail-nth.js';
import { cases as iommufdIoas } from './iommufd-ioas.js';
import { cases as iommufdMockDomain } from './iommufd-mock-domain.js';
import { cases as iommufdPasid } from './iommufd-pasid.js';
import { cases as iommufdVfioCompat } from './iommufd-vfio-compat.js';
import { cases as iommufdViommu } from './iommufd-viommu.js';
import { cases as liveupdate } from './liveupdate.js';
import { cases as noiommu } from './noiommu.js';
import { cases as vfioDmaMapping } from './vfio-dma-mapping.js';
import { cases as vfioDmaMappingMmio } from './vfio-dma-mapping-mmio.js';
import { cases as vfioIommufdSetup } from './vfio-iommufd-setup.js';
import { cases as vfioPciDevice } from './vfio-pci-device.js';
import { cases as vfioPciDeviceInitPerf } from './vfio-pci-device-init-perf.js';
import { cases as vfioPciDriver } from './vfio-pci-driver.js';
import { cases as vfioPciSriov } from './vfio-pci-sriov-uapi.js';

export const cases: readonly Case[] = [
  ...iommufdBasic,
  ...iommufdChangeProcess,
  ...iommufdIoas,
  ...iommufdMockDomain,
  ...iommufdDirty,
  ...iommufdVfioCompat,
  ...iommufdViommu,
  ...iommufdPasid,
  ...iommufdFailNth,
  ...vfioIommufdSetup,
  ...vfioDmaMapping,
  ...vfioDmaMappingMmio,
  ...vfioPciDevice,
  ...vfioPciDriver,
  ...vfioPciDeviceInitPerf,
  ...vfioPciSriov,
  ...liveupdate,
  ...noiommu,
  ...errnoCommon,
  ...errnoCompat,
  ...errnoHwpt,
  ...errnoIoas,
  ...errnoLiveupdate,
  ...errnoMap,
  ...errnoVfio,
  ...errnoViommu,
  ...iommufdBehaviour,
];
