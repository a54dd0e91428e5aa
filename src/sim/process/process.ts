/**
 * A process on the simulated machine: its descriptors, memory, privileges and accounts, and the system calls it makes.
 *
 * @module
 */
import { checkMessage, checkSocketType, socketAddress } from '../../../bindings/socket-arguments.js';
import type { SyscallResult, Syscalls, Watch } from '../../../bindings/syscalls.js';
import {
  EACCES,
  EBADF,
  EEXIST,
  EFAULT,
  EINVAL,
  ENODEV,
  ENOENT,
  ENOMEM,
  ENOTDIR,
  ENXIO,
  EPERM,
} from '../../../bindings/uapi/errno.js';
import { EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE } from '../../../bindings/uapi/eventfd.js';
import { F_SEAL_EXEC, F_SEAL_SEAL } from '../../../bindings/uapi/fcntl.js';
import { LINUX_REBOOT_CMD_KEXEC } from '../../../bindings/uapi/kexec.js';
import {
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  MFD_EXEC,
  MFD_HUGE_MASK,
  MFD_HUGE_SHIFT,
  MFD_HUGETLB,
  MFD_NOEXEC_SEAL,
} from '../../../bindings/uapi/memfd.js';
import {
  MAP_ANONYMOUS,
  MAP_HUGETLB,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_WRITE,
} from '../../../bindings/uapi/mman.js';
import { MemoryObject } from '../machine/memory-object.js';
import { PAGE, type PhysicalMemory } from '../machine/physical-memory.js';
import type { NextKernel } from '../next-kernel.js';
import { AddressSpace } from './address-space.js';
import { DescriptorTable } from './descriptor-table.js';
import { EventFd } from './eventfd.js';
import { type DirectoryNode, type FileNode, readNode, resolve } from './file-tree.js';
import { MemFd } from './memfd.js';
import type { OpenFile } from './open-file.js';
import { descriptorFile } from './proc-files.js';
import { ProcessEnded } from './process-ended.js';
import { makePair, receiveMessage, sendMessage, socketOf } from './socket-calls.js';
import type { SocketNamespace } from './socket-namespace.js';
import { TextFile } from './text-file.js';
import { UnixSocket } from './unix-socket.js';

/** What a process may be allowed beyond others. */
export const Capability = {
  IpcLock: 'CAP_IPC_LOCK',
  SysRawio: 'CAP_SYS_RAWIO',
  SysResource: 'CAP_SYS_RESOURCE',
  SysAdmin: 'CAP_SYS_ADMIN',
  SysBoot: 'CAP_SYS_BOOT',
} as const;
export type Capability = (typeof Capability)[keyof typeof Capability];

/** What a user has locked, over all of their processes (struct user_struct). */
export interface User {
  /** In pages. */
  lockedPages: number;
}

/** What a process needs of the kernel that it runs on. */
export interface ProcessHost {
  readonly physical: PhysicalMemory;
  readonly files: DirectoryNode;
  readonly sockets: SocketNamespace;
  readonly nextKernel: NextKernel;
  /** Replaces the kernel by the one that is loaded. @returns 0: all processes are gone; or minus the errno */
  reboot(): number;
  /** A process has ended. */
  ended(process: SimulatedProcess): void;
}

const NAME_MAX_MEMFD = 249;
const HUGE_2M = 2 ** 21;
const KNOWN_MEMFD_FLAGS = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_NOEXEC_SEAL | MFD_EXEC;
/** A timer this long from now keeps the event loop alive, and nothing else. */
const FOREVER_MS = 2 ** 31 - 1;

export class SimulatedProcess implements Syscalls {
  readonly pid: number;
  readonly host: ProcessHost;
  readonly memory: AddressSpace;
  readonly capabilities: Set<Capability>;
  readonly user: User;
  /** Soft limit, in bytes. */
  memlockLimit: number;
  /** `VmPin`, in pages. */
  pinnedPages = 0;
  /** `VmLck`, in pages. */
  lockedPages = 0;
  /** As `/proc/thread-self/fail-nth` has it. */
  failNth = 0;
  #ended = false;
  readonly #descriptors = new DescriptorTable();
  readonly #watched = new Map<number, Disposable>();

