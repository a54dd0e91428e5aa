// Live update on the simulated host: what a session takes, what crosses a kexec, and what is gone after it.
import t from 'tap';
import { EBADF, EBUSY, EEXIST, EINVAL, ENOENT, ENOTTY, EPERM } from '../../bindings/uapi/errno.js';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_EXEC,
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from '../../bindings/uapi/fcntl.js';
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_GET_NAME,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
  liveupdate_ioctl_create_session,
  liveupdate_session_finish,
  liveupdate_session_get_name,
  liveupdate_session_preserve_fd,
} from '../../bindings/uapi/liveupdate.js';
import { MFD_ALLOW_SEALING, MFD_HUGETLB, MFD_NOEXEC_SEAL } from '../../bindings/uapi/memfd.js';
import { kexec } from '../../src/sim/kexec.js';
import { LiveUpdate } from '../../src/sim/liveupdate/live-update.js';
import type { Preserved } from '../../src/sim/liveupdate/preserved.js';
import { PhysicalMemory } from '../../src/sim/machine/physical-memory.js';
import { Directory } from '../../src/sim/process/file-tree.js';
import type { MemFd } from '../../src/sim/process/memfd.js';
import { SimulatedProcess } from '../../src/sim/process/process.js';
import { processHost } from './support/sim-process-host.js';

const PAGE = 4096;
const KEPT = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

/** One kernel with one process. */
class Kernel {
  readonly physical: PhysicalMemory;
  readonly liveUpdate: LiveUpdate;
  readonly files = new Directory();
  readonly process: SimulatedProcess;
  mastersCleared = false;

  constructor(physical = new PhysicalMemory({ size: 2 ** 28 }), preserved?: Preserved) {
    this.physical = physical;
    this.liveUpdate = new LiveUpdate(physical, preserved);
    this.files.directory('dev').set('liveupdate', this.liveUpdate.node);
    this.process = new SimulatedProcess(processHost(physical, this.files), 100);
  }

  kexec(): Kernel {
    const { physical, preserved } = kexec({
      physical: this.physical,
      processes: [this.process],
      liveUpdate: this.liveUpdate,
      clearBusMasters: () => {
        this.mastersCleared = true;
      },
    });
    return new Kernel(physical, preserved);
  }

  open(): number {
    return this.process.open('/dev/liveupdate', 2);
  }

  /** Makes or retrieves a session. */
  session(device: number, name: string | Uint8Array, retrieve = false): number {
    const { bytes, view } = liveupdate_ioctl_create_session.allocate();
    liveupdate_ioctl_create_session.encode(view, { size: bytes.byteLength, name: Buffer.from(name) });
    const request = retrieve ? LIVEUPDATE_IOCTL_RETRIEVE_SESSION : LIVEUPDATE_IOCTL_CREATE_SESSION;
    const result = this.process.ioctl(device, request.number, bytes);
    return result < 0 ? result : liveupdate_ioctl_create_session.get(view, 'fd');
  }

  preserve(session: number, fd: number, token: bigint): number {
    const { bytes, view } = liveupdate_session_preserve_fd.allocate();
    liveupdate_session_preserve_fd.encode(view, { size: bytes.byteLength, fd, token });
    return this.process.ioctl(session, LIVEUPDATE_SESSION_PRESERVE_FD.number, bytes);
  }

  retrieve(session: number, token: bigint): number {
    const { bytes, view } = liveupdate_session_preserve_fd.allocate();
    liveupdate_session_preserve_fd.encode(view, { size: bytes.byteLength, token });
    const result = this.process.ioctl(session, LIVEUPDATE_SESSION_RETRIEVE_FD.number, bytes);
    return result < 0 ? result : liveupdate_session_preserve_fd.get(view, 'fd');
  }

