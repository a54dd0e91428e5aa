// The bounded pool for callers whose data is in ordinary memory: who waits, and who is served when.
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { BouncePool } from '../../src/drivers/nvme/bounce-pool.js';
import type { DmaBuffer } from '../../src/memory/dma-buffer.js';
import { DmaArena } from '../../src/memory/dma-memory.js';
import { fakeSpace } from './support/fake-iommufd.js';

const PAGE = 4096;

/** A pool of 8 pages; `served` gets the name of each request when it has its buffer. */
function setUp() {
  const { iommufd, ioas } = fakeSpace();
  const memory = DmaArena.create(ioas, 8 * PAGE);
  const pool = new BouncePool(memory);
  const served: string[] = [];
  const buffers = new Map<string, DmaBuffer>();
  const failed: string[] = [];
  const request = (name: string, pages: number): void => {
    pool.acquire(pages * PAGE).then(
      buffer => {
        served.push(name);
        buffers.set(name, buffer);
      },
      (error: Error) => failed.push(`${name} ${error.name}`),
    );
  };
  const release = (name: string): void => pool.release(buffers.get(name)!);
  const dispose = (): void => {
    memory[Symbol.dispose]();
    iommufd[Symbol.dispose]();
  };
  return { memory, pool, served, failed, request, release, dispose };
}

t.test('buffers are given at once while there is room', async t => {
  const { memory, pool, served, failed, request, release, dispose } = setUp();
  t.equal(pool.capacity, 8 * PAGE);
  const odd = await pool.acquire(100);
  t.equal(odd.offset % PAGE, 0, 'each begins on a page');
  t.equal(odd.byteLength, 100);
  pool.release(odd);
  request('a', 3);
  request('b', 5);
  await turn();
  t.same(served, ['a', 'b']);
  request('c', 1);
  await turn();
  t.same(served, ['a', 'b'], 'the next one waits');
  release('a');
  await turn();
  t.same(served, ['a', 'b', 'c']);
  release('b');
  release('c');
  t.equal(memory.available, 8 * PAGE, 'all of it is back');
  request('too large', 9);
  request('nothing', 0);
  await turn();
  t.same(
    failed,
    ['too large RangeError', 'nothing RangeError'],
    'what can never be had is refused, not waited for',
  );
  dispose();
});

t.test('first come, first served', async t => {
  const { served, request, release, dispose } = setUp();
  request('all', 8);
  await turn();
  const names = ['1', '2', '3', '4', '5'];
  for (const name of names) request(name, 8);
  for (const name of ['all', '1', '2', '3', '4']) {
    release(name);
    await turn();
  }
  t.same(served, ['all', ...names]);
  dispose();
});

t.test('a large request is not overtaken', async t => {
  const { served, request, release, dispose } = setUp();
  request('x', 4);
  request('y', 4);
  await turn();
  request('large', 8);
  request('small', 1);
  await turn();
  release('x');
  await turn();
  t.same(served, ['x', 'y'], 'there is room for the small one, but it is not its turn');
  release('y');
  await turn();
  t.same(served, ['x', 'y', 'large']);
  release('large');
  await turn();
  t.same(served, ['x', 'y', 'large', 'small']);
  dispose();
});

t.test('one return can serve several', async t => {
  const { served, request, release, dispose } = setUp();
  request('all', 8);
  await turn();
  request('a', 3);
  request('b', 3);
  request('c', 3);
  await turn();
  release('all');
  await turn();
  t.same(served, ['all', 'a', 'b'], 'as many as there is room for');
  release('a');
  await turn();
  t.same(served, ['all', 'a', 'b', 'c']);
  dispose();
});

t.test('nobody waits for memory that is gone', async t => {
  const { memory, failed, request, release, dispose } = setUp();
  request('all', 8);
  await turn();
  request('a', 1);
  request('b', 1);
  request('c', 1);
  await turn();
  memory[Symbol.dispose]();
  release('all');
  await turn();
  t.same(failed, ['a DisposedError', 'b DisposedError', 'c DisposedError']);
  dispose();
});
