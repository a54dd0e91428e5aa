/** A progress bar on standard error, for transfers that take long enough to wonder. @module */
import { formatRate, formatSeconds, formatSize } from './units.js';

/** Shorter transfers show none. */
const DELAY_MS = 1000;
const INTERVAL_MS = 200;
const BAR_MOST = 30;
const BAR_LEAST = 5;

/**
 * One line: the share that is done, a bar, sizes, rate and time left.
 *
 * @param total in bytes, `undefined` when nobody knows
 * @param columns the line is shorter than this
 */
export function progressLine(
  done: number,
  total: number | undefined,
  seconds: number,
  columns: number,
): string {
  const rate = formatRate(done, seconds);
  if (total === undefined || total === 0) return `${formatSize(done)}, ${rate}`.slice(0, columns - 1);
  const share = Math.min(done / total, 1);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const left = done > 0 ? `, ${formatSeconds(Math.ceil((seconds / done) * (total - done)))} left` : '';
  const text = `${formatSize(done)} of ${formatSize(total)}, ${rate}${left}`;
  const room = Math.min(columns - 1 - percent.length - text.length - 4, BAR_MOST);
  if (room < BAR_LEAST) return `${percent} ${text}`.slice(0, columns - 1);
  const filled = Math.round(share * room);
  return `${percent} [${'='.repeat(filled)}${' '.repeat(room - filled)}] ${text}`;
}

/** What {@link Progress} writes to. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export class Progress implements Disposable {
  readonly #stream: ProgressStream;
  readonly #total: number | undefined;
  readonly #started = performance.now();
  #due = this.#started + DELAY_MS;
  #visible = false;

  constructor(total: number | undefined, stream: ProgressStream = process.stderr) {
    this.#total = total;
    this.#stream = stream;
  }

  /** @param done bytes so far */
  update(done: number): void {
    const now = performance.now();
    if (!this.#stream.isTTY || now < this.#due) return;
    this.#due = now + INTERVAL_MS;
    this.#visible = true;
    const line = progressLine(done, this.#total, (now - this.#started) / 1000, this.#stream.columns || 80);
    this.#stream.write(`\r\u001b[K${line}`);
  }

  /** Since it was made, in seconds. */
  get seconds(): number {
    return (performance.now() - this.#started) / 1000;
  }

  /** Leaves the terminal as it was. */
  [Symbol.dispose](): void {
    if (this.#visible) this.#stream.write('\r\u001b[K');
    this.#visible = false;
  }
}
