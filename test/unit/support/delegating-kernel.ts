/**
 * A kernel that passes every call to the real one, notes it, and can be told to refuse the next call of a name.
 * Models of what needs privileges or hardware override single calls.
 *
 * @module
 */
import { linux } from '../../../bindings/linux.js';
import type { SyscallResult, Syscalls, Watch } from '../../../bindings/syscalls.js';
import { EPERM } from '../../../bindings/uapi/errno.js';

export class DelegatingKernel implements Syscalls {
  /** The name of every call made, in order; of an ioctl, the name of the request. */
  readonly calls: string[] = [];
  /** Lengths by address of what is mapped now. */
  readonly mapped = new Map<bigint, number>();
  protected readonly real = linux();
  readonly #refusals = new Map<string, { errno: number; after: number }>();

  /** Refuses a call of this name once, after letting `after` of them pass. */
  refuse(call: string, errno: number, after = 0): void {
    this.#refusals.set(call, { errno, after });
  }

  /** Forgets what was noted and what was to be refused. */
  forget(): void {
    this.calls.length = 0;
    this.#refusals.clear();
  }

  /** How often a call was made. */
  count(call: string): number {
    return this.calls.filter(name => name === call).length;
  }

  /** Notes a call. Returns minus the errno to refuse it with, or 0. */
  #enter(call: string): SyscallResult {
    this.calls.push(call);
    const refusal = this.#refusals.get(call);
    if (!refusal || refusal.after-- > 0) return 0;
    this.#refusals.delete(call);
    return -refusal.errno;
  }

  #run<T>(call: string, action: () => T): T | SyscallResult {
    return this.#enter(call) || action();
  }

  #attempt<T>(call: string, action: () => T): T {
    const refused = this.#enter(call);
    if (refused < 0) throw new Error(`${call} refused`);
    return action();
  }

  /** What an ioctl on `fd` is called. */
  protected requestName(_fd: number, _request: number): string {
    return 'ioctl';
  }

  /** Answers an ioctl. */
  protected answer(fd: number, request: number, argument: Uint8Array | number): SyscallResult {
    return this.real.ioctl(fd, request, argument);
  }

  open(path: string, flags: number): SyscallResult {
    return this.#run('open', () => this.openFile(path, flags));
  }

  protected openFile(path: string, flags: number): SyscallResult {
    return this.real.open(path, flags);
  }

  close(fd: number): SyscallResult {
    const refused = this.#enter('close');
    return this.real.close(fd) || refused;
  }

  ioctl(fd: number, request: number, argument: Uint8Array | number): SyscallResult {
    return this.#run(this.requestName(fd, request), () => this.answer(fd, request, argument));
  }

  read(fd: number, buffer: Uint8Array): SyscallResult {
    return this.#run('read', () => this.real.read(fd, buffer));
  }

  write(fd: number, buffer: Uint8Array): SyscallResult {
    return this.#run('write', () => this.real.write(fd, buffer));
  }

  pread(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    return this.#run('pread', () => this.real.pread(fd, buffer, offset));
  }

  pwrite(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    return this.#run('pwrite', () => this.real.pwrite(fd, buffer, offset));
  }

  fcntl(fd: number, command: number, argument: number): SyscallResult {
    return this.#run('fcntl', () => this.real.fcntl(fd, command, argument));
  }

  ftruncate(fd: number, length: number): SyscallResult {
    return this.#run('ftruncate', () => this.real.ftruncate(fd, length));
  }

  fchmod(fd: number, mode: number): SyscallResult {
    return this.#run('fchmod', () => this.real.fchmod(fd, mode));
  }

  memfdCreate(name: string, flags: number): SyscallResult {
    return this.#run('memfdCreate', () => this.real.memfdCreate(name, flags));
  }

  eventfd(initial: number, flags: number): SyscallResult {
    return this.#run('eventfd', () => this.real.eventfd(initial, flags));
  }

  mmap(length: number, protection: number, flags: number, fd: number, offset: number): bigint {
    const address = BigInt(this.#run('mmap', () => this.real.mmap(length, protection, flags, fd, offset)));
    if (address > 0n) this.mapped.set(address, length);
    return address;
  }

  munmap(address: bigint, length: number): SyscallResult {
    const refused = this.#enter('munmap');
    if (this.mapped.get(address) !== length)
      throw new Error(`munmap of what is not mapped, 0x${address.toString(16)}`);
    this.mapped.delete(address);
    return this.real.munmap(address, length) || refused;
  }

  madvise(address: bigint, length: number, advice: number): SyscallResult {
    return this.#run('madvise', () => this.real.madvise(address, length, advice));
  }

  view(address: bigint, length: number): ArrayBuffer {
    return this.#attempt('view', () => this.real.view(address, length));
  }

  addressOf(bytes: Uint8Array): bigint {
    return this.real.addressOf(bytes);
  }

  watch(fd: number, onReadable: () => void): Watch {
    return this.#attempt('watch', () => this.real.watch(fd, onReadable));
  }

  readText(path: string): string | SyscallResult {
    return this.#run('readText', () => this.real.readText(path));
  }

  writeText(path: string, text: string): SyscallResult {
    return this.#run('writeText', () => this.real.writeText(path, text));
  }

  readDirectory(path: string): string[] | SyscallResult {
    return this.#run('readDirectory', () => this.real.readDirectory(path));
  }

  readLink(path: string): string | SyscallResult {
    return this.#run('readLink', () => this.real.readLink(path));
  }

  access(path: string, mode: number): SyscallResult {
    return this.#run('access', () => this.real.access(path, mode));
  }

  socket(type: number): SyscallResult {
    return this.#run('socket', () => this.real.socket(type));
  }

  socketPair(type: number): readonly [number, number] | SyscallResult {
    return this.#run('socketPair', () => this.real.socketPair(type));
  }

  bind(fd: number, path: string): SyscallResult {
    return this.#run('bind', () => this.real.bind(fd, path));
  }

  listen(fd: number, backlog: number): SyscallResult {
    return this.#run('listen', () => this.real.listen(fd, backlog));
  }

  accept(fd: number): SyscallResult {
    return this.#run('accept', () => this.real.accept(fd));
  }

  connect(fd: number, path: string): SyscallResult {
    return this.#run('connect', () => this.real.connect(fd, path));
  }

  sendMessage(fd: number, bytes: Uint8Array, fds: readonly number[]): SyscallResult {
    return this.#run('sendMessage', () => this.real.sendMessage(fd, bytes, fds));
  }

  receiveMessage(
    fd: number,
    buffer: Uint8Array,
  ): { readonly length: number; readonly fds: readonly number[] } | SyscallResult {
    return this.#run('receiveMessage', () => this.real.receiveMessage(fd, buffer));
  }

  unlink(path: string): SyscallResult {
    return this.#run('unlink', () => this.real.unlink(path));
  }

  /** Refused: the machine of a test goes on. */
  kexecFileLoad(_kernel: number, _initrd: number, _commandLine: string, _flags: number): SyscallResult {
    return this.#enter('kexecFileLoad') || -EPERM;
  }

  /** Refused: the machine of a test goes on. */
  reboot(_command: number): SyscallResult {
    return this.#enter('reboot') || -EPERM;
  }
}
