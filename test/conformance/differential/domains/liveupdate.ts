/** Sequences on /dev/liveupdate, its sessions and memfds, in one kernel. @module */
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_EXEC,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../../../bindings/uapi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_HUGETLB, MFD_NOEXEC_SEAL } from '../../../../bindings/uapi/memfd.js';
import type { Pick, Weighted } from '../pick.js';
import { ioctl, latestFd, type Step, type Value } from '../step.js';

const PAGE = 4096;

/** A name, and what is left in the buffer behind it. */
function name(g: Pick): Value {
  const text = g.of('one', 'two', 'a-name-that-is-longer', 'x'.repeat(63), 'y'.repeat(8), 'z'.repeat(7));
  if (g.often(4)) return { bytes: '58'.repeat(64) };
  if (g.often(4)) return { bytes: '' };
  const bytes = `${Buffer.from(text).toString('hex')}00`;
  return { bytes: g.often(10) ? bytes.padEnd(128, 'ee') : bytes };
}

// Session descriptors are in the field `fd`, and so kept as `file`.
const session = (g: Pick): Value => g.mostly(g.fd('file'), g.fd('memfd'), g.fd('device'));
const token = (g: Pick): Value => g.of<Value>(1, 2, 3, '0xffffffffffffffff', 0);

const table: readonly Weighted[] = [
  [
    8,
    g => ({
      call: 'memfd',
      keep: 'memfd',
      flags: g.mostly(g.of(MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, 0), MFD_HUGETLB + MFD_ALLOW_SEALING),
    }),
  ],
  [6, g => ({ call: 'ftruncate', on: g.fd('memfd'), length: g.of(0, PAGE, 2 * PAGE, 5000, 3 * PAGE) })],
  [8, g => ioctl(g.fd('device'), 'LIVEUPDATE_IOCTL_CREATE_SESSION', { name: name(g) })],
  [2, g => ioctl(g.fd('device'), 'LIVEUPDATE_IOCTL_RETRIEVE_SESSION', { name: name(g) })],
  [
    14,
    g =>
      ioctl(session(g), 'LIVEUPDATE_SESSION_PRESERVE_FD', {
        token: token(g),
        fd: g.mostly(g.fd('memfd'), g.fd('event'), g.fd('device'), g.fd('file'), latestFd('none')),
      }),
  ],
  [2, g => ioctl(session(g), 'LIVEUPDATE_SESSION_RETRIEVE_FD', { token: token(g) })],
  [2, g => ioctl(session(g), 'LIVEUPDATE_SESSION_FINISH', { reserved: g.mostly(0, 1) })],
  [
    4,
    g =>
      ioctl(session(g), 'LIVEUPDATE_SESSION_GET_NAME', {
        reserved: g.mostly(0, 1),
        name: { bytes: g.of('', 'ee'.repeat(64)) },
      }),
  ],
  [4, g => ({ call: 'close', on: g.fd(g.of('file', 'file', 'memfd', 'device')) })],
  [3, () => ({ call: 'open', path: '/dev/liveupdate', keep: 'device' })],
  [
    8,
    g => ({
      call: 'write',
      on: g.fd('memfd'),
      bytes: 'ab'.repeat(g.of(1, 100, 3000)),
      ...(g.often(70) ? { offset: g.of(0, 100, PAGE - 50, 4990, 2 * PAGE - 1000) } : {}),
    }),
  ],
  [
    4,
    g => ({
      call: 'read',
      on: g.fd(g.mostly('memfd', 'file', 'device')),
      length: g.of(8, 64, 300),
      ...(g.often(70) ? { offset: g.of(0, 100, PAGE - 50, 4990) } : {}),
    }),
  ],
  [
    5,
    g => ({
      call: 'fcntl',
      on: g.fd(g.mostly('memfd', 'file')),
      command: g.often(50) ? F_GET_SEALS : F_ADD_SEALS,
      argument: g.of(
        F_SEAL_SHRINK,
        F_SEAL_GROW,
        F_SEAL_SHRINK | F_SEAL_GROW,
        F_SEAL_WRITE,
        F_SEAL_SEAL,
        F_SEAL_EXEC,
        64,
      ),
    }),
  ],
];

function disturbed(g: Pick): Step {
  const step = g.step(table);
  if (step.call !== 'ioctl') return step;
  switch (g.below(5)) {
    case 0:
      return { ...step, size: g.of(0, 4, 8, 12, 15, 71) };
    case 1:
      return { ...step, size: 128 };
    case 2:
      return { ...step, size: 128, junk: true };
    case 3:
      return { ...step, argument: 0 };
    default:
      return {
        call: 'ioctl',
        on: step.on,
        request: g.of('0xba02', '0xba44', '0xba3f', '0x3b40', '0x3b00', '0xbaff'),
      };
  }
}

const prologue: readonly Step[] = [
  { call: 'open', path: '/dev/liveupdate', keep: 'device' },
  { call: 'eventfd', keep: 'event' },
  { call: 'memfd', keep: 'memfd', flags: MFD_ALLOW_SEALING },
  { call: 'ftruncate', on: latestFd('memfd'), length: 2 * PAGE },
];

export function liveupdateSteps(g: Pick, count: number): Step[] {
  const all: readonly Weighted[] = [
    [94, () => g.step(table)],
    [6, disturbed],
  ];
  return [...prologue, ...Array.from({ length: count }, () => g.step(all))];
}
