/**
 * The conformance suite on the real kernel, a machine for each profile, and on the simulated host; both must come out
 * alike. Writes test/conformance/TABLE.md, which must not change.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { RunResults } from '../conformance/support/result.js';
import { report } from '../conformance/table.js';
import { kernelTest, machinesAtOnce } from './kernel-tier.js';
import type { ProfileName } from './profiles.js';
import { projectRoot } from './project.js';

// A kernel may have to be built first, and each machine has its own limit.
t.setTimeout(0);

const resultsOf = (file: string): RunResults => JSON.parse(readFileSync(file, 'utf8')) as RunResults;
/** In the order of the table, whichever ends first. */
const onKernel: RunResults[] = [];
const onSimulator: RunResults[] = [];

const machine = { append: 'liveupdate=on' };
const programs: readonly { name: string; profiles: readonly ProfileName[] }[] = [
  { name: 'run', profiles: ['vtd', 'vtd-scalable', 'amd', 'noiommu', 'legacy'] },
  // Over a kexec.
  { name: 'kexec', profiles: ['noiommu'] },
];
const machines: Promise<void>[] = [];
t.jobs = machinesAtOnce;
for (const { name, profiles } of programs) {
  for (const profile of profiles) {
    const index = machines.length;
    machines.push(
      kernelTest(t, {
        profile,
        file: `dist/test/conformance/${name}.test.js`,
        name: `${name} (${profile})`,
        env: { TAP_TIMEOUT: '0' },
        timeoutMs: 1_800_000,
        ...machine,
        after: (_t, vm) => {
          onKernel[index] = resultsOf(join(vm.results, 'conformance.json'));
        },
      }),
    );
  }
}

// What the simulated host has not, and so has no place in the table: a physical function with virtual ones, and a page
// of 1 GiB.
machines.push(
  kernelTest(t, {
    profile: 'vtd',
    file: 'dist/test/conformance/run.test.js',
    args: ['sriov|hugetlb_1gb'],
    name: 'on a larger machine (vtd)',
    env: { TAP_TIMEOUT: '0' },
    append: 'liveupdate=on hugepagesz=1G hugepages=1',
    qemuArgs: ['-m', '4G'],
    extraDevices: [
      'nvme-subsys,id=subsystem',
      'nvme,id=physical,serial=physical,subsys=subsystem,bus=portEmpty,sriov_max_vfs=1,sriov_vq_flexible=2,' +
        'sriov_vi_flexible=1,max_ioqpairs=6,msix_qsize=7',
    ],
  }),
);
await Promise.all(machines);

await t.test('on the simulated host', async t => {
  const directory = t.testdir();
  for (const { name } of programs) {
    const results = join(directory, `${name}.json`);
    const program = join(projectRoot, `dist/test/conformance/${name}.test.js`);
    const env = { ...process.env, IOMMUFD_CONFORMANCE_RESULTS: results, TAP_TIMEOUT: '0' };
    await t.spawn(process.execPath, [program], { env, timeout: 0 }, name);
    onSimulator.push(resultsOf(results));
  }
});

t.test('the table', async t => {
  const { table, complaints } = report([...onKernel.filter(each => each !== undefined), ...onSimulator]);
  t.strictSame(complaints, [], 'kernel and simulator agree');
  const file = join(projectRoot, 'test/conformance/TABLE.md');
  const before = readFileSync(file, 'utf8');
  writeFileSync(file, table);
  t.equal(before === table, true, 'test/conformance/TABLE.md is what this run has made of it');
});
