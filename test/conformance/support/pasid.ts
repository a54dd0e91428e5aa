/** Page tables of single PASIDs of a mock device. @module */
import {
  IOMMU_TEST_OP_PASID_ATTACH,
  IOMMU_TEST_OP_PASID_CHECK_HWPT,
  IOMMU_TEST_OP_PASID_DETACH,
  IOMMU_TEST_OP_PASID_REPLACE,
  iommu_test_cmd_pasid_attach,
  iommu_test_cmd_pasid_check,
  iommu_test_cmd_pasid_detach,
  iommu_test_cmd_pasid_replace,
} from '../../../bindings/uapi/iommufd-test.js';
import { equal } from './expect.js';
import { type Caller, testCommand } from './ioctl.js';

export class PasidAttachments {
  readonly #iommu: Caller & { readonly fd: number };
  readonly #mockId: number;

  /** @param mockId the id that a mock device is destroyed by */
  constructor(iommu: Caller & { readonly fd: number }, mockId: number) {
    this.#iommu = iommu;
    this.#mockId = mockId;
  }

  tryAttach(pasid: number, ptId: number): number {
    const values = { id: this.#mockId, pasid, pt_id: ptId };
    const { fd } = this.#iommu;
    const command = iommu_test_cmd_pasid_attach;
    return testCommand(this.#iommu, fd, IOMMU_TEST_OP_PASID_ATTACH, command, values).result;
  }

  /** Attaches, and checks that it is so. */
  attach(pasid: number, hwptId: number): void {
    equal(this.tryAttach(pasid, hwptId), 0, `PASID_ATTACH ${pasid}`);
    this.check(pasid, hwptId);
  }

  tryReplace(pasid: number, ptId: number): number {
    const values = { id: this.#mockId, pasid, pt_id: ptId };
    const { fd } = this.#iommu;
    const command = iommu_test_cmd_pasid_replace;
    return testCommand(this.#iommu, fd, IOMMU_TEST_OP_PASID_REPLACE, command, values).result;
  }

  /** Replaces, and checks that it is so. */
  replace(pasid: number, hwptId: number): void {
    equal(this.tryReplace(pasid, hwptId), 0, `PASID_REPLACE ${pasid}`);
    this.check(pasid, hwptId);
  }

  tryDetach(pasid: number): number {
    const values = { id: this.#mockId, pasid };
    const { fd } = this.#iommu;
    const command = iommu_test_cmd_pasid_detach;
    return testCommand(this.#iommu, fd, IOMMU_TEST_OP_PASID_DETACH, command, values).result;
  }

  /** Detaches, and checks that nothing is attached. */
  detach(pasid: number): void {
    equal(this.tryDetach(pasid), 0, `PASID_DETACH ${pasid}`);
    this.check(pasid, 0);
  }

  /** What is attached is `hwptId`, or nothing for 0. */
  check(pasid: number, hwptId: number): void {
    const values = { id: this.#mockId, pasid, hwpt_id: hwptId };
    const { fd } = this.#iommu;
    const command = iommu_test_cmd_pasid_check;
    const { result } = testCommand(this.#iommu, fd, IOMMU_TEST_OP_PASID_CHECK_HWPT, command, values);
    equal(result, 0, `PASID ${pasid} has page table ${hwptId}`);
  }
}
