// What the next kernel needs so that devices land with VFIO: planned for machines in memory and kernels installed in a
// temporary directory, then verified against what would be booted.
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { EACCES } from '../../bindings/uapi/errno.js';
import { isOn, itemsOf, parseCommandLine, valuesOf } from '../../src/keepalive/landing/command-line.js';
import { file, packCpio } from '../../src/keepalive/landing/cpio.js';
import { appendLanding } from '../../src/keepalive/landing/initrd.js';
import { type LandingPlan, planLanding } from '../../src/keepalive/landing/plan.js';
import { LandingError } from '../../src/keepalive/landing/problem.js';
import { assertLanding, landingCommandLine, verifyLanding } from '../../src/keepalive/landing/verify.js';
import type { SavedDevice, State } from '../../src/keepalive/state/saved-state.js';
import { pciAddress } from '../../src/pci/address.js';
import { plainInit } from '../support/plain-initrd.js';
import { configText } from './support/config-bytes.js';
import { type FakeDeviceOptions, FakeSysfs } from './support/fake-sysfs.js';

const A = pciAddress('0000:00:04.0');
const B = pciAddress('0000:00:05.0');
const RELEASE = '7.3.4-test';
const NO_SOFT_RESET = 1 << 3;
const NVME = 'pci:v*d*sv*sd*bc01sc08i02*';
const NO_IDLE_D3 = 'vfio-pci.disable_idle_d3=1';
const LIVE_UPDATE = ['kho=on', 'liveupdate=on'];

const saved: SavedDevice = {
  address: A,
  vendorId: 0x1b36,
  deviceId: 0x0010,
  subsystemVendorId: 0x1af4,
  subsystemDeviceId: 0x1100,
  classCode: 0x010802,
  interface: 'cdev',
  translation: 'iommu',
};

const stateOf = (...devices: SavedDevice[]): State<unknown> => ({
  arenas: [],
  iommufds: [],
  devices,
  sessions: [],
  drivers: [],
});

/** Where drivers are, in a kernel that is installed. */
interface Installed {
  readonly nvme: 'built-in' | 'module' | 'both' | 'absent';
  readonly vfio: 'built-in' | 'module' | 'absent';
  /** Lines of System.map. */
  readonly symbols?: readonly string[];
  readonly vfioParameters?: readonly string[];
  readonly release?: string;
}

const directories = t.testdir({});
/** An empty directory. */
const scratch = (): string => mkdtempSync(join(directories, 'd'));

/** @returns the root that the kernel is installed on */
function install({ nvme, vfio, symbols, vfioParameters, release = RELEASE }: Installed): string {
  const builtIn = (place: string): boolean => place === 'built-in' || place === 'both';
  const loadable = (place: string): boolean => place === 'module' || place === 'both';
  const nvmeFacts = [`nvme.alias=${NVME}`, 'nvme.file=drivers/nvme/host/nvme'];
  const parameters = vfioParameters ?? ['disable_idle_d3'];
  const vfioFacts = [
    'vfio_pci.alias=vfio_pci:v*d*sv*sd*bc*sc*i*',
    ...parameters.map(name => `vfio_pci.parm=${name}:What it does`),
  ];
  const facts = [
    'pcieportdrv.license=GPL',
    ...(builtIn(nvme) ? nvmeFacts : []),
    ...(builtIn(vfio) ? vfioFacts : []),
  ];
  const lists = {
    'modules.builtin': [
      'kernel/drivers/x.ko',
      ...(builtIn(vfio) ? ['kernel/drivers/vfio/pci/vfio-pci.ko'] : []),
    ],
    'modules.alias': [
      '# Aliases',
      'alias usb:v* nvme',
      ...(loadable(nvme) ? [`alias ${NVME} nvme`] : []),
      'alias pci:v00001AF4d* virtio_pci',
    ],
    'modules.dep': [
      'kernel/drivers/net/x.ko.zst:',
      ...(loadable(vfio) ? ['kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/vfio.ko.xz'] : []),
    ],
  };
  const root = scratch();
  const modules = join(root, 'lib/modules', release);
  mkdirSync(modules, { recursive: true });
  writeFileSync(join(modules, 'modules.builtin.modinfo'), facts.map(fact => `${fact}\0`).join(''));
  for (const [name, lines] of Object.entries(lists)) {
    writeFileSync(join(modules, name), lines.map(line => `${line}\n`).join(''));
  }
  if (symbols !== undefined) {
    mkdirSync(join(root, 'boot'));
    writeFileSync(join(root, 'boot', `System.map-${release}`), `${symbols.join('\n')}\n`);
  }
  return root;
}

