/**
 * What goes over a {@link Channel}: a flattened device tree, of which one node says everything, and descriptors.
 *
 * ```
 * / {
 *   compatible = "iommufd,message-v1";
 *   offer { sequence = <1>; };
 * };
 * ```
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { DisposedError, runAll } from '../../errors.js';
import { check } from '../../ioctl.js';
import { type Fdt, type FdtNode, readFdt, writeFdt } from '../state/fdt.js';
import { FdtValue } from '../state/fdt-value.js';
import { StateError } from '../state/state-error.js';
import { HandoffError, HandoffErrorCode } from './handoff-error.js';

const FORMAT = 'iommufd,message-v1';
const ANY_VERSION = /^iommufd,message-v\d+$/;

/** Of a message, in bytes. What is larger goes into a memfd, whose descriptor goes with the message. */
export const MAX_MESSAGE = 65_536;

/** By name: 1 to 255 of the characters `0-9A-Za-z,._+*#?@-`. For the values see {@link FdtValue}. */
export type MessageFields = ReadonlyMap<string, Uint8Array>;

/** @throws TypeError, RangeError for what cannot be sent */
export function encodeMessage(kind: string, fields: MessageFields): Uint8Array {
  const message: FdtNode = { name: kind, properties: fields, children: [] };
  const root: FdtNode = {
    name: '',
    properties: new Map([['compatible', FdtValue.string(FORMAT)]]),
    children: [message],
  };
  const bytes = writeFdt({ root, reservations: [], bootCpu: 0 });
  if (bytes.byteLength > MAX_MESSAGE) {
    throw new RangeError(
      `a message has at most ${MAX_MESSAGE} bytes, and this one would have ${bytes.byteLength}`,
    );
  }
  return bytes;
}

/** @throws HandoffError: PROTOCOL for what is no message, VERSION for one of another version */
export function decodeMessage(bytes: Uint8Array): { kind: string; fields: MessageFields } {
  const { root } = parse(bytes);
  const format = FdtValue.readString(root.properties.get('compatible') ?? new Uint8Array(0));
  if (format !== FORMAT) {
    const shown = JSON.stringify(format ?? '');
    if (format !== undefined && ANY_VERSION.test(format)) {
      throw new HandoffError(HandoffErrorCode.Version, `the other side sends ${shown}, not ${FORMAT}`);
    }
    throw new HandoffError(HandoffErrorCode.Protocol, `the other side sends ${shown}, which is no message`);
  }
  const [message, ...others] = root.children;
  if (message === undefined || others.length > 0 || message.children.length > 0) {
    throw new HandoffError(HandoffErrorCode.Protocol, 'the other side sends what is not one message');
  }
  return { kind: message.name, fields: message.properties };
}

function parse(bytes: Uint8Array): Fdt {
  try {
    return readFdt(bytes);
  } catch (cause) {
    if (!(cause instanceof StateError)) throw cause;
    const reason = `the other side sends ${bytes.byteLength} bytes that are no message`;
    throw new HandoffError(HandoffErrorCode.Protocol, reason, { cause });
  }
}

/** A message that was received. Disposing of it closes its descriptors, unless they were taken. */
export class ChannelMessage implements Disposable {
  readonly kind: string;
  readonly fields: MessageFields;
  /** The descriptors that came with it, in the sender's order; the message's own until they are taken. */
  readonly fds: readonly number[];
  readonly #kernel: Syscalls;
  readonly #settled: (message: ChannelMessage) => void;
  #owner = true;

  /** @internal @param settled called when its descriptors are no longer its own */
  constructor(
    kernel: Syscalls,
    content: { kind: string; fields: MessageFields; fds: readonly number[] },
    settled: (message: ChannelMessage) => void,
  ) {
    this.#kernel = kernel;
    this.kind = content.kind;
    this.fields = content.fields;
    this.fds = content.fds;
    this.#settled = settled;
  }

  /** Makes its descriptors the caller's, who closes them. @throws DisposedError when they were taken or closed */
  take(): readonly number[] {
    if (!this.#owner) throw new DisposedError(`message ${this.kind}`);
    this.#settle();
    return this.fds;
  }

  #settle(): void {
    this.#owner = false;
    this.#settled(this);
  }

  [Symbol.dispose](): void {
    if (!this.#owner) return;
    this.#settle();
    closeAll(this.#kernel, this.fds);
  }
}

/** Closes descriptors that came with a message. */
export function closeAll(kernel: Syscalls, fds: readonly number[]): void {
  runAll(fds.map(fd => () => void check(kernel.close(fd), 'close', { args: { fd } })));
}
