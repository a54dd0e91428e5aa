/** What the probe has at hand: a controller, an admin queue and an I/O queue, memory, and the list of answers. @module */
import { type Completion, type Entry, PAGE, type ProbedController, RawQueue } from './raw-queue.js';

/** What it was asked, and what it answered. */
export type Answers = Record<string, string>;

/** Memory that the probe needs, in bytes. */
export const PROBE_MEMORY = 64 * PAGE;

/** Pages of the memory. Data comes last and is 32 pages. */
export const Page = { AdminSq: 0, AdminCq: 1, IoSq: 2, IoCq: 3, List: 8, Data: 16 } as const;
export const DATA_PAGES = 32;
export const ADMIN_ENTRIES = 32;
export const IO_ENTRIES = 8;
export const Register = {
  CAP: 0x00,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
} as const;
/** CC: enabled, with entries of 2^6 and 2^4 bytes. */
export const ENABLED = 0x0046_0001n;

export const hex = (value: number | bigint, digits = 4): string => value.toString(16).padStart(digits, '0');

/** The bytes that are not zero, as `offset:hex` for each run. */
export function sparse(bytes: Uint8Array): string {
  const runs: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (bytes[at] === 0) {
      at++;
      continue;
    }
    let end = at + 1;
    for (let zeroes = 0; end < bytes.length && zeroes < 4; end++) zeroes = bytes[end] === 0 ? zeroes + 1 : 0;
    while (bytes[end - 1] === 0) end--;
    runs.push(`${hex(at, 1)}:${Buffer.from(bytes.subarray(at, end)).toString('hex')}`);
    at = end;
  }
  return runs.join(' ');
}

export class Probe {
  readonly controller: ProbedController;
  readonly answers: Answers = {};
  admin!: RawQueue;
  io!: RawQueue;

  constructor(controller: ProbedController) {
    this.controller = controller;
  }

  data(page = 0): Uint8Array {
    const at = (Page.Data + page) * PAGE;
    return this.controller.memory.subarray(at, at + PAGE);
  }

  dataAddress(page = 0): bigint {
    return this.controller.address(Page.Data + page);
  }

  clearData(): void {
    this.controller.memory.fill(0, Page.Data * PAGE, (Page.Data + DATA_PAGES) * PAGE);
  }

  note(question: string, answer: string): void {
    if (question in this.answers) throw new Error(`asked twice: ${question}`);
    this.answers[question] = answer;
  }

  /** CC, and what becomes of CSTS. */
  async configure(value: bigint): Promise<number> {
    this.controller.write(Register.CC, 4, value);
    await this.controller.sleep(5);
    return Number(this.controller.read(Register.CSTS, 4));
  }

  async start(cc = ENABLED): Promise<number> {
    await this.configure(0n);
    this.controller.setBusMaster(true);
    const { controller } = this;
    this.admin = new RawQueue(controller, 0, Page.AdminSq, Page.AdminCq, ADMIN_ENTRIES);
    controller.write(Register.AQA, 4, BigInt(((ADMIN_ENTRIES - 1) << 16) | (ADMIN_ENTRIES - 1)));
    this.address(Register.ASQ, controller.address(Page.AdminSq));
    this.address(Register.ACQ, controller.address(Page.AdminCq));
    return this.configure(cc);
  }

  address(register: number, value: bigint): void {
    this.controller.write(register, 4, value & 0xffff_ffffn);
    this.controller.write(register + 4, 4, value >> 32n);
  }

  async run(queue: RawQueue, entry: Entry): Promise<Completion | undefined> {
    queue.put(entry);
    queue.ring();
    return queue.next();
  }

  /** Runs a command and notes status and result. */
  async ask(question: string, entry: Entry, queue = this.admin): Promise<Completion | undefined> {
    const completion = await this.run(queue, entry);
    this.note(question, completion ? `${hex(completion.status)} ${hex(completion.result, 1)}` : 'nothing');
    return completion;
  }

  /** Runs a command that returns data in one page, and notes that too. */
  async askData(question: string, entry: Entry, mask?: (bytes: Uint8Array) => void): Promise<void> {
    this.clearData();
    const completion = await this.run(this.admin, { prp1: this.dataAddress(), ...entry });
    if (completion === undefined) {
      this.note(question, 'nothing');
      return;
    }
    mask?.(this.data());
    const answer = `${hex(completion.status)} ${hex(completion.result, 1)} ${sparse(this.data())}`;
    this.note(question, answer.trim());
  }

  /** An I/O queue pair of {@link IO_ENTRIES} entries with vector 1. */
  async makeIoQueue(): Promise<void> {
    this.io = new RawQueue(this.controller, 1, Page.IoSq, Page.IoCq, IO_ENTRIES);
    const cdw10 = ((IO_ENTRIES - 1) << 16) | 1;
    const { controller } = this;
    await this.run(this.admin, {
      opcode: 5,
      cdw10,
      cdw11: (1 << 16) | 3,
      prp1: controller.address(Page.IoCq),
    });
    await this.run(this.admin, {
      opcode: 1,
      cdw10,
      cdw11: (1 << 16) | 1,
      prp1: controller.address(Page.IoSq),
    });
  }
}

/** CRC-32 would do; FNV-1a is shorter. */
export function digest(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}
