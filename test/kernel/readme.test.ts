/** The driver in the README, as it is printed there. */
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { readPciDevice } from 'iommufd';
import t from 'tap';
import { nvmeA } from '../vm/topology.js';
import { isNoiommu, profile } from './support/profile.js';

const root = new URL('../../..', import.meta.url);

t.test(`README, ${profile}`, async t => {
  const readme = readFileSync(new URL('README.md', root), 'utf8');
  const source = /```js\n([\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const lines = source.split('\n').filter(line => line.trim() !== '');
  t.ok(lines.length > 20 && lines.length <= 35, `${lines.length} lines`);
  // Inside the package, so that its name resolves to itself.
  const file = fileURLToPath(new URL('dist/readme-driver.mjs', root));
  writeFileSync(file, source);
  const result = spawnSync(process.execPath, [file, nvmeA.address, ...(isNoiommu ? ['noiommu'] : [])], {
    encoding: 'utf8',
  });
  t.equal(result.stderr, '');
  t.equal(result.stdout, 'QEMU NVMe Ctrl\n');
  t.equal(result.status, 0);
  t.equal(readPciDevice(nvmeA.address).driver, 'nvme', 'the kernel has it back');
});