  finish(session: number, reserved = 0): number {
    const { bytes, view } = liveupdate_session_finish.allocate();
    liveupdate_session_finish.encode(view, { size: bytes.byteLength, reserved });
    return this.process.ioctl(session, LIVEUPDATE_SESSION_FINISH.number, bytes);
  }

  memfd(pages: number, seals = 0, flags = MFD_ALLOW_SEALING): number {
    const fd = this.process.memfdCreate('data', flags);
    this.process.ftruncate(fd, pages * PAGE);
    if (seals) this.process.fcntl(fd, F_ADD_SEALS, seals);
    return fd;
  }

  frames(fd: number): (number | undefined)[] {
    const { memory } = this.process.file(fd) as MemFd;
    return Array.from({ length: memory.pages }, (_, page) => memory.frameIfPresent(page));
  }
}

t.test('one opener, and what is refused', t => {
  const kernel = new Kernel();
  const { process } = kernel;
  const device = kernel.open();
  t.equal(kernel.open(), -EBUSY);
  t.equal(kernel.session(device, ''), -EINVAL);
  t.equal(kernel.session(device, 'X'.repeat(64)), -EINVAL, 'no room for the NUL');
  const one = kernel.session(device, 'one');
  t.equal(kernel.session(device, 'one'), -EEXIST);
  const long = kernel.session(device, 'A'.repeat(63));
  t.ok(long > one);
  t.equal(process.close(device), 0);
  const again = kernel.open();
  t.ok(again > 0, 'sessions go on without the device');
  t.equal(kernel.session(again, 'one'), -EEXIST);
  t.equal(kernel.session(again, 'one', true), -ENOENT, 'it is not from the kernel before');

  const memfd = kernel.memfd(1);
  t.equal(kernel.preserve(one, 99, 1n), -EBADF);
  t.equal(kernel.preserve(one, process.eventfd(0, 0), 1n), -ENOENT);
  t.equal(kernel.preserve(one, process.memfdCreate('huge', MFD_HUGETLB), 1n), -ENOENT);
  t.equal(kernel.preserve(one, memfd, 1n), 0);
  t.equal(kernel.preserve(one, 99, 1n), -EEXIST, 'the token comes first');
  t.equal(kernel.preserve(one, memfd, 2n), -EBUSY);
  t.equal(kernel.preserve(long, memfd, 1n), -EBUSY, 'nor in another session');
  t.equal(kernel.retrieve(one, 1n), -EINVAL, 'only after a kexec');
  t.equal(kernel.finish(one), -EINVAL);
  t.equal(process.ioctl(one, 0xba44, new Uint8Array(8)), -EINVAL, 'no such request');
  t.equal(process.ioctl(one, 0x3b40, new Uint8Array(8)), -ENOTTY, 'of another kind');
  t.equal(process.ioctl(one, LIVEUPDATE_SESSION_PRESERVE_FD.number, 0), -14, 'no struct');

  const { bytes, view } = liveupdate_session_get_name.allocate(8);
  const size = liveupdate_session_get_name.size;
  liveupdate_session_get_name.encode(view, { size: size + 8 });
  t.equal(process.ioctl(long, LIVEUPDATE_SESSION_GET_NAME.number, bytes), 0);
  t.equal(Buffer.from(bytes.subarray(8, 72)).toString(), `${'A'.repeat(63)}\0`);
  bytes[size + 3] = 1;
  t.equal(
    process.ioctl(long, LIVEUPDATE_SESSION_GET_NAME.number, bytes),
    -7,
    'what it does not know is not 0',
  );
  liveupdate_session_get_name.encode(view, { size, reserved: 1 });
  t.equal(process.ioctl(long, LIVEUPDATE_SESSION_GET_NAME.number, bytes), -EINVAL);
  liveupdate_session_get_name.encode(view, { size: size - 1 });
  t.equal(process.ioctl(long, LIVEUPDATE_SESSION_GET_NAME.number, bytes), -EINVAL);
  t.end();
});

