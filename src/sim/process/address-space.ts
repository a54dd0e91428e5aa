/** The virtual memory of a simulated process. @module */
import { EFAULT, EINVAL } from '../../../bindings/uapi/errno.js';
import { MemoryObject } from '../machine/memory-object.js';
import { PAGE, type PhysicalMemory } from '../machine/physical-memory.js';

/** Consecutive addresses with consecutive memory behind them. */
export interface VirtualMapping {
  readonly start: bigint;
  /** In bytes, a multiple of the page size. */
  readonly length: number;
  readonly memory: MemoryObject;
  /** Where it begins in the memory, in bytes. */
  readonly offset: number;
  readonly writeable: boolean;
  /** Shared and file-backed, as opposed to anonymous. */
  readonly shared: boolean;
  /** A device's memory, which nobody can pin (VM_PFNMAP). */
  readonly device: boolean;
  readonly unmapped: (() => void) | undefined;
}

/** Where `mmap` begins; above it everything is as Linux on x86-64 has it, more or less. */
const MMAP_BASE = 0x7f00_0000_0000n;
/** Where the memory lies whose address was asked for: each piece in slots of its own. */
const HEAP_BASE = 0x1000_0000_0000n;
const SLOT_BYTES = 2 ** 26;
const SLOTS = 2 ** 18;

interface HeapSlot {
  readonly buffer: WeakRef<ArrayBufferLike>;
  /** The slots that it takes. */
  readonly count: number;
  memory: MemoryObject | undefined;
}

export class AddressSpace {
  readonly #physical: PhysicalMemory;
  /** Sorted by start. */
  readonly #mappings: VirtualMapping[] = [];
  readonly #heap = new Map<number, HeapSlot>();
  readonly #heapAddresses = new WeakMap<ArrayBufferLike, number>();
  #nextSlot = 0;
  #nextAddress = MMAP_BASE;

  constructor(physical: PhysicalMemory) {
    this.#physical = physical;
  }

  /** How many mappings there are. */
  get mappings(): readonly VirtualMapping[] {
    return this.#mappings;
  }

