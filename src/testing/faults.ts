/**
 * A kernel that lies: system calls that fail when a test says so.
 *
 * {@link faulty} wraps any kernel, real or simulated. {@link allFailures} lets the first call of a scenario fail, then
 * the second, and so on, and looks after each run whether anything was left behind.
 *
 * @module
 */
import type { SyscallResult, Syscalls, Watch } from '../../bindings/syscalls.js';
import {
  EADDRINUSE,
  ECONNREFUSED,
  ECONNRESET,
  EIO,
  EMFILE,
  ENOMEM,
  EPIPE,
} from '../../bindings/uapi/errno.js';
import { F_DUPFD_CLOEXEC } from '../../bindings/uapi/fcntl.js';
import type { Request } from '../../bindings/uapi/request.js';
import { type Random, random } from '../sim/random.js';

/** The calls that can fail. `view` and `addressOf` are not calls to the kernel. */
export type FallibleCall = Exclude<keyof Syscalls, 'view' | 'addressOf'>;

/** Which calls fail. What is not told does not matter; a fault without `nth` and `oneIn` is for every use. */
export interface Fault {
  readonly call?: FallibleCall;
  /** For `ioctl`: the request. */
  readonly request?: Request | number;
  /** What the path has in it, or that of the file behind the descriptor; see {@link CallRecord.file}. */
  readonly file?: string | RegExp;
  /** A positive errno, or what chooses one. */
  readonly errno: number | ((call: FallibleCall) => number);
  /** The one use that fails: 1 for the first of those that all the above is true of. */
  readonly nth?: number;
  /** One use in so many fails, on average. Needs a seed. */
  readonly oneIn?: number;
  /** Calls of which this is false are no uses. */
  readonly where?: (call: CallRecord) => boolean;
}

/** A call that was made. */
export interface CallRecord {
  /** Counted from 1. */
  readonly index: number;
  readonly call: FallibleCall;
  /** Of an `ioctl`. */
  readonly request: number | undefined;
  /**
   * The path of the call, or that by which its descriptor was opened; `memfd`, `eventfd` and `socket` for those,
   * `received` for a descriptor that came in a message, and `ioctl` for one that a request gave.
   */
  readonly file: string | undefined;
  /** Whose call it was: see {@link FaultyKernel.beside}. */
  readonly process: string | undefined;
}

/** A call that failed because it was told to. */
export interface Injection extends CallRecord {
  readonly errno: number;
}

/** `#12 ioctl 0x3b85 on /dev/iommu: errno 12`, with `of <process>` where there are several. */
export function describeInjection({ index, call, request, file, process, errno }: Injection): string {
  const what = [call, request === undefined ? undefined : `0x${request.toString(16)}`];
  const where = file === undefined ? '' : ` on ${file}`;
  const whose = process === undefined ? '' : ` of ${process}`;
  return `#${index} ${what.filter(part => part !== undefined).join(' ')}${where}${whose}: errno ${errno}`;
}

/** @returns a kernel that passes all calls on but those of the script. @throws RangeError for a script that makes no sense */
export function faulty(kernel: Syscalls, script: readonly Fault[], seed?: number): FaultyKernel {
  return new FaultyKernel(kernel, new Script(script, seed), undefined);
}

interface Armed {
  readonly fault: Fault;
  uses: number;
}

/** A script that is being carried out, by one kernel or by several. */
class Script {
  readonly injected: Injection[] = [];
  calls = 0;
  counting = true;
  readonly #armed: readonly Armed[];
  readonly #random: Random | undefined;

  constructor(faults: readonly Fault[], seed: number | undefined) {
    for (const { errno, nth, oneIn } of faults) {
      if (typeof errno === 'number' && !(errno >= 1))
        throw new RangeError(`errno must be positive, got ${errno}`);
      if (nth !== undefined && !(nth >= 1)) throw new RangeError(`nth counts from 1, got ${nth}`);
      if (oneIn !== undefined && seed === undefined) throw new RangeError('oneIn needs a seed');
    }
    this.#armed = faults.map(fault => ({ fault, uses: 0 }));
    this.#random = seed === undefined ? undefined : random(seed);
  }

