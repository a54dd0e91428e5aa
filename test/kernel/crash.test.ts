/** `kill -9` in the middle of I/O, ten times in a row: the next run claims the device and works. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readPciDevice } from 'iommufd';
import t from 'tap';
import { random } from '../support/random.js';
import { nvmeA } from '../vm/topology.js';
import { withNvme } from './support/nvme.js';
import { isNoiommu, profile } from './support/profile.js';

const program = fileURLToPath(new URL('./support/write-forever.js', import.meta.url));
const ROUNDS = 10;

/** Resolves when the child has said that so many writes were completed. */
async function writing(child: ChildProcess): Promise<void> {
  let text = '';
  for await (const chunk of child.stdout ?? []) {
    text += chunk;
    if (text.includes('writing')) return;
  }
  throw new Error(`the writer ended by itself: ${text}`);
}

t.test(`killed in mid-I/O, ${profile}`, async t => {
  const rng = random();
  t.comment(`seed ${rng.seed}`);
  for (let round = 1; round <= ROUNDS; round++) {
    const child = spawn(process.execPath, [program, nvmeA.address, String(isNoiommu)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await writing(child);
    await sleep(rng.below(150));
    child.kill('SIGKILL');
    const [, signal] = await once(child, 'exit');
    t.equal(signal, 'SIGKILL', `round ${round}: killed while it wrote`);
    t.equal(readPciDevice(nvmeA.address).driver, 'vfio-pci');
    await withNvme(nvmeA.address, async controller => {
      const namespace = controller.namespace(1);
      const data = new Uint8Array(256 * 1024);
      rng.fill(data);
      await namespace.write(round * 512, data);
      const back = await namespace.readBlocks(round * 512, data.length / 512);
      t.equal(Buffer.compare(back, data), 0, `round ${round}: the next run drives the device`);
      t.equal(controller.resets, 0);
    });
  }
});
