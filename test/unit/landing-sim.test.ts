// Landing on a simulated machine: what is planned keeps a device over a kexec, and what did not land is not opened.
import t from 'tap';
import { DeviceErrorCode } from '../../src/errors.js';
import { checkLanded } from '../../src/keepalive/landing/check-landed.js';
import { appendLanding } from '../../src/keepalive/landing/initrd.js';
import { type LandingPlan, planLanding } from '../../src/keepalive/landing/plan.js';
import { landingCommandLine, verifyLanding } from '../../src/keepalive/landing/verify.js';
import type { SavedDevice, State } from '../../src/keepalive/state/saved-state.js';
import { openDevice } from '../../src/open-device.js';
import { pciAddress } from '../../src/pci/address.js';
import { claim } from '../../src/pci/claim.js';
import { readIdentity } from '../../src/pci/identity.js';
import { suspendResets } from '../../src/pci/reset-method.js';
import type { Landing } from '../../src/sim/pci/bus.js';
import type { Directory } from '../../src/sim/process/file-tree.js';
import { NvmeModel, SimulatedHost, type SimulatedProcess } from '../../src/testing/index.js';
import { plainInitrd } from '../support/plain-initrd.js';

const A = pciAddress('0000:00:04.0');
const B = pciAddress('0000:00:05.0');

class CountingNvme extends NvmeModel {
  resets = 0;

  override reset(): void {
    this.resets++;
    super.reset();
  }
}

function machine() {
  const [a, b] = [new CountingNvme(), new CountingNvme()];
  const host = new SimulatedHost({
    devices: [
      { address: A, function: a },
      { address: B, function: b, port: '0000:00:07.0' },
    ],
  });
  return { host, a, b };
}

const savedOf = (kernel: SimulatedProcess, address = A): SavedDevice => ({
  ...readIdentity(address, kernel),
  interface: 'cdev',
  translation: 'iommu',
  resetMethods: 'flr',
});

const stateOf = (...devices: SavedDevice[]): State<unknown> => ({
  arenas: [],
  iommufds: [],
  devices,
  sessions: [],
  drivers: [],
});

/** What the script of a plan does, which a simulated initrd cannot run. */
const landingOf = (plan: LandingPlan): Landing => ({
  overrides: Object.fromEntries(plan.devices.map(({ address }) => [address, 'vfio-pci'])),
  withoutReset: plan.devices.map(({ address }) => address),
});

const driverOf = (kernel: SimulatedProcess, address: string): string | undefined => {
  const link = kernel.readLink(`/sys/bus/pci/devices/${address}/driver`);
  return typeof link === 'string' ? link.split('/').at(-1) : undefined;
};

const methodsOf = (kernel: SimulatedProcess, address: string) =>
  kernel.readText(`/sys/bus/pci/devices/${address}/reset_method`);

t.test('a device lands, and another is where it was', async t => {
  const { host, a } = machine();
  const before = host.process();
  const claimed = await claim(A, { kernel: before });
  t.equal(claimed.previousDriver, 'nvme');
  const saved = savedOf(before);
  const plan = planLanding(stateOf(saved), { kernel: before });
  t.strictSame(plan.problems, []);
  t.match(plan, {
    release: '7.3.4-simulated',
    vfioPci: 'module',
    devices: [{ natives: [{ module: 'nvme', builtIn: false }], method: 'script' }],
  });
  const line = landingCommandLine(plan, 'console=ttyS0');
  t.match(line, /^console=ttyS0 .*liveupdate=on/);

  host.kexec(landingOf(plan));
  const after = host.process();
  const { resets } = a;
  t.equal(driverOf(after, B), 'nvme');
  t.equal(methodsOf(after, A), '');
  {
    using suspended = checkLanded(saved, after);
    t.equal(suspended.address, A);
    const again = await claim(A, { kernel: after });
    t.equal(driverOf(after, A), 'vfio-pci');
    using _device = await openDevice(again);
    t.equal(a.resets, resets, 'opening it resets nothing');
  }
  t.equal(methodsOf(after, A), 'flr\n', 'as the state says');
  host[Symbol.dispose]();
});

