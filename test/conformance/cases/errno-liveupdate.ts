/** Row 86 of the errno table: live update, as far as one kernel goes. The next one has cases of its own. @module */
import { E2BIG, EBADF, EBUSY, EEXIST, EFAULT, EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_GET_NAME,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
} from '../../../bindings/uapi/liveupdate.js';
import type { Request } from '../../../bindings/uapi/request.js';
import type { Struct } from '../../../bindings/uapi/struct.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { hostRows, iommufdProfiles } from '../support/errno-cases.js';
import { equal, refused, succeeds } from '../support/expect.js';
import { type Caller, call } from '../support/ioctl.js';
import { LiveUpdate, openLiveUpdate, type Session } from '../support/liveupdate.js';

const O_RDWR = 2;

/** Every size that is wrong. */
function sizes({ kernel }: Caller, fd: number, request: Request<Struct>): void {
  const issue = (size: number, last = 0): number => {
    const { bytes, view } = request.argument.allocate(8);
    view.setUint32(0, size, true);
    if (last !== 0) bytes[size - 1] = last;
    return kernel.ioctl(fd, request.number, bytes);
  };
  refused(issue(0), EINVAL, `${request.name} of size 0`);
  refused(issue(request.minimumSize - 1), EINVAL, `${request.name} of a size too small`);
  refused(issue(request.argument.size + 8, 1), E2BIG, `${request.name} with something in the tail`);
  refused(kernel.ioctl(fd, request.number, 0), EFAULT, `${request.name} without a struct`);
}

function sessionRefusals(host: ConformanceHost, session: Session, other: Session): void {
  const { kernel } = host;
  for (const request of [LIVEUPDATE_SESSION_PRESERVE_FD, LIVEUPDATE_SESSION_GET_NAME]) {
    sizes(host, session.fd, request);
  }
  const reserved = { reserved: 1 };
  refused(call(host, session.fd, LIVEUPDATE_SESSION_GET_NAME, reserved).result, EINVAL, 'reserved');
  for (const number of [0xba00, 0xba3f, 0xba44, 0xbaff]) {
    refused(kernel.ioctl(session.fd, number, 0), EINVAL, `request 0x${number.toString(16)} of a session`);
  }
  refused(session.tryPreserve(-1, 1n), EBADF, 'descriptor -1');
  refused(session.tryPreserve(10_000, 1n), EBADF, 'a descriptor that is not open');
  const unsupported = succeeds(kernel.open('/dev/iommu', O_RDWR), 'open of /dev/iommu');
  refused(session.tryPreserve(unsupported, 1n), ENOENT, 'a file that nobody preserves');
  equal(kernel.close(unsupported), 0, 'close');
  const file = succeeds(kernel.memfdCreate('file', 0), 'memfd_create');
  const second = succeeds(kernel.memfdCreate('second', 0), 'memfd_create');
  session.preserve(file, 1n);
  refused(session.tryPreserve(second, 1n), EEXIST, 'a token twice');
  refused(session.tryPreserve(-1, 1n), EEXIST, 'a token twice, before the descriptor is looked at');
  refused(session.tryPreserve(file, 2n), EBUSY, 'a file twice');
  refused(other.tryPreserve(file, 1n), EBUSY, 'a file in two sessions');
  other.preserve(second, 1n);
  // What belongs into the next kernel.
  refused(session.tryRetrieve(1n), EINVAL, 'retrieving from a session of this kernel');
  refused(session.tryFinish(), EINVAL, 'finishing it');
  const finish = call(host, session.fd, LIVEUPDATE_SESSION_FINISH, reserved);
  refused(finish.result, EINVAL, 'finishing it, reserved');
  refused(kernel.ioctl(session.fd, LIVEUPDATE_SESSION_RETRIEVE_FD.number, 0), EFAULT, 'without a struct');
  equal(kernel.close(file), 0, 'close');
  equal(kernel.close(second), 0, 'close');
}

function refusals(host: ConformanceHost): void {
  const { kernel } = host;
  using live = new LiveUpdate(host);
  refused(openLiveUpdate(host), EBUSY, 'open once more');
  for (const request of [LIVEUPDATE_IOCTL_CREATE_SESSION, LIVEUPDATE_IOCTL_RETRIEVE_SESSION]) {
    sizes(host, live.fd, request);
  }
  for (const number of [0xba02, 0xba40, 0xbaff]) {
    refused(kernel.ioctl(live.fd, number, 0), EINVAL, `request 0x${number.toString(16)}`);
  }
  refused(live.tryCreate(''), EINVAL, 'no name');
  refused(live.tryCreate(new Uint8Array(64).fill(0x58)), EINVAL, 'a name without an end');
  refused(live.tryRetrieve('nobody made it'), ENOENT, 'no such session');
  refused(live.tryRetrieve(''), ENOENT, 'retrieving no name');
  const session = live.create('errno');
  refused(live.tryCreate('errno'), EEXIST, 'a name twice');
  refused(live.tryRetrieve('errno'), ENOENT, 'a session of this kernel');
  const other = live.create('errno too');
  sessionRefusals(host, session, other);
  session.close();
  other.close();
  const again = live.create('errno');
  again.close();
}

export const cases: readonly Case[] = hostRows([[86, 'live update', refusals]], iommufdProfiles);
