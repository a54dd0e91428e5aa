// Every system call of the usual life of a driver fails once, on the simulated host: whatever fails, nothing is left
// behind but what the failed call itself was to give back.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { ENOMEM } from '../../bindings/uapi/errno.js';
import { IOMMU_IOAS_NOIOMMU_GET_PA } from '../../bindings/uapi/iommufd.js';
import { claim, DmaArena, EphemeralMemory, InterruptKind, openDevice } from '../../src/index.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { MachineProfile } from '../../src/sim/iommu/hardware.js';
import {
  allFailures,
  type CallRecord,
  describeInjection,
  type FailureRun,
  faulty,
  type Stage,
} from '../../src/testing/faults.js';

const ADDRESS = '0000:00:04.0';

function stage(profile: MachineProfile): Stage {
  const namespaces = [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 2 ** 20 })];
  const device = new NvmeModel({ serial: 'a', namespaces });
  const host = new SimulatedHost({ profile, devices: [{ address: ADDRESS, function: device }] });
  return { kernel: host.process(), holdings: () => host.leftovers() };
}

/** Takes the device from its driver, uses all that there is, and gives it back. */
async function life(kernel: Syscalls, profile: MachineProfile): Promise<void> {
  const noiommu = profile === 'noiommu';
  using claimed = await claim(ADDRESS, { kernel, timeout: 50 });
  using device = openDevice(claimed, { noiommu });
  device.config.memory = true;
  using arena = DmaArena.create(device.space, 16 * 4096);
  using buffer = arena.allocate(5000, { alignment: 4096 });
  buffer.segments();
  using other = EphemeralMemory.create(device.space, 4096);
  other.deviceAddress(0);
  const [first] = device.interrupts.enable(InterruptKind.Msix, 3);
  const counts = first?.[Symbol.asyncIterator]();
  const next = counts?.next();
  device.config.busMaster = true;
  device.bar(0).read32(0);
  device.interrupts.trigger(InterruptKind.Msix, 0);
  await next;
  await counts?.return?.();
  device.interrupts.disable(InterruptKind.Msix);
  device.interrupts.enable(InterruptKind.Intx);
  await device.reset();
}

/** A call that only looks; who makes it may do without the answer. */
const looking = new Set(['readDirectory', 'readLink', 'readText', 'access']);

/** Giving the device back failed: it stays where it is, and the claim can be released again. */
function returnRefused({ injection, left }: FailureRun): boolean {
  const { call, file } = injection;
  const about = `/sys/bus/pci/devices/${ADDRESS}/driver`;
  const refused =
    (call === 'readLink' && file === about) || (call === 'writeText' && file?.startsWith(about) === true);
  return refused && left.length === 1 && left[0] === `${ADDRESS} is with vfio-pci`;
}

for (const profile of ['vtd', 'noiommu', 'legacy'] as const) {
  t.test(profile, async t => {
    // What is as with an IOMMU failed there.
    const own = ({ request }: CallRecord): boolean => request === IOMMU_IOAS_NOIOMMU_GET_PA.number;
    const runs = await allFailures(
      () => stage(profile),
      kernel => life(kernel, profile),
      profile === 'noiommu' ? { where: own } : {},
    );
    t.ok(runs.length > (profile === 'noiommu' ? 3 : 80), `${runs.length} calls failed, one after the other`);
    for (const run of runs) {
      const { injection, error, left } = run;
      const what = describeInjection(injection);
      if (left.length > 0 && !returnRefused(run))
        t.fail(`${what} left ${left.join(', ')} (${String(error)})`);
      if (error !== undefined) t.ok(error instanceof Error, what);
      // An eventfd that cannot be read is looked at again.
      else if (!looking.has(injection.call) && injection.call !== 'read') t.fail(`nobody noticed ${what}`);
    }
    t.ok(runs.filter(returnRefused).length <= 2, 'little can go wrong with giving it back');
  });
}

t.test('several failures at random', async t => {
  for (let seed = 1; seed <= 30; seed++) {
    const { kernel, holdings } = stage('vtd');
    const lying = faulty(kernel, [{ oneIn: 15, errno: ENOMEM }], seed);
    await life(lying, 'vtd').catch(() => undefined);
    // Whether the device comes back depends on sysfs; all else is this process's own to give back.
    const left = holdings().filter(each => !each.startsWith(`${ADDRESS} is with`));
    t.strictSame(left, [], `seed ${seed}\n${lying.log}`);
  }
});
