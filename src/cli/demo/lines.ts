/** The lines of the demonstration, as they come. @module */
import { Progress } from '../progress.js';
import type { Narrator } from './mode.js';

const LABEL_WIDTH = 14;

/** Writes a line for each step, and a progress bar in between. */
export class Lines implements Narrator, Disposable {
  readonly #say: (text: string) => Promise<void>;
  #progress: Progress | undefined;
  #said: Promise<void> = Promise.resolve();

  constructor(say: (text: string) => Promise<void>) {
    this.#say = say;
  }

  get width(): number {
    return process.stdout.columns || 80;
  }

  step(name: string, text: string): void {
    this.#end();
    this.#write(`  ${name.padEnd(LABEL_WIDTH)}${text}`);
  }

  picture(lines: readonly string[]): void {
    this.#write(['', ...lines.map(line => `    ${line}`), ''].join('\n'));
  }

  progress(done: number, total: number): void {
    this.#progress ??= new Progress(total);
    this.#progress.update(done);
  }

  /** When all of it is written. */
  said(): Promise<void> {
    return this.#said;
  }

  #write(text: string): void {
    this.#said = this.#said.then(() => this.#say(text));
    // A reader that went away is told of by whoever waits.
    this.#said.catch(() => undefined);
  }

  #end(): void {
    this.#progress?.[Symbol.dispose]();
    this.#progress = undefined;
  }

  [Symbol.dispose](): void {
    this.#end();
  }
}
