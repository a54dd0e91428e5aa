/** The requests that sequences make, by name. @module */
import * as iommufd from '../../../bindings/uapi/iommufd.js';
import * as test from '../../../bindings/uapi/iommufd-test.js';
import * as liveupdate from '../../../bindings/uapi/liveupdate.js';
import type { Request } from '../../../bindings/uapi/request.js';
import { Struct } from '../../../bindings/uapi/struct.js';
import * as vfio from '../../../bindings/uapi/vfio.js';

export interface KnownRequest {
  readonly number: number;
  readonly struct: Struct | undefined;
  /** Of the operation, where the request has several. */
  readonly op?: number;
}

function isRequest(value: unknown): value is Request {
  return typeof value === 'object' && value !== null && 'minimumSize' in value;
}

/** Operations whose struct has another name. */
const testStructs: Readonly<Record<string, string>> = {
  MD_CHECK_MAP: 'check_map',
  MD_CHECK_REFS: 'check_refs',
  SET_TEMP_MEMORY_LIMIT: 'memory_limit',
  MD_CHECK_IOTLB: 'check_iotlb',
  DEV_CHECK_CACHE: 'check_dev_cache',
  PASID_CHECK_HWPT: 'pasid_check',
};

const table = new Map<string, KnownRequest>();
for (const value of [iommufd, vfio, liveupdate].flatMap(module => Object.values<unknown>(module))) {
  if (isRequest(value)) table.set(value.name, { number: value.number, struct: value.argument });
}
const testModule: Readonly<Record<string, unknown>> = test;
for (const [name, op] of Object.entries(testModule)) {
  const operation = /^IOMMU_TEST_OP_(.*)$/.exec(name)?.[1];
  if (operation === undefined || typeof op !== 'number') continue;
  const struct = testModule[`iommu_test_cmd_${testStructs[operation] ?? operation.toLowerCase()}`];
  if (!(struct instanceof Struct)) throw new Error(`${name} has no struct`);
  table.set(`TEST_${operation}`, { number: test.IOMMU_TEST_CMD.number, struct, op });
}

/** @throws Error for a name that is none */
export function requestNamed(name: string): KnownRequest {
  const known = table.get(name);
  if (known !== undefined) return known;
  // What no kernel knows is made by its number.
  if (/^0x[0-9a-f]+$/.test(name)) return { number: Number(name), struct: undefined };
  throw new Error(`no request is called ${name}`);
}
