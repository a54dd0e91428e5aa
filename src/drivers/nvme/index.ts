/** The NVMe driver, written on the public interface of this library only. @module */
export type { Command } from './command.js';
export { AdminOpcode, FeatureId, IdentifyTarget, LogPage, NvmOpcode } from './command.js';
export { NvmeController, NvmeOutcome } from './controller.js';
export type { NvmeEvent } from './events.js';
export { EventType } from './events.js';
export type { ControllerIdentity, NamespaceIdentity } from './identify.js';
export type { InheritedCommand } from './inherited.js';
export type { BlockRange, Namespace, TransferOptions, WriteZeroesOptions } from './namespace.js';
export type { CommandOptions, NvmeOptions, NvmeRestoreOptions } from './options.js';
export type { ControllerCapabilities } from './registers.js';
export { NvmeError } from './status.js';