const initcalls = [
  'ffffffff81bc45e4 d __initcall__kmod_pcieportdrv__385_849_pcie_portdrv_init6',
  'ffffffff81bc45f8 d __initcall__kmod_nvme__417_3417_nvme_init6',
  'ffffffff81bc45fc d __initcall__kmod_nvme_core__417_3417_nvme_core_init6',
];

interface MachineOptions extends FakeDeviceOptions {
  readonly config?: string;
  readonly release?: string;
}

/** A machine with a controller that vfio-pci has. */
function machine(options: MachineOptions = {}): FakeSysfs {
  const { config = configText({ powerControl: NO_SOFT_RESET }), release = RELEASE, ...device } = options;
  const kernel = new FakeSysfs(['vfio-pci', 'nvme', 'virtio-pci']);
  kernel.file('/proc/sys/kernel/osrelease', `${release}\n`);
  kernel.file('/proc/kallsyms', '');
  const path = kernel.device(A, { bound: 'vfio-pci', ...device });
  kernel.file(`${path}/config`, config);
  return kernel;
}

const second = (
  kernel: FakeSysfs,
  attributes: FakeDeviceOptions['attributes'] = {},
  bound = 'nvme',
): FakeSysfs => {
  const path = kernel.device(B, { attributes, bound });
  kernel.file(`${path}/config`, configText({ powerControl: NO_SOFT_RESET }));
  return kernel;
};

const problemsOf = (plan: LandingPlan): string[] => plan.problems.map(({ problem }) => problem);

t.test('a driver that is a module: a script', async t => {
  const root = install({ nvme: 'module', vfio: 'module' });
  const kernel = second(machine());
  const plan = planLanding(stateOf(saved), { kernel, target: { root } });
  t.strictSame(plan.problems, []);
  t.match(plan, {
    release: RELEASE,
    vfioPci: 'module',
    devices: [{ address: A, natives: [{ module: 'nvme', builtIn: false }], method: 'script' }],
    commandLine: LIVE_UPDATE,
    needsScript: true,
  });
  t.match(plan.script, `land ${A} 0x1b36 0x0010 0x1af4 0x1100 0x010802`);
  t.notMatch(plan.script, `land ${B}`);
  t.strictSame(kernel.writes, [], 'nothing is changed');
  t.equal(kernel.count('close'), kernel.count('open'), 'nothing is left open');
});

t.test('no driver at all', async t => {
  const root = install({ nvme: 'absent', vfio: 'built-in' });
  const plan = planLanding(stateOf(saved), { kernel: machine(), target: { root } });
  t.strictSame(plan.problems, []);
  t.match(plan.devices, [{ natives: [], method: 'script' }], 'one may yet be loaded');
});

