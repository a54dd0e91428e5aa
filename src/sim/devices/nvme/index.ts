/** A simulated NVMe controller, its namespaces, and the lies it can tell. @module */
export type { NvmeTrace } from './controller.js';
export { type Lie, Lies, type LieTarget, type RandomLies, type ScriptedLie } from './lies.js';
export { NvmeModel } from './model.js';
export { NvmeNamespaceModel, type NvmeNamespaceOptions } from './namespace.js';
export type { NvmeModelOptions } from './options.js';
