/**
 * `linux/liveupdate.h`: /dev/liveupdate and its sessions, which carry descriptors across a kexec.
 *
 * The first two requests go to /dev/liveupdate, the others to the descriptor of a session. `size` follows the
 * same rules as in iommufd, but a request the kernel does not know fails with EINVAL, not ENOTTY, and so does
 * a reserved field that is not zero.
 *
 * @module
 */

import { request } from './request.js';
import { array, s32, struct, u8, u32, u64 } from './struct.js';

/** The ioctl type. */
export const LIVEUPDATE_IOCTL_TYPE = 0xba;

/** The bytes of a session's name, the terminating NUL included. */
export const LIVEUPDATE_SESSION_NAME_LENGTH = 64;

// The low byte of each request number.
export const LIVEUPDATE_CMD_BASE = 0x00;
export const LIVEUPDATE_CMD_CREATE_SESSION = 0x00;
export const LIVEUPDATE_CMD_RETRIEVE_SESSION = 0x01;
export const LIVEUPDATE_CMD_SESSION_BASE = 0x40;
export const LIVEUPDATE_CMD_SESSION_PRESERVE_FD = 0x40;
export const LIVEUPDATE_CMD_SESSION_RETRIEVE_FD = 0x41;
export const LIVEUPDATE_CMD_SESSION_FINISH = 0x42;
export const LIVEUPDATE_CMD_SESSION_GET_NAME = 0x43;

/** Makes a session before the kexec; `fd` comes back. For {@link LIVEUPDATE_IOCTL_CREATE_SESSION}. */
export const liveupdate_ioctl_create_session = struct('liveupdate_ioctl_create_session', {
  size: u32,
  fd: s32,
  name: array(u8, LIVEUPDATE_SESSION_NAME_LENGTH),
});
export const LIVEUPDATE_IOCTL_CREATE_SESSION = request(
  'LIVEUPDATE_IOCTL_CREATE_SESSION',
  0xba00,
  liveupdate_ioctl_create_session,
);

/**
 * Opens, after the kexec, the session of that name; `fd` comes back. For
 * {@link LIVEUPDATE_IOCTL_RETRIEVE_SESSION}.
 */
export const liveupdate_ioctl_retrieve_session = struct('liveupdate_ioctl_retrieve_session', {
  size: u32,
  fd: s32,
  name: array(u8, LIVEUPDATE_SESSION_NAME_LENGTH),
});
export const LIVEUPDATE_IOCTL_RETRIEVE_SESSION = request(
  'LIVEUPDATE_IOCTL_RETRIEVE_SESSION',
  0xba01,
  liveupdate_ioctl_retrieve_session,
);

/**
 * Puts a descriptor into a session, under a token of the caller's choice. For
 * {@link LIVEUPDATE_SESSION_PRESERVE_FD}.
 */
export const liveupdate_session_preserve_fd = struct('liveupdate_session_preserve_fd', {
  size: u32,
  fd: s32,
  token: u64,
});
export const LIVEUPDATE_SESSION_PRESERVE_FD = request(
  'LIVEUPDATE_SESSION_PRESERVE_FD',
  0xba40,
  liveupdate_session_preserve_fd,
);

/**
 * Takes the descriptor of that token out again, after the kexec. For {@link LIVEUPDATE_SESSION_RETRIEVE_FD}.
 */
export const liveupdate_session_retrieve_fd = struct('liveupdate_session_retrieve_fd', {
  size: u32,
  fd: s32,
  token: u64,
});
export const LIVEUPDATE_SESSION_RETRIEVE_FD = request(
  'LIVEUPDATE_SESSION_RETRIEVE_FD',
  0xba41,
  liveupdate_session_retrieve_fd,
);

/**
 * Ends a retrieved session: the kernel forgets what it kept for it. For {@link LIVEUPDATE_SESSION_FINISH}.
 */
export const liveupdate_session_finish = struct('liveupdate_session_finish', { size: u32, reserved: u32 });
export const LIVEUPDATE_SESSION_FINISH = request(
  'LIVEUPDATE_SESSION_FINISH',
  0xba42,
  liveupdate_session_finish,
);

/** Reads a session's name, which /proc may cut short. For {@link LIVEUPDATE_SESSION_GET_NAME}. */
export const liveupdate_session_get_name = struct('liveupdate_session_get_name', {
  size: u32,
  reserved: u32,
  name: array(u8, LIVEUPDATE_SESSION_NAME_LENGTH),
});
export const LIVEUPDATE_SESSION_GET_NAME = request(
  'LIVEUPDATE_SESSION_GET_NAME',
  0xba43,
  liveupdate_session_get_name,
);
