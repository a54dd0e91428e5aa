/**
 * The parts of `linux/fcntl.h` that seal a memfd, and that say whether a descriptor outlives `exec`.
 *
 * @module
 */

/** `fcntl(2)` commands: the flags of a descriptor, which are {@link FD_CLOEXEC} or none. */
export const F_GETFD = 1;
export const F_SETFD = 2;
/** The descriptor is closed by `exec`. */
export const FD_CLOEXEC = 1;
/** `fcntl(2)` command: another descriptor of the same open file, at least the argument, close-on-exec. */
export const F_DUPFD_CLOEXEC = 1030;

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