t.test('a driver that is built in: the command line', async t => {
  const root = install({ nvme: 'built-in', vfio: 'built-in', symbols: initcalls });
  const plan = planLanding(stateOf(saved), { kernel: machine(), target: { root } });
  t.strictSame(plan.problems, []);
  t.match(plan, {
    devices: [{ natives: [{ module: 'nvme', builtIn: true }], method: 'command-line' }],
    commandLine: [
      'initcall_blacklist=nvme_init',
      'vfio-pci.ids=1b36:0010:1af4:1100',
      NO_IDLE_D3,
      ...LIVE_UPDATE,
    ],
    needsScript: false,
  });

  const modular = install({ nvme: 'built-in', vfio: 'module', symbols: initcalls });
  const both = planLanding(stateOf(saved), { kernel: machine(), target: { root: modular } });
  t.strictSame(both.problems, []);
  t.equal(both.needsScript, true, 'another driver could be loaded before vfio-pci');
  t.strictSame(
    both.commandLine,
    plan.commandLine.filter(each => each !== NO_IDLE_D3),
    'the script keeps its power on',
  );
});

t.test('two devices of a kind, both kept', async t => {
  const root = install({ nvme: 'built-in', vfio: 'built-in', symbols: initcalls });
  const kernel = second(machine(), {}, 'vfio-pci');
  const plan = planLanding(stateOf(saved, { ...saved, address: B }), { kernel, target: { root } });
  t.strictSame(plan.problems, []);
  t.strictSame(plan.commandLine.slice(0, 2), [
    'initcall_blacklist=nvme_init',
    'vfio-pci.ids=1b36:0010:1af4:1100',
  ]);
});

t.test('another device would be affected', async t => {
  const root = install({ nvme: 'built-in', vfio: 'built-in', symbols: initcalls });
  const plan = (attributes: FakeDeviceOptions['attributes'], bound?: string): LandingPlan =>
    planLanding(stateOf(saved), { kernel: second(machine(), attributes, bound), target: { root } });
  const alike = plan({});
  t.match(problemsOf(alike), [
    /built into kernel 7\.3\.4-test .* would take it from 0000:00:05\.0/,
    /would take 0000:00:05\.0, too/,
  ]);
  t.match(alike.problems[0], { device: A, remedy: /has nvme as a module/ });
  t.strictSame(alike.commandLine, [NO_IDLE_D3, ...LIVE_UPDATE], 'what would harm is not even proposed');
  t.match(problemsOf(plan({}, 'vfio-pci')).length, 2, 'whoever has it now');
  t.match(
    problemsOf(plan({ device: '0x0011' })),
    [/would take it from 0000:00:05\.0/],
    'the same driver by class',
  );
  t.match(
    problemsOf(plan({ class: '0x020000' })),
    [/would take it from/, /too/],
    'the driver has it now, why ever',
  );
  t.match(problemsOf(plan({ class: '0x020000' }, 'virtio-pci')), [/too/], 'the same ids');
  t.strictSame(
    problemsOf(plan({ class: '0x020000', device: '0x0011' }, 'virtio-pci')),
    [],
    'nothing in common',
  );

  const modular = install({ nvme: 'module', vfio: 'built-in' });
  const harmless = planLanding(stateOf(saved), { kernel: second(machine()), target: { root: modular } });
  t.strictSame(harmless.problems, [], 'a module affects nobody');
});

