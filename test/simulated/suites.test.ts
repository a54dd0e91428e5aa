/**
 * The driver suites of the kernel tier, as they are, on the simulated host: each program in a process of its own, which
 * finds the machine of the test VMs in place of the running kernel.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { nodeCommand } from '../support/node-command.js';
import type { ProfileName } from '../vm/profiles.js';
import { type DiskName, guestEnv } from '../vm/topology.js';

const preload = new URL('../support/simulated-machine.js', import.meta.url).href;
const suites: readonly { name: string; profiles: readonly ProfileName[]; images?: boolean }[] = [
  { name: 'nvme-data', profiles: ['vtd', 'noiommu', 'legacy'], images: true },
  { name: 'nvme-commands', profiles: ['vtd', 'noiommu'] },
  { name: 'removal', profiles: ['vtd', 'noiommu'] },
  { name: 'edu', profiles: ['vtd', 'noiommu', 'legacy'] },
  { name: 'iommufd', profiles: ['vtd', 'amd', 'noiommu'] },
];

// Each takes seconds, but machines are slow at times.
t.setTimeout(300_000);

for (const { name, profiles, images } of suites) {
  for (const profile of profiles) {
    await t.test(`${name}, ${profile}`, async t => {
      const results = t.testdir();
      const program = fileURLToPath(new URL(`../kernel/${name}.test.js`, import.meta.url));
      const env = {
        ...process.env,
        [guestEnv.profile]: profile,
        ...(images && { [guestEnv.results]: results }),
      };
      await t.spawn(...nodeCommand('--import', preload, program), { env }, name);
      if (!images) return;
      // The program says what it believes each disk holds; the image is what the controller really wrote.
      const believed = JSON.parse(readFileSync(join(results, 'sha256.json'), 'utf8')) as Record<
        DiskName,
        string
      >;
      for (const [disk, expected] of Object.entries(believed)) {
        const image = readFileSync(join(results, `${disk}.img`));
        t.equal(createHash('sha256').update(image).digest('hex'), expected, `SHA-256 of the image ${disk}`);
      }
    });
  }
}
