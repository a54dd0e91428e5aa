/** The command, as typed at a shell, on real devices. */
import { spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { readPciDevice } from 'iommufd';
import t from 'tap';
import { random } from '../support/random.js';
import { address, nvmeA } from '../vm/topology.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { isNoiommu, profile } from './support/profile.js';

const main = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
const accept = isNoiommu ? ['--noiommu'] : [];

function iommufd(...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const result = spawnSync(process.execPath, [main, ...args], { encoding: 'utf8' });
  return { code: result.status, stdout: result.stdout, stderr: result.stderr };
}

t.test(`the command, ${profile}`, async t => {
  const before = snapshot();

  await t.test('devices', async t => {
    const { code, stdout } = iommufd('devices', '--json');
    t.equal(code, 0);
    const found = JSON.parse(stdout) as { address: string; driver: string | null }[];
    t.match(
      found.find(device => device.address === nvmeA.address),
      { driver: 'nvme' },
    );
    t.match(iommufd('devices').stdout, /0000:00:04\.0 +NVMe controller +1b36:0010 +nvme/);
  });

  await t.test('identify', async t => {
    const { code, stdout } = iommufd('nvme', nvmeA.address, 'identify', ...accept);
    t.equal(code, 0);
    t.match(stdout, /QEMU NVMe Ctrl/);
    t.match(stdout, /iommufd-a/);
    t.equal(readPciDevice(nvmeA.address).driver, 'nvme', 'given back');
  });

  await t.test('write a file, read it back', async t => {
    const data = new Uint8Array(9 * 2 ** 20);
    random().fill(data);
    writeFileSync('/tmp/in.img', data);
    for (const { nsid } of nvmeA.namespaces) {
      const where = ['--namespace', String(nsid), '--lba', '16', ...accept];
      const refused = iommufd('nvme', nvmeA.address, 'write', '--input', '/tmp/in.img', ...where);
      t.equal(refused.code, 2, 'not without --yes');
      t.match(refused.stderr, /overwrites/);
      const written = iommufd('nvme', nvmeA.address, 'write', '--input', '/tmp/in.img', '--yes', ...where);
      t.equal(written.code, 0, written.stderr);
      const bytes = ['--bytes', String(data.length)];
      const read = iommufd('nvme', nvmeA.address, 'read', '--output', '/tmp/out.img', ...bytes, ...where);
      t.equal(read.code, 0, read.stderr);
      t.equal(Buffer.compare(readFileSync('/tmp/out.img'), data), 0, `namespace ${nsid}: the same`);
    }
  });

  await t.test('mistakes', async t => {
    t.match(iommufd('nvme', '0000:00:1e.7', 'identify', ...accept), { code: 1, stderr: /no PCI device/ });
    t.match(iommufd('nvme', address.edu, 'identify', ...accept), { code: 1, stderr: /no NVMe controller/ });
    t.match(iommufd('nvme', nvmeA.address, 'format'), { code: 2, stderr: /--help/ });
    if (isNoiommu) t.match(iommufd('nvme', nvmeA.address, 'identify'), { code: 1, stderr: /--noiommu/ });
  });

  await t.test('interrupted', async t => {
    const child = spawn(process.execPath, [main, 'nvme', nvmeA.address, 'read', ...accept], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    // Nobody reads its output, so it comes to a stop in the middle.
    while (readPciDevice(nvmeA.address).driver !== 'vfio-pci') await sleep(20);
    await sleep(1500);
    child.kill('SIGINT');
    const code = await new Promise(resolve => child.on('exit', resolve));
    t.equal(code, 130);
    t.equal(readPciDevice(nvmeA.address).driver, 'nvme', 'given back');
  });

  await nothingLeaked(t, before);
});