  /** @returns minus the errno when the call is to fail, 0 otherwise */
  enter(call: Omit<CallRecord, 'index'>): number {
    if (!this.counting) return 0;
    const record: CallRecord = { index: ++this.calls, ...call };
    let errno = 0;
    for (const armed of this.#armed) {
      if (!concerns(armed.fault, record)) continue;
      armed.uses++;
      // Every fault counts and draws, whichever one strikes.
      if (!this.#strikes(armed) || errno !== 0) continue;
      errno = typeof armed.fault.errno === 'number' ? armed.fault.errno : armed.fault.errno(record.call);
    }
    if (errno !== 0) this.injected.push({ ...record, errno });
    return -errno;
  }

  #strikes({ fault, uses }: Armed): boolean {
    if (fault.nth !== undefined && uses !== fault.nth) return false;
    return fault.oneIn === undefined || this.#random?.chance(fault.oneIn) === true;
  }
}

/** Made by {@link faulty}. */
export class FaultyKernel implements Syscalls {
  readonly #kernel: Syscalls;
  readonly #script: Script;
  readonly #process: string | undefined;
  /** What descriptors refer to. */
  readonly #files = new Map<number, string>();

  /** @internal */
  constructor(kernel: Syscalls, script: Script, process: string | undefined) {
    this.#kernel = kernel;
    this.#script = script;
    this.#process = process;
  }

  /**
   * The kernel of another process, with this script: calls of all of them are counted together.
   *
   * @param process what {@link CallRecord.process} calls it
   */
  beside(kernel: Syscalls, process: string): FaultyKernel {
    return new FaultyKernel(kernel, this.#script, process);
  }

  /** What failed on purpose, in order. */
  get injected(): readonly Injection[] {
    return this.#script.injected;
  }

  /** How many calls were made that can fail. */
  get calls(): number {
    return this.#script.calls;
  }

  /** While false, no call counts and none fails: for what comes before and after that which is tested. True at first. */
  get counting(): boolean {
    return this.#script.counting;
  }

  set counting(counting: boolean) {
    this.#script.counting = counting;
  }

  /** What was injected, a line for each, for the message of a test that fails. */
  get log(): string {
    return this.injected.map(describeInjection).join('\n');
  }

  /** @returns minus the errno when the call is to fail, 0 otherwise */
  #enter(call: FallibleCall, about: number | string | undefined, request?: number): number {
    const file = typeof about === 'number' ? this.#files.get(about) : about;
    return this.#script.enter({ call, request, file, process: this.#process });
  }

