/**
 * The system-call boundary: exactly the calls this library makes, and what each one promises.
 *
 * Everything above takes a {@link Syscalls}. `linux.ts` issues the real calls; a simulated host answers the
 * same calls with the same bytes, the same errno and the same ordering rules.
 *
 * Conventions, as at the kernel's own boundary:
 * - A call returns its result, which is never negative, or **minus the errno**. It never throws for what the
 *   kernel refuses; callers turn the number into a `KernelError` that knows what was being attempted.
 * - A call throws `TypeError` or `RangeError` for an argument that cannot be passed at all (a descriptor that is
 *   not an integer, say), before anything is issued: the foreign-function layer would truncate it silently.
 * - File offsets and lengths are `number`s: VFIO region offsets (`index << 40`) are below 2^53. Memory addresses
 *   are `bigint`s.
 * - `EINTR` is retried inside `read`, `write`, `pread`, `pwrite`, `accept`, `sendMessage` and `receiveMessage`; no
 *   caller sees it.
 *
 * @module
 */

/** A result that is never negative, or minus the errno. */
export type SyscallResult = number;

/** A registration made by {@link Syscalls.watch}. */
export interface Watch extends Disposable {
  /** Lets the process end although this watch is active. */
  unref(): void;
  /** Keeps the process alive while this watch is active (the default). */
  ref(): void;
}

export interface Syscalls {
  /** `open(2)` without `O_CREAT`. The descriptor is always opened `O_CLOEXEC`, whatever `flags` says. */
  open(path: string, flags: number): SyscallResult;

  /** `close(2)`. The descriptor is gone afterwards even when an error is reported. */
  close(fd: number): SyscallResult;

  /**
   * `ioctl(2)`. `argument` is the struct in memory (read and written in place, during the call only), or the
   * integer that requests such as `VFIO_CHECK_EXTENSION` take instead of a pointer. The result may be positive
   * (`VFIO_DEVICE_SET_IRQS`, requests that return a descriptor).
   *
   * Pointers inside the struct come from {@link addressOf} or {@link mmap}; what they point to must stay
   * reachable until the call returns.
   */
  ioctl(fd: number, request: number, argument: Uint8Array | number): SyscallResult;

  /** `read(2)` into the whole of `buffer`; returns the bytes read, 0 at the end. */
  read(fd: number, buffer: Uint8Array): SyscallResult;

  /** `write(2)` of the whole of `buffer`; returns the bytes written, which may be fewer. */
  write(fd: number, buffer: Uint8Array): SyscallResult;

  /**
   * `pread(2)`. For a VFIO region a single call with a naturally aligned buffer of 1, 2, 4 or 8 bytes is one
   * access of exactly that width on the bus.
   */
  pread(fd: number, buffer: Uint8Array, offset: number): SyscallResult;

  /** `pwrite(2)`; the width rule of {@link pread} applies. */
  pwrite(fd: number, buffer: Uint8Array, offset: number): SyscallResult;

  /** `fcntl(2)` with an integer argument (`F_ADD_SEALS`, `F_GET_SEALS`, `F_SETFD`). */
  fcntl(fd: number, command: number, argument: number): SyscallResult;

  /** `ftruncate(2)`. */
  ftruncate(fd: number, length: number): SyscallResult;

  /**
   * `fchmod(2)`, `mode` at most 0o7777. Of a socket that is not bound, it is the mode that its file will have, less what
   * the umask takes: without it 0o777.
   */
  fchmod(fd: number, mode: number): SyscallResult;

  /** `memfd_create(2)`. */
  memfdCreate(name: string, flags: number): SyscallResult;

  /** `eventfd2(2)`. */
  eventfd(initial: number, flags: number): SyscallResult;

  /** `mmap(2)` at an address of the kernel's choice. Returns the address, or minus the errno (as a `bigint`). */
  mmap(length: number, protection: number, flags: number, fd: number, offset: number): bigint;

  /** `munmap(2)`. Every {@link view} of the range is dangling afterwards: drop them first. */
  munmap(address: bigint, length: number): SyscallResult;

