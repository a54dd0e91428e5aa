/**
 * Random data in mixed sizes at queue depth 32, on both block sizes. The program keeps a copy of what each disk must
 * hold; the host compares its SHA-256 with that of the disk image after power-off.
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DmaArena, type DmaBuffer } from 'iommufd';
import type { Namespace } from 'iommufd/nvme';
import t from 'tap';
import { random } from '../support/random.js';
import { guestEnv, nvmeA } from '../vm/topology.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { withNvme } from './support/nvme.js';
import { profile } from './support/profile.js';

const QUEUE_DEPTH = 32;
const MAX_TRANSFER = 4 * 2 ** 20;
/** Written by each of the two namespaces, at least. */
const BYTES = 40 * 2 ** 20;

interface Extent {
  lba: number;
  blocks: number;
}

const rng = random(Number(process.env.SEED) || undefined);

/** Disjoint extents of mixed sizes, one block to 4 MiB, in random order, `bytes` in all. */
function plan(namespace: Namespace, bytes: number): Extent[] {
  const most = MAX_TRANSFER / namespace.blockSize;
  const end = namespace.blocks - most;
  // The largest transfer belongs in every run.
  const extents: Extent[] = [{ lba: end, blocks: most }];
  let lba = rng.below(64);
  for (let left = bytes / namespace.blockSize; left > 0 && lba < end; ) {
    // As many small ones as large ones: the exponent is what is uniform.
    const size = Math.min(1 + rng.below(2 ** (1 + rng.below(Math.log2(most)))), end - lba);
    extents.push({ lba, blocks: size });
    left -= size;
    lba += size + (rng.below(4) === 0 ? rng.below(8) : 0);
  }
  return rng.shuffle(extents);
}

/** Runs `work` on every item, `QUEUE_DEPTH` at a time. */
async function atDepth<T>(
  items: readonly T[],
  work: (item: T, worker: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const run = async (worker: number): Promise<void> => {
    while (next < items.length) await work(items[next++] as T, worker);
  };
  await Promise.all(Array.from({ length: QUEUE_DEPTH }, (_, worker) => run(worker)));
}

t.test(`verified data, ${profile}`, async t => {
  t.comment(`seed ${rng.seed}`);
  const before = snapshot();
  const hashes: Record<string, string> = {};
  let written = 0;
  await withNvme(nvmeA.address, async (controller, device) => {
    using arena = DmaArena.create(device.space, 24 * 2 ** 20);
    const pool: DmaBuffer[] = [];
    for (let i = 0; i < 4; i++) pool.push(arena.allocate(MAX_TRANSFER, { alignment: 4096 }));
    // Deliberately not aligned to a page: the first PRP entry then has an offset.
    const odd = arena.allocate(MAX_TRANSFER, { alignment: 512 });
    t.equal(odd.bytes.length, MAX_TRANSFER);

    for (const { nsid, disk } of nvmeA.namespaces) {
      const namespace = controller.namespace(nsid);
      const shadow = new Uint8Array(namespace.size);
      const extents = plan(namespace, BYTES);
      const slice = ({ lba, blocks }: Extent): Uint8Array =>
        shadow.subarray(lba * namespace.blockSize, (lba + blocks) * namespace.blockSize);

      await atDepth(extents, async (extent, worker) => {
        const data = slice(extent);
        rng.fill(data);
        written += data.length;
        const buffer = pool[worker];
        if (buffer) {
          // In place, from DMA memory.
          buffer.bytes.set(data);
          await namespace.write(extent.lba, buffer.part(0, data.length));
        } else {
          await namespace.write(extent.lba, data);
        }
      });
      await namespace.flush();

      // Zeroes over part of what was written: one extent in eight.
      for (const extent of extents.filter((_, index) => index % 8 === 0)) {
        const blocks = Math.ceil(extent.blocks / 2);
        await namespace.writeZeroes(extent.lba, blocks);
        slice({ lba: extent.lba, blocks }).fill(0);
      }

      let wrong = 0;
      await atDepth(rng.shuffle([...extents]), async (extent, worker) => {
        const expected = slice(extent);
        if (worker === 0) {
          // Through a buffer that straddles pages.
          const start = rng.below(4) * 512;
          const length = Math.min(expected.length, MAX_TRANSFER - 4096);
          const part = await namespace.read(extent.lba, odd.part(start, length));
          if (Buffer.compare(part.bytes, expected.subarray(0, length)) !== 0) wrong++;
        } else {
          const back = await namespace.readBlocks(extent.lba, extent.blocks);
          if (Buffer.compare(back, expected) !== 0) wrong++;
        }
      });
      t.equal(wrong, 0, `namespace ${nsid}: all of ${extents.length} extents read back identical`);

      const whole = await namespace.readBlocks(0, namespace.blocks);
      t.equal(Buffer.compare(whole, shadow), 0, `namespace ${nsid}: the whole disk is as it should be`);
      hashes[disk] = createHash('sha256').update(shadow).digest('hex');
    }
    t.equal(controller.resets, 0, 'no reset was needed');
  });
  t.ok(written >= 64 * 2 ** 20, `${(written / 2 ** 20).toFixed(0)} MiB were written`);
  const results = process.env[guestEnv.results];
  if (results) writeFileSync(join(results, 'sha256.json'), JSON.stringify(hashes));
  await nothingLeaked(t, before);
});