  #opened(fd: SyscallResult, file: string): SyscallResult {
    if (fd >= 0) this.#files.set(fd, file);
    return fd;
  }

  open(path: string, flags: number): SyscallResult {
    return this.#enter('open', path) || this.#opened(this.#kernel.open(path, flags), path);
  }

  /** The descriptor is gone even then, as `close(2)` has it. */
  close(fd: number): SyscallResult {
    const errno = this.#enter('close', fd);
    this.#files.delete(fd);
    const result = this.#kernel.close(fd);
    return result < 0 ? result : errno;
  }

  ioctl(fd: number, request: number, argument: Uint8Array | number): SyscallResult {
    return this.#enter('ioctl', fd, request) || this.#kernel.ioctl(fd, request, argument);
  }

  read(fd: number, buffer: Uint8Array): SyscallResult {
    return this.#enter('read', fd) || this.#kernel.read(fd, buffer);
  }

  write(fd: number, buffer: Uint8Array): SyscallResult {
    return this.#enter('write', fd) || this.#kernel.write(fd, buffer);
  }

  pread(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    return this.#enter('pread', fd) || this.#kernel.pread(fd, buffer, offset);
  }

  pwrite(fd: number, buffer: Uint8Array, offset: number): SyscallResult {
    return this.#enter('pwrite', fd) || this.#kernel.pwrite(fd, buffer, offset);
  }

  fcntl(fd: number, command: number, argument: number): SyscallResult {
    const errno = this.#enter('fcntl', fd);
    if (errno < 0) return errno;
    const result = this.#kernel.fcntl(fd, command, argument);
    const file = this.#files.get(fd);
    return command === F_DUPFD_CLOEXEC && file !== undefined ? this.#opened(result, file) : result;
  }

  ftruncate(fd: number, length: number): SyscallResult {
    return this.#enter('ftruncate', fd) || this.#kernel.ftruncate(fd, length);
  }

  fchmod(fd: number, mode: number): SyscallResult {
    return this.#enter('fchmod', fd) || this.#kernel.fchmod(fd, mode);
  }

  memfdCreate(name: string, flags: number): SyscallResult {
    return (
      this.#enter('memfdCreate', 'memfd') || this.#opened(this.#kernel.memfdCreate(name, flags), 'memfd')
    );
  }

  eventfd(initial: number, flags: number): SyscallResult {
    return this.#enter('eventfd', 'eventfd') || this.#opened(this.#kernel.eventfd(initial, flags), 'eventfd');
  }

  mmap(length: number, protection: number, flags: number, fd: number, offset: number): bigint {
    const errno = this.#enter('mmap', fd);
    return errno === 0 ? this.#kernel.mmap(length, protection, flags, fd, offset) : BigInt(errno);
  }

  /** The range is unmapped even then: a refusal that left it mapped could only be for arguments that are wrong. */
  munmap(address: bigint, length: number): SyscallResult {
    const errno = this.#enter('munmap', undefined);
    const result = this.#kernel.munmap(address, length);
    return result < 0 ? result : errno;
  }

  madvise(address: bigint, length: number, advice: number): SyscallResult {
    return this.#enter('madvise', undefined) || this.#kernel.madvise(address, length, advice);
  }

  view(address: bigint, length: number): ArrayBuffer {
    return this.#kernel.view(address, length);
  }

  addressOf(bytes: Uint8Array): bigint {
    return this.#kernel.addressOf(bytes);
  }

  watch(fd: number, onReadable: () => void): Watch {
    const errno = this.#enter('watch', fd);
    if (errno < 0) throw Object.assign(new Error(`watch refused: errno ${-errno}`), { errno: -errno });
    return this.#kernel.watch(fd, onReadable);
  }

  readText(path: string): string | SyscallResult {
    return this.#enter('readText', path) || this.#kernel.readText(path);
  }

  writeText(path: string, text: string): SyscallResult {
    return this.#enter('writeText', path) || this.#kernel.writeText(path, text);
  }

  readDirectory(path: string): string[] | SyscallResult {
    return this.#enter('readDirectory', path) || this.#kernel.readDirectory(path);
  }

  readLink(path: string): string | SyscallResult {
    return this.#enter('readLink', path) || this.#kernel.readLink(path);
  }

  access(path: string, mode: number): SyscallResult {
    return this.#enter('access', path) || this.#kernel.access(path, mode);
  }

  socket(type: number): SyscallResult {
    return this.#enter('socket', 'socket') || this.#opened(this.#kernel.socket(type), 'socket');
  }

  socketPair(type: number): readonly [number, number] | SyscallResult {
    const errno = this.#enter('socketPair', 'socket');
    if (errno < 0) return errno;
    const pair = this.#kernel.socketPair(type);
    if (typeof pair !== 'number') for (const fd of pair) this.#opened(fd, 'socket');
    return pair;
  }

  bind(fd: number, path: string): SyscallResult {
    return this.#enter('bind', path) || this.#kernel.bind(fd, path);
  }

  listen(fd: number, backlog: number): SyscallResult {
    return this.#enter('listen', fd) || this.#kernel.listen(fd, backlog);
  }

  accept(fd: number): SyscallResult {
    return this.#enter('accept', fd) || this.#opened(this.#kernel.accept(fd), 'socket');
  }

  connect(fd: number, path: string): SyscallResult {
    return this.#enter('connect', path) || this.#kernel.connect(fd, path);
  }

  sendMessage(fd: number, bytes: Uint8Array, fds: readonly number[]): SyscallResult {
    return this.#enter('sendMessage', fd) || this.#kernel.sendMessage(fd, bytes, fds);
  }

  /** The message waits on when this fails. */
  receiveMessage(
    fd: number,
    buffer: Uint8Array,
  ): { readonly length: number; readonly fds: readonly number[] } | SyscallResult {
    const errno = this.#enter('receiveMessage', fd);
    if (errno < 0) return errno;
    const message = this.#kernel.receiveMessage(fd, buffer);
    if (typeof message !== 'number') for (const each of message.fds) this.#opened(each, 'received');
    return message;
  }

  unlink(path: string): SyscallResult {
    return this.#enter('unlink', path) || this.#kernel.unlink(path);
  }

  kexecFileLoad(kernel: number, initrd: number, commandLine: string, flags: number): SyscallResult {
    return (
      this.#enter('kexecFileLoad', kernel) || this.#kernel.kexecFileLoad(kernel, initrd, commandLine, flags)
    );
  }

  reboot(command: number): SyscallResult {
    return this.#enter('reboot', undefined) || this.#kernel.reboot(command);
  }
}

