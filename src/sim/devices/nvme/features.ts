/** The features of a simulated NVMe controller (Base Specification 2.0, 5.27). @module */
import type { Controller } from './controller.js';
import { BROADCAST, DNR, Status, validNamespaceId } from './protocol.js';
import type { Request } from './request.js';

/** In kelvins. */
export const TEMPERATURE = 0x143;
export const TEMPERATURE_WARNING = 0x157;
export const TEMPERATURE_CRITICAL = 0x175;

export const FeatureId = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  VECTOR_CONFIGURATION: 0x09,
  WRITE_ATOMICITY: 0x0a,
  EVENT_CONFIGURATION: 0x0b,
  TIMESTAMP: 0x0e,
  HOST_BEHAVIOUR: 0x16,
  COMMAND_SET_PROFILE: 0x19,
} as const;

/** What can be done with a feature, as Get Features tells it. None can be saved. */
const Capability = { NAMESPACE: 2, CHANGE: 4 } as const;
const SAVE = 0x8000_0000;
/** Select field of Get Features. */
const Select = { SAVED: 1, DEFAULT: 2, CAPABILITIES: 3 } as const;

/** Those that there are. */
const CAPABILITIES: ReadonlyMap<number, number> = new Map<number, number>([
  [FeatureId.ARBITRATION, 0],
  [FeatureId.POWER_MANAGEMENT, 0],
  [FeatureId.TEMPERATURE_THRESHOLD, Capability.CHANGE],
  [FeatureId.ERROR_RECOVERY, Capability.CHANGE | Capability.NAMESPACE],
  [FeatureId.WRITE_CACHE, Capability.CHANGE],
  [FeatureId.NUMBER_OF_QUEUES, Capability.CHANGE],
  [FeatureId.INTERRUPT_COALESCING, 0],
  [FeatureId.VECTOR_CONFIGURATION, 0],
  [FeatureId.WRITE_ATOMICITY, 0],
  [FeatureId.EVENT_CONFIGURATION, Capability.CHANGE],
  [FeatureId.TIMESTAMP, Capability.CHANGE],
  [FeatureId.HOST_BEHAVIOUR, Capability.CHANGE],
  [FeatureId.COMMAND_SET_PROFILE, Capability.CHANGE],
]);

const NO_BURST_LIMIT = 0x7;
const TIMESTAMP_BYTES = 8;
const TIMESTAMP_MASK = 2n ** 48n - 1n;
/** It counts from a time that the host has set. */
const TIMESTAMP_SET = 1n << 49n;
const HOST_BEHAVIOUR_BYTES = 512;

/** What can be set. It survives a reset of the controller by CC.EN. */
export class Features {
  upperThreshold: number = TEMPERATURE_WARNING;
  lowerThreshold = 0;
  /** Which events are to be reported. */
  events = 0;
  hostBehaviour = new Uint8Array(HOST_BEHAVIOUR_BYTES);
  #timestamp = 0n;
  #timestampSetAt = performance.now();

  get tooHot(): boolean {
    return TEMPERATURE >= this.upperThreshold || TEMPERATURE <= this.lowerThreshold;
  }

  /** Format takes the upper bits of a format's number. */
  get extendedFormats(): boolean {
    return this.hostBehaviour[2] === 1;
  }

  setTimestamp(value: bigint): void {
    this.#timestamp = value;
    this.#timestampSetAt = performance.now();
  }

