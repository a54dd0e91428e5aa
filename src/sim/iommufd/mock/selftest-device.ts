/** The objects by which user mode has mock devices, and attaches them. @module */
import { EINVAL, ENOENT } from '../../../../bindings/uapi/errno.js';
import {
  IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS,
  iommu_test_cmd_mock_domain_flags,
  iommu_test_cmd_mock_domain_replace,
  iommu_test_cmd_pasid_attach,
  iommu_test_cmd_pasid_check,
  iommu_test_cmd_pasid_detach,
} from '../../../../bindings/uapi/iommufd-test.js';
import { NO_PASID, pasidKey } from '../../iommu/group-attach.js';
import type { IommufdContext } from '../context.js';
import { type AttachResult, IommufdDevice } from '../device.js';
import { Hwpt } from '../hwpt.js';
import { IommufdObject, ObjectType } from '../objects.js';
import { KNOWN_DEVICE_FLAGS, MockDevice } from './device.js';
import type { TestCommand } from './test-command.js';

/** A mock device that is bound to the context. */
class SelftestDevice extends IommufdObject {
  override readonly type = ObjectType.Selftest;
  #bound: IommufdDevice | undefined;

  get bound(): IommufdDevice {
    if (this.#bound === undefined) throw new Error('the mock device is not bound');
    return this.#bound;
  }

  bind(bound: IommufdDevice): void {
    this.#bound = bound;
  }

  override destroy(): void {
    this.bound.detach(NO_PASID);
    this.bound.unbind();
  }
}

/** @returns minus ENOENT */
function getSelftestDevice(context: IommufdContext, id: number): IommufdDevice | number {
  const found = context.get(id, ObjectType.Selftest);
  return found instanceof SelftestDevice ? found.bound : -ENOENT;
}

export function mockDomain(command: TestCommand): number {
  const { view, context, values } = command;
  const flags =
    values.op === IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS
      ? iommu_test_cmd_mock_domain_flags.get(view, 'dev_flags')
      : 0;
  if (flags & ~KNOWN_DEVICE_FLAGS) return -EINVAL;
  const object = context.reserve(new SelftestDevice());
  const bound = IommufdDevice.bind(context, new MockDevice(flags, context.host.physical));
  if (typeof bound === 'number') {
    context.release(object);
    return bound;
  }
  const { result, ptId } = bound.attach(NO_PASID, values.id);
  if (result < 0) {
    bound.unbind();
    context.release(object);
    return result;
  }
  object.bind(bound);
  iommu_test_cmd_mock_domain_flags.set(view, 'out_hwpt_id', ptId);
  iommu_test_cmd_mock_domain_flags.set(view, 'out_stdev_id', object.id);
  iommu_test_cmd_mock_domain_flags.set(view, 'out_idev_id', bound.id);
  const responded = command.respond();
  if (responded < 0) context.abort(object);
  else context.finalize(object);
  return responded;
}

export function replaceMockDomain(command: TestCommand): number {
  const { view, context, values } = command;
  const bound = getSelftestDevice(context, values.id);
  if (typeof bound === 'number') return bound;
  const { result, ptId } = bound.replace(NO_PASID, iommu_test_cmd_mock_domain_replace.get(view, 'pt_id'));
  if (result < 0) return result;
  iommu_test_cmd_mock_domain_replace.set(view, 'pt_id', ptId);
  return command.respond();
}

function changePasid(
  command: TestCommand,
  change: (bound: IommufdDevice, pasid: number, ptId: number) => AttachResult,
): { result: number; bound?: IommufdDevice } {
  const { view, context, values } = command;
  const bound = getSelftestDevice(context, values.id);
  if (typeof bound === 'number') return { result: bound };
  const { pasid, pt_id } = iommu_test_cmd_pasid_attach.decode(view);
  const { result, ptId } = change(bound, pasidKey(pasid), pt_id);
  if (result < 0) return { result };
  iommu_test_cmd_pasid_attach.set(view, 'pt_id', ptId);
  return { result: command.respond(), bound };
}

export function attachMockPasid(command: TestCommand): number {
  const { result, bound } = changePasid(command, (device, pasid, ptId) => device.attach(pasid, ptId));
  // It was attached, but nobody would know.
  if (result < 0) bound?.detach(pasidKey(iommu_test_cmd_pasid_attach.get(command.view, 'pasid')));
  return result;
}

export function replaceMockPasid(command: TestCommand): number {
  return changePasid(command, (device, pasid, ptId) => device.replace(pasid, ptId)).result;
}

export function detachMockPasid({ view, context, values }: TestCommand): number {
  const bound = getSelftestDevice(context, values.id);
  if (typeof bound === 'number') return bound;
  bound.detach(pasidKey(iommu_test_cmd_pasid_detach.get(view, 'pasid')));
  return 0;
}

export function checkMockPasid({ view, context, values }: TestCommand): number {
  const bound = getSelftestDevice(context, values.id);
  if (typeof bound === 'number') return bound;
  const { pasid, hwpt_id } = iommu_test_cmd_pasid_check.decode(view);
  const attached = bound.device.group.handles.get(pasidKey(pasid))?.domain;
  if (hwpt_id === 0) return attached === undefined ? 0 : -EINVAL;
  const hwpt = context.get(hwpt_id);
  if (hwpt === undefined) return -ENOENT;
  return hwpt instanceof Hwpt && hwpt.domain === attached ? 0 : -EINVAL;
}