function concerns(fault: Fault, record: CallRecord): boolean {
  const { call, request, file } = record;
  if (fault.where?.(record) === false) return false;
  if (fault.call !== undefined && fault.call !== call) return false;
  if (fault.request !== undefined) {
    const number = typeof fault.request === 'number' ? fault.request : fault.request.number;
    if (request !== number) return false;
  }
  if (fault.file === undefined) return true;
  if (file === undefined) return false;
  return typeof fault.file === 'string' ? file.includes(fault.file) : fault.file.test(file);
}

/** What {@link allFailures} saw of one run. */
export interface FailureRun {
  /** The call that failed. */
  readonly injection: Injection;
  /** What the scenario threw; undefined when it coped with the failure. */
  readonly error: unknown;
  /** What was there afterwards and had not been before. */
  readonly left: readonly string[];
}

export interface SweepOptions {
  /**
   * The errno of the failure. Unless told, ENOMEM; EMFILE for calls that make descriptors, EIO for those on files, and
   * what a peer that is gone makes of those on sockets.
   */
  readonly errno?: number;
  /** Calls of which this is false do not fail: what they are about happens as often as it likes. */
  readonly where?: (call: CallRecord) => boolean;
  /** A scenario that is not through after so many calls has no end; 10000 unless told. */
  readonly limit?: number;
}

const usual: Partial<Record<FallibleCall, number>> = {
  open: EMFILE,
  memfdCreate: EMFILE,
  eventfd: EMFILE,
  socket: EMFILE,
  socketPair: EMFILE,
  accept: EMFILE,
  bind: EADDRINUSE,
  listen: EADDRINUSE,
  connect: ECONNREFUSED,
  sendMessage: EPIPE,
  receiveMessage: ECONNRESET,
  close: EIO,
  read: EIO,
  write: EIO,
  pread: EIO,
  pwrite: EIO,
  readText: EIO,
  writeText: EIO,
};

/** The errno that a call fails with in {@link allFailures} unless told. */
export function usualErrno(call: FallibleCall): number {
  return usual[call] ?? ENOMEM;
}

/** What a run of {@link allFailures} begins with: a machine of its own, or one that all share. */
export interface Stage {
  readonly kernel: Syscalls;
  /** What processes and machine hold now, each under a name. */
  readonly holdings: () => readonly string[];
}

/**
 * Runs a scenario again and again: first with its first system call failing, then with its second, and so on until it
 * makes no call that has not failed once.
 *
 * @param stage called before each run
 * @param scenario gets a kernel, does something and undoes it
 * @returns every run. It is for the test to say which `left` is as it must be: when the very call fails that gives
 * something back, it may stay
 * @throws whatever the scenario throws when nothing was injected
 */
export async function allFailures(
  stage: () => Stage,
  scenario: (kernel: FaultyKernel) => void | Promise<void>,
  options: SweepOptions = {},
): Promise<FailureRun[]> {
  const { errno, where, limit = 10_000 } = options;
  const runs: FailureRun[] = [];
  for (let nth = 1; nth <= limit; nth++) {
    const { kernel, holdings } = stage();
    const fault: Fault = { nth, errno: errno ?? usualErrno, ...(where && { where }) };
    const wrapped = faulty(kernel, [fault]);
    const before = holdings();
    let error: unknown;
    try {
      await scenario(wrapped);
    } catch (caught) {
      error = caught;
    }
    const [injection] = wrapped.injected;
    if (injection === undefined) {
      if (error !== undefined) throw error;
      return runs;
    }
    runs.push({ injection, error, left: without(holdings(), before) });
  }
  throw new Error(`the scenario still makes new calls after ${limit}`);
}

function without(after: readonly string[], before: readonly string[]): string[] {
  const rest = [...before];
  return after.filter(each => {
    const at = rest.indexOf(each);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}
