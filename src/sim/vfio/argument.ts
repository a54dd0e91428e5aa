/** Structs of VFIO in user memory: `argsz` first, and never read beyond what a request needs. @module */
import { EBADF, EFAULT, EINVAL } from '../../../bindings/uapi/errno.js';
import type { Struct, StructInput, StructValue } from '../../../bindings/uapi/struct.js';
import { EventFd } from '../process/eventfd.js';
import type { SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';

/**
 * The first `minimum` bytes of a struct; what comes after them is 0.
 *
 * @returns minus EFAULT, or minus EINVAL where `argsz` says less than `minimum`
 */
export function readArgument<S extends Struct>(
  user: UserArgument,
  struct: S,
  minimum: number = struct.size,
): StructValue<S> | number {
  const bytes = user.read(0, minimum);
  if (typeof bytes === 'number') return bytes;
  const { bytes: all, view } = struct.allocate();
  all.set(bytes);
  if (view.getUint32(0, true) < minimum) return -EINVAL;
  return struct.decode(view) as StructValue<S>;
}

/** Writes the first `length` bytes of a struct back. @returns 0, or minus EFAULT */
export function writeArgument<S extends Struct>(
  user: UserArgument,
  struct: S,
  values: StructInput<S>,
  length: number = struct.size,
): number {
  const { bytes, view } = struct.allocate();
  struct.encode(view, values as Parameters<S['encode']>[1]);
  return user.write(0, bytes.subarray(0, length));
}

/** Signed 32-bit integers. @returns minus EFAULT */
export function readIntegers(user: UserArgument, offset: number, count: number): Int32Array | number {
  const bytes = user.read(offset, 4 * count);
  if (typeof bytes === 'number') return bytes;
  const view = viewOf(bytes);
  return Int32Array.from({ length: count }, (_, index) => view.getInt32(4 * index, true));
}

/** A string of at most a page. @returns minus EFAULT, or minus EINVAL where it has no end */
export function readString(user: UserArgument): string | number {
  const codes: number[] = [];
  for (;;) {
    const byte = user.read(codes.length, 1);
    if (typeof byte === 'number') return codes.length === 0 ? -EFAULT : byte;
    if (byte[0] === 0) return String.fromCharCode(...codes);
    codes.push(byte[0] as number);
    if (codes.length >= 4096) return -EINVAL;
  }
}

/**
 * The eventfd behind a descriptor. As with `eventfd_ctx`, no reference to the file is kept: signals to one that is
 * closed reach nobody.
 *
 * @returns minus EBADF, or minus EINVAL for another kind of file
 */
export function eventFd(process: SimulatedProcess, fd: number): EventFd | number {
  const file = process.file(fd);
  if (file === undefined) return -EBADF;
  return file instanceof EventFd ? file : -EINVAL;
}
