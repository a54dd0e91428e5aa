// IOVA allocation: pairs of free and allocate at a steady population, and the refill of a space that has holes.
//
// Sizes: 70 % of 4 KiB, 20 % of 8 to 64 KiB, 10 % of 2 MiB, drawn beforehand. What is freed is random, by a shuffled
// list that is read in sequence, so that the misses of the harness do not count. Peers in JavaScript keep the free
// ranges in a sorted map by start and another by size (best fit, all in O(log n)), and the sizes of what they
// allocated in a Map; they are spared bigints. The peer in C is told the sizes.
import { OrderedMap } from '@js-sdsl/ordered-map';
import sortedBTree from 'sorted-btree';
import type { Iova } from '../../src/address.js';
import { IovaSpace } from '../../src/memory/iova-space.js';
import { random } from '../support/random.js';
import { type BenchCase, type Contender, nanoseconds } from './measure.js';
import { buildPeer, nativePeer } from './native.js';

const SEED = 0x10fa;
const PAGE = 4096;
const MIB2 = 2 ** 21;
/** More than any round takes, so that no two rounds are the same. */
const SIZES = 2 ** 21;

/** What a machine with an AMD IOMMU reports. */
const ranges = [
  { first: 0n as Iova, last: 0xfedf_ffffn as Iova },
  { first: 0xfef0_0000n as Iova, last: 0xfc_ffff_ffffn as Iova },
  { first: 0x100_0000_0000n as Iova, last: (2n ** 57n - 1n) as Iova },
];

const { below, shuffle } = random(SEED);
const sizes = Int32Array.from({ length: SIZES }, () => {
  const percent = below(100);
  if (percent < 70) return PAGE;
  return percent < 90 ? PAGE * (2 + below(15)) : MIB2;
});

/** Deals the sizes, over and over. */
class Deck {
  #next = 0;
  get next(): number {
    this.#next = (this.#next + 1) % SIZES;
    return sizes[this.#next] as number;
  }
}

interface Job {
  /** One free and one allocation, `count` times. */
  pairs(count: number): void;
  shuffle(): void;
  freeHalf(): void;
  /** As many allocations as {@link freeHalf} freed. */
  refill(): void;
}

function ours(live: number): Job {
  const space = new IovaSpace(ranges);
  const deck = new Deck();
  const blocks = new BigUint64Array(live);
  for (let i = 0; i < live; i++) blocks[i] = space.allocate(deck.next) as Iova;
  return {
    pairs(count) {
      for (let i = 0, j = 0; i < count; i++) {
        space.free(blocks[j] as Iova);
        blocks[j] = space.allocate(deck.next) as Iova;
        if (++j === live) j = 0;
      }
    },
    shuffle: () => shuffle(blocks as unknown as bigint[]),
    freeHalf() {
      for (let i = 0; i < live / 2; i++) space.free(blocks[i] as Iova);
    },
    refill() {
      for (let i = 0; i < live / 2; i++) blocks[i] = space.allocate(deck.next) as Iova;
    },
  };
}

/** A sorted map of numbers. */
interface Sorted {
  set(key: number, value: number): void;
  delete(key: number): void;
  /** The least key that is not below, NaN without one. */
  atOrAbove(key: number): number;
  /** The greatest key below, NaN without one. */
  under(key: number): number;
  get(key: number): number;
}

/** Best fit over two sorted maps: start to size, and size with start to nothing. */
class BestFit {
  readonly #byStart: Sorted;
  readonly #bySize: Sorted;
  readonly #allocated = new Map<number, number>();

  constructor(make: () => Sorted) {
    this.#byStart = make();
    this.#bySize = make();
    this.#add(1, 2 ** 32 - 1);
  }

  /** Both in pages; longer ones count as the longest that is told apart. */
  #key(start: number, size: number): number {
    return Math.min(size, 2 ** 20) * 2 ** 32 + start;
  }
  #add(start: number, size: number): void {
    this.#byStart.set(start, size);
    this.#bySize.set(this.#key(start, size), 0);
  }
  #remove(start: number, size: number): void {
    this.#byStart.delete(start);
    this.#bySize.delete(this.#key(start, size));
  }

  allocate(bytes: number): number {
    const size = bytes / PAGE;
    const start = this.#bySize.atOrAbove(size * 2 ** 32) % 2 ** 32;
    const found = this.#byStart.get(start);
    this.#remove(start, found);
    if (found > size) this.#add(start + size, found - size);
    this.#allocated.set(start, size);
    return start;
  }

  free(start: number): void {
    let first = start;
    let size = this.#allocated.get(start) as number;
    this.#allocated.delete(start);
    const before = this.#byStart.under(start);
    if (!Number.isNaN(before)) {
      const length = this.#byStart.get(before);
      if (before + length === start) {
        this.#remove(before, length);
        first = before;
        size += length;
      }
    }
    const after = first + size;
    if (this.#byStart.atOrAbove(after) === after) {
      const length = this.#byStart.get(after);
      this.#remove(after, length);
      size += length;
    }
    this.#add(first, size);
  }
}

