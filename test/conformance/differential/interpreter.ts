/**
 * Runs a sequence on any kernel, and writes down what is seen of it.
 *
 * A line says what a call returned, which fields of its struct and which bytes behind its pointers changed. Descriptors
 * are counted, and physical addresses left out: all else must be the same on every kernel, bit by bit.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import * as errors from '../../../bindings/uapi/errno.js';
import type { Struct } from '../../../bindings/uapi/struct.js';
import { devicePath } from './devices.js';
import { MAPPED, Memories, NOWHERE, SCRATCH_SLOT } from './memory.js';
import { requestNamed } from './requests.js';
import type { Ioctl, Sequence, Step, Value } from './step.js';

const errnoNames = new Map(Object.entries(errors).map(([name, number]) => [number, name]));

/** Fields that hold a descriptor after the call, and what it is kept as. */
const descriptorFields: Readonly<Record<string, string>> = {
  out_fault_fd: 'fault',
  out_veventq_fd: 'veventq',
  out_access_fd: 'access',
  fd: 'file',
};
/** Fields that hold the id of a new object, and its kind. */
const idFields: Readonly<Record<string, string>> = {
  out_ioas_id: 'ioas',
  out_hwpt_id: 'hwpt',
  out_idev_id: 'device',
  out_devid: 'device',
  out_stdev_id: 'stdev',
  out_fault_id: 'fault',
  out_viommu_id: 'viommu',
  out_vdevice_id: 'vdevice',
  out_veventq_id: 'veventq',
  out_hw_queue_id: 'hwqueue',
  out_access_pages_id: 'pages',
};
/** Requests whose result is a descriptor. */
const descriptorResults: Readonly<Record<string, string>> = { VFIO_GROUP_GET_DEVICE_FD: 'vfio' };
/** A request that makes a descriptor and does not say which: the lowest that is free. */
const SILENT = 'TEST_DMABUF_GET';

interface Mapping {
  readonly iova: bigint;
  readonly length: bigint;
  readonly address: bigint;
}

/** A PASID of a mock device that was attached, as the request has it. */
interface Attached {
  /** Of the device. */
  readonly id: number;
  readonly pasid: number;
}

interface Pointer {
  readonly slot: number;
  readonly before: Uint8Array;
}

const U64 = 2n ** 64n;
const PAGE = 4096n;
const GET_PA = 'iommu_ioas_noiommu_get_pa';

export class Interpreter {
  readonly #kernel: Syscalls;
  readonly #memories: Memories;
  #descriptors = new Map<string, number[]>();
  /** In the order in which they were opened, those that are closed again included. */
  #opened: number[] = [];
  #open = new Set<number>();
  #ids = new Map<string, number[]>();
  #mappings: Mapping[] = [];
  #pointers: Pointer[] = [];
  #pasids: Attached[] = [];

  constructor(kernel: Syscalls) {
    this.#kernel = kernel;
    this.#memories = new Memories(kernel);
  }

