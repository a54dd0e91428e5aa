/** Device regions: BARs, the expansion ROM and configuration space, read and written at exact width. @module */
import type { Syscalls } from '../../bindings/syscalls.js';
import { EIO } from '../../bindings/uapi/errno.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../bindings/uapi/mman.js';
import { decodeList } from '../../bindings/uapi/struct.js';
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_CAPS,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_region_info,
  vfio_region_info_cap_sparse_mmap,
  vfio_region_info_cap_type,
  vfio_region_sparse_mmap_area,
} from '../../bindings/uapi/vfio.js';
import { checkInteger, checkRange } from '../check.js';
import { DeviceError, DeviceErrorCode, DisposedError, KernelError } from '../errors.js';
import { check, ioctl } from '../ioctl.js';
import { capabilityChain } from './capability-chain.js';

/** A part of a region that can be mapped into memory, in bytes from the region's start. */
export interface MappableArea {
  readonly offset: number;
  readonly size: number;
}

/** What VFIO tells of a region. */
export interface RegionInfo {
  readonly index: number;
  /** In bytes; 0 when the device does not have it. */
  readonly size: number;
  /** Where it begins in the device's file. */
  readonly fileOffset: number;
  readonly readable: boolean;
  readonly writeable: boolean;
  /** What may be mapped; empty when nothing may. */
  readonly mappable: readonly MappableArea[];
  /** Type and subtype of a device-specific region. */
  readonly type: { readonly type: number; readonly subtype: number } | undefined;
}

/** @throws KernelError: EINVAL for an index that the device does not have. */
export function queryRegion(kernel: Syscalls, fd: number, index: number): RegionInfo {
  checkInteger('region index', index, 0, 0xffff_ffff);
  let { bytes, view } = vfio_region_info.allocate();
  // A second round, with more room, when there are capabilities.
  for (;;) {
    vfio_region_info.encode(view, { argsz: bytes.byteLength, index });
    ioctl(kernel, fd, VFIO_DEVICE_GET_REGION_INFO, bytes, { index });
    const needed = vfio_region_info.get(view, 'argsz');
    if (needed <= bytes.byteLength) break;
    ({ bytes, view } = vfio_region_info.allocate(needed - vfio_region_info.size));
  }
  const info = vfio_region_info.decode(view);
  const size = Number(info.size);
  let mappable: MappableArea[] =
    info.flags & VFIO_REGION_INFO_FLAG_MMAP && size > 0 ? [{ offset: 0, size }] : [];
  let type: RegionInfo['type'];
  if (info.flags & VFIO_REGION_INFO_FLAG_CAPS) {
    for (const { id, offset } of capabilityChain(view, info.cap_offset)) {
      if (id === VFIO_REGION_INFO_CAP_SPARSE_MMAP && mappable.length > 0) {
        const count = vfio_region_info_cap_sparse_mmap.get(view, 'nr_areas', offset);
        const at = offset + vfio_region_info_cap_sparse_mmap.fields.areas.offset;
        mappable = decodeList(view, vfio_region_sparse_mmap_area, count, at).map(area => ({
          offset: Number(area.offset),
          size: Number(area.size),
        }));
      } else if (id === VFIO_REGION_INFO_CAP_TYPE) {
        const found = vfio_region_info_cap_type.decode(view, offset);
        type = { type: found.type, subtype: found.subtype };
      }
    }
  }
  return {
    index,
    size,
    fileOffset: Number(info.offset),
    readable: (info.flags & VFIO_REGION_INFO_FLAG_READ) !== 0,
    writeable: (info.flags & VFIO_REGION_INFO_FLAG_WRITE) !== 0,
    mappable,
    type,
  };
}

interface Window {
  readonly start: number;
  readonly end: number;
  readonly address: bigint;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
}

/** An ArrayBuffer has a limit, and element indices within a window must fit 32 bits. */
const MAX_WINDOW = 2 ** 30;

function* windowsOf(areas: readonly MappableArea[]): Generator<MappableArea> {
  for (const { offset, size } of areas) {
    for (let done = 0; done < size; done += MAX_WINDOW) {
      yield { offset: offset + done, size: Math.min(MAX_WINDOW, size - done) };
    }
  }
}

const U32_MAX = 0xffff_ffff;