t.test('preserving freezes and pins; closing the session undoes both', t => {
  const kernel = new Kernel();
  const { process, physical } = kernel;
  const session = kernel.session(kernel.open(), 's');
  const used = physical.usedPages;
  const memfd = kernel.memfd(3);
  process.pwrite(memfd, Uint8Array.of(1, 2, 3), 0);
  t.equal(kernel.preserve(session, memfd, 1n), 0);
  t.equal(physical.usedPages, used + 3, 'holes are filled');
  t.equal(physical.pinnedPages, 3);
  t.equal(process.ftruncate(memfd, PAGE), -EPERM);
  t.equal(process.ftruncate(memfd, 4 * PAGE), -EPERM);
  t.equal(process.ftruncate(memfd, 3 * PAGE), 0, 'the size that it has');
  t.equal(process.pwrite(memfd, Uint8Array.of(9), 3 * PAGE), -EPERM, 'does not grow');
  t.equal(process.pwrite(memfd, Uint8Array.of(9), 5), 1, 'can be written');
  t.equal(process.close(memfd), 0);
  t.equal(physical.usedPages, used + 3, 'the session holds the file');
  t.equal(process.close(session), 0);
  t.equal(physical.usedPages, used, 'and nobody any more');
  t.equal(physical.pinnedPages, 0);

  const other = kernel.memfd(1);
  const next = kernel.session(process.openFiles.keys().next().value as number, 's');
  t.equal(kernel.preserve(next, other, 1n), 0);
  process.close(next);
  t.equal(process.ftruncate(other, 8 * PAGE), 0, 'thawed');
  t.end();
});

t.test('memory, seals and position cross a kexec, in the same frames', t => {
  const old = new Kernel();
  const { process } = old;
  const device = old.open();
  const session = old.session(device, 'kept');
  const empty = old.session(device, 'empty');
  const memfd = old.memfd(3, KEPT);
  t.equal(old.preserve(session, memfd, 7n), 0);
  t.equal(old.preserve(session, old.memfd(0), 8n), 0);
  const lost = old.memfd(2);
  process.pwrite(lost, new Uint8Array(2 * PAGE).fill(1), 0);
  process.read(memfd, new Uint8Array(10));
  process.pwrite(memfd, Uint8Array.of(1, 2, 3), 2 * PAGE);
  const late = old.memfd(0);
  t.equal(old.preserve(session, late, 9n), 0);
  t.equal(process.fcntl(late, F_ADD_SEALS, F_SEAL_WRITE), 0);
  const frames = old.frames(memfd);
  t.equal(new Set(frames).size, 3);

  const next = old.kexec();
  t.equal(old.mastersCleared, true);
  t.equal(next.physical.usedPages, 3, 'all else is free');
  t.equal(next.physical.pinnedPages, 0);
  const seen = new Uint8Array(3);
  next.physical.read(BigInt(frames[2] as number) * 4096n, seen);
  t.same([...seen], [1, 2, 3], 'in place before anybody asks for it');
  next.physical.write(BigInt(frames[2] as number) * 4096n, Uint8Array.of(9));

  const again = next.open();
  t.equal(next.session(again, 'nobody', true), -ENOENT);
  const kept = next.session(again, 'kept', true);
  t.ok(kept > 0);
  t.equal(next.session(again, 'kept', true), -EINVAL, 'once');
  t.equal(next.preserve(kept, 99, 1n), -EINVAL, 'it takes nothing more');
  t.equal(next.retrieve(kept, 10n), -ENOENT);
  t.equal(next.process.fcntl(next.retrieve(kept, 9n), F_GET_SEALS, 0), 0, 'seals of before, not of after');
  const file = next.retrieve(kept, 7n);
  t.same(next.frames(file), frames);
  t.equal(next.process.pread(file, seen, 2 * PAGE), 3);
  t.same([...seen], [9, 2, 3], 'with what a device wrote in between');
  t.equal(next.process.fcntl(file, F_GET_SEALS, 0), KEPT);
  t.equal((next.process.file(file) as MemFd).position, 10);
  t.equal((next.process.file(file) as MemFd).name, '/memfd: (deleted)');
  const second = next.retrieve(kept, 7n);
  t.not(second, file);
  t.equal(next.process.file(second), next.process.file(file), 'another descriptor of the same file');
  t.equal((next.process.file(next.retrieve(kept, 8n)) as MemFd).memory.size, 0);

  const onwards = next.session(again, 'kept');
  t.ok(onwards > 0, 'the name is free for a new one');
  t.equal(next.preserve(onwards, file, 1n), -EBUSY, 'it is in the old one until that is finished');
  t.equal(next.finish(kept, 1), -EINVAL);
  t.equal(next.finish(kept), 0);
  t.equal(next.finish(kept), 0);
  t.equal(next.retrieve(kept, 7n), -ENOENT);
  t.equal(next.preserve(onwards, file, 1n), 0);
  next.process.close(kept);
  t.equal(next.session(again, 'kept', true), -ENOENT);
  t.ok(next.session(again, 'empty', true) > 0);

  const third = next.kexec();
  const session3 = third.session(third.open(), 'kept', true);
  t.same(third.frames(third.retrieve(session3, 1n)), frames);
  t.ok(empty > 0);
  t.end();
});

