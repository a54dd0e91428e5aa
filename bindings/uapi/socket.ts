/** `socket(2)` of family `AF_UNIX`, as on x86-64 and arm64 (linux/socket.h, linux/net.h, asm-generic/socket.h). @module */

export const AF_UNIX = 1;

/** Messages without a connection, which arrive in order and whole. */
export const SOCK_DGRAM = 2;
/** Messages over a connection, which arrive in order and whole. */
export const SOCK_SEQPACKET = 5;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;

export const SOL_SOCKET = 1;
/** A control message of descriptors. */
export const SCM_RIGHTS = 1;

/** More control messages came than there was room for, or descriptors than could be made. */
export const MSG_CTRUNC = 0x08;
/** The message was longer than the buffer. */
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
/** No `SIGPIPE`. */
export const MSG_NOSIGNAL = 0x4000;
/** Received descriptors are close-on-exec. */
export const MSG_CMSG_CLOEXEC = 0x4000_0000;