  constructor(
    host: ProcessHost,
    pid: number,
    options: { capabilities?: Iterable<Capability>; user?: User; memlockLimit?: number } = {},
  ) {
    this.host = host;
    this.pid = pid;
    this.memory = new AddressSpace(host.physical);
    this.capabilities = new Set(options.capabilities ?? Object.values(Capability));
    this.user = options.user ?? { lockedPages: 0 };
    this.memlockLimit = options.memlockLimit ?? 8 * 2 ** 20;
  }

  // Descriptors

  /** The open file behind a descriptor. */
  file(fd: number): OpenFile | undefined {
    return this.#descriptors.get(fd);
  }

  /** Descriptors in use, and what they refer to. */
  get openFiles(): ReadonlyMap<number, OpenFile> {
    return this.#descriptors.files;
  }

  /** The lowest free descriptor for `file`, taking over the caller's reference. @returns minus EMFILE when there is none */
  install(file: OpenFile, closeOnExec = true): number {
    return this.#descriptors.install(file, closeOnExec);
  }

  /** Gives another process, or this one, a descriptor of the same open file, as SCM_RIGHTS and `fork` do. */
  share(fd: number, other: SimulatedProcess): number {
    const file = this.file(fd);
    return file === undefined ? -EBADF : other.install(file.get());
  }