  /**
   * One line for each call. Leaves nothing open, unless told to.
   *
   * @param options.keep what is open at the end stays so
   */
  run(sequence: Sequence, options: { readonly keep?: boolean } = {}): string[] {
    this.#memories.reset();
    this.#descriptors = new Map();
    this.#opened = [];
    this.#open = new Set();
    this.#ids = new Map();
    this.#mappings = [];
    this.#pasids = [];
    try {
      return sequence.steps.map(step => this.#step(step));
    } finally {
      for (const stdev of this.#ids.get('stdev') ?? []) this.#detachPasids(stdev);
      // The first opened last: what hangs on a context goes before it.
      if (!options.keep) for (const fd of [...this.#open].reverse()) this.#kernel.close(fd);
    }
  }

  #step(step: Step): string {
    const kernel = this.#kernel;
    this.#pointers = [];
    switch (step.call) {
      case 'ioctl':
        return this.#ioctl(step);
      case 'open':
        return this.#keep(step.keep, kernel.open(devicePath(kernel, step.path), 2));
      case 'eventfd':
        return this.#keep(step.keep, kernel.eventfd(0, 0o4000));
      case 'memfd':
        return this.#keep(step.keep, kernel.memfdCreate('sequence', step.flags));
      case 'close': {
        const fd = this.#number(step.on);
        // Not what the interpreter, or the runtime, has open.
        if (!this.#open.delete(fd)) return '-';
        return outcome(kernel.close(fd));
      }
      case 'ftruncate':
        return outcome(kernel.ftruncate(this.#number(step.on), step.length));
      case 'fcntl':
        return outcome(kernel.fcntl(this.#number(step.on), step.command, step.argument));
      case 'read': {
        const bytes = new Uint8Array(new ArrayBuffer(step.length));
        const fd = this.#number(step.on);
        const result =
          step.offset === undefined ? kernel.read(fd, bytes) : kernel.pread(fd, bytes, step.offset);
        return `${outcome(result)} ${hex(bytes)}`;
      }
      case 'write': {
        const bytes = unhex(step.bytes);
        const fd = this.#number(step.on);
        return outcome(
          step.offset === undefined ? kernel.write(fd, bytes) : kernel.pwrite(fd, bytes, step.offset),
        );
      }
    }
  }

  #keep(name: string, fd: number): string {
    return fd < 0 ? outcome(fd) : this.#remember(name, fd);
  }

  #remember(name: string, fd: number): string {
    const kept = this.#descriptors.get(name);
    if (kept === undefined) this.#descriptors.set(name, [fd]);
    else kept.push(fd);
    this.#open.add(fd);
    return `fd${this.#opened.push(fd)}`;
  }

  #ioctl(step: Ioctl): string {
    const { number, struct, op } = requestNamed(step.request);
    const fd = this.#number(step.on);
    if (step.request === 'IOMMU_DESTROY') this.#detachPasids(Number(this.#value(step.fields?.id ?? 0)));
    if (step.argument !== undefined) {
      return (
        this.#result(step, this.#kernel.ioctl(fd, number, Number(this.#value(step.argument)))) + this.#shown()
      );
    }
    const structSize = struct?.size ?? 0;
    const trailing = step.trailing === undefined ? new Uint8Array(0) : this.#list(step.trailing);
    const size = step.size ?? structSize + trailing.byteLength;
    const bytes = new Uint8Array(new ArrayBuffer(Math.max(size, structSize + trailing.byteLength, 8)));
    const view = new DataView(bytes.buffer);
    struct?.encode(view, this.#fields(struct, step, size, op));
    bytes.set(trailing, structSize);
    if (step.junk) bytes.fill(0xa5, structSize + trailing.byteLength);
    const before = bytes.slice();
    const lowest = step.request === SILENT ? this.#lowestFree() : -1;
    const result = this.#kernel.ioctl(fd, number, bytes);
    if (lowest >= 0 && result === 0) return `0 ${this.#remember('dmabuf', lowest)}`;
    const fields = struct === undefined ? '' : this.#changes(step, struct, before, view, result);
    const behind = hexChange(before.subarray(structSize), bytes.subarray(structSize));
    if (result >= 0 && struct !== undefined) {
      this.#noteMapping(step, struct, view);
      if (step.request === 'TEST_PASID_ATTACH') this.#pasids.push(struct.decode(view) as unknown as Attached);
    }
    return `${this.#result(step, result)}${fields}${behind === '' ? '' : ` +${behind}`}${this.#shown()}`;
  }

  /**
   * Detaches every PASID of a mock device that is about to go. Linux 7.3 warns and leaks what is left; drivers do not
   * let it come to that.
   */
  #detachPasids(stdev: number): void {
    for (const { pasid } of this.#pasids.filter(each => each.id === stdev)) {
      const { number, struct, op = 0 } = requestNamed('TEST_PASID_DETACH');
      if (struct === undefined) continue;
      const { bytes, view } = struct.allocate();
      struct.encode(view, { size: struct.size, op, id: stdev, pasid });
      for (const fd of this.#descriptors.get('iommufd') ?? []) this.#kernel.ioctl(fd, number, bytes);
    }
    this.#pasids = this.#pasids.filter(each => each.id !== stdev);
  }

  /** The descriptor that the next call to make one gets. */
  #lowestFree(): number {
    const fd = this.#kernel.eventfd(0, 0);
    this.#kernel.close(fd);
    return fd;
  }

  #result(step: Ioctl, result: number): string {
    const kept = descriptorResults[step.request];
    return result >= 0 && kept !== undefined ? this.#remember(kept, result) : outcome(result);
  }

  #fields(
    struct: Struct,
    step: Ioctl,
    size: number,
    op: number | undefined,
  ): Record<string, number | bigint> {
    const values: Record<string, number | bigint> = {};
    const [first] = Object.keys(struct.fields);
    if (first === 'size' || first === 'argsz') values[first] = size;
    if (op !== undefined) values.op = op;
    for (const [name, value] of Object.entries(step.fields ?? {})) {
      const type = struct.fields[name]?.type;
      if (type === undefined || type.kind !== 'integer') continue;
      const bits = type.size * 8;
      const wanted = this.#value(value);
      if (bits === 64) values[name] = BigInt.asUintN(64, wanted);
      else if (type.name === 's32') values[name] = Number(BigInt.asIntN(32, wanted));
      else values[name] = Number(BigInt.asUintN(bits, wanted));
    }
    // Bytes of an array, such as a name.
    for (const [name, value] of Object.entries(step.fields ?? {})) {
      if (typeof value === 'object' && 'bytes' in value && struct.fields[name]?.type.kind === 'array') {
        Object.assign(values, { [name]: unhex(value.bytes) });
      }
    }
    return values;
  }

  /** What the kernel changed in the struct; takes note of ids and descriptors. */
  #changes(step: Ioctl, struct: Struct, before: Uint8Array, view: DataView, result: number): string {
    let text = '';
    const old = new DataView(before.buffer, before.byteOffset);
    for (const [name, field] of Object.entries(struct.fields)) {
      if (field.overlays !== undefined || field.type.kind === 'flexible') continue;
      const now = field.type.read(view, field.offset);
      const was = field.type.read(old, field.offset);
      const same =
        now instanceof Uint8Array
          ? Buffer.compare(now, was as Uint8Array) === 0
          : Array.isArray(now)
            ? String(now) === String(was)
            : now === was;
      const kept = name in descriptorFields ? (step.as ?? descriptorFields[name]) : undefined;
      // A device was moved, and says to which page table.
      const kind = name === 'pt_id' && !same ? 'hwpt' : idFields[name];
      if (result >= 0 && kind !== undefined && typeof now === 'number' && !(same && now === 0)) {
        for (const each of step.as === undefined ? [kind] : [kind, step.as]) {
          const ids = this.#ids.get(each);
          if (ids === undefined) this.#ids.set(each, [now]);
          else if (!ids.includes(now)) ids.push(now);
        }
      }
      if (same) continue;
      if (kept !== undefined) text += ` ${name}=${this.#remember(kept, Number(now))}`;
      else if (name === 'out_phys') text += this.#piece(struct, before, view);
      else if (struct.name === GET_PA && name === 'length') continue;
      else text += ` ${name}=${show(now)}`;
    }
    return text;
  }

  /** A physical address is the machine's own; where in a page it is, and that the piece makes sense, is not. */
  #piece(struct: Struct, before: Uint8Array, view: DataView): string {
    const { iova = 0n, length = 0n, out_phys: at = 0n } = struct.decode(view) as Record<string, bigint>;
    const { length: asked = 0n } = struct.decode(new DataView(before.buffer)) as Record<string, bigint>;
    const page = PAGE - (iova % PAGE);
    const sound = length <= asked && length >= (asked < page ? asked : page);
    return ` out_phys%=${at % PAGE}${sound ? '' : ` length=${length} of ${asked}`}`;
  }

  #noteMapping(step: Ioctl, struct: Struct, view: DataView): void {
    if (!/^IOMMU_IOAS_(MAP|MAP_FILE|COPY)$/.test(step.request)) return;
    const fields = struct.decode(view) as Record<string, bigint | undefined>;
    const iova = fields.iova ?? fields.dst_iova;
    const { length } = fields;
    if (iova === undefined || length === undefined) return;
    this.#mappings.push({ iova, length, address: fields.user_va ?? this.#addressOfFile(step) });
  }