  /** Maps memory at an address of our choice; takes over the caller's reference to it. */
  map(mapping: Omit<VirtualMapping, 'start'>): bigint {
    // A page of nothing between any two, and the alignment that huge pages want.
    const alignment = BigInt(Math.max(mapping.memory.pageSize, PAGE));
    const start = ((this.#nextAddress + alignment - 1n) / alignment) * alignment;
    this.#nextAddress = start + BigInt(mapping.length + PAGE);
    this.#mappings.push({ ...mapping, start });
    return start;
  }

  /** Unmaps every page in the range; what is not mapped is passed over. */
  unmap(address: bigint, length: number): number {
    if (address % BigInt(PAGE) !== 0n || length === 0) return -EINVAL;
    const end = address + BigInt(Math.ceil(length / PAGE) * PAGE);
    const affected = this.#mappings.filter(each => overlaps(each, address, end));
    // A huge page cannot be cut.
    for (const { start, length: size, memory } of affected) {
      const page = BigInt(memory.pageSize);
      if (start < address && address % page !== 0n) return -EINVAL;
      if (start + BigInt(size) > end && end % page !== 0n) return -EINVAL;
    }
    for (const mapping of affected) {
      this.#mappings.splice(this.#mappings.indexOf(mapping), 1);
      const mappingEnd = mapping.start + BigInt(mapping.length);
      const keep = (from: bigint, to: bigint): void => {
        if (from >= to) return;
        mapping.memory.get();
        const offset = mapping.offset + Number(from - mapping.start);
        this.#mappings.push({ ...mapping, start: from, length: Number(to - from), offset });
      };
      keep(mapping.start, address);
      keep(end, mappingEnd);
      mapping.memory.put();
      if (!this.#mappings.some(each => each.unmapped === mapping.unmapped)) mapping.unmapped?.();
    }
    this.#mappings.sort((a, b) => (a.start < b.start ? -1 : 1));
    return 0;
  }

  /** The mapping that holds `address`. */
  find(address: bigint): VirtualMapping | undefined {
    if (address < MMAP_BASE) return this.#findHeap(address);
    let low = 0;
    let high = this.#mappings.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#mappings[middle] as VirtualMapping).start <= address) low = middle + 1;
      else high = middle;
    }
    const mapping = this.#mappings[low - 1];
    return mapping !== undefined && address < mapping.start + BigInt(mapping.length) ? mapping : undefined;
  }

  #findHeap(address: bigint): VirtualMapping | undefined {
    if (address < HEAP_BASE) return undefined;
    let slot = Number((address - HEAP_BASE) / BigInt(SLOT_BYTES));
    if (slot >= SLOTS) return undefined;
    // The slots after the first of a large piece are not in the table.
    let entry = this.#heap.get(slot);
    for (let back = 1; entry === undefined && back <= slot && back < 64; back++) {
      const earlier = this.#heap.get(slot - back);
      if (earlier === undefined) continue;
      if (earlier.count <= back) return undefined;
      entry = earlier;
      slot -= back;
    }
    const buffer = entry?.buffer.deref();
    if (entry === undefined || buffer === undefined) return undefined;
    entry.memory ??= new MemoryObject(
      this.#physical,
      '[heap]',
      buffer.byteLength,
      PAGE,
      buffer as ArrayBuffer,
    );
    const start = HEAP_BASE + BigInt(slot) * BigInt(SLOT_BYTES);
    const length = Math.ceil(buffer.byteLength / PAGE) * PAGE;
    if (address >= start + BigInt(length)) return undefined;
    return {
      start,
      length,
      memory: entry.memory,
      offset: 0,
      writeable: true,
      shared: false,
      device: false,
      unmapped: undefined,
    };
  }

  /** The address of `bytes`, which stays as long as they are reachable. */
  addressOf(bytes: Uint8Array): bigint {
    let slot = this.#heapAddresses.get(bytes.buffer);
    if (slot === undefined) {
      const count = Math.max(1, Math.ceil(bytes.buffer.byteLength / SLOT_BYTES));
      slot = this.#takeSlots(count);
      this.#heap.set(slot, { buffer: new WeakRef(bytes.buffer), count, memory: undefined });
      this.#heapAddresses.set(bytes.buffer, slot);
    }
    return HEAP_BASE + BigInt(slot) * BigInt(SLOT_BYTES) + BigInt(bytes.byteOffset);
  }

  /** The next slots, over and over: those of memory that is gone are taken again. */
  #takeSlots(count: number): number {
    for (let tries = 0; tries < SLOTS; tries++) {
      if (this.#nextSlot + count > SLOTS) this.#nextSlot = 0;
      const first = this.#nextSlot++;
      const busy = Array.from({ length: count }, (_, i) => this.#heap.get(first + i)).some(
        entry => entry?.buffer.deref() !== undefined,
      );
      if (busy) continue;
      for (let i = 0; i < count; i++) this.#heap.delete(first + i);
      this.#nextSlot = first + count;
      return first;
    }
    throw new Error('more memory is in use than the simulated process has addresses for');
  }

  /**
   * `length` bytes of user memory at `address`, in place where they lie in one piece and as a copy otherwise.
   *
   * @returns minus EFAULT where there is none
   */
  read(address: bigint, length: number): Uint8Array | number {
    if (length === 0) return new Uint8Array(0);
    const mapping = this.find(address);
    if (mapping === undefined || mapping.device) return -EFAULT;
    const at = mapping.offset + Number(address - mapping.start);
    if (address + BigInt(length) <= mapping.start + BigInt(mapping.length)) {
      if (at + length > mapping.memory.bytes.byteLength) return -EFAULT;
      return mapping.memory.bytes.subarray(at, at + length);
    }
    const copy = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const piece = this.#piece(address + BigInt(done), length - done);
      if (typeof piece === 'number') return piece;
      copy.set(piece, done);
      done += piece.byteLength;
    }
    return copy;
  }

  /** Writes user memory. @returns 0, or minus EFAULT; what comes before the place at fault is written then */
  write(address: bigint, bytes: Uint8Array): number {
    for (let done = 0; done < bytes.byteLength; ) {
      const at = address + BigInt(done);
      if (this.find(at)?.writeable === false) return -EFAULT;
      const piece = this.#piece(at, bytes.byteLength - done);
      if (typeof piece === 'number') return piece;
      piece.set(bytes.subarray(done, done + piece.byteLength));
      done += piece.byteLength;
    }
    return 0;
  }

  /** As much as lies in one piece. */
  #piece(address: bigint, length: number): Uint8Array | number {
    const mapping = this.find(address);
    if (mapping === undefined) return -EFAULT;
    const left = Number(mapping.start + BigInt(mapping.length) - address);
    return this.read(address, Math.min(left, length));
  }

  /** Unmaps everything: the process ends. */
  clear(): void {
    for (const { start, length } of [...this.#mappings]) this.unmap(start, length);
    for (const { memory } of this.#heap.values()) memory?.put();
    this.#heap.clear();
  }
}

function overlaps(mapping: VirtualMapping, from: bigint, to: bigint): boolean {
  return mapping.start < to && mapping.start + BigInt(mapping.length) > from;
}
