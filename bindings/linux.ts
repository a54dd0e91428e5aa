/**
 * The real Linux behind {@link Syscalls}. The only file that knows koffi.
 *
 * `koffi.errno()` reads the thread's `errno`, which any other libc call may overwrite: it is read in the very
 * next statement after a failure, with nothing allocated in between.
 *
 * @module
 */
import { constants as bufferConstants } from 'node:buffer';
import { accessSync, readdirSync, readlinkSync, unlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import type koffi from 'koffi';
import { Message } from './message.js';
import { checkMessage, checkSocketType, socketAddress } from './socket-arguments.js';
import type { SyscallResult, Syscalls, Watch } from './syscalls.js';
import { EEXIST, EINTR, EMSGSIZE, ENOSYS } from './uapi/errno.js';
import {
  AF_UNIX,
  MSG_CMSG_CLOEXEC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
} from './uapi/socket.js';

/** `O_CLOEXEC` on x86-64 and arm64 (include/uapi/asm-generic/fcntl.h). */
const O_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const U64_MAX = 0xffff_ffff_ffff_ffffn;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
/** Attributes in sysfs are at most one page; the PCI `resource` and `config` files fit as well. */
const TEXT_LIMIT = 64 * 1024;
/** `kexec_file_load(2)`, which no C library has a function for (asm/unistd_64.h, asm-generic/unistd.h). */
const KEXEC_FILE_LOAD: Readonly<Record<string, number>> = { x64: 320, arm64: 294 };

const nothing = (): void => {};

let instance: Syscalls | undefined;

/**
 * The system calls of the running Linux kernel. One instance per process (and per worker thread).
 *
 * @throws Error when the machine is not Linux, or koffi has no binary for it.
 */
export function linux(): Syscalls {
  instance ??= bind();
  return instance;
}

function integer(title: string, value: number, minimum: number, maximum: number): void {
  if (typeof value !== 'number') throw new TypeError(`${title} must be a number, got ${typeof value}`);
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new RangeError(`${title} must be an integer from ${minimum} to ${maximum}, got ${value}`);
  }
}

const descriptor = (fd: number): void => integer('file descriptor', fd, -1, 0x7fff_ffff);
const word = (title: string, value: number): void => integer(title, value, -0x8000_0000, 0xffff_ffff);
const size = (title: string, value: number): void => integer(title, value, 0, Number.MAX_SAFE_INTEGER);

function address(value: bigint): void {
  if (typeof value !== 'bigint') throw new TypeError(`address must be a bigint, got ${typeof value}`);
  if (value <= 0n || value > U64_MAX) throw new RangeError('address must be a mapped address');
}

function bytes(title: string, value: Uint8Array): void {
  if (!(value instanceof Uint8Array)) throw new TypeError(`${title} must be a Uint8Array`);
}

function text(title: string, value: string): void {
  if (typeof value !== 'string') throw new TypeError(`${title} must be a string, got ${typeof value}`);
  if (value.includes('\0')) throw new RangeError(`${title} must not contain NUL`);
}

function errnoOf(error: unknown): SyscallResult {
  const errno = (error as NodeJS.ErrnoException).errno;
  if (typeof errno !== 'number') throw error;
  return errno;
}