  /** The process ends: its descriptors are closed and its memory goes. */
  exit(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const watch of [...this.#watched.values()]) watch[Symbol.dispose]();
    for (const fd of this.openFiles.keys()) this.close(fd);
    this.memory.clear();
    this.host.ended(this);
  }

  /**
   * The process is gone, with the kernel under it: nothing is closed and nothing is given back. Closing what it held is
   * EBADF from now on.
   */
  vanish(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const watch of [...this.#watched.values()]) watch[Symbol.dispose]();
    this.#descriptors.forget();
  }

  get ended(): boolean {
    return this.#ended;
  }

  // System calls

  open(path: string, flags: number): SyscallResult {
    this.#alive();
    text('path', path);
    integer('flags', flags);
    const node = this.#resolve(path);
    if (typeof node === 'number') return node;
    if (node.kind !== 'device' && node.kind !== 'text') return -ENXIO;
    const file = node.kind === 'text' ? TextFile.open(path, node, flags) : node.open(this, flags);
    return typeof file === 'number' ? file : this.install(file);
  }

  close(fd: number): SyscallResult {
    descriptor(fd);
    return this.#descriptors.close(fd);
  }

  ioctl(fd: number, request: number, argument: Uint8Array | number): SyscallResult {
    this.#alive();
    descriptor(fd);
    integer('request', request);
    if (typeof argument !== 'number') bytes('argument', argument);
    else integer('argument', argument);
    return this.file(fd)?.ioctl(this, request >>> 0, argument) ?? -EBADF;
  }

  read(fd: number, buffer: Uint8Array): SyscallResult {
    this.#alive();
    descriptor(fd);
    bytes('buffer', buffer);
    return this.file(fd)?.read(this, buffer) ?? -EBADF;
  }

  write(fd: number, buffer: Uint8Array): SyscallResult {
    this.#alive();
    descriptor(fd);
    bytes('buffer', buffer);
    return this.file(fd)?.write(this, buffer) ?? -EBADF;
  }

  pread(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    bytes('buffer', buffer);
    size('offset', offset);
    return this.file(fd)?.pread(this, buffer, offset) ?? -EBADF;
  }

  pwrite(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    bytes('buffer', buffer);
    size('offset', offset);
    return this.file(fd)?.pwrite(this, buffer, offset) ?? -EBADF;
  }

  fcntl(fd: number, command: number, argument: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    integer('command', command);
    integer('argument', argument);
    const controlled = this.#descriptors.control(fd, command, argument);
    return controlled ?? this.file(fd)?.fcntl(this, command, argument) ?? -EBADF;
  }

  ftruncate(fd: number, length: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    size('length', length);
    return this.file(fd)?.ftruncate(this, length) ?? -EBADF;
  }

  /** There are no modes: what a process may do depends on its capabilities alone. */
  fchmod(fd: number, mode: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    integer('mode', mode);
    if (mode < 0 || mode > 0o7777) throw new RangeError(`mode must be from 0 to 0o7777, got ${mode}`);
    return this.file(fd) === undefined ? -EBADF : 0;
  }

  memfdCreate(name: string, flags: number): SyscallResult {
    this.#alive();
    text('name', name);
    integer('flags', flags);
    const huge = (flags & MFD_HUGETLB) !== 0;
    const sizeBits = huge ? MFD_HUGE_MASK * 2 ** MFD_HUGE_SHIFT : 0;
    if ((flags >>> 0) & ~(KNOWN_MEMFD_FLAGS | sizeBits)) return -EINVAL;
    if (flags & MFD_EXEC && flags & MFD_NOEXEC_SEAL) return -EINVAL;
    if (Buffer.byteLength(name) > NAME_MAX_MEMFD) return -EINVAL;
    const log2 = ((flags >>> 0) >>> MFD_HUGE_SHIFT) & MFD_HUGE_MASK;
    // Huge pages of 2 MiB are all that this machine has.
    if (huge && log2 !== 0 && log2 !== 21) return -ENODEV;
    const sealing = flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    const seals = (sealing ? 0 : F_SEAL_SEAL) | (flags & MFD_NOEXEC_SEAL ? F_SEAL_EXEC : 0);
    const memory = new MemoryObject(this.host.physical, name, 0, huge ? HUGE_2M : PAGE);
    return this.install(
      new MemFd(name, memory, seals, (flags & MFD_NOEXEC_SEAL) === 0),
      (flags & MFD_CLOEXEC) !== 0,
    );
  }

  eventfd(initial: number, flags: number): SyscallResult {
    this.#alive();
    integer('initial', initial);
    integer('flags', flags);
    if (flags & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) return -EINVAL;
    return this.install(new EventFd(initial, flags), (flags & EFD_CLOEXEC) !== 0);
  }

  mmap(length: number, protection: number, flags: number, fd: number, offset: number): bigint {
    this.#alive();
    size('length', length);
    integer('protection', protection);
    integer('flags', flags);
    descriptor(fd);
    size('offset', offset);
    if (offset % PAGE !== 0) return BigInt(-EINVAL);
    const file = flags & MAP_ANONYMOUS ? undefined : this.file(fd);
    if (file === undefined && !(flags & MAP_ANONYMOUS)) return BigInt(-EBADF);
    if (length === 0 || !(flags & (MAP_SHARED | MAP_PRIVATE))) return BigInt(-EINVAL);
    // Both together are MAP_SHARED_VALIDATE, which is for files.
    if (file === undefined && flags & MAP_SHARED && flags & MAP_PRIVATE) return BigInt(-EINVAL);
    const rounded = Math.ceil(length / PAGE) * PAGE;
    const writeable = (protection & PROT_WRITE) !== 0;
    if (file === undefined) {
      if (rounded > this.host.physical.size) return BigInt(-ENOMEM);
      const huge = (flags & MAP_HUGETLB) !== 0;
      const pageSize = huge ? HUGE_2M : PAGE;
      const whole = Math.ceil(length / pageSize) * pageSize;
      const memory = new MemoryObject(this.host.physical, '[anonymous]', whole, pageSize);
      // Huge pages are promised when they are mapped, not when they are touched.
      if (huge && !memory.populate(0, whole / PAGE)) {
        memory.put();
        return BigInt(-ENOMEM);
      }
      const anonymous = { length: whole, memory, offset: 0, writeable, shared: false, device: false };
      return this.memory.map({ ...anonymous, unmapped: undefined });
    }
    const mappable = file.mmap(this, rounded, protection, flags, offset);
    if (typeof mappable === 'number') return BigInt(mappable);
    file.get();
    return this.memory.map({
      length: rounded,
      memory: mappable.memory,
      offset: mappable.offset,
      writeable,
      shared: true,
      device: !(file instanceof MemFd),
      unmapped: () => {
        mappable.unmapped?.();
        file.put();
      },
    });
  }

  munmap(address: bigint, length: number): SyscallResult {
    checkAddress(address);
    size('length', length);
    return this.memory.unmap(address, length);
  }

  madvise(address: bigint, length: number, advice: number): SyscallResult {
    checkAddress(address);
    size('length', length);
    integer('advice', advice);
    return this.memory.find(address) === undefined ? -ENOMEM : 0;
  }

  view(address: bigint, length: number): ArrayBuffer {
    checkAddress(address);
    size('length', length);
    const mapping = this.memory.find(address);
    if (mapping === undefined) throw new RangeError(`nothing is mapped at 0x${address.toString(16)}`);
    const { memory } = mapping;
    const whole = mapping.start === address && mapping.offset === 0 && memory.buffer.byteLength === length;
    if (!whole) {
      throw new RangeError(
        `on the simulated host memory can only be viewed as a whole: ${memory.name} has ${memory.buffer.byteLength} bytes, ` +
          `${length} were asked for`,
      );
    }
    return memory.buffer;
  }

  addressOf(value: Uint8Array): bigint {
    bytes('bytes', value);
    return this.memory.addressOf(value);
  }

  watch(fd: number, onReadable: () => void): Watch {
    descriptor(fd);
    if (typeof onReadable !== 'function') throw new TypeError('onReadable must be a function');
    const file = this.file(fd);
    if (file === undefined || file.readable === 'never' || this.#watched.has(fd)) {
      const errno = file === undefined ? EBADF : file.readable === 'never' ? EPERM : EEXIST;
      throw Object.assign(new Error(`descriptor ${fd} cannot be watched (errno ${errno})`), { errno });
    }
    let open = true;
    let scheduled = false;
    let alive: NodeJS.Timeout | undefined;
    let wanted = true;
    // Level-triggered, from the event loop, and never from within the call that made it readable.
    const check = (): void => {
      if (!open || scheduled || file.readable !== true) return;
      scheduled = true;
      setImmediate(() => {
        scheduled = false;
        if (!open || file.readable !== true) return;
        onReadable();
        check();
      });
    };
    const hold = (): void => {
      clearTimeout(alive);
      alive = wanted && open ? setTimeout(hold, FOREVER_MS) : undefined;
    };
    const stop = file.onReadable(check);
    const watch: Watch = {
      ref() {
        wanted = true;
        hold();
      },
      unref() {
        wanted = false;
        hold();
      },
      [Symbol.dispose]: () => {
        if (!open) return;
        open = false;
        hold();
        stop();
        this.#watched.delete(fd);
      },
    };
    this.#watched.set(fd, watch);
    hold();
    check();
    return watch;
  }

  readText(path: string): string | SyscallResult {
    this.#alive();
    text('path', path);
    const node = this.#resolve(path);
    return typeof node === 'number' ? node : readNode(this, node);
  }

  writeText(path: string, content: string): SyscallResult {
    this.#alive();
    text('path', path);
    text('text', content);
    const node = this.#resolve(path);
    if (typeof node === 'number') return node;
    if (node.kind !== 'text' || node.write === undefined) return -EACCES;
    const result = node.write(this, content);
    return result < 0 ? result : Buffer.byteLength(content);
  }

  readDirectory(path: string): string[] | SyscallResult {
    this.#alive();
    text('path', path);
    const node = this.#resolve(path);
    if (typeof node === 'number') return node;
    return node.kind === 'directory' ? [...node.names()].sort() : -ENOTDIR;
  }

  readLink(path: string): string | SyscallResult {
    this.#alive();
    text('path', path);
    const node = this.#resolve(path, false);
    if (typeof node === 'number') return node;
    return node.kind === 'link' ? node.target() : -EINVAL;
  }

  access(path: string, mode: number): SyscallResult {
    this.#alive();
    text('path', path);
    integer('mode', mode);
    const node = this.#resolve(path);
    return typeof node === 'number' ? node : 0;
  }

  socket(type: number): SyscallResult {
    this.#alive();
    checkSocketType(type);
    return this.install(new UnixSocket(type));
  }

  socketPair(type: number): readonly [number, number] | SyscallResult {
    this.#alive();
    checkSocketType(type);
    return makePair(this, type);
  }

  bind(fd: number, path: string): SyscallResult {
    this.#alive();
    descriptor(fd);
    socketAddress(path);
    const socket = socketOf(this, fd);
    return typeof socket === 'number' ? socket : this.host.sockets.bind(socket, path);
  }

  listen(fd: number, backlog: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    integer('backlog', backlog);
    const socket = socketOf(this, fd);
    return typeof socket === 'number' ? socket : socket.listen(backlog);
  }

  accept(fd: number): SyscallResult {
    this.#alive();
    descriptor(fd);
    const socket = socketOf(this, fd);
    const accepted = typeof socket === 'number' ? socket : socket.accept();
    return typeof accepted === 'number' ? accepted : this.install(accepted);
  }

  connect(fd: number, path: string): SyscallResult {
    this.#alive();
    descriptor(fd);
    socketAddress(path);
    const socket = socketOf(this, fd);
    if (typeof socket === 'number') return socket;
    const other = this.host.sockets.find(socket, path);
    return typeof other === 'number' ? other : socket.connect(other);
  }

  sendMessage(fd: number, payload: Uint8Array, fds: readonly number[]): SyscallResult {
    this.#alive();
    descriptor(fd);
    checkMessage(payload, fds);
    for (const each of fds) descriptor(each);
    return sendMessage(this, fd, payload, fds);
  }

  receiveMessage(
    fd: number,
    buffer: Uint8Array,
  ): { readonly length: number; readonly fds: readonly number[] } | SyscallResult {
    this.#alive();
    descriptor(fd);
    bytes('buffer', buffer);
    return receiveMessage(this, fd, buffer);
  }

  unlink(path: string): SyscallResult {
    this.#alive();
    text('path', path);
    return path === '' ? -ENOENT : this.host.sockets.unlink(path);
  }

  kexecFileLoad(kernel: number, initrd: number, commandLine: string, flags: number): SyscallResult {
    this.#alive();
    descriptor(kernel);
    descriptor(initrd);
    text('command line', commandLine);
    size('flags', flags);
    return this.host.nextKernel.load(this, kernel, initrd, commandLine, flags);
  }

  /** @throws ProcessEnded where Linux would not return */
  reboot(command: number): SyscallResult {
    this.#alive();
    word('command', command);
    if (!this.capabilities.has(Capability.SysBoot)) return -EPERM;
    if (command !== LINUX_REBOOT_CMD_KEXEC) throw new Error(`reboot: command ${command} is not simulated`);
    const result = this.host.reboot();
    if (result < 0) return result;
    throw new ProcessEnded(this.pid);
  }

  #resolve(path: string, follow = true): FileNode | number {
    if (path === '') return -ENOENT;
    return descriptorFile(this, path) ?? resolve(this.host.files, path, follow);
  }

  #alive(): void {
    if (this.#ended) throw new ProcessEnded(this.pid);
  }

  /** To be asked wherever something may fail although nobody did anything wrong: whether it is to fail now. */
  shouldFail(): boolean {
    return this.failNth > 0 && --this.failNth === 0;
  }

  /**
   * User memory for a request of the kernel's.
   *
   * @returns the bytes, or minus EFAULT
   */
  copyIn(address: bigint, length: number): Uint8Array | number {
    if (this.shouldFail()) return -EFAULT;
    const found = this.memory.read(address, length);
    return typeof found === 'number' ? found : found.slice();
  }

  /** @returns 0, or minus EFAULT */
  copyOut(address: bigint, data: Uint8Array): number {
    if (this.shouldFail()) return -EFAULT;
    return address === 0n && data.byteLength > 0 ? -EFAULT : this.memory.write(address, data);
  }
}

function integer(title: string, value: number): void {
  if (typeof value !== 'number') throw new TypeError(`${title} must be a number, got ${typeof value}`);
  if (!Number.isInteger(value)) throw new RangeError(`${title} must be an integer, got ${value}`);
}

function size(title: string, value: number): void {
  integer(title, value);
  if (value < 0 || value > Number.MAX_SAFE_INTEGER)
    throw new RangeError(`${title} is out of range: ${value}`);
}

function word(title: string, value: number): void {
  integer(title, value);
  if (value < -0x8000_0000 || value > 0xffff_ffff) throw new RangeError(`${title} is out of range: ${value}`);
}

function descriptor(fd: number): void {
  integer('file descriptor', fd);
  if (fd < -1 || fd > 0x7fff_ffff) throw new RangeError(`file descriptor is out of range: ${fd}`);
}

function bytes(title: string, value: Uint8Array): void {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${title} must be a Uint8Array`);
}

function text(title: string, value: string): void {
  if (typeof value !== 'string') throw new TypeError(`${title} must be a string, got ${typeof value}`);
  if (value.includes('\0')) throw new RangeError(`${title} must not contain NUL`);
}

function checkAddress(value: bigint): void {
  if (typeof value !== 'bigint') throw new TypeError(`address must be a bigint, got ${typeof value}`);
  if (value <= 0n || value > 0xffff_ffff_ffff_ffffn) throw new RangeError('address must be a mapped address');
}