/**
 * A region of a device. Every read and write is one access of exactly its width. Where the region is mapped
 * ({@link map}) it is a plain load or store; elsewhere a system call.
 *
 * Values are little-endian, as PCI is.
 */
export class Region implements Disposable {
  readonly info: RegionInfo;
  readonly #kernel: Syscalls;
  readonly #name: string;
  #fd: number | undefined;
  #windows: Window[] = [];
  readonly #scratch = new Uint8Array(new ArrayBuffer(8));
  readonly #scratchView = new DataView(this.#scratch.buffer);
  readonly #one = this.#scratch.subarray(0, 1);
  readonly #two = this.#scratch.subarray(0, 2);
  readonly #four = this.#scratch.subarray(0, 4);

  /** @internal Use `Device.region` or `Device.bar`. */
  constructor(kernel: Syscalls, fd: number, info: RegionInfo, name: string) {
    this.#kernel = kernel;
    this.#fd = fd;
    this.info = info;
    this.#name = name;
  }

  /** In bytes. */
  get size(): number {
    return this.info.size;
  }

  /** True when at least part of it is mapped into memory. */
  get mapped(): boolean {
    return this.#windows.length > 0;
  }

  /**
   * Maps what may be mapped, so that accesses cost no system call. Does nothing where nothing may be mapped.
   *
   * While it is mapped, memory decoding must stay enabled and the device in D0: an access would end the process
   * (SIGBUS). {@link unmap} first.
   *
   * @throws KernelError
   */
  map(): void {
    const fd = this.#file();
    if (this.#windows.length > 0) return;
    try {
      for (const { offset, size } of windowsOf(this.info.mappable)) {
        const address = this.#kernel.mmap(
          size,
          PROT_READ | PROT_WRITE,
          MAP_SHARED,
          fd,
          this.info.fileOffset + offset,
        );
        if (address < 0n) {
          throw new KernelError(-Number(address), { syscall: 'mmap', path: this.#name, args: { size } });
        }
        let buffer: ArrayBuffer;
        try {
          buffer = this.#kernel.view(address, size);
        } catch (error) {
          this.#kernel.munmap(address, size);
          throw error;
        }
        this.#windows.push({
          start: offset,
          end: offset + size,
          address,
          u8: new Uint8Array(buffer),
          u16: new Uint16Array(buffer, 0, size >>> 1),
          u32: new Uint32Array(buffer, 0, size >>> 2),
          u64: new BigUint64Array(buffer, 0, size >>> 3),
        });
      }
    } catch (error) {
      this.unmap();
      throw error;
    }
  }

  /** Undoes {@link map}: accesses are system calls again, which fail where a mapped access would end the process. */
  unmap(): void {
    for (let window = this.#windows.pop(); window; window = this.#windows.pop()) {
      check(this.#kernel.munmap(window.address, window.end - window.start), 'munmap', { path: this.#name });
    }
  }

  /** The mapped memory that holds `width` bytes at `offset`. */
  #window(offset: number, width: number): Window | undefined {
    const windows = this.#windows;
    for (let i = 0; i < windows.length; i++) {
      const window = windows[i] as Window;
      if (offset >= window.start && offset + width <= window.end) return window;
    }
    return undefined;
  }

  #file(): number {
    if (this.#fd === undefined) throw new DisposedError(this.#name);
    return this.#fd;
  }

