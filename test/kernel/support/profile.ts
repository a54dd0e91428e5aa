/** The machine profile that this program runs in. @module */
import { guestEnv } from '../../vm/topology.js';

export const profile = process.env[guestEnv.profile] ?? 'none';
export const isNoiommu = profile === 'noiommu';
export const isLegacy = profile === 'legacy';
