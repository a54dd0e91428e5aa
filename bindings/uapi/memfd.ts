/**
 * `linux/memfd.h`: the flags of `memfd_create(2)`.
 *
 * @module
 */

export const MFD_CLOEXEC = 0x0001;
export const MFD_ALLOW_SEALING = 0x0002;
export const MFD_HUGETLB = 0x0004;
/** Not executable, and sealed so. */
export const MFD_NOEXEC_SEAL = 0x0008;
export const MFD_EXEC = 0x0010;

// With MFD_HUGETLB, the base-2 logarithm of the huge page size goes into the six topmost bits; 0 means the
// system's default size.
export const MFD_HUGE_SHIFT = 26;
export const MFD_HUGE_MASK = 0x3f;

// Multiplied, not shifted: a JavaScript shift would make the largest one negative.
export const MFD_HUGE_64KB = 16 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_512KB = 19 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_1MB = 20 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_2MB = 21 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_8MB = 23 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_16MB = 24 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_32MB = 25 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_256MB = 28 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_512MB = 29 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_1GB = 30 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_2GB = 31 * 2 ** MFD_HUGE_SHIFT;
export const MFD_HUGE_16GB = 34 * 2 ** MFD_HUGE_SHIFT;