  /** `madvise(2)`. */
  madvise(address: bigint, length: number, advice: number): SyscallResult;

  /**
   * The memory at `address` (from {@link mmap}) as an `ArrayBuffer`. Not a copy, and not owned: whoever mapped it
   * decides when it ends.
   */
  view(address: bigint, length: number): ArrayBuffer;

  /**
   * The address of `bytes`, for a pointer inside an ioctl struct. Valid only while `bytes` is reachable; garbage
   * collection does not move it.
   */
  addressOf(bytes: Uint8Array): bigint;

  /**
   * Calls `onReadable` from the event loop each time `fd` becomes readable, until disposed. Level-triggered: a
   * callback that does not drain the descriptor is called again. Costs no thread and no polling. Throws an `Error`
   * with the positive `errno` when `fd` cannot be watched.
   */
  watch(fd: number, onReadable: () => void): Watch;

  /** The text of a small file such as a sysfs attribute, or minus the errno. */
  readText(path: string): string | SyscallResult;

  /** Writes `text` to an existing file with one `write(2)`, as sysfs attributes demand. Never creates a file. */
  writeText(path: string, text: string): SyscallResult;

  /** The names in a directory, sorted, or minus the errno. */
  readDirectory(path: string): string[] | SyscallResult;

  /** The target of a symbolic link, or minus the errno. */
  readLink(path: string): string | SyscallResult;

  /** `access(2)`; `mode` is a sum of 4 (read) and 2 (write), or 0 for existence. */
  access(path: string, mode: number): SyscallResult;

  /** `socket(2)` of family `AF_UNIX`, non-blocking and `O_CLOEXEC`. `type` is `SOCK_SEQPACKET` or `SOCK_DGRAM`. */
  socket(type: number): SyscallResult;

  /** `socketpair(2)` of family `AF_UNIX`, both ends non-blocking and `O_CLOEXEC`. */
  socketPair(type: number): readonly [number, number] | SyscallResult;

  /**
   * `bind(2)` to a path of the file system, or to a name of the abstract namespace, which begins with `@`. Path or name
   * have 1 to 107 bytes.
   */
  bind(fd: number, path: string): SyscallResult;

  /** `listen(2)`. */
  listen(fd: number, backlog: number): SyscallResult;

  /** `accept4(2)`; what it returns is non-blocking and `O_CLOEXEC`. */
  accept(fd: number): SyscallResult;

  /** `connect(2)`; `path` as for {@link bind}. */
  connect(fd: number, path: string): SyscallResult;

  /**
   * `sendmsg(2)` of one message with the descriptors `fds`, at most 253 (`SCM_RIGHTS`), which the receiver gets as its
   * own. `bytes` must not be empty: to the receiver that is the end. Never waits, and never raises `SIGPIPE`. Returns
   * the bytes sent: of a message all or, with an error, none.
   */
  sendMessage(fd: number, bytes: Uint8Array, fds: readonly number[]): SyscallResult;

  /**
   * `recvmsg(2)` of one message into `buffer`. Never waits. `length` is 0 when the other end is closed. Received
   * descriptors are `O_CLOEXEC`, and the caller's to close. A message that is longer than `buffer`, or has more
   * descriptors than this process may still open, is `-EMSGSIZE`: it is gone, and its descriptors are closed.
   */
  receiveMessage(
    fd: number,
    buffer: Uint8Array,
  ): { readonly length: number; readonly fds: readonly number[] } | SyscallResult;

  /** `unlink(2)`: for the path of a socket. */
  unlink(path: string): SyscallResult;

  /**
   * `kexec_file_load(2)`: the kernel that {@link reboot} will start. `initrd` is -1 for none, with
   * `KEXEC_FILE_NO_INITRAMFS` in `flags`.
   */
  kexecFileLoad(kernel: number, initrd: number, commandLine: string, flags: number): SyscallResult;

  /** `reboot(2)` with a command such as `LINUX_REBOOT_CMD_KEXEC`, which does not return where it succeeds. */
  reboot(command: number): SyscallResult;
}