// The package is CommonJS, whose default export is a property of what is imported.
const { default: BTree } = sortedBTree as unknown as typeof import('sorted-btree');

function btree(): Sorted {
  const tree = new BTree<number, number>(undefined, (a, b) => a - b);
  return {
    set: (key, value) => void tree.set(key, value),
    delete: key => void tree.delete(key),
    atOrAbove: key => tree.getPairOrNextHigher(key)?.[0] ?? Number.NaN,
    under: key => tree.nextLowerKey(key) ?? Number.NaN,
    get: key => tree.get(key) as number,
  };
}

function orderedMap(): Sorted {
  const map = new OrderedMap<number, number>([], (a, b) => a - b);
  return {
    set: (key, value) => void map.setElement(key, value),
    delete: key => void map.eraseElementByKey(key),
    atOrAbove: key => {
      const found = map.lowerBound(key);
      return found.isAccessible() ? found.pointer[0] : Number.NaN;
    },
    under: key => {
      const found = map.reverseUpperBound(key);
      return found.isAccessible() ? found.pointer[0] : Number.NaN;
    },
    get: key => map.getElementByKey(key) as number,
  };
}

function peer(live: number, make: () => Sorted): Job {
  const space = new BestFit(make);
  const deck = new Deck();
  const blocks = Float64Array.from({ length: live }, () => space.allocate(deck.next));
  return {
    pairs(count) {
      for (let i = 0, j = 0; i < count; i++) {
        space.free(blocks[j] as number);
        blocks[j] = space.allocate(deck.next);
        if (++j === live) j = 0;
      }
    },
    shuffle: () => shuffle(blocks as unknown as number[]),
    freeHalf() {
      for (let i = 0; i < live / 2; i++) space.free(blocks[i] as number);
    },
    refill() {
      for (let i = 0; i < live / 2; i++) blocks[i] = space.allocate(deck.next);
    },
  };
}

/** Made when first needed, and kept, as the population that it is. */
function kept(make: () => Job): () => Job {
  let job: Job | undefined;
  return () => {
    if (job === undefined) {
      job = make();
      job.shuffle();
    }
    return job;
  };
}

function pairs(make: () => Job, count: number): Contender {
  const get = kept(make);
  return () => {
    const job = get();
    job.shuffle();
    return nanoseconds(count, () => job.pairs(count));
  };
}

function refill(make: () => Job, live: number): Contender {
  const get = kept(make);
  return () => {
    const job = get();
    job.shuffle();
    job.freeHalf();
    return nanoseconds(live / 2, () => job.refill());
  };
}

const packages = (live: number, measure: (make: () => Job) => Contender) => ({
  'sorted-btree': measure(() => peer(live, btree)),
  '@js-sdsl/ordered-map': measure(() => peer(live, orderedMap)),
});

export function cases(): BenchCase[] {
  const skiplist = buildPeer('skiplist-iova');
  const [K, M] = [1000, 1_000_000];
  return [
    {
      name: 'free + allocate, 1 k live',
      unit: 'ns per pair',
      ours: pairs(() => ours(K), 500 * K),
      peers: { 'skip list, C': nativePeer(skiplist, ['pairs', K, 200 * K]) },
    },
    {
      name: 'free + allocate, 100 k live',
      unit: 'ns per pair',
      ours: pairs(() => ours(100 * K), 500 * K),
      peers: {
        ...packages(100 * K, make => pairs(make, 100 * K)),
        'skip list, C': nativePeer(skiplist, ['pairs', 100 * K, 10 * K]),
      },
    },
    {
      name: 'free + allocate, 1 M live',
      unit: 'ns per pair',
      ours: pairs(() => ours(M), M),
      peers: {},
    },
    {
      name: 'refill of 100 k, half freed',
      unit: 'ns per allocation',
      ours: refill(() => ours(100 * K), 100 * K),
      peers: {
        ...packages(100 * K, make => refill(make, 100 * K)),
        'skip list of 20 k, C': nativePeer(skiplist, ['refill', 20 * K, 5 * K]),
      },
    },
    {
      name: 'refill of 1 M, half freed',
      unit: 'ns per allocation',
      ours: refill(() => ours(M), M),
      peers: {},
    },
  ];
}
