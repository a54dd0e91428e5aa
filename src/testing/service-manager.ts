/** A service manager with a descriptor store, on a simulated machine. @module */
import type { Syscalls } from '../../bindings/syscalls.js';
import { SOCK_DGRAM } from '../../bindings/uapi/socket.js';
import { check } from '../ioctl.js';
import type { SimulatedHost } from '../sim/host.js';
import type { SimulatedProcess } from '../sim/process/process.js';

const SOCKET = '/run/notify';

/** A process of a service. */
export interface ServiceProcess {
  readonly process: SimulatedProcess;
  /** Its kernel, to be given to the library. */
  readonly kernel: Syscalls;
  /** What tells it of the store, and of what is in it: for `FdStore.fromEnvironment` and `receiveInherited`. */
  readonly env: NodeJS.ProcessEnv;
}

/**
 * Keeps descriptors for a service that ends or dies, as systemd does, in a simulated process of its own:
 *
 * ```ts
 * const manager = new ServiceManager(host);
 * const first = manager.start();
 * StoredKeepAlive.keep(kept, FdStore.fromEnvironment(first.env, first.kernel));
 * first.process.exit(); // as after kill -9
 * const second = manager.start();
 * const store = FdStore.fromEnvironment(second.env, second.kernel);
 * const { kept } = recover(store, receiveInherited(second.env, second.kernel));
 * ```
 *
 * Unlike systemd it has room for everything, takes one file twice, and believes everybody.
 */
export class ServiceManager {
  /** Its own process. */
  readonly process: SimulatedProcess;
  /** What `NOTIFY_SOCKET` says in its services. */
  readonly address = SOCKET;
  readonly #host: SimulatedHost;
  readonly #socket: number;
  readonly #buffer = new Uint8Array(4096);
  #stored: { readonly name: string; readonly fd: number }[] = [];

  constructor(host: SimulatedHost) {
    this.#host = host;
    this.process = host.process();
    this.process.unlink(this.address);
    this.#socket = check(this.process.socket(SOCK_DGRAM), 'socket');
    check(this.process.bind(this.#socket, this.address), 'bind', { path: this.address });
  }

  /** What is kept, in the order in which it came, with descriptors of {@link process}. */
  get stored(): readonly { readonly name: string; readonly fd: number }[] {
    return this.#stored;
  }

  /** Starts a process of the service, with everything that is kept. */
  start(): ServiceProcess {
    const process = this.#host.process();
    return { process, kernel: this.listenTo(process), env: this.give(process) };
  }

  /** The kernel of a process whose messages are received as soon as they are sent. */
  listenTo(kernel: Syscalls): Syscalls {
    return new Proxy(kernel, {
      get: (target, property) => {
        const value = Reflect.get(target, property, target);
        if (property !== 'sendMessage') return typeof value === 'function' ? value.bind(target) : value;
        return (...args: Parameters<Syscalls['sendMessage']>) => {
          const sent = target.sendMessage(...args);
          this.#receive();
          return sent;
        };
      },
    });
  }

  /**
   * Gives a process that was just made what is kept: it finds the descriptors in place, what was stored last first.
   *
   * @returns its environment
   */
  give(process: SimulatedProcess): NodeJS.ProcessEnv {
    const given = this.#stored.toReversed();
    for (const { fd } of given) check(this.process.share(fd, process), 'recvmsg');
    return {
      NOTIFY_SOCKET: this.address,
      ...(given.length > 0 && {
        LISTEN_FDS: String(given.length),
        LISTEN_FDNAMES: given.map(({ name }) => name).join(':'),
      }),
    };
  }

  #receive(): void {
    for (;;) {
      const message = this.process.receiveMessage(this.#socket, this.#buffer);
      if (typeof message === 'number') return;
      const text = Buffer.from(this.#buffer.subarray(0, message.length)).toString();
      const name = /FDNAME=(.*)/.exec(text)?.[1] ?? '';
      if (text.startsWith('FDSTOREREMOVE=1')) {
        for (const each of this.#stored) if (each.name === name) this.process.close(each.fd);
        this.#stored = this.#stored.filter(each => each.name !== name);
      }
      for (const fd of message.fds) this.#stored.push({ name, fd });
    }
  }
}
