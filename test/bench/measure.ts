// One case of a benchmark: ours and its peers, timed in turn so that a drift of the machine meets all of them.

/** Runs the job once and returns its figure, in the unit of the case; less is better. */
export type Contender = () => number | Promise<number>;

export interface BenchCase {
  readonly name: string;
  /** Such as `'ns per pair'`. */
  readonly unit: string;
  readonly ours: Contender;
  readonly peers: Readonly<Record<string, Contender>>;
  /** Counted rounds, after one that is not; 5 unless told. */
  readonly rounds?: number;
}

/** One line of `--json`. */
export interface Result {
  readonly suite: string;
  readonly case: string;
  readonly unit: string;
  /** The median of the rounds. */
  readonly ours: number;
  readonly peers: Readonly<Record<string, number>>;
  /** How many times better ours is than that peer: the median of the rounds' own ratios. */
  readonly ratio: Readonly<Record<string, number>>;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** @param report is told of each round before it runs: round 0 warms up and does not count. */
export async function measure(
  suite: string,
  benchCase: BenchCase,
  report: (round: number, rounds: number, contender: string) => void,
): Promise<Result> {
  const { name, unit, ours, peers, rounds = 5 } = benchCase;
  const contenders: readonly (readonly [string, Contender])[] = [['ours', ours], ...Object.entries(peers)];
  const figures = new Map<string, number[]>(contenders.map(([title]) => [title, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [title, contender] of contenders) {
      report(round, rounds, title);
      const figure = await contender();
      if (!(figure >= 0)) throw new Error(`${suite}, ${name}: ${title} measured ${figure}`);
      if (round > 0) figures.get(title)?.push(figure);
    }
  }
  const own = figures.get('ours') as number[];
  const of = (title: string): number[] => figures.get(title) as number[];
  const titles = Object.keys(peers);
  return {
    suite,
    case: name,
    unit,
    ours: median(own),
    peers: Object.fromEntries(titles.map(title => [title, median(of(title))])),
    ratio: Object.fromEntries(
      titles.map(title => [title, median(of(title).map((figure, round) => figure / (own[round] as number)))]),
    ),
  };
}

/** Nanoseconds that `job` takes, divided by `count`. */
export function nanoseconds(count: number, job: () => void): number {
  const start = process.hrtime.bigint();
  job();
  return Number(process.hrtime.bigint() - start) / count;
}