t.test('the function that starts a driver', async t => {
  const blacklistOf = (symbols: readonly string[] | undefined, kallsyms?: string): readonly string[] => {
    const installed: Installed = { nvme: 'built-in', vfio: 'built-in' };
    const root = install(symbols === undefined ? installed : { ...installed, symbols });
    const kernel = machine();
    if (kallsyms !== undefined) kernel.file('/proc/kallsyms', kallsyms);
    const plan = planLanding(stateOf(saved), { kernel, target: { root } });
    if (plan.problems.length > 0)
      t.match(problemsOf(plan), [/not known for certain which function starts it/]);
    return plan.commandLine.filter(each => each.startsWith('initcall_blacklist'));
  };
  t.strictSame(blacklistOf(initcalls), ['initcall_blacklist=nvme_init']);
  const entry = (name: string): string => `ffffffff81bc45f8 d __initcall__kmod_nvme__417_3417_${name}`;
  const filler = 'ffffffff81000000 T _text';
  t.strictSame(blacklistOf([filler, entry('start_26')]), ['initcall_blacklist=start_2']);
  t.strictSame(blacklistOf([filler, entry('start6s')]), ['initcall_blacklist=start']);
  t.strictSame(blacklistOf([filler, entry('oneearly'), entry('two7')]), ['initcall_blacklist=one,two']);
  t.strictSame(blacklistOf([filler, 'ffffffff81b43d20 t nvme_init']), ['initcall_blacklist=nvme_init']);
  t.strictSame(blacklistOf([filler, 'ffffffff81b43d20 t nvme_driver_init']), [
    'initcall_blacklist=nvme_driver_init',
  ]);
  t.strictSame(
    blacklistOf([filler, 'ffffffff81b43d20 t nvme_init', 'ffffffff81b43d30 t nvme_init']),
    [],
    'two of that name',
  );
  t.strictSame(blacklistOf([filler, filler]), []);
  t.strictSame(blacklistOf(undefined), []);
  const kallsyms = `${filler}\nffffffff81b43d20 t nvme_init\n`;
  t.strictSame(blacklistOf(undefined, kallsyms), ['initcall_blacklist=nvme_init'], 'the kernel that runs');
  t.strictSame(
    blacklistOf(['ffffffffffffffff B The real System.map is elsewhere'], kallsyms),
    ['initcall_blacklist=nvme_init'],
    'as Debian installs it',
  );
  t.strictSame(
    blacklistOf(undefined, `${filler}\nffffffffc0000000 t nvme_init\t[nvme]\n`),
    [],
    'that of a module',
  );

  const silent = machine();
  silent.remove('/proc/kallsyms');
  const root = install({ nvme: 'built-in', vfio: 'built-in', symbols: initcalls });
  const without = planLanding(stateOf(saved), { kernel: silent, target: { root } });
  t.match(problemsOf(without), [/has no CONFIG_KALLSYMS/], 'without names the command line has no effect');
  writeFileSync(join(root, 'boot', `config-${RELEASE}`), '# CONFIG_KALLSYMS is not set\n');
  t.match(problemsOf(planLanding(stateOf(saved), { kernel: machine(), target: { root } })), [
    /has no CONFIG_KALLSYMS/,
  ]);
  writeFileSync(join(root, 'boot', `config-${RELEASE}`), 'CONFIG_KALLSYMS=y\n');
  t.strictSame(planLanding(stateOf(saved), { kernel: machine(), target: { root } }).problems, []);

  const other = install({ nvme: 'built-in', vfio: 'built-in', release: '8.0' });
  const kernel = machine();
  kernel.file('/proc/kallsyms', kallsyms);
  const plan = planLanding(stateOf(saved), { kernel, target: { root: other, release: '8.0' } });
  t.match(problemsOf(plan), [/not known for certain/], 'of another kernel');
});

t.test('vfio-pci', async t => {
  const absent = install({ nvme: 'module', vfio: 'absent' });
  const elsewhere = { root: absent, release: RELEASE };
  const plan = planLanding(stateOf(saved), { kernel: machine({ release: '6.1' }), target: elsewhere });
  t.match(problemsOf(plan), [/has no vfio-pci/]);
  t.equal(plan.vfioPci, 'absent');
  const running = planLanding(stateOf(saved), { kernel: machine(), target: elsewhere });
  t.match(
    running,
    { problems: [], vfioPci: 'built-in' },
    'the kernel that runs has it, whatever is installed',
  );
  const loaded = machine();
  loaded.file('/sys/module/vfio_pci/initstate', 'live\n');
  t.equal(planLanding(stateOf(saved), { kernel: loaded, target: elsewhere }).vfioPci, 'module');
});

