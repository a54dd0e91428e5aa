/** Issues ioctl requests and turns a refusal into a {@link KernelError}. @module */
import type { Syscalls, Watch } from '../bindings/syscalls.js';
import type { Request } from '../bindings/uapi/request.js';
import type { FieldInputs, Fields, FieldValues, Struct, StructMemory } from '../bindings/uapi/struct.js';
import { KernelError } from './errors.js';

/**
 * Issues `request` with `argument` as it is.
 *
 * @param shown the arguments an error message names
 * @returns the call's result, never negative
 * @throws KernelError
 */
export function ioctl(
  kernel: Syscalls,
  fd: number,
  request: Request,
  argument: Uint8Array | number,
  shown?: Readonly<Record<string, unknown>>,
): number {
  const result = kernel.ioctl(fd, request.number, argument);
  if (result < 0) {
    throw new KernelError(-result, {
      syscall: 'ioctl',
      request: request.name,
      ...(shown && { args: shown }),
    });
  }
  return result;
}

/** Memory for the argument of each request: to allocate it takes longer than all else that a call costs here. */
const memories = new Map<Request, StructMemory>();

/**
 * Issues `request` with a struct made of `values` and returns the struct as the kernel left it. The size member
 * (`size` or `argsz`) is filled in.
 *
 * @param shown the arguments an error message names; `values` unless given
 * @throws KernelError; TypeError, RangeError when a value does not fit its field
 */
export function transact<F extends Fields>(
  kernel: Syscalls,
  fd: number,
  request: Request<Struct<F>>,
  values: FieldInputs<F>,
  shown: Readonly<Record<string, unknown>> = values,
): FieldValues<F> {
  const argument = request.argument;
  const memory = memories.get(request) ?? argument.allocate();
  // Taken while it is in use: a kernel that is simulated may make calls of its own meanwhile.
  memories.delete(request);
  const { bytes, view } = memory;
  argument.encode(view, values);
  // The first field of every struct of these interfaces is its size, whatever it is called.
  view.setUint32(0, argument.size, true);
  ioctl(kernel, fd, request, bytes, shown);
  const result = argument.decode(view);
  memories.set(request, memory);
  return result;
}

/** `result`, when it is not negative. @throws KernelError */
export function check(
  result: number,
  syscall: string,
  details?: { path?: string; args?: Readonly<Record<string, unknown>>; hint?: string },
): number {
  if (result < 0) throw new KernelError(-result, { syscall, ...details });
  return result;
}

/** Opens `path`. @throws KernelError */
export function openFile(kernel: Syscalls, path: string, flags: number): number {
  return check(kernel.open(path, flags), 'open', { path });
}

/** Calls `onReadable` each time `fd` is readable: see `Syscalls.watch`. @throws KernelError */
export function watchFile(kernel: Syscalls, fd: number, path: string, onReadable: () => void): Watch {
  try {
    return kernel.watch(fd, onReadable);
  } catch (error) {
    const { errno } = error as { errno?: unknown };
    if (typeof errno !== 'number') throw error;
    throw new KernelError(errno, { syscall: 'epoll_ctl', path });
  }
}

/** Keeps memory reachable during a call that is given nothing but its address. */
const reachable: { bytes: Uint8Array | undefined } = { bytes: undefined };

/** Calls `use` with the address of `bytes`, for a pointer in a struct. The address is good until `use` returns. */
export function withPointer<T>(kernel: Syscalls, bytes: Uint8Array, use: (address: bigint) => T): T {
  reachable.bytes = bytes;
  try {
    return use(kernel.addressOf(bytes));
  } finally {
    reachable.bytes = undefined;
  }
}