  /** Where the file of a mapping by file is mapped in this process. */
  #addressOfFile({ fields }: Ioctl): bigint {
    const file = fields?.fd;
    if (typeof file !== 'object' || !('fd' in file) || !file.fd.startsWith('memory:')) return 0n;
    const start = this.#value(fields?.start ?? 0);
    // Beyond the window is whatever the process has there.
    return start < MAPPED ? this.#memories.get(file.fd.slice(7)).address + start : NOWHERE;
  }

  #value(value: Value): bigint {
    if (typeof value !== 'object') return BigInt(value);
    if ('id' in value) return BigInt(nth(this.#ids.get(value.id), value.back) ?? 0);
    if ('fd' in value) {
      const window = value.fd.startsWith('memory:') ? this.#memories.get(value.fd.slice(7)) : undefined;
      return BigInt(window?.fd ?? nth(this.#descriptors.get(value.fd), value.back) ?? -1);
    }
    if ('at' in value) return this.#memories.get(value.at).address + BigInt(value.offset);
    if ('mapping' in value) {
      const mapping = nth(this.#mappings, value.back);
      return (mapping === undefined ? 0n : mapping[value.mapping]) + BigInt(value.plus ?? 0);
    }
    if ('buffer' in value) return this.#point(new Uint8Array(value.buffer));
    if ('bytes' in value) return this.#point(unhex(value.bytes));
    return this.#point(this.#list(value));
  }

  #number(value: Value): number {
    const number = this.#value(value);
    return Number(number >= U64 / 2n ? number - U64 : number);
  }

  #list({ list, width }: { readonly list: readonly Value[]; readonly width: 1 | 4 | 8 }): Uint8Array {
    const bytes = new Uint8Array(list.length * width);
    const view = new DataView(bytes.buffer);
    for (const [i, value] of list.entries()) {
      const number = this.#value(value);
      if (width === 8) view.setBigUint64(i * 8, BigInt.asUintN(64, number), true);
      else if (width === 4) view.setUint32(i * 4, Number(BigInt.asUintN(32, number)), true);
      else view.setUint8(i, Number(BigInt.asUintN(8, number)));
    }
    return bytes;
  }

  /** Puts bytes where a call finds them. @returns their address */
  #point(bytes: Uint8Array): bigint {
    const slot = this.#pointers.length;
    this.#pointers.push({ slot, before: bytes });
    this.#memories.write('scratch', slot * SCRATCH_SLOT, bytes);
    return this.#memories.get('scratch').address + BigInt(slot * SCRATCH_SLOT);
  }

  /** What the call did to the bytes it was pointed at. */
  #shown(): string {
    let text = '';
    for (const { slot, before } of this.#pointers) {
      const change = hexChange(
        before,
        this.#memories.read('scratch', slot * SCRATCH_SLOT, before.byteLength),
      );
      if (change !== '') text += ` *${change}`;
    }
    return text;
  }
}

function nth<T>(list: readonly T[] | undefined, back: number): T | undefined {
  return list === undefined || list.length === 0 ? undefined : list[list.length - 1 - (back % list.length)];
}

/** `0`, `3`, `EINVAL`. */
function outcome(result: number): string {
  return result >= 0 ? String(result) : (errnoNames.get(-result) ?? `errno${-result}`);
}

function show(value: unknown): string {
  if (typeof value === 'bigint') return `0x${value.toString(16)}`;
  if (value instanceof Uint8Array) return hex(value);
  return String(value);
}

function unhex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'hex'));
}

/** Without the zeroes at the end. */
function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/(00)+$/, '');
}

function hexChange(before: Uint8Array, after: Uint8Array): string {
  return Buffer.compare(before, after) === 0 ? '' : hex(after) || 'zeroes';
}
