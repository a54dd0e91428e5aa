// The simulated kernel's list of areas, against a sorted array.
import t from 'tap';
import { by } from '../../src/order.js';
import { IntervalList } from '../../src/sim/iommufd/interval-list.js';
import type { Interval } from '../../src/sim/iommufd/intervals.js';
import { random } from '../support/random.js';

t.test('against a sorted array', async t => {
  const { seed, below, shuffle } = random(Number(process.env.SEED) || Date.now() & 0x7fff_ffff);
  t.comment(`seed ${seed}`);
  const list = new IntervalList<Interval>();
  t.equal(list.find(0n), undefined);
  t.strictSame([...list.from(0n)], []);
  // Each has a place of its own, with holes between.
  const all = Array.from({ length: 5000 }, (_, index): Interval => {
    const first = BigInt(index * 100 + below(50));
    return { first, last: first + BigInt(below(50)) };
  });
  const model: Interval[] = [];
  const compare = (): void => {
    t.equal(list.size, model.length);
    t.strictSame([...list], model);
    for (let probe = 0; probe < 20; probe++) {
      const at = BigInt(below(500_200));
      const expected = model.filter(({ last }) => last >= at);
      t.equal(list.find(at), expected[0]);
      t.strictSame([...list.from(at)], expected);
    }
  };
  // In order, so that chunks are full; from both ends and at random, so that they are cut and run empty.
  for (const interval of all.slice(0, 2000)) list.insert(interval);
  model.push(...all.slice(0, 2000));
  compare();
  for (const interval of shuffle(all.slice(2000))) list.insert(interval);
  model.push(...all.slice(2000));
  compare();
  for (const interval of model.splice(0, 1500)) list.remove(interval);
  for (const interval of model.splice(-700).reverse()) list.remove(interval);
  for (let i = 0; i < 2000; i++) list.remove(model.splice(below(model.length), 1)[0] as Interval);
  compare();
  for (const interval of all.slice(0, 1500).reverse()) {
    list.insert(interval);
    model.push(interval);
  }
  model.sort(by(({ first }) => first));
  compare();
  for (const interval of model.splice(0)) list.remove(interval);
  compare();
});
