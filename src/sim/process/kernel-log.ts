/** The kernel's log, and `/dev/kmsg`, by which it is read. @module */
import { constants } from 'node:fs';
import { EAGAIN, EINVAL, EPIPE } from '../../../bindings/uapi/errno.js';
import type { DeviceNode } from './file-tree.js';
import { OpenFile } from './open-file.js';

/** Records that are kept; the oldest go. */
const MAX_RECORDS = 1000;

/** Priorities of records: LOGLEVEL_ERR, LOGLEVEL_WARNING and LOGLEVEL_INFO of linux/kern_levels.h. */
export const LogLevel = { Error: 3, Warning: 4, Info: 6 } as const;
export type LogLevel = (typeof LogLevel)[keyof typeof LogLevel];

export class KernelLog {
  readonly #records: Buffer[] = [];
  readonly #start = performance.now();
  /** Number of the record that comes next, and of the first that is kept. */
  #next = 0;
  readonly #files = new Set<KernelLogFile>();

  get next(): number {
    return this.#next;
  }

  get first(): number {
    return this.#next - this.#records.length;
  }

  record(number: number): Buffer | undefined {
    return this.#records[number - this.first];
  }

  /** Writes a line, of facility 0: the kernel's own. */
  write(level: LogLevel, text: string): void {
    const time = Math.round((performance.now() - this.#start) * 1000);
    this.#records.push(Buffer.from(`${level},${this.#next++},${time},-;${text}\n`));
    if (this.#records.length > MAX_RECORDS) this.#records.shift();
    for (const file of this.#files) file.written();
  }

  readonly node: DeviceNode = {
    kind: 'device',
    open: (_process, flags) => {
      const file = new KernelLogFile(this, (flags & constants.O_NONBLOCK) === 0, () =>
        this.#files.delete(file),
      );
      this.#files.add(file);
      return file;
    },
  };
}

/** Reads from the oldest record on, one at a time. */
class KernelLogFile extends OpenFile {
  override readonly name = '/dev/kmsg';
  readonly #log: KernelLog;
  readonly #blocking: boolean;
  readonly #closed: () => void;
  #at: number;

  constructor(log: KernelLog, blocking: boolean, closed: () => void) {
    super();
    this.#log = log;
    this.#blocking = blocking;
    this.#closed = closed;
    this.#at = log.first;
  }

  written(): void {
    this.wake();
  }

  override get readable(): boolean {
    return this.#at < this.#log.next;
  }

  override read(_process: unknown, buffer: Uint8Array): number {
    const { first, next } = this.#log;
    if (this.#at >= next) {
      if (this.#blocking) throw new Error('a blocking read of the kernel log would never return here');
      return -EAGAIN;
    }
    if (this.#at < first) {
      this.#at = first;
      return -EPIPE;
    }
    const record = this.#log.record(this.#at) as Buffer;
    // The record is skipped: so the kernel has it, too.
    this.#at++;
    if (record.byteLength > buffer.byteLength) return -EINVAL;
    buffer.set(record);
    return record.byteLength;
  }

  protected override release(): void {
    this.#closed();
  }
}
