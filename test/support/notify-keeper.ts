/**
 * A stand-in for the part of systemd that keeps descriptors: it listens on NOTIFY_SOCKET, keeps what it is sent
 * (sd_notify(3)), and starts a program with it, again and again (sd_listen_fds_with_names(3)).
 *
 * Like systemd, it hands out what was stored last first. Unlike systemd, it takes one file twice, and believes everybody.
 *
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { linux } from '../../bindings/linux.js';
import { EAGAIN } from '../../bindings/uapi/errno.js';
import { SOCK_DGRAM } from '../../bindings/uapi/socket.js';

/** Descriptors of the keeper, and the name they were stored under. */
export interface Stored {
  readonly name: string;
  readonly fd: number;
}

export interface KeeperOptions {
  /** `FileDescriptorStoreMax=`; 64 unless told. */
  readonly limit?: number;
  /** Where to listen; a path of its own unless told. */
  readonly address?: string;
}

export interface StartOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Of standard input, output and error; `inherit` unless told. */
  readonly stdio?: readonly ['ignore' | 'pipe' | 'inherit', 'pipe' | 'inherit', 'pipe' | 'inherit'];
}

export interface NotifyKeeper extends Disposable {
  /** What NOTIFY_SOCKET says. */
  readonly address: string;
  /** What is kept, in the order in which it came. */
  readonly stored: readonly Stored[];
  /** All messages, in order. */
  readonly messages: readonly string[];
  /** Resolves when `true` is returned, which is looked at now and after each message. */
  until(condition: () => boolean): Promise<void>;
  /** Starts a program with everything that is kept. */
  start(command: string, args: readonly string[], options?: StartOptions): ChildProcess;
  /**
   * Starts a program, and again whenever it ends.
   *
   * @param started called with every run, the first being number 1
   * @returns disposing of it kills the program and starts none any more
   */
  restart(
    command: string,
    args: readonly string[],
    started: (child: ChildProcess, run: number) => void,
    options?: StartOptions,
  ): Disposable;
}

export function notifyKeeper(options: KeeperOptions = {}): NotifyKeeper {
  const kernel = linux();
  const directory = mkdtempSync(join(tmpdir(), 'notify-'));
  const address = options.address ?? join(directory, 'socket');
  const limit = options.limit ?? 64;
  const socket = kernel.socket(SOCK_DGRAM);
  const bound = kernel.bind(socket, address);
  if (bound < 0) throw new Error(`bind of ${address}: errno ${-bound}`);

  let closed = false;
  let stored: Stored[] = [];
  const messages: string[] = [];
  const waiting = new Set<() => void>();
  const buffer = new Uint8Array(4096);

  const take = (text: string, fds: readonly number[]): void => {
    const assignments = new Map(
      text.split('\n').map(line => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    );
    const name = assignments.get('FDNAME') ?? 'stored';
    if (assignments.get('FDSTOREREMOVE') === '1') {
      for (const each of stored) if (each.name === name) kernel.close(each.fd);
      stored = stored.filter(each => each.name !== name);
    }
    const wanted = assignments.get('FDSTORE') === '1';
    for (const fd of fds) {
      if (wanted && stored.length < limit) stored.push({ name, fd });
      else kernel.close(fd);
    }
  };

  const receive = (): void => {
    for (;;) {
      const message = kernel.receiveMessage(socket, buffer);
      if (message === -EAGAIN) break;
      if (typeof message === 'number') throw new Error(`recvmsg: errno ${-message}`);
      const text = Buffer.from(buffer.subarray(0, message.length)).toString();
      messages.push(text);
      take(text, message.fds);
    }
    for (const look of [...waiting]) look();
  };
  const watch = kernel.watch(socket, receive);
  watch.unref();

  const start: NotifyKeeper['start'] = (command, args, { env, stdio } = {}) => {
    // What a process sent before it died counts.
    receive();
    const given = stored.toReversed();
    // Only the process itself knows its id before the program begins.
    const script = `export LISTEN_PID=$$; exec "$@"`;
    const full = { ...process.env, ...env, NOTIFY_SOCKET: address, FDSTORE: String(limit) };
    if (given.length === 0) return spawn(command, args, { env: full, stdio: [...(stdio ?? inherited)] });
    return spawn('sh', ['-c', script, 'sh', command, ...args], {
      env: {
        ...full,
        LISTEN_FDS: String(given.length),
        LISTEN_FDNAMES: given.map(({ name }) => name).join(':'),
      },
      stdio: [...(stdio ?? inherited), ...given.map(({ fd }) => fd)],
    });
  };

  return {
    address,
    get stored() {
      return stored;
    },
    messages,
    until(condition) {
      return new Promise(resolve => {
        watch.ref();
        const look = (): void => {
          if (!condition()) return;
          waiting.delete(look);
          if (waiting.size === 0) watch.unref();
          resolve();
        };
        waiting.add(look);
        look();
      });
    },
    start,
    restart(command, args, started, startOptions) {
      let child: ChildProcess | undefined;
      let ended = false;
      const run = (number: number): void => {
        child = start(command, args, startOptions);
        child.once('exit', () => {
          if (!ended && !closed) run(number + 1);
        });
        started(child, number);
      };
      run(1);
      return {
        [Symbol.dispose]() {
          ended = true;
          child?.kill('SIGKILL');
        },
      };
    },
    [Symbol.dispose]() {
      closed = true;
      watch[Symbol.dispose]();
      kernel.close(socket);
      for (const { fd } of stored.splice(0)) kernel.close(fd);
      rmSync(directory, { recursive: true });
    },
  };
}

const inherited = ['inherit', 'inherit', 'inherit'] as const;
