// The kernel tier: each guest program in each machine profile that it concerns, a VM for each.
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import t, { type Test } from 'tap';
import { bundleDriver, checkKeptNvme } from './kept-nvme.js';
import { type KernelTestOptions, kernelTest, machinesAtOnce } from './kernel-tier.js';
import { checkKept } from './kexec-kept.js';
import { nvmeTraceEvents } from './nvme-trace.js';
import { type ProfileName, profileNames } from './profiles.js';
import { registerTrace } from './register-trace.js';
import { type DiskName, resettable } from './topology.js';
import type { VmResult } from './vm.js';

interface GuestProgram {
  /** `dist/test/kernel/<name>.test.js` */
  readonly name: string;
  readonly profiles: readonly ProfileName[];
  readonly after?: (t: Test, vm: VmResult) => Promise<void>;
  /** What its machines have beyond the profile. */
  readonly machine?: Pick<
    KernelTestOptions,
    'append' | 'qemuArgs' | 'extraDevices' | 'trace' | 'diskBytes' | 'before' | 'env'
  >;
}

const sha256 = async (file: string): Promise<string> => {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
};

/** The guest says what it believes each disk holds; the image is what QEMU really wrote. */
const compareImages = async (t: Test, vm: VmResult): Promise<void> => {
  const believed = JSON.parse(readFileSync(join(vm.results, 'sha256.json'), 'utf8')) as Record<
    DiskName,
    string
  >;
  for (const [disk, expected] of Object.entries(believed)) {
    t.equal(await sha256(vm.disks[disk as DiskName]), expected, `SHA-256 of the disk image ${disk}`);
  }
};

const withIommufd = profileNames.filter(name => name !== 'legacy');

const liveUpdate = { append: 'liveupdate=on' };

const programs: readonly GuestProgram[] = [
  { name: 'nvme-data', profiles: profileNames, after: compareImages },
  { name: 'nvme-commands', profiles: ['vtd', 'noiommu'] },
  { name: 'nvme-model', profiles: ['vtd'] },
  { name: 'edu', profiles: profileNames },
  { name: 'iommufd', profiles: withIommufd },
  {
    name: 'page-tables',
    profiles: ['vtd', 'vtd-scalable', 'vtd-first-stage', 'amd'],
    // Memory above 4 GiB, where a page of 1 GiB can be had.
    machine: { append: 'hugepagesz=1G hugepages=1', qemuArgs: ['-m', '4G'] },
  },
  { name: 'bad-input', profiles: ['vtd', 'noiommu', 'legacy'] },
  { name: 'removal', profiles: ['vtd', 'noiommu'] },
  { name: 'crash', profiles: ['vtd', 'noiommu'] },
  {
    name: 'handoff',
    profiles: ['vtd', 'noiommu'],
    machine: { trace: nvmeTraceEvents, before: bundleDriver },
    after: checkKeptNvme,
  },
  {
    name: 'keepalive-crash',
    profiles: ['vtd', 'noiommu'],
    // Room for all that is written in a run without writing anything twice.
    machine: { trace: nvmeTraceEvents, before: bundleDriver, diskBytes: 1 << 30 },
    after: checkKeptNvme,
  },
  { name: 'swap', profiles: ['vtd'], machine: { extraDevices: resettable.devices } },
  { name: 'swap', profiles: ['amd', 'noiommu'] },
  { name: 'live-update', profiles: ['noiommu'], machine: liveUpdate },
  {
    name: 'kexec-keep',
    profiles: ['vtd', 'noiommu'],
    machine: { ...liveUpdate, trace: registerTrace },
    after: checkKept,
  },
  { name: 'kexec-lost', profiles: ['vtd', 'noiommu'], machine: liveUpdate },
  { name: 'keepalive-errno', profiles: ['vtd', 'noiommu'], machine: liveUpdate },
  { name: 'no-tricks', profiles: ['noiommu'] },
  { name: 'cli', profiles: ['vtd', 'noiommu'] },
  { name: 'readme', profiles: ['vtd', 'noiommu', 'legacy'] },
];

// IOMMUFD_PROFILE and IOMMUFD_PROGRAM narrow a run down while working on something.
const wanted = (variable: string, value: string): boolean => (process.env[variable] ?? value) === value;

t.jobs = machinesAtOnce;
let ran = 0;
for (const { name, profiles, after, machine } of programs) {
  for (const profile of profiles) {
    if (!wanted('IOMMUFD_PROGRAM', name) || !wanted('IOMMUFD_PROFILE', profile)) continue;
    ran++;
    void kernelTest(t, {
      profile,
      file: `dist/test/kernel/${name}.test.js`,
      // Emulation is slow, strace under emulation slower; the VM has a time limit of its own.
      env: { TAP_TIMEOUT: '500' },
      name: `${name} (${profile})`,
      ...machine,
      ...(after && { after }),
    });
  }
}
if (ran === 0) t.fail('IOMMUFD_PROGRAM and IOMMUFD_PROFILE leave nothing to run');
