/** A process of the driver program, from outside. @module */
import type { ChildProcess } from 'node:child_process';
import { copyFileSync, existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { guestEnv, keptDriver, nvmeA } from '../../vm/topology.js';
import type { Answer, Order } from './orders.js';
import { isNoiommu } from './profile.js';

/** In one file, where the host has made one: it starts in half the time. */
function findProgram(): string {
  const bundled = join(process.env[guestEnv.results] ?? '', keptDriver);
  if (!existsSync(bundled)) return fileURLToPath(new URL('./kept-driver.js', import.meta.url));
  const local = join(tmpdir(), keptDriver);
  copyFileSync(bundled, local);
  return local;
}

const program = findProgram();

/** Longer than any deadline of the program's own. */
const PATIENCE_MS = 150_000;

/** The command line of the program. @param turns blocks that each lane writes before it begins again */
export function driverArguments(turns: number, notes?: string): string[] {
  const args = [program, nvmeA.address, String(isNoiommu), String(turns)];
  return notes === undefined ? args : [...args, notes];
}

type AnswerOf<Kind, Each extends Answer = Answer> = Each extends Answer
  ? Kind extends Each['did']
    ? Each
    : never
  : never;

/** What comes of an order when all is well; some orders are not answered. */
const replies = {
  start: 'run',
  recover: 'run',
  resume: 'resume',
  take: 'run',
  'hand-on': 'hand-on',
  progress: 'progress',
  pause: 'pause',
  stop: 'stop',
} as const;
type Replies = typeof replies;

/** A driver that did something else than it was told to. */
export class Unexpected extends Error {}

export class Driven {
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #told = 'what it was started for';
  /** How it ended: the signal, or the exit code. */
  readonly ended: Promise<string>;
  /** Of the program's start, as `performance.now()` counts. */
  readonly startedAt = performance.now();

  /** @param child with pipes for standard input and output */
  constructor(child: ChildProcess) {
    if (child.stdin === null || child.stdout === null) throw new TypeError('it has no pipes');
    this.child = child;
    const lines: Interface = createInterface({ input: child.stdout });
    this.#lines = lines[Symbol.asyncIterator]();
    this.ended = new Promise(resolve => {
      child.once('exit', (code, signal) => resolve(signal ?? String(code)));
    });
    // One that died does not read what it is told.
    child.stdin.on('error', () => undefined);
  }

  tell(order: Order): void {
    this.#told = JSON.stringify(order);
    this.child.stdin?.write(`${this.#told}\n`);
  }

  /** What it says next; undefined when it ends without a word. @throws Unexpected when it is silent for minutes */
  async answer(): Promise<Answer | undefined> {
    const silence = new AbortController();
    const patience = sleep(PATIENCE_MS, undefined, { signal: silence.signal, ref: false }).then(() => {
      throw new Unexpected(`the driver ${this.child.pid} says nothing to ${this.#told}`);
    });
    const { value, done } = await Promise.race([this.#lines.next(), patience]).finally(() => silence.abort());
    return done === true ? undefined : (JSON.parse(value) as Answer);
  }

  /** The next answer, which must be this one. */
  async hears<Kind extends Answer['did']>(did: Kind): Promise<AnswerOf<Kind>> {
    const answer = await this.answer();
    if (answer?.did === did) return answer as AnswerOf<Kind>;
    const said = answer === undefined ? `ended: ${await this.ended}` : JSON.stringify(answer);
    throw new Unexpected(`the driver ${this.child.pid} was to ${did}, and ${said}`);
  }

  /** Gives an order and waits until it is carried out. */
  ask<Kind extends keyof Replies>(order: Order & { readonly do: Kind }): Promise<AnswerOf<Replies[Kind]>> {
    this.tell(order);
    return this.hears(replies[order.do]);
  }

  /** Lets a process go that has no device any more. */
  async leave(): Promise<string> {
    this.child.stdin?.end();
    return this.ended;
  }

  async kill(): Promise<string> {
    this.child.kill('SIGKILL');
    return this.ended;
  }
}