t.test('devices that lose their state in D3hot', async t => {
  const root = install({ nvme: 'module', vfio: 'built-in' });
  const plan = (config: string, at = root): LandingPlan =>
    planLanding(stateOf(saved), { kernel: machine({ config }), target: { root: at } });
  const wanted = [NO_IDLE_D3, ...LIVE_UPDATE];
  t.strictSame(plan(configText({ powerControl: 0 })).commandLine, wanted);
  t.strictSame(plan(configText({ powerControl: 0 })).problems, []);
  t.strictSame(plan(configText({ powerControl: NO_SOFT_RESET })).commandLine, LIVE_UPDATE);
  t.strictSame(plan(configText()).commandLine, LIVE_UPDATE, 'it does not know D3hot');

  const unknown = machine();
  unknown.remove(`/sys/devices/pci0000:00/${A}/config`);
  t.strictSame(
    planLanding(stateOf(saved), { kernel: unknown, target: { root } }).commandLine,
    wanted,
    'who knows',
  );

  const without = install({ nvme: 'module', vfio: 'built-in', vfioParameters: ['nointxmask'] });
  t.match(problemsOf(plan(configText({ powerControl: 0 }), without)), [/may lose its state asleep/]);
  t.strictSame(plan(configText({ powerControl: NO_SOFT_RESET }), without).problems, []);

  const modular = install({ nvme: 'module', vfio: 'module' });
  const loaded = machine({ config: configText({ powerControl: 0 }) });
  loaded.directory('/sys/module/vfio_pci/parameters');
  t.match(problemsOf(planLanding(stateOf(saved), { kernel: loaded, target: { root: modular } })), [/asleep/]);
  loaded.file('/sys/module/vfio_pci/parameters/disable_idle_d3', 'N\n');
  t.strictSame(planLanding(stateOf(saved), { kernel: loaded, target: { root: modular } }).problems, []);
});

t.test('a device without IOMMU', async t => {
  const root = install({ nvme: 'module', vfio: 'module' });
  const plan = planLanding(stateOf({ ...saved, translation: 'none' }), {
    kernel: machine(),
    target: { root },
  });
  t.strictSame(plan.commandLine, ['vfio.enable_unsafe_noiommu_mode=1', ...LIVE_UPDATE]);
});

t.test('a kernel that is not installed', async t => {
  const root = scratch();
  t.match(problemsOf(planLanding(stateOf(saved), { kernel: machine(), target: { root } })), [
    /unknown which drivers of kernel 7\.3\.4-test would take it: .*lib\/modules\/7\.3\.4-test has no/,
  ]);
  const bound = planLanding(stateOf(saved), { kernel: machine({ bound: 'nvme' }), target: { root } });
  t.match(bound.devices, [{ natives: [{ module: 'nvme', builtIn: true }] }], 'the kernel that runs tells');
  const witness = second(machine());
  witness.file('/sys/module/nvme/initstate', 'live\n');
  witness.link('/sys/bus/pci/drivers/nvme/module', '../../../../module/nvme');
  const seen = planLanding(stateOf(saved), { kernel: witness, target: { root } });
  t.match(seen, {
    problems: [],
    devices: [{ natives: [{ module: 'nvme', builtIn: false }], method: 'script' }],
  });
  const next = planLanding(stateOf(saved), { kernel: witness, target: { root, release: '8.0' } });
  t.match(
    problemsOf(next),
    [/has no vfio-pci/, /unknown which drivers/],
    'of another kernel it tells nothing',
  );
});