function bind(): Syscalls {
  if (process.platform !== 'linux') {
    throw new Error(`the Linux system calls are not available on ${process.platform}`);
  }
  // Loaded on first use, so that the library can be imported where koffi has no binary.
  const ffi = createRequire(import.meta.url)('koffi') as typeof koffi;
  // Symbols of the running process: works with glibc and musl, whatever the file of the C library is called.
  const libc = ffi.load(null);
  type Call<A extends unknown[], R> = (...args: A) => R;
  // ioctl, open and fcntl are variadic in C; on x86-64 and arm64 Linux the fixed form has the same ABI and is faster.
  const cOpen = libc.func('int open(const char *path, int flags)') as Call<[string, number], number>;
  const cClose = libc.func('int close(int fd)') as Call<[number], number>;
  const cIoctl = libc.func('int ioctl(int fd, unsigned long request, void *argument)') as Call<
    [number, number, Uint8Array],
    number
  >;
  const cIoctlValue = libc.func('int ioctl(int fd, unsigned long request, uintptr_t argument)') as Call<
    [number, number, number],
    number
  >;
  const cRead = libc.func('int64_t read(int fd, void *buffer, size_t count)') as Call<
    [number, Uint8Array, number],
    number
  >;
  const cWrite = libc.func('int64_t write(int fd, const void *buffer, size_t count)') as Call<
    [number, Uint8Array, number],
    number
  >;
  const cPread = libc.func('int64_t pread(int fd, void *buffer, size_t count, int64_t offset)') as Call<
    [number, Uint8Array, number, number],
    number
  >;
  const cPwrite = libc.func(
    'int64_t pwrite(int fd, const void *buffer, size_t count, int64_t offset)',
  ) as Call<[number, Uint8Array, number, number], number>;
  const cFcntl = libc.func('int fcntl(int fd, int command, int argument)') as Call<
    [number, number, number],
    number
  >;
  const cFtruncate = libc.func('int ftruncate(int fd, int64_t length)') as Call<[number, number], number>;
  const cFchmod = libc.func('int fchmod(int fd, uint32_t mode)') as Call<[number, number], number>;
  const cMemfdCreate = libc.func('int memfd_create(const char *name, uint32_t flags)') as Call<
    [string, number],
    number
  >;
  const cEventfd = libc.func('int eventfd(uint32_t initial, int flags)') as Call<[number, number], number>;
  const cMmap = libc.func(
    'uintptr_t mmap(uintptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
  ) as Call<[number, number, number, number, number, number], number | bigint>;
  const cMunmap = libc.func('int munmap(uintptr_t address, size_t length)') as Call<[bigint, number], number>;
  const cMadvise = libc.func('int madvise(uintptr_t address, size_t length, int advice)') as Call<
    [bigint, number, number],
    number
  >;

  const cSocket = libc.func('int socket(int family, int type, int protocol)') as Call<
    [number, number, number],
    number
  >;
  const cSocketPair = libc.func('int socketpair(int family, int type, int protocol, void *fds)') as Call<
    [number, number, number, Int32Array],
    number
  >;
  const cBind = libc.func('int bind(int fd, const void *address, uint32_t length)') as Call<
    [number, Uint8Array, number],
    number
  >;
  const cConnect = libc.func('int connect(int fd, const void *address, uint32_t length)') as Call<
    [number, Uint8Array, number],
    number
  >;
  const cListen = libc.func('int listen(int fd, int backlog)') as Call<[number, number], number>;
  const cAccept = libc.func('int accept4(int fd, uintptr_t address, uintptr_t length, int flags)') as Call<
    [number, number, number, number],
    number
  >;
  const cSendMessage = libc.func('int64_t sendmsg(int fd, const void *message, int flags)') as Call<
    [number, Uint8Array, number],
    number
  >;
  const cReceiveMessage = libc.func('int64_t recvmsg(int fd, void *message, int flags)') as Call<
    [number, Uint8Array, number],
    number
  >;
  const cKexecFileLoad = libc.func(
    'long syscall(long number, int kernel, int initrd, unsigned long length, const char *line, unsigned long flags)',
  ) as Call<[number, number, number, number, string, number], number>;
  const cReboot = libc.func('int reboot(int command)') as Call<[number], number>;

  const cEpollCreate = libc.func('int epoll_create1(int flags)') as Call<[number], number>;
  const cEpollControl = libc.func('int epoll_ctl(int epoll, int op, int fd, void *event)') as Call<
    [number, number, number, Uint8Array],
    number
  >;
  const watched = new Set<number>();
  const message = new Message(value => ffi.address(value));

  /** The errno that the event loop would refuse `fd` with, or 0: koffi ends the process when it does. */
  const unwatchable = (fd: number): number => {
    const epoll = cEpollCreate(O_CLOEXEC);
    if (epoll < 0) return ffi.errno();
    const event = new Uint8Array(16);
    const refused = cEpollControl(epoll, EPOLL_CTL_ADD, fd, event) < 0 ? ffi.errno() : 0;
    cClose(epoll);
    return refused;
  };

  return {
    open(path, flags) {
      text('path', path);
      word('flags', flags);
      const fd = cOpen(path, flags | O_CLOEXEC);
      return fd < 0 ? -ffi.errno() : fd;
    },
    close(fd) {
      descriptor(fd);
      return cClose(fd) < 0 ? -ffi.errno() : 0;
    },
    ioctl(fd, request, argument) {
      descriptor(fd);
      word('request', request);
      let result: number;
      if (typeof argument === 'number') {
        size('argument', argument);
        result = cIoctlValue(fd, request, argument);
        return result < 0 ? -ffi.errno() : result;
      }
      bytes('argument', argument);
      result = cIoctl(fd, request, argument);
      return result < 0 ? -ffi.errno() : result;
    },
    read(fd, buffer) {
      descriptor(fd);
      bytes('buffer', buffer);
      for (;;) {
        const count = cRead(fd, buffer, buffer.byteLength);
        if (count >= 0) return count;
        const errno = ffi.errno();
        if (errno !== EINTR) return -errno;
      }
    },
    write(fd, buffer) {
      descriptor(fd);
      bytes('buffer', buffer);
      for (;;) {
        const count = cWrite(fd, buffer, buffer.byteLength);
        if (count >= 0) return count;
        const errno = ffi.errno();
        if (errno !== EINTR) return -errno;
      }
    },
    pread(fd, buffer, offset) {
      descriptor(fd);
      bytes('buffer', buffer);
      size('offset', offset);
      for (;;) {
        const count = cPread(fd, buffer, buffer.byteLength, offset);
        if (count >= 0) return count;
        const errno = ffi.errno();
        if (errno !== EINTR) return -errno;
      }
    },
    pwrite(fd, buffer, offset) {
      descriptor(fd);
      bytes('buffer', buffer);
      size('offset', offset);
      for (;;) {
        const count = cPwrite(fd, buffer, buffer.byteLength, offset);
        if (count >= 0) return count;
        const errno = ffi.errno();
        if (errno !== EINTR) return -errno;
      }
    },
    fcntl(fd, command, argument) {
      descriptor(fd);
      word('command', command);
      word('argument', argument);
      const result = cFcntl(fd, command, argument);
      return result < 0 ? -ffi.errno() : result;
    },
    ftruncate(fd, length) {
      descriptor(fd);
      size('length', length);
      return cFtruncate(fd, length) < 0 ? -ffi.errno() : 0;
    },
    fchmod(fd, mode) {
      descriptor(fd);
      integer('mode', mode, 0, 0o7777);
      return cFchmod(fd, mode) < 0 ? -ffi.errno() : 0;
    },
    memfdCreate(name, flags) {
      text('name', name);
      word('flags', flags);
      const fd = cMemfdCreate(name, flags);
      return fd < 0 ? -ffi.errno() : fd;
    },
    eventfd(initial, flags) {
      word('initial', initial);
      word('flags', flags);
      const fd = cEventfd(initial, flags);
      return fd < 0 ? -ffi.errno() : fd;
    },
    mmap(length, protection, flags, fd, offset) {
      size('length', length);
      word('protection', protection);
      word('flags', flags);
      descriptor(fd);
      size('offset', offset);
      const address = cMmap(0, length, protection, flags, fd, offset);
      if (address === MAP_FAILED) return BigInt(-ffi.errno());
      return BigInt(address);
    },
    munmap(at, length) {
      address(at);
      size('length', length);
      return cMunmap(at, length) < 0 ? -ffi.errno() : 0;
    },
    madvise(at, length, advice) {
      address(at);
      size('length', length);
      word('advice', advice);
      return cMadvise(at, length, advice) < 0 ? -ffi.errno() : 0;
    },
    view(at, length) {
      // koffi ends the whole process for a null address, and for more than an ArrayBuffer can hold.
      address(at);
      integer('length', length, 0, bufferConstants.MAX_LENGTH);
      return ffi.view(at, length);
    },
    addressOf(value) {
      bytes('bytes', value);
      return ffi.address(value);
    },
    watch(fd, onReadable): Watch {
      descriptor(fd);
      if (typeof onReadable !== 'function') throw new TypeError('onReadable must be a function');
      const refused = watched.has(fd) ? EEXIST : unwatchable(fd);
      if (refused) {
        const error = new Error(`descriptor ${fd} cannot be watched (errno ${refused})`);
        throw Object.assign(error, { errno: refused });
      }
      const called = (...[status]: unknown[]): void => {
        try {
          onReadable();
        } catch (error) {
          // koffi would swallow it, and never call back again.
          setImmediate(() => {
            throw error;
          });
        }
        // At an error, such as a peer that left without reading everything, the event loop stops: there may be more to
        // read all the same.
        if (open && typeof status === 'number' && status < 0 && unwatchable(fd) === 0) {
          handle.start({ readable: true }, called);
        }
        // Called straight from the event loop: on Node.js 26 nothing runs the promise reactions that this has made
        // due until some other callback ends. An immediate ends right after this phase of the loop.
        setImmediate(nothing);
      };
      let open = true;
      const handle = ffi.node.poll(fd, { readable: true }, called);
      watched.add(fd);
      return {
        ref: () => open && handle.ref(),
        unref: () => open && handle.unref(),
        [Symbol.dispose]() {
          if (!open) return;
          open = false;
          watched.delete(fd);
          handle.stop();
          handle.close();
        },
      };
    },
    readText(path) {
      text('path', path);
      const fd = cOpen(path, O_CLOEXEC);
      if (fd < 0) return -ffi.errno();
      const buffer = new Uint8Array(TEXT_LIMIT);
      let filled = 0;
      let failure = 0;
      while (filled < TEXT_LIMIT) {
        const count = cRead(fd, buffer.subarray(filled), TEXT_LIMIT - filled);
        if (count < 0) failure = ffi.errno();
        if (count <= 0 && failure !== EINTR) break;
        if (count > 0) filled += count;
        failure = 0;
      }
      cClose(fd);
      return failure ? -failure : Buffer.from(buffer.buffer, 0, filled).toString('utf8');
    },
    writeText(path, content) {
      text('path', path);
      text('text', content);
      const fd = cOpen(path, O_CLOEXEC | 1);
      if (fd < 0) return -ffi.errno();
      const data = Buffer.from(content, 'utf8');
      const count = cWrite(fd, data, data.byteLength);
      const failure = count < 0 ? ffi.errno() : 0;
      cClose(fd);
      return failure ? -failure : count;
    },
    readDirectory(path) {
      text('path', path);
      try {
        return readdirSync(path).sort();
      } catch (error) {
        return errnoOf(error);
      }
    },
    readLink(path) {
      text('path', path);
      try {
        return readlinkSync(path);
      } catch (error) {
        return errnoOf(error);
      }
    },
    access(path, mode) {
      text('path', path);
      integer('mode', mode, 0, 7);
      try {
        accessSync(path, mode);
        return 0;
      } catch (error) {
        return errnoOf(error);
      }
    },
    socket(type) {
      checkSocketType(type);
      const fd = cSocket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      return fd < 0 ? -ffi.errno() : fd;
    },
    socketPair(type) {
      checkSocketType(type);
      const pair = new Int32Array(2);
      if (cSocketPair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) return -ffi.errno();
      const [one = -1, other = -1] = pair;
      return [one, other];
    },
    bind(fd, path) {
      descriptor(fd);
      const address = socketAddress(path);
      return cBind(fd, address, address.byteLength) < 0 ? -ffi.errno() : 0;
    },
    listen(fd, backlog) {
      descriptor(fd);
      word('backlog', backlog);
      return cListen(fd, backlog) < 0 ? -ffi.errno() : 0;
    },
    accept(fd) {
      descriptor(fd);
      for (;;) {
        const accepted = cAccept(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) return accepted;
        const errno = ffi.errno();
        if (errno !== EINTR) return -errno;
      }
    },
    connect(fd, path) {
      descriptor(fd);
      const address = socketAddress(path);
      return cConnect(fd, address, address.byteLength) < 0 ? -ffi.errno() : 0;
    },
    sendMessage(fd, payload, fds) {
      descriptor(fd);
      checkMessage(payload, fds);
      for (const each of fds) descriptor(each);
      message.toSend(payload, fds);
      for (;;) {
        const count = cSendMessage(fd, message.header, MSG_NOSIGNAL | MSG_DONTWAIT);
        const errno = count < 0 ? ffi.errno() : 0;
        if (errno === EINTR) continue;
        message.done();
        return errno ? -errno : count;
      }
    },
    receiveMessage(fd, buffer) {
      descriptor(fd);
      bytes('buffer', buffer);
      for (;;) {
        message.toReceive(buffer);
        const length = cReceiveMessage(fd, message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        const errno = length < 0 ? ffi.errno() : 0;
        if (errno === EINTR) continue;
        message.done();
        if (errno) return -errno;
        const { fds } = message;
        if (!message.truncated) return { length, fds };
        for (const each of fds) cClose(each);
        return -EMSGSIZE;
      }
    },
    unlink(path) {
      text('path', path);
      try {
        unlinkSync(path);
        return 0;
      } catch (error) {
        return errnoOf(error);
      }
    },
    kexecFileLoad(kernel, initrd, commandLine, flags) {
      descriptor(kernel);
      descriptor(initrd);
      text('command line', commandLine);
      size('flags', flags);
      const number = KEXEC_FILE_LOAD[process.arch];
      if (number === undefined) return -ENOSYS;
      // The NUL at the end counts.
      const length = Buffer.byteLength(commandLine) + 1;
      return cKexecFileLoad(number, kernel, initrd, length, commandLine, flags) < 0 ? -ffi.errno() : 0;
    },
    reboot(command) {
      word('command', command);
      return cReboot(command | 0) < 0 ? -ffi.errno() : 0;
    },
  };
}
