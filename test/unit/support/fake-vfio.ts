/**
 * A model of an open VFIO device: a real memfd holds its regions, at the file offsets that vfio-pci uses, and its
 * interrupts are real eventfds.
 *
 * @module
 */
import type { SyscallResult } from '../../../bindings/syscalls.js';
import { EINVAL, ENOTTY } from '../../../bindings/uapi/errno.js';
import { encodeList } from '../../../bindings/uapi/struct.js';
import * as uapi from '../../../bindings/uapi/vfio.js';
import { DelegatingKernel } from './delegating-kernel.js';

/** Where vfio-pci puts region `index` in the device's file. */
export const regionOffset = (index: number): number => index * 2 ** 40;

export interface FakeRegion {
  size: number;
  flags: number;
  /** Areas of a sparse-mmap capability; none without. */
  sparse?: readonly { offset: bigint; size: bigint }[];
  /** Type and subtype of a type capability; none without. */
  type?: readonly [type: number, subtype: number];
  /** Puts what it likes behind the struct instead; gives the offset of the first capability. */
  raw?: { readonly bytes: number; write(view: DataView): number };
}

/** A VFIO_DEVICE_SET_IRQS as it arrived. */
export interface SetIrqs {
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** The descriptors behind it. */
  readonly eventfds: readonly number[];
}

const names = new Map<number, string>(
  [uapi.VFIO_DEVICE_GET_REGION_INFO, uapi.VFIO_DEVICE_GET_IRQ_INFO, uapi.VFIO_DEVICE_SET_IRQS].map(
    request => [request.number, request.name],
  ),
);

const LINE = uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_MASKABLE | uapi.VFIO_IRQ_INFO_AUTOMASKED;
const MESSAGE = uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_NORESIZE;

export class FakeVfioDevice extends DelegatingKernel {
  readonly fd: number;
  readonly regions = new Map<number, FakeRegion>();
  /** Every access through the file, in order. */
  readonly accesses: [call: 'pread' | 'pwrite', offset: number, width: number][] = [];
  /** What VFIO tells of each kind of interrupt. */
  readonly irqs = [
    { flags: LINE, count: 1 },
    { flags: MESSAGE, count: 4 },
    { flags: MESSAGE, count: 8 },
    { flags: uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_NORESIZE, count: 1 },
    { flags: uapi.VFIO_IRQ_INFO_EVENTFD | uapi.VFIO_IRQ_INFO_NORESIZE, count: 1 },
  ];
  readonly setIrqs: SetIrqs[] = [];
  /** How many vectors there are now; fewer than asked for is the positive answer of VFIO_DEVICE_SET_IRQS. */
  available = Number.POSITIVE_INFINITY;
  readonly #connected = new Map<string, number>();

  constructor() {
    super();
    this.fd = this.real.memfdCreate('fake-vfio-device', 3);
    this.real.ftruncate(this.fd, regionOffset(16));
  }

  protected override requestName(fd: number, request: number): string {
    return (fd === this.fd && names.get(request)) || super.requestName(fd, request);
  }

  override pread(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    this.accesses.push(['pread', offset, buffer.byteLength]);
    return super.pread(fd, buffer, offset);
  }

  override pwrite(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    this.accesses.push(['pwrite', offset, buffer.byteLength]);
    return super.pwrite(fd, buffer, offset);
  }

  /** Writes into the regions behind everyone's back. */
  poke(offset: number, ...bytes: number[]): void {
    this.real.pwrite(this.fd, Uint8Array.from(bytes), offset);
  }

  /** Reads from the regions behind everyone's back. */
  peek(offset: number, length: number): number[] {
    const bytes = new Uint8Array(length);
    this.real.pread(this.fd, bytes, offset);
    return [...bytes];
  }

  /** Interrupts `count` times. */
  interrupt(index: number, vector: number, count = 1): void {
    const eventfd = this.#connected.get(`${index}/${vector}`);
    if (eventfd === undefined) throw new Error(`vector ${vector} of ${index} is not connected`);
    const value = new BigUint64Array([BigInt(count)]);
    this.real.write(eventfd, new Uint8Array(value.buffer));
  }

  /** Vectors that are connected now. */
  get connected(): number {
    return this.#connected.size;
  }