t.test('the device is not there, or not what it was', async t => {
  const root = install({ nvme: 'module', vfio: 'module' });
  const problems = (kernel: FakeSysfs, device = saved): string[] =>
    problemsOf(planLanding(stateOf(device), { kernel, target: { root } }));
  t.match(problems(machine(), { ...saved, address: B }), [/there is no such device/]);
  t.match(problems(machine({ attributes: { device: '0x0011' } })), [
    /not the device that was saved: deviceId is 0x11, not 0x10/,
  ]);
  const serial = configText({ powerControl: NO_SOFT_RESET, serial: 7n });
  t.match(problems(machine({ config: serial }), { ...saved, serial: 8n }), [/serial is 0x7, not 0x8/]);
  t.strictSame(problems(machine({ config: serial }), { ...saved, serial: 7n }), []);

  const virtual = machine();
  virtual.link(`/sys/devices/pci0000:00/${A}/physfn`, '../0000:00:03.0');
  t.match(problems(virtual), [/virtual function/]);
  const behind = machine();
  behind.link(`/sys/bus/pci/devices/${A}`, `../../../devices/pci0000:00/0000:00:0e.0/pci10000:e0/${A}`);
  behind.link(`/sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/${A}`, `../../${A}`);
  t.match(problems(behind), [/its bus is there only once a driver has started/]);

  const denied = machine();
  denied.denied.push({ pattern: /config$/, call: 'read', errno: EACCES });
  t.throws(() => problems(denied), { code: 'EACCES' });
});

t.test('wrong arguments', async t => {
  for (const release of ['', '..', '../etc', '7.3/4', '7.3 4', '7.3\n']) {
    t.throws(() => planLanding(stateOf(), { kernel: machine(), target: { release } }), RangeError, release);
  }
  t.throws(
    () => planLanding(stateOf(), { kernel: machine(), target: { release: 7 as unknown as string } }),
    TypeError,
  );
  const nameless = machine();
  nameless.remove('/proc/sys/kernel/osrelease');
  t.throws(() => planLanding(stateOf(), { kernel: nameless }), {
    code: 'ENOENT',
    path: '/proc/sys/kernel/osrelease',
  });
  t.match(planLanding(stateOf(), { kernel: machine(), target: { root: scratch() } }), {
    devices: [],
    needsScript: false,
    commandLine: LIVE_UPDATE,
    problems: [],
  });
});

t.test('command lines', async t => {
  const parse = (line: string) => parseCommandLine(line).map(({ name, value }) => [name, value]);
  t.strictSame(parse(''), []);
  t.strictSame(parse('  a  b=1\tc-d.e-f=g-h '), [
    ['a', undefined],
    ['b', '1'],
    ['c_d.e_f', 'g-h'],
  ]);
  t.strictSame(parse('a="b c" "d=e f" g= h="'), [
    ['a', 'b c'],
    ['d', 'e f'],
    ['g', ''],
    ['h', ''],
  ]);
  t.strictSame(parse('a=1 -- b=2'), [['a', '1']], 'the rest is for init');
  const line = parseCommandLine('x=a,b y=1 x=c, y=0 z w=maybe v=on u=Y s=off o.d d.s=off d.s=what');
  t.strictSame(itemsOf(line, 'x'), ['a', 'b', 'c']);
  t.strictSame(valuesOf(line, 'y'), ['1', '0']);
  t.strictSame(
    ['y', 'z', 'w', 'v', 'u', 's', 'nothing', 'o.d', 'd.s'].map(name => isOn(line, name)),
    [false, undefined, undefined, true, true, false, undefined, true, false],
  );
});

