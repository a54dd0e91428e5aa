/** Sequences on live-update sessions in two halves, with a kexec between them. @module */
import { F_ADD_SEALS, F_GET_SEALS } from '../../../../bindings/uapi/fcntl.js';
import { MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL } from '../../../../bindings/uapi/memfd.js';
import type { Pick, Weighted } from '../pick.js';
import { ioctl, latestFd, type Step, type Value } from '../step.js';

const PAGE = 4096;
const CALLS = 25;

/** A name that no other sequence has. */
function name(g: Pick, index: number): Value {
  return { bytes: Buffer.from(`sequence-${index}-${g.below(3)}`).toString('hex') };
}

const device = latestFd('device');
const token = (g: Pick): Value => 1 + g.below(4);

/** What can be done to a memfd, in either kernel. */
const onMemory = (kind: string): readonly Weighted[] => [
  [2, g => ({ call: 'ftruncate', on: g.fd(kind), length: g.of(0, PAGE, 2 * PAGE, 5000, 3 * PAGE) })],
  [
    4,
    g => ({
      call: 'write',
      on: g.fd(kind),
      bytes: g.of('ab', 'cd', '01').repeat(g.of(1, 100, 3000)),
      ...(g.often(60) ? { offset: g.of(0, 100, PAGE - 50, 2 * PAGE - 1000) } : {}),
    }),
  ],
  [
    4,
    g => ({
      call: 'read',
      on: g.fd(kind),
      length: g.of(8, 64, 300),
      ...(g.often(40) ? { offset: g.of(0, 100, PAGE - 50, 2 * PAGE - 1000) } : {}),
    }),
  ],
  [2, g => ({ call: 'fcntl', on: g.fd(kind), command: F_GET_SEALS, argument: 0 })],
  [1, g => ({ call: 'fcntl', on: g.fd(kind), command: F_ADD_SEALS, argument: g.of(1, 2, 4, 6, 8, 16, 32) })],
];

const create = (g: Pick, index: number): Step =>
  ioctl(device, 'LIVEUPDATE_IOCTL_CREATE_SESSION', { name: name(g, index) }, 'session');

/** What is open at the end stays so, but for the device. */
export function beforeKexec(g: Pick, index: number): Step[] {
  const table: readonly Weighted[] = [
    [
      3,
      each => ({
        call: 'memfd',
        keep: 'memfd',
        flags: each.of(MFD_ALLOW_SEALING, MFD_ALLOW_SEALING, MFD_NOEXEC_SEAL, 0),
      }),
    ],
    [3, each => create(each, index)],
    [
      8,
      each =>
        ioctl(each.fd('session'), 'LIVEUPDATE_SESSION_PRESERVE_FD', {
          token: token(each),
          fd: each.fd('memfd'),
        }),
    ],
    [1, each => ({ call: 'close', on: each.fd(each.of('session', 'memfd', 'memfd')) })],
    ...onMemory('memfd'),
  ];
  return [
    { call: 'open', path: '/dev/liveupdate', keep: 'device' },
    create(g, index),
    { call: 'memfd', keep: 'memfd', flags: MFD_ALLOW_SEALING },
    { call: 'ftruncate', on: latestFd('memfd'), length: 2 * PAGE },
    ...Array.from({ length: CALLS }, () => g.step(table)),
    { call: 'close', on: device },
  ];
}

export function afterKexec(g: Pick, index: number): Step[] {
  const retrieve = (each: Pick): Step =>
    ioctl(device, 'LIVEUPDATE_IOCTL_RETRIEVE_SESSION', { name: name(each, index) }, 'session');
  const table: readonly Weighted[] = [
    [4, retrieve],
    [2, each => ioctl(device, 'LIVEUPDATE_IOCTL_CREATE_SESSION', { name: name(each, index) }, 'new')],
    [9, each => ioctl(each.fd('session'), 'LIVEUPDATE_SESSION_RETRIEVE_FD', { token: token(each) }, 'memfd')],
    [
      3,
      each =>
        ioctl(each.fd('new'), 'LIVEUPDATE_SESSION_PRESERVE_FD', { token: token(each), fd: each.fd('memfd') }),
    ],
    [
      1,
      each =>
        ioctl(each.fd('session'), 'LIVEUPDATE_SESSION_PRESERVE_FD', {
          token: token(each),
          fd: each.fd('memfd'),
        }),
    ],
    [1, each => ioctl(each.fd('session'), 'LIVEUPDATE_SESSION_FINISH', {})],
    [1, each => ioctl(each.fd('session'), 'LIVEUPDATE_SESSION_GET_NAME', {})],
    [1, each => ({ call: 'close', on: each.fd(each.of('session', 'memfd', 'new')) })],
    ...onMemory('memfd'),
  ];
  return [
    { call: 'open', path: '/dev/liveupdate', keep: 'device' },
    retrieve(g),
    ...Array.from({ length: CALLS }, () => g.step(table)),
  ];
}
