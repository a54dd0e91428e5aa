/** Where two tables of a saved state differ, whatever pieces they are in. @module */

/** Pages of one kind, one after the other: page `first` lies at page `first + delta` of what `tag` stands for. */
export interface Run {
  first: number;
  /** One past the last. */
  end: number;
  tag: number;
  delta: number;
}

/** A run of pages of which two tables say different things; `undefined` where one says nothing. */
export interface RunDifference {
  readonly first: number;
  readonly end: number;
  readonly a: Run | undefined;
  readonly b: Run | undefined;
}

/** What runs on is one run. @param runs in ascending order */
function* joined(runs: Iterable<Run>): Generator<Run> {
  let run: Run | undefined;
  for (const next of runs) {
    if (run && next.first === run.end && next.tag === run.tag && next.delta === run.delta) {
      run.end = next.end;
      continue;
    }
    if (run) yield run;
    run = { ...next };
  }
  if (run) yield run;
}

/** A list of runs that is gone through from low to high pages. */
class Cursor {
  readonly #runs: Iterator<Run>;
  #run: Run | undefined;

  constructor(runs: Iterable<Run>) {
    this.#runs = joined(runs)[Symbol.iterator]();
    this.#next();
  }

  #next(): void {
    const next = this.#runs.next();
    this.#run = next.done === true ? undefined : next.value;
  }

  /** What there is at `page`, which must not go down. */
  at(page: number): Run | undefined {
    if (this.#run && this.#run.end <= page) this.#next();
    return this.#run && this.#run.first <= page ? this.#run : undefined;
  }

  /** The next page after `page` at which something begins or ends; infinity when nothing does. */
  boundary(page: number): number {
    if (!this.#run) return Number.POSITIVE_INFINITY;
    return this.#run.first > page ? this.#run.first : this.#run.end;
  }
}

/** Goes through both at once. @param a in ascending order, disjoint @param b likewise */
export function* compareRuns(a: Iterable<Run>, b: Iterable<Run>): Generator<RunDifference> {
  const [cursorA, cursorB] = [new Cursor(a), new Cursor(b)];
  for (let first = 0; ; ) {
    const [runA, runB] = [cursorA.at(first), cursorB.at(first)];
    const end = Math.min(cursorA.boundary(first), cursorB.boundary(first));
    if (end === Number.POSITIVE_INFINITY) return;
    if (runA?.tag !== runB?.tag || runA?.delta !== runB?.delta) {
      yield { first, end, a: runA, b: runB };
    }
    first = end;
  }
}
