/** /dev/liveupdate and its sessions, by raw requests. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  LIVEUPDATE_IOCTL_CREATE_SESSION,
  LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
  LIVEUPDATE_SESSION_FINISH,
  LIVEUPDATE_SESSION_GET_NAME,
  LIVEUPDATE_SESSION_NAME_LENGTH,
  LIVEUPDATE_SESSION_PRESERVE_FD,
  LIVEUPDATE_SESSION_RETRIEVE_FD,
} from '../../../bindings/uapi/liveupdate.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import { equal, holds, succeeds } from './expect.js';
import { type Caller, call } from './ioctl.js';
import { PAGE } from './memory.js';

const O_RDWR = 2;

/** A session: open, until it is closed. */
export class Session implements Caller {
  readonly kernel: Syscalls;
  readonly fd: number;

  constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.fd = fd;
  }

  /** @returns 0, or minus the errno */
  tryPreserve(fd: number, token: bigint): number {
    return call(this, this.fd, LIVEUPDATE_SESSION_PRESERVE_FD, { fd, token }).result;
  }

  preserve(fd: number, token: bigint): void {
    equal(this.tryPreserve(fd, token), 0, 'LIVEUPDATE_SESSION_PRESERVE_FD');
  }

  /** @returns a descriptor, or minus the errno */
  tryRetrieve(token: bigint): number {
    const { result, values } = call(this, this.fd, LIVEUPDATE_SESSION_RETRIEVE_FD, { token });
    return result < 0 ? result : values.fd;
  }

  /** Preserves a memfd of one page that holds `text` and a NUL; its own descriptor is closed. */
  preserveText(token: bigint, text: string): void {
    const { kernel } = this;
    const fd = succeeds(kernel.memfdCreate('preserved', 0), 'memfd_create');
    equal(kernel.ftruncate(fd, PAGE), 0, 'ftruncate');
    const address = kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    holds(address > 0n, 'mmap');
    Buffer.from(kernel.view(address, PAGE)).write(`${text}\0`);
    equal(kernel.munmap(address, PAGE), 0, 'munmap');
    this.preserve(fd, token);
    equal(kernel.close(fd), 0, 'close of the memfd');
  }

  /** What {@link preserveText} was given, in the next kernel. */
  retrieveText(token: bigint): string {
    const { kernel } = this;
    const fd = succeeds(this.tryRetrieve(token), 'LIVEUPDATE_SESSION_RETRIEVE_FD');
    const address = kernel.mmap(PAGE, PROT_READ, MAP_SHARED, fd, 0);
    holds(address > 0n, 'mmap');
    const text = Buffer.from(kernel.view(address, PAGE).slice(0)).toString();
    equal(kernel.munmap(address, PAGE), 0, 'munmap');
    equal(kernel.close(fd), 0, 'close of the memfd');
    return text.slice(0, text.indexOf('\0'));
  }

  /** @returns 0, or minus the errno */
  tryFinish(): number {
    return call(this, this.fd, LIVEUPDATE_SESSION_FINISH, {}).result;
  }

  /** Ends it in the next kernel, and closes it. */
  finish(): void {
    equal(this.tryFinish(), 0, 'LIVEUPDATE_SESSION_FINISH');
    this.close();
  }

  name(): string {
    const { result, values } = call(this, this.fd, LIVEUPDATE_SESSION_GET_NAME, {});
    equal(result, 0, 'LIVEUPDATE_SESSION_GET_NAME');
    const name = Buffer.from(values.name);
    return name.subarray(0, name.indexOf(0)).toString();
  }

  close(): void {
    equal(this.kernel.close(this.fd), 0, 'close of a session');
  }
}

/** The device, open. One process may have it at a time. */
export class LiveUpdate implements Caller, Disposable {
  readonly kernel: Syscalls;
  readonly fd: number;

  constructor({ kernel }: Caller) {
    this.kernel = kernel;
    this.fd = succeeds(openLiveUpdate({ kernel }), 'open of /dev/liveupdate (is liveupdate=on given?)');
  }

  /** @returns a descriptor, or minus the errno */
  tryCreate(name: string | Uint8Array): number {
    return this.#session(LIVEUPDATE_IOCTL_CREATE_SESSION, name);
  }

  create(name: string): Session {
    return new Session(this.kernel, succeeds(this.tryCreate(name), `creating session ${name}`));
  }

  /** @returns a descriptor, or minus the errno */
  tryRetrieve(name: string): number {
    return this.#session(LIVEUPDATE_IOCTL_RETRIEVE_SESSION, name);
  }

  retrieve(name: string): Session {
    return new Session(this.kernel, succeeds(this.tryRetrieve(name), `retrieving session ${name}`));
  }

  #session(
    request: typeof LIVEUPDATE_IOCTL_CREATE_SESSION | typeof LIVEUPDATE_IOCTL_RETRIEVE_SESSION,
    name: string | Uint8Array,
  ): number {
    const bytes = typeof name === 'string' ? Buffer.from(name) : name;
    holds(bytes.length <= LIVEUPDATE_SESSION_NAME_LENGTH, 'a name fits');
    const { result, values } = call(this, this.fd, request, { name: bytes });
    return result < 0 ? result : values.fd;
  }

  [Symbol.dispose](): void {
    equal(this.kernel.close(this.fd), 0, 'close of /dev/liveupdate');
  }
}

/** @returns a descriptor, or minus the errno */
export function openLiveUpdate({ kernel }: Caller): number {
  return kernel.open('/dev/liveupdate', O_RDWR);
}