  #check(offset: number, width: number): void {
    if (typeof offset !== 'number') throw new TypeError(`offset must be a number, got ${typeof offset}`);
    // Comparisons written so that NaN and fractions fail.
    if (!(offset >= 0 && offset + width <= this.info.size) || offset % width !== 0) {
      throw new RangeError(
        `${this.#name}: a ${width * 8}-bit access at ${offset} is misaligned or beyond the end, ${this.info.size}`,
      );
    }
  }

  #fetch(buffer: Uint8Array, offset: number): void {
    const count = this.#kernel.pread(this.#file(), buffer, this.info.fileOffset + offset);
    if (count === buffer.byteLength) return;
    if (count < 0 && count !== -EIO) {
      throw new KernelError(-count, { syscall: 'pread', path: this.#name, args: { offset } });
    }
    throw this.#silent(offset);
  }

  #store(buffer: Uint8Array, offset: number): void {
    const count = this.#kernel.pwrite(this.#file(), buffer, this.info.fileOffset + offset);
    if (count === buffer.byteLength) return;
    if (count < 0 && count !== -EIO) {
      throw new KernelError(-count, { syscall: 'pwrite', path: this.#name, args: { offset } });
    }
    throw this.#silent(offset);
  }

  #silent(offset: number): DeviceError {
    return new DeviceError(
      DeviceErrorCode.Gone,
      this.#name,
      `no answer at offset 0x${offset.toString(16)}`,
      'Memory decoding is off (Device.config.memory), or the device is powered down or removed',
    );
  }

  read8(offset: number): number {
    this.#check(offset, 1);
    const window = this.#window(offset, 1);
    if (window) return window.u8[offset - window.start] as number;
    this.#fetch(this.#one, offset);
    return this.#scratchView.getUint8(0);
  }

  read16(offset: number): number {
    this.#check(offset, 2);
    const window = this.#window(offset, 2);
    if (window) return window.u16[(offset - window.start) >>> 1] as number;
    this.#fetch(this.#two, offset);
    return this.#scratchView.getUint16(0, true);
  }

  read32(offset: number): number {
    this.#check(offset, 4);
    const window = this.#window(offset, 4);
    if (window) return window.u32[(offset - window.start) >>> 2] as number;
    this.#fetch(this.#four, offset);
    return this.#scratchView.getUint32(0, true);
  }

  /** One 64-bit access. Not every device accepts these: many have 64-bit registers that must be read as two halves. */
  read64(offset: number): bigint {
    this.#check(offset, 8);
    const window = this.#window(offset, 8);
    if (window) return window.u64[(offset - window.start) >>> 3] as bigint;
    this.#fetch(this.#scratch, offset);
    return this.#scratchView.getBigUint64(0, true);
  }

  write8(offset: number, value: number): void {
    this.#check(offset, 1);
    checkInteger('value', value, 0, 0xff);
    const window = this.#window(offset, 1);
    if (window) {
      window.u8[offset - window.start] = value;
      return;
    }
    this.#scratchView.setUint8(0, value);
    this.#store(this.#one, offset);
  }

  write16(offset: number, value: number): void {
    this.#check(offset, 2);
    checkInteger('value', value, 0, 0xffff);
    const window = this.#window(offset, 2);
    if (window) {
      window.u16[(offset - window.start) >>> 1] = value;
      return;
    }
    this.#scratchView.setUint16(0, value, true);
    this.#store(this.#two, offset);
  }

  write32(offset: number, value: number): void {
    this.#check(offset, 4);
    checkInteger('value', value, 0, U32_MAX);
    const window = this.#window(offset, 4);
    if (window) {
      window.u32[(offset - window.start) >>> 2] = value;
      return;
    }
    this.#scratchView.setUint32(0, value, true);
    this.#store(this.#four, offset);
  }

  /** One 64-bit access; see {@link read64}. */
  write64(offset: number, value: bigint): void {
    this.#check(offset, 8);
    if (typeof value !== 'bigint') throw new TypeError(`value must be a bigint, got ${typeof value}`);
    if (BigInt.asUintN(64, value) !== value) throw new RangeError(`value must fit 64 bits, got ${value}`);
    const window = this.#window(offset, 8);
    if (window) {
      window.u64[(offset - window.start) >>> 3] = value;
      return;
    }
    this.#scratchView.setBigUint64(0, value, true);
    this.#store(this.#scratch, offset);
  }

  /** `length` bytes from `offset`, through the file: for ROMs and dumps, not for registers. */
  readBytes(offset: number, length: number): Uint8Array {
    checkRange('region', offset, length, this.info.size);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const count = this.#kernel.pread(
        this.#file(),
        bytes.subarray(done),
        this.info.fileOffset + offset + done,
      );
      if (count === -EIO) throw this.#silent(offset + done);
      check(count, 'pread', { path: this.#name, args: { offset: offset + done } });
      if (count === 0) throw this.#silent(offset + done);
      done += count;
    }
    return bytes;
  }

  /** @internal The device calls it when it is closed. */
  [Symbol.dispose](): void {
    this.unmap();
    this.#fd = undefined;
  }
}
