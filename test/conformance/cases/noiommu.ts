/**
 * Devices without an IOMMU, through cdev and iommufd: what no selftest of the kernel covers.
 *
 * @module
 */
import type { Case } from '../support/case.js';
import { noiommuDevice } from './noiommu-device.js';
import { noiommuGroup } from './noiommu-group.js';
import { noiommuMemory } from './noiommu-memory.js';
import { noiommuPhysical } from './noiommu-physical.js';

export const cases: readonly Case[] = [
  ...noiommuDevice,
  ...noiommuPhysical,
  ...noiommuMemory,
  ...noiommuGroup,
];