t.test('without the landing, opening resets', async t => {
  const { host, a } = machine();
  const kernel = host.process();
  const { resets } = a;
  using suspended = suspendResets(A, { kernel });
  suspended.restore();
  const claimed = await claim(A, { kernel });
  using _device = await openDevice(claimed);
  t.equal(a.resets, resets + 1, 'so that the count above means something');
});

t.test('a device that has not landed', async t => {
  const { host } = machine();
  const saved = savedOf(host.process());
  host.kexec();
  const kernel = host.process();
  t.equal(driverOf(kernel, A), 'nvme');
  t.throws(() => checkLanded(saved, kernel), {
    code: DeviceErrorCode.Busy,
    device: A,
    message: /has landed with the driver nvme/,
    hint: /iommufd land/,
  });
  t.equal(methodsOf(kernel, A), 'flr\n', 'nothing was changed');
  host[Symbol.dispose]();
});

t.test('another device, or none', async t => {
  const { host } = machine();
  const kernel = host.process();
  const saved = savedOf(kernel);
  host.kexec({ overrides: { [A]: 'vfio-pci', [B]: 'vfio-pci' } });
  const after = host.process();
  for (const change of [
    { vendorId: 0x8086 },
    { subsystemDeviceId: 1 },
    { classCode: 0x010803 },
    { serial: 5n },
    { bars: [] },
  ]) {
    t.throws(
      () => checkLanded({ ...saved, ...change }, after),
      { code: DeviceErrorCode.Unsupported, message: /is not the device that was saved/, hint: /cold/ },
      Object.keys(change).join(),
    );
  }
  t.throws(() => checkLanded({ ...saved, address: pciAddress('00:1e.0') }, after), { code: 'ENOENT' });
  t.equal(methodsOf(after, A), 'flr\n', 'nothing was changed');
  checkLanded(saved, after).restore();
  t.equal(methodsOf(after, A), 'flr\n');
  host[Symbol.dispose]();
});

t.test('the initrd is read where the kernel is', async t => {
  const { host } = machine();
  const kernel = host.process();
  const plan = planLanding(stateOf(savedOf(kernel)), { kernel });
  const image = appendLanding(plainInitrd, plan);
  const text = image.toString('utf8');
  t.ok(Buffer.from(text).equals(image), 'text files will do');
  const files = host.files as Directory;
  files.directory('boot').set('landing.img', { kind: 'text', read: () => text });
  const commandLine = landingCommandLine(plan, 'quiet');
  const problems = (initrd: string | Uint8Array): string[] =>
    verifyLanding(plan, { commandLine, initrd }, kernel).map(({ problem }) => problem);
  t.strictSame(problems('/boot/landing.img'), []);
  t.strictSame(problems(image), [], 'or handed over');
  t.match(problems('/boot/initrd.img'), [/neither an archive nor a known compression/]);
  t.match(problems('/boot/none.img'), [/there is no \/boot\/none\.img/]);
  t.match(problems('/sys/bus/pci/drivers_probe'), [/EACCES/], 'not readable');
  t.equal(kernel.openFiles.size, 0);
});

t.test('a state that does not say how the device was reset', async t => {
  const { host } = machine();
  const { resetMethods, ...saved } = savedOf(host.process());
  host.kexec({ overrides: { [A]: 'vfio-pci' }, withoutReset: [A] });
  const emptied = host.process();
  checkLanded(saved, emptied).restore();
  t.equal(methodsOf(emptied, A), 'flr\n', 'as the kernel finds them itself');

  host.kexec({ overrides: { [B]: 'vfio-pci' } });
  const kernel = host.process();
  kernel.writeText(`/sys/bus/pci/devices/${B}/reset_method`, 'bus\n');
  const { resetMethods: _, ...other } = savedOf(kernel, B);
  const suspended = checkLanded(other, kernel);
  t.equal(methodsOf(kernel, B), '');
  suspended.restore();
  t.equal(methodsOf(kernel, B), 'bus\n', 'as they were');
  host[Symbol.dispose]();
});