  get timestamp(): bigint {
    const elapsed = BigInt(Math.floor(performance.now() - this.#timestampSetAt));
    return ((this.#timestamp + elapsed) & TIMESTAMP_MASK) | (this.#timestamp === 0n ? 0n : TIMESTAMP_SET);
  }
}

/** @returns a status */
export function getFeature(controller: Controller, request: Request): number {
  const id = request.dword(10) & 0xff;
  const capabilities = CAPABILITIES.get(id);
  if (capabilities === undefined) return Status.INVALID_FIELD | DNR;
  if (capabilities & Capability.NAMESPACE) {
    const nsid = request.namespaceId;
    if (!validNamespaceId(nsid) || nsid === BROADCAST) return Status.INVALID_NAMESPACE | DNR;
    if (controller.namespace(nsid) === undefined) return Status.INVALID_FIELD | DNR;
  }
  const select = (request.dword(10) >>> 8) & 7;
  if (select === Select.CAPABILITIES) {
    request.result = capabilities;
    return Status.SUCCESS;
  }
  const value =
    select === Select.SAVED || select === Select.DEFAULT
      ? defaultOf(controller, id, request.dword(11))
      : current(controller, id, request);
  if (value === undefined) return Status.INVALID_FIELD | DNR;
  request.result = value >>> 0;
  return Status.SUCCESS;
}

/** The value now; undefined when the command asks for what there is not. */
function current(controller: Controller, id: number, request: Request): number | undefined {
  const { features } = controller;
  const selection = request.dword(11);
  switch (id) {
    case FeatureId.TEMPERATURE_THRESHOLD:
      // There is one sensor, the composite temperature's.
      if ((selection >>> 16) & 0xf) return 0;
      switch ((selection >>> 20) & 3) {
        case 0:
          return features.upperThreshold;
        case 1:
          return features.lowerThreshold;
        default:
          return undefined;
      }
    case FeatureId.ERROR_RECOVERY:
      return controller.namespace(request.namespaceId)?.errorRecovery;
    case FeatureId.WRITE_CACHE:
      return controller.namespaces.some(({ writeCache }) => writeCache) ? 1 : 0;
    case FeatureId.EVENT_CONFIGURATION:
      return features.events;
    case FeatureId.TIMESTAMP: {
      const bytes = new Uint8Array(TIMESTAMP_BYTES);
      new DataView(bytes.buffer).setBigUint64(0, features.timestamp, true);
      controller.pointer(request, TIMESTAMP_BYTES).write(bytes);
      return 0;
    }
    case FeatureId.HOST_BEHAVIOUR:
      controller.pointer(request, HOST_BEHAVIOUR_BYTES).write(features.hostBehaviour);
      return 0;
    default:
      return defaultOf(controller, id, selection);
  }
}

function defaultOf({ options }: Controller, id: number, selection: number): number | undefined {
  switch (id) {
    case FeatureId.ARBITRATION:
      return NO_BURST_LIMIT;
    case FeatureId.TEMPERATURE_THRESHOLD:
      return ((selection >>> 16) & 0x3f) === 0 ? TEMPERATURE_WARNING : 0;
    case FeatureId.NUMBER_OF_QUEUES:
      return ((options.maxQueues - 1) << 16) | (options.maxQueues - 1);
    case FeatureId.VECTOR_CONFIGURATION: {
      const vector = selection & 0xffff;
      if (vector > options.maxQueues) return undefined;
      // The admin queue's interrupts are never held back.
      return vector | (vector === 0 ? 1 << 16 : 0);
    }
    default:
      return 0;
  }
}

/** @returns a status */
export function setFeature(controller: Controller, request: Request): number {
  const id = request.dword(10) & 0xff;
  if (request.dword(10) & SAVE) return Status.FEATURE_NOT_SAVEABLE | DNR;
  const capabilities = CAPABILITIES.get(id);
  if (capabilities === undefined) return Status.INVALID_FIELD | DNR;
  const nsid = request.namespaceId;
  if (capabilities & Capability.NAMESPACE) {
    if (!validNamespaceId(nsid)) return Status.INVALID_NAMESPACE | DNR;
    if (nsid !== BROADCAST && controller.namespace(nsid) === undefined) return Status.INVALID_FIELD | DNR;
  } else if (nsid !== 0 && nsid !== BROADCAST) {
    return (validNamespaceId(nsid) ? Status.FEATURE_NOT_NAMESPACE_SPECIFIC : Status.INVALID_NAMESPACE) | DNR;
  }
  if (!(capabilities & Capability.CHANGE)) return Status.FEATURE_NOT_CHANGEABLE | DNR;
  return change(controller, id, request);
}

function change(controller: Controller, id: number, request: Request): number {
  const { features, options } = controller;
  const value = request.dword(11);
  switch (id) {
    case FeatureId.TEMPERATURE_THRESHOLD:
      if ((value >>> 16) & 0xf) return Status.SUCCESS;
      switch ((value >>> 20) & 3) {
        case 0:
          features.upperThreshold = value & 0xffff;
          break;
        case 1:
          features.lowerThreshold = value & 0xffff;
          break;
        default:
          return Status.INVALID_FIELD | DNR;
      }
      if (features.tooHot) controller.events.temperature();
      return Status.SUCCESS;
    case FeatureId.ERROR_RECOVERY:
      for (const namespace of controller.namespaces) {
        if (request.namespaceId === BROADCAST || request.namespaceId === namespace.id) {
          namespace.errorRecovery = value;
        }
      }
      return Status.SUCCESS;
    case FeatureId.WRITE_CACHE:
      for (const namespace of controller.namespaces) {
        if (namespace.writeCache && !(value & 1)) namespace.storage.flush();
        namespace.writeCache = (value & 1) !== 0;
      }
      return Status.SUCCESS;
    case FeatureId.NUMBER_OF_QUEUES:
      if (controller.queuesCreated) return Status.SEQUENCE_ERROR | DNR;
      if ((value & 0xffff) === 0xffff || value >>> 16 === 0xffff) return Status.INVALID_FIELD | DNR;
      request.result = ((options.maxQueues - 1) << 16) | (options.maxQueues - 1);
      return Status.SUCCESS;
    case FeatureId.EVENT_CONFIGURATION:
      features.events = value;
      return Status.SUCCESS;
    case FeatureId.TIMESTAMP: {
      const bytes = new Uint8Array(TIMESTAMP_BYTES);
      controller.pointer(request, TIMESTAMP_BYTES).read(bytes);
      features.setTimestamp(new DataView(bytes.buffer).getBigUint64(0, true));
      return Status.SUCCESS;
    }
    case FeatureId.HOST_BEHAVIOUR:
      controller.pointer(request, HOST_BEHAVIOUR_BYTES).read(features.hostBehaviour);
      return Status.SUCCESS;
    case FeatureId.COMMAND_SET_PROFILE:
      return value & 0x1ff ? Status.COMMAND_SET_COMBINATION_REJECTED | DNR : Status.SUCCESS;
    default:
      return Status.FEATURE_NOT_CHANGEABLE | DNR;
  }
}
