/**
 * The part of `linux/fcntl.h` that seals a memfd.
 *
 * @module
 */

/** `fcntl(2)` commands: add seals, which cannot be taken away again, and read them back. */
export const F_ADD_SEALS = 1033;
export const F_GET_SEALS = 1034;

/** No further seals. */
export const F_SEAL_SEAL = 0x0001;
/** The file cannot shrink: pages that a device may use stay. */
export const F_SEAL_SHRINK = 0x0002;
/** The file cannot grow. */
export const F_SEAL_GROW = 0x0004;
/** No writing at all; refused while a writable mapping exists. */
export const F_SEAL_WRITE = 0x0008;
/** No new writing; writable mappings that exist go on. */
export const F_SEAL_FUTURE_WRITE = 0x0010;
/** The executable bits cannot change. */
export const F_SEAL_EXEC = 0x0020;
