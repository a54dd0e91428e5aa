/** ioctls whose refusal is a result, not an error: what a case looks at. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { IOMMU_TEST_CMD, iommu_test_cmd } from '../../../bindings/uapi/iommufd-test.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { FieldInputs, Fields, FieldValues, Struct } from '../../../bindings/uapi/struct.js';

/** Whoever makes system calls: a host, a fixture, the context of a child. */
export interface Caller {
  readonly kernel: Syscalls;
}

/** What an ioctl gave: the result, or minus the errno, and the struct as the kernel left it. */
export interface Answer<F extends Fields> {
  readonly result: number;
  readonly values: FieldValues<F>;
}

/**
 * Issues `request` with a struct made of `values`. The first field, its size, is filled in unless given.
 */
export function call<F extends Fields>(
  { kernel }: Caller,
  fd: number,
  request: Request<Struct<F>>,
  values: FieldInputs<F>,
): Answer<F> {
  const argument = request.argument;
  const { bytes, view } = argument.allocate();
  argument.encode(view, values);
  const [sizeField] = Object.keys(argument.fields);
  if (sizeField !== undefined && !Object.hasOwn(values, sizeField)) view.setUint32(0, argument.size, true);
  const result = kernel.ioctl(fd, request.number, bytes);
  return { result, values: argument.decode(view) };
}

/** Issues IOMMU_TEST_CMD for the operation `op`, whose struct is `command`. */
export function testCommand<F extends Fields>(
  { kernel }: Caller,
  fd: number,
  op: number,
  command: Struct<F>,
  values: FieldInputs<F>,
): Answer<F> {
  const { bytes, view } = command.allocate();
  command.encode(view, values);
  iommu_test_cmd.set(view, 'size', iommu_test_cmd.size);
  iommu_test_cmd.set(view, 'op', op);
  const result = kernel.ioctl(fd, IOMMU_TEST_CMD.number, bytes);
  return { result, values: command.decode(view) };
}