t.test('what nobody retrieves', t => {
  const old = new Kernel();
  const device = old.open();
  const names = ['closed', 'finished', 'parked'];
  for (const name of names) t.equal(old.preserve(old.session(device, name), old.memfd(2), 1n), 0);
  const next = old.kexec();
  t.equal(next.physical.usedPages, 6);
  const again = next.open();
  next.process.close(next.session(again, 'closed', true));
  t.equal(next.physical.usedPages, 4, 'closing finishes');
  next.finish(next.session(again, 'finished', true));
  t.equal(next.physical.usedPages, 2, 'finishing frees');
  const third = next.kexec();
  t.equal(third.physical.usedPages, 0, 'what is parked is held until the next kexec, and no longer');
  t.equal(third.session(third.open(), 'parked', true), -ENOENT);
  t.end();
});

t.test('a memfd that may not be executed comes back sealed against writing', t => {
  const old = new Kernel();
  const memfd = old.memfd(1, 0, MFD_NOEXEC_SEAL);
  t.equal(old.process.fcntl(memfd, F_GET_SEALS, 0), F_SEAL_EXEC);
  t.equal(old.preserve(old.session(old.open(), 's'), memfd, 1n), 0);
  const next = old.kexec();
  const file = next.retrieve(next.session(next.open(), 's', true), 1n);
  // The new file is executable, and the kernel seals that for good only together with its content.
  const all = F_SEAL_EXEC | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
  t.equal(next.process.fcntl(file, F_GET_SEALS, 0), all);
  t.end();
});

t.test('the old kernel leads nowhere', t => {
  const old = new Kernel();
  const device = old.open();
  const session = old.session(device, 's');
  const memfd = old.memfd(1);
  old.preserve(session, memfd, 1n);
  const next = old.kexec();
  t.equal(old.process.ended, true);
  t.equal(old.process.close(session), -EBADF, 'and un-preserves nothing');
  t.throws(() => old.process.pwrite(memfd, Uint8Array.of(1), 0), /has ended/);
  old.process.exit();
  t.equal(next.physical.usedPages, 1);
  const frames = Array.from({ length: 100 }, () => {
    const fd = next.memfd(1);
    return (next.process.file(fd) as MemFd).memory.frame(0);
  });
  t.equal(new Set(frames).size, 100);
  const kept = next.frames(next.retrieve(next.session(next.open(), 's', true), 1n))[0];
  t.notOk(frames.includes(kept), 'nobody else gets what was kept');
  t.end();
});