  protected override answer(fd: number, request: number, argument: Uint8Array | number): SyscallResult {
    if (fd !== this.fd || typeof argument === 'number') return super.answer(fd, request, argument);
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    switch (request) {
      case uapi.VFIO_DEVICE_GET_REGION_INFO.number:
        return this.#regionInfo(view);
      case uapi.VFIO_DEVICE_GET_IRQ_INFO.number: {
        const irq = this.irqs[uapi.vfio_irq_info.get(view, 'index')];
        if (!irq) return -EINVAL;
        uapi.vfio_irq_info.set(view, 'flags', irq.flags);
        uapi.vfio_irq_info.set(view, 'count', irq.count);
        return 0;
      }
      case uapi.VFIO_DEVICE_SET_IRQS.number:
        return this.#setIrqs(view);
      default:
        return -ENOTTY;
    }
  }

  #regionInfo(view: DataView): SyscallResult {
    const info = uapi.vfio_region_info;
    const { argsz, index } = info.decode(view);
    const region = this.regions.get(index);
    if (!region || argsz < info.size) return -EINVAL;
    const { size, flags, sparse, type, raw } = region;
    const writers: { bytes: number; write(at: number, next: number): void }[] = [];
    if (type) {
      const cap = uapi.vfio_region_info_cap_type;
      const header = { id: uapi.VFIO_REGION_INFO_CAP_TYPE, version: 1 };
      writers.push({
        bytes: cap.size,
        write: (at, next) =>
          cap.encode(view, { header: { ...header, next }, type: type[0], subtype: type[1] }, at),
      });
    }
    if (sparse) {
      const cap = uapi.vfio_region_info_cap_sparse_mmap;
      const header = { id: uapi.VFIO_REGION_INFO_CAP_SPARSE_MMAP, version: 1 };
      writers.push({
        bytes: cap.size + sparse.length * uapi.vfio_region_sparse_mmap_area.size,
        write: (at, next) => {
          cap.encode(view, { header: { ...header, next }, nr_areas: sparse.length }, at);
          encodeList(view, uapi.vfio_region_sparse_mmap_area, sparse, at + cap.fields.areas.offset);
        },
      });
    }
    const needed = info.size + (raw?.bytes ?? writers.reduce((sum, writer) => sum + writer.bytes, 0));
    const hasCapabilities = needed > info.size;
    const fits = argsz >= needed;
    let first = 0;
    if (hasCapabilities && fits) {
      first = info.size;
      let at = first;
      for (const [i, writer] of writers.entries()) {
        const next = at + writer.bytes;
        writer.write(at, i + 1 < writers.length ? next : 0);
        at = next;
      }
      if (raw) first = raw.write(view);
    }
    info.encode(view, {
      argsz: Math.max(argsz, needed),
      flags: flags | (hasCapabilities ? uapi.VFIO_REGION_INFO_FLAG_CAPS : 0),
      index,
      cap_offset: first,
      size: BigInt(size),
      offset: BigInt(regionOffset(index)),
    });
    return 0;
  }

  #setIrqs(view: DataView): SyscallResult {
    const { argsz, flags, index, start, count } = uapi.vfio_irq_set.decode(view);
    const withEventfds = (flags & uapi.VFIO_IRQ_SET_DATA_EVENTFD) !== 0;
    const data = uapi.vfio_irq_set.fields.data.offset;
    const eventfds = withEventfds
      ? Array.from({ length: (argsz - data) / 4 }, (_, i) => view.getInt32(data + 4 * i, true))
      : [];
    this.setIrqs.push({ flags, index, start, count, eventfds });
    if (argsz !== view.byteLength || (withEventfds && eventfds.length !== count)) return -EINVAL;
    if (withEventfds && count > this.available) return this.available;
    for (const [i, eventfd] of eventfds.entries()) this.#connected.set(`${index}/${start + i}`, eventfd);
    if (flags === (uapi.VFIO_IRQ_SET_DATA_NONE | uapi.VFIO_IRQ_SET_ACTION_TRIGGER)) {
      if (count === 0) this.#disconnect(index);
      for (let i = 0; i < count; i++) this.interrupt(index, start + i);
    }
    return 0;
  }

  #disconnect(index: number): void {
    for (const key of [...this.#connected.keys()])
      if (key.startsWith(`${index}/`)) this.#connected.delete(key);
  }
}