t.test('verification', async t => {
  const plain = packCpio([
    plainInit,
    file('scripts/init-top/ORDER', Buffer.from('/scripts/init-top/udev "$@"\n')),
  ]);
  const root = install({ nvme: 'module', vfio: 'built-in' });
  const kernel = machine({ config: configText({ powerControl: 0 }) });
  const plan = planLanding(stateOf(saved), { kernel, target: { root } });
  const directory = scratch();
  const image = join(directory, 'with');
  writeFileSync(image, appendLanding(plain, plan));
  writeFileSync(join(directory, 'without'), plain);
  const good = 'root=/dev/vda kho=on liveupdate=on vfio_pci.disable_idle_d3=1';
  const problems = (commandLine: string, initrd?: string, of = plan): string[] =>
    verifyLanding(of, { commandLine, ...(initrd !== undefined && { initrd }) }).map(({ problem }) => problem);

  t.strictSame(problems(good, image), []);
  assertLanding(plan, { commandLine: good, initrd: image });
  t.match(problems(good, join(directory, 'without')), [/no landing script/]);
  t.match(problems(good, join(directory, 'missing')), [/there is no .*missing/]);
  t.match(problems(good), [/there is no initrd/]);
  t.match(problems('', image), [/disable_idle_d3=1$/, /kho=on$/, /liveupdate=on$/]);
  t.match(
    problems(`${good} liveupdate=off`, image),
    [/liveupdate=on, but liveupdate=on liveupdate=off/],
    'the last one counts',
  );
  t.match(problems(`${good} vfio-pci.disable_idle_d3=0`, image), [/disable_idle_d3/]);
  t.match(problems(good.replace('root', '-- root'), image).length, 3, 'what is for init does not count');
  t.match(problems(`${good} rdinit=/bin/sh`, image), [/rdinit=\/bin\/sh/]);
  t.strictSame(problems(`${good} rdinit=/init`, image), []);
  t.match(problems(`${good} noinitrd`, image), [/noinitrd/]);
  t.match(problems(`${good} modules-load=dm_mod,nvme`, image), [/makes systemd load nvme/]);
  t.match(problems(`${good} pci-stub.ids=8086:1,1B36:0010`, image), [/gives the devices to another driver/]);
  t.strictSame(problems(`${good} pci-stub.ids=8086:1 vfio-pci.ids=1b36:0010`, image), []);
  t.match(problems(`${good} rd.modules_load=nvme`, image), [/makes systemd load nvme/]);

  try {
    assertLanding(plan, { commandLine: '' });
    t.fail('it cannot be guaranteed');
  } catch (error) {
    t.type(error, LandingError);
    const { problems: found, message } = error as LandingError;
    t.equal(found.length, 4);
    for (const { problem, remedy } of found) t.ok(message.includes(`${problem}. ${remedy}`), problem);
  }

  const builtIn = install({ nvme: 'built-in', vfio: 'built-in', symbols: initcalls });
  const byLine = planLanding(stateOf(saved), { kernel: machine(), target: { root: builtIn } });
  const line =
    'initcall_blacklist=foo,nvme_init initcall_blacklist=bar vfio_pci.ids=8086:1,1B36:0010:1AF4:1100 kho=1 liveupdate=y vfio_pci.disable_idle_d3';
  t.strictSame(problems(line, undefined, byLine), [], 'no initrd is needed');
  t.match(
    problems(`${line} vfio-pci.ids=8086:1`, undefined, byLine),
    [/does not have vfio-pci\.ids=.*, but/],
    'the last one counts',
  );
  t.match(problems(line.replace('nvme_init', 'nvme_core_init'), undefined, byLine), [
    /initcall_blacklist=nvme_init, but/,
  ]);

  const refused = { ...byLine, problems: [{ problem: 'it cannot be', remedy: 'Give up' }] };
  t.strictSame(problems(line, undefined, refused), ['it cannot be'], 'what the plan says counts');

  // A command line that is made of one that is there.
  for (const current of [
    '',
    'quiet',
    'quiet vfio-pci.ids=8086:1234 initcall_blacklist=other',
    line,
    'liveupdate=off',
  ]) {
    const made = landingCommandLine(byLine, current);
    t.strictSame(problems(made, undefined, byLine), [], made);
    t.ok(made.startsWith(current), 'what is there stays');
    t.equal(landingCommandLine(byLine, made), made, 'and nothing is added twice');
  }
  t.match(
    landingCommandLine(byLine, 'vfio-pci.ids=8086:1234'),
    / vfio-pci\.ids=8086:1234,1b36:0010:1af4:1100 /,
  );
  t.strictSame(problems(landingCommandLine(byLine, 'quiet -- single'), undefined, byLine), []);
});
