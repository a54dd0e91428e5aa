/** `eventfd(2)` flags, as on x86-64 and arm64 (linux/eventfd.h). @module */

export const EFD_SEMAPHORE = 1;
export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;
