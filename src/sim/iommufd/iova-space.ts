/** Which IOVAs of an address space can be mapped. @module */
import { EADDRINUSE, EEXIST, EINVAL, EOVERFLOW } from '../../../bindings/uapi/errno.js';
import type { IommuDevice } from '../iommu/domain.js';
import { AreaSet } from './area.js';
import { type Interval, overlap, U64_MAX } from './intervals.js';
import { chooseIova } from './iova-choice.js';

interface Reserved extends Interval {
  readonly owner: unknown;
}

export class IovaSpace {
  readonly areas = new AreaSet();
  /** IOVAs that nothing can be mapped at, by ascending start; they may overlap. */
  readonly reserved: Reserved[] = [];
  /** IOVAs that must not become reserved. */
  allowed: readonly Interval[] = [];
  /** What IOVAs and lengths are multiples of. */
  iovaAlignment = 1n;

  /** An IOVA for memory at `address`. @returns minus the errno */
  protected choose(address: bigint, length: bigint): bigint | number {
    const { areas, reserved, allowed, iovaAlignment: alignment } = this;
    return chooseIova({ allowed, mapped: areas.covered, reserved, alignment }, address, length);
  }

  /** Whether something can be mapped there. @returns 0, or minus EINVAL, EOVERFLOW or EEXIST */
  protected check(iova: bigint, length: bigint): number {
    if (iova % this.iovaAlignment !== 0n) return -EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return -EOVERFLOW;
    if (this.reserved.some(each => overlap(each, { first: iova, last }))) return -EINVAL;
    return this.areas.find(iova, last) === undefined ? 0 : -EEXIST;
  }

  /** Nothing can be mapped in the range from now on. @returns 0, or minus EADDRINUSE */
  reserveIova(first: bigint, last: bigint, owner: unknown): number {
    if (this.areas.find(first, last) !== undefined) return -EADDRINUSE;
    if (this.allowed.some(each => overlap(each, { first, last }))) return -EADDRINUSE;
    const at = this.reserved.findIndex(each => each.first > first);
    this.reserved.splice(at < 0 ? this.reserved.length : at, 0, { first, last, owner });
    return 0;
  }

  /** Undoes all that was reserved for `owner`. */
  removeReservedIova(owner: unknown): void {
    for (let i = this.reserved.length - 1; i >= 0; i--) {
      if (this.reserved[i]?.owner === owner) this.reserved.splice(i, 1);
    }
  }

  /** Reserves what the device needs for itself, with the device as the owner. @returns 0, or minus EADDRINUSE */
  enforceReservedRegions(device: IommuDevice): number {
    for (const { first, last, kind } of device.reservedRegions) {
      if (kind === 'direct-relaxable') continue;
      const result = this.reserveIova(first, last, device);
      if (result < 0) {
        this.removeReservedIova(device);
        return result;
      }
    }
    return 0;
  }

  /** Replaces the IOVAs that must not become reserved. @returns 0, or minus EADDRINUSE, with nothing changed */
  setAllowIova(allowed: readonly Interval[]): number {
    if (allowed.some(range => this.reserved.some(each => overlap(each, range)))) return -EADDRINUSE;
    this.allowed = allowed;
    return 0;
  }
}
