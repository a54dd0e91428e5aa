/**
 * ioctl requests as data: the number the kernel knows, the name an error should show, and the struct it
 * takes.
 *
 * All requests here are made with `_IO()`: the number carries no direction and no size, so that a struct can
 * grow without a new number. The size travels in the struct's first field instead. A number is unique on one
 * kind of file descriptor only: VFIO gives the same ones different meanings on a device and on a container.
 *
 * @module
 */

import type { FieldName, Struct } from './struct.js';

/** An ioctl request. */
export interface Request<Argument extends Struct | undefined = Struct | undefined> {
  /** The kernel's name, `IOMMU_IOAS_MAP`. */
  readonly name: string;
  /** The second argument of `ioctl(2)`. */
  readonly number: number;
  /**
   * The struct it points at; `undefined` when it takes nothing, an integer, or something that is no struct.
   */
  readonly argument: Argument;
  /**
   * The smallest `size` or `argsz`, in bytes, that the kernel accepts: fields beyond it were added later, or
   * are optional. 0 without a struct.
   */
  readonly minimumSize: number;
}

/**
 * Declares a request. `through` names the last field that must be present; without it the whole struct must
 * be.
 */
export function request(name: string, number: number): Request<undefined>;
export function request<S extends Struct>(
  name: string,
  number: number,
  argument: S,
  through?: S extends Struct<infer F> ? FieldName<F> : never,
): Request<S>;
export function request(name: string, number: number, argument?: Struct, through?: string): Request {
  let minimumSize = argument?.size ?? 0;
  if (argument !== undefined && through !== undefined) {
    const field = argument.fields[through];
    if (field === undefined) throw new Error(`${name}: ${argument.name} has no field ${through}`);
    minimumSize = field.offset + field.size;
  }
  return Object.freeze({ name, number, argument, minimumSize });
}
