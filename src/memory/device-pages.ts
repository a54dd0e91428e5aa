/**
 * Which address a device uses for each 4 KiB page of a piece of memory.
 *
 * One table for both worlds: behind an IOMMU the addresses are consecutive IOVAs, without one they are whatever
 * physical pages the kernel reports. The table is laid out as devices read such lists (PRP entries, for example), so
 * a part of it can be copied into a descriptor as it is.
 *
 * @module
 */
import type { DeviceAddress, Iova } from '../address.js';
import type { Ioas } from '../iommufd/ioas.js';

/** In bytes. */
export const DEVICE_PAGE = 4096;

/** A run of consecutive device addresses. */
export interface DeviceSegment {
  /** Where it begins in the memory, in bytes. */
  readonly offset: number;
  readonly address: DeviceAddress;
  /** In bytes. */
  readonly length: number;
}

export class DevicePages {
  /** One little-endian 64-bit device address per page. */
  readonly addresses: BigUint64Array;
  /** The same memory as pairs of 32-bit words, low first: for arithmetic without bigints. */
  readonly words: Uint32Array;
  /** True when the device does not see the pages as one run. */
  readonly scattered: boolean;

  private constructor(addresses: BigUint64Array, scattered: boolean) {
    this.addresses = addresses;
    this.words = new Uint32Array(addresses.buffer);
    this.scattered = scattered;
  }

  /** @internal Memory that the device sees at consecutive addresses. */
  static contiguous(iova: Iova, size: number): DevicePages {
    const addresses = new BigUint64Array(Math.ceil(size / DEVICE_PAGE));
    fill(addresses, 0, addresses.length, iova);
    return new DevicePages(addresses, false);
  }

  /** @internal Memory that the device sees at its physical addresses. */
  static physical(ioas: Ioas, iova: Iova, size: number): DevicePages {
    const addresses = new BigUint64Array(Math.ceil(size / DEVICE_PAGE));
    let runs = 0;
    for (let offset = 0; offset < size; ) {
      const extent = ioas.physicalExtent((iova + BigInt(offset)) as Iova, size - offset);
      const length = Number(extent.length);
      fill(addresses, offset / DEVICE_PAGE, length / DEVICE_PAGE, extent.address);
      offset += length;
      runs++;
    }
    return new DevicePages(addresses, runs > 1);
  }

  /** The device's address of the byte at `offset`. */
  address(offset: number): DeviceAddress {
    const page = this.addresses[Math.floor(offset / DEVICE_PAGE)] as bigint;
    return (page + BigInt(offset % DEVICE_PAGE)) as DeviceAddress;
  }

  /** The runs of consecutive device addresses in `length` bytes from `offset`, as long as they can be. */
  segments(offset: number, length: number): DeviceSegment[] {
    const segments: DeviceSegment[] = [];
    const end = offset + length;
    let start = offset;
    while (start < end) {
      const first = Math.floor(start / DEVICE_PAGE);
      let next = first + 1;
      while (next * DEVICE_PAGE < end && this.#follows(next)) next++;
      const stop = Math.min(next * DEVICE_PAGE, end);
      segments.push({ offset: start, address: this.address(start), length: stop - start });
      start = stop;
    }
    return segments;
  }

  #follows(page: number): boolean {
    const { words } = this;
    const low = (words[2 * page - 2] as number) + DEVICE_PAGE;
    const carry = low > 0xffff_ffff ? 1 : 0;
    return words[2 * page] === low >>> 0 && words[2 * page + 1] === (words[2 * page - 1] as number) + carry;
  }
}

function fill(addresses: BigUint64Array, first: number, count: number, start: bigint): void {
  let address = start;
  for (let page = first; page < first + count; page++) {
    addresses[page] = address;
    address += BigInt(DEVICE_PAGE);
  }
}
