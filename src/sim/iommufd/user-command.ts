/** A request to iommufd on its way from user memory and back: the counterpart of `struct iommufd_ucmd`. @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { Struct, StructValue } from '../../../bindings/uapi/struct.js';
import type { SimulatedProcess } from '../process/process.js';
import { type UserArgument, viewOf } from '../process/user-argument.js';
import { copyStruct } from '../process/user-struct.js';
import type { IommufdContext } from './context.js';
import type { IommufdObject } from './objects.js';

export class UserCommand<S extends Struct = Struct> {
  readonly context: IommufdContext;
  /** Who calls. */
  readonly process: SimulatedProcess;
  /** The struct's `size` as user mode gave it. */
  readonly userSize: number;
  /** The kernel's copy of the struct, in full: what user mode did not give is 0. */
  readonly view: DataView;
  /**
   * The fields. What is changed here goes out with {@link respond}; members of a union must all be set alike. A
   * handler may write to {@link view} instead.
   */
  readonly values: StructValue<S>;
  /** Finalised when the handler answers 0, aborted otherwise. */
  newObject: IommufdObject | undefined;
  readonly #struct: S;
  readonly #argument: UserArgument;
  readonly #decoded: StructValue<S>;

  private constructor(
    context: IommufdContext,
    process: SimulatedProcess,
    argument: UserArgument,
    struct: S,
    view: DataView,
    userSize: number,
  ) {
    this.context = context;
    this.process = process;
    this.userSize = userSize;
    this.view = view;
    this.#argument = argument;
    this.#struct = struct;
    this.values = struct.decode(view) as StructValue<S>;
    this.#decoded = { ...this.values };
  }

  /** Reads a command whose `size` is already known. @returns minus EINVAL, E2BIG or EFAULT */
  static read<S extends Struct>(
    context: IommufdContext,
    process: SimulatedProcess,
    argument: UserArgument,
    userSize: number,
    request: Request<S>,
  ): UserCommand<S> | number {
    const struct = request.argument;
    if (userSize < request.minimumSize) return -EINVAL;
    const bytes = copyStruct(argument, struct.size, userSize);
    if (typeof bytes === 'number') return bytes;
    return new UserCommand(context, process, argument, struct, viewOf(bytes), userSize);
  }

  /**
   * Copies the struct back, as much of it as user mode has.
   *
   * @param length less than the whole struct, in bytes
   * @returns 0, or minus EFAULT
   */
  respond(length = this.#struct.size): number {
    return this.writeBack(0, Math.min(this.userSize, length));
  }

  /** Copies `length` bytes of the struct back from `offset`. @returns 0, or minus EFAULT */
  writeBack(offset: number, length: number): number {
    this.#fold();
    return this.#argument.write(
      offset,
      new Uint8Array(this.view.buffer, this.view.byteOffset + offset, length),
    );
  }

  #fold(): void {
    const values: Record<string, unknown> = this.values;
    const decoded: Record<string, unknown> = this.#decoded;
    for (const name of Object.keys(values)) {
      const value = values[name];
      if (value === decoded[name] || value === undefined) continue;
      this.#struct.set(this.view, name, value as never);
      decoded[name] = value;
    }
  }
}

/** One request that iommufd knows. */
export interface Command {
  readonly request: Request<Struct>;
  /** @returns 0 or more, or minus the errno */
  run(context: IommufdContext, process: SimulatedProcess, argument: UserArgument, userSize: number): number;
}

/** Declares what a request does. The handler answers 0, or minus the errno, and responds by itself. */
export function command<S extends Struct>(
  request: Request<S>,
  handler: (command: UserCommand<S>) => number,
): Command {
  return {
    request,
    run(context, process, argument, userSize) {
      const read = UserCommand.read(context, process, argument, userSize, request);
      if (typeof read === 'number') return read;
      const result = handler(read);
      if (read.newObject !== undefined) {
        if (result < 0) context.abort(read.newObject);
        else context.finalize(read.newObject);
      }
      return result;
    },
  };
}
