/** Where the regions of a device lie in its file: 1 TiB each. @module */

const SHIFT = 40n;

/** The offset of a region, in bytes. */
export function regionOffset(index: number): bigint {
  return BigInt(index) << SHIFT;
}

/** The region that a place in the file is in, and where in it. */
export function regionOf(place: bigint | number): { readonly index: number; readonly offset: number } {
  const at = BigInt.asUintN(64, BigInt(place));
  return { index: Number(at >> SHIFT), offset: Number(at & ((1n << SHIFT) - 1n)) };
}
