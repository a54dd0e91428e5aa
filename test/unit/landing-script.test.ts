// The landing script, run by the shells that initial root file systems have, against a tree of files.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { filesToInstall, ImageKind, landingBody, scriptInImage } from '../../src/keepalive/landing/script.js';
import { pciAddress } from '../../src/pci/address.js';
import type { PciIdentity } from '../../src/pci/identity.js';

const A = pciAddress('0000:00:04.0');
const B = pciAddress('0000:01:00.0');

const identity: PciIdentity = {
  address: A,
  vendorId: 0x1b36,
  deviceId: 0x0010,
  subsystemVendorId: 0x1af4,
  subsystemDeviceId: 0x1100,
  classCode: 0x010802,
};

const attributes = {
  vendor: '0x1b36',
  device: '0x0010',
  subsystem_vendor: '0x1af4',
  subsystem_device: '0x1100',
  class: '0x010802',
  driver_override: '(null)',
  reset_method: 'flr bus',
  d3cold_allowed: '1',
};

/** A machine as files that keep what is written to them. */
class Machine {
  readonly root: string;
  readonly log: string;

  constructor(t: Test) {
    this.root = t.testdir({ devices: {}, drivers: { 'vfio-pci': {}, nvme: {} }, kmsg: '' });
    this.log = join(this.root, 'kmsg');
  }

  device(address: string, changes: Record<string, string | undefined> = {}): this {
    const path = join(this.root, 'devices', address);
    mkdirSync(path, { recursive: true });
    for (const [name, text] of Object.entries({ ...attributes, ...changes })) {
      if (text !== undefined) writeFileSync(join(path, name), `${text}\n`);
    }
    return this;
  }

  bind(address: string, driver: string): this {
    const driverPath = join(this.root, 'drivers', driver);
    symlinkSync(driverPath, join(this.root, 'devices', address, 'driver'));
    symlinkSync(join(this.root, 'devices', address), join(driverPath, address));
    return this;
  }

  body(devices: readonly PciIdentity[]): string {
    const { root, log } = this;
    return landingBody(devices, { devices: join(root, 'devices'), drivers: join(root, 'drivers'), log });
  }

  state(address: string): Record<string, string | undefined> {
    const read = (name: string): string | undefined => {
      const path = join(this.root, 'devices', address, name);
      return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined;
    };
    return {
      driver_override: read('driver_override'),
      reset_method: read('reset_method'),
      d3cold_allowed: read('d3cold_allowed'),
    };
  }

  messages(): string[] {
    return readFileSync(this.log, 'utf8').split('\n').filter(Boolean);
  }
}

const landed = { driver_override: 'vfio-pci', reset_method: '', d3cold_allowed: '0' };
const untouched = { driver_override: '(null)', reset_method: 'flr bus', d3cold_allowed: '1' };

const shells = [['sh'], ['dash'], ['busybox', 'sh'], ['bash', '--posix']].filter(
  ([program = '', ...args]) => spawnSync(program, [...args, '-c', ':']).status === 0,
);
t.ok(shells.length > 0, `shells: ${shells.map(words => words.join(' ')).join(', ')}`);

for (const [program = '', ...args] of shells) {
  /** What the shell says, which is nothing when all is well. */
  const run = (script: string): string => {
    const { status, stdout, stderr } = spawnSync(program, [...args, '-s'], {
      input: script,
      encoding: 'utf8',
    });
    return `${status}${stdout}${stderr}`;
  };

  t.test([program, ...args].join(' '), async t => {
    await t.test('a device, and no other', async t => {
      const machine = new Machine(t).device(A).device(B);
      t.equal(run(machine.body([identity])), '0');
      t.strictSame(machine.state(A), landed);
      t.strictSame(machine.state(B), untouched);
      t.strictSame(machine.messages(), [`<6>iommufd-land: ${A}: for vfio-pci only`]);
      t.equal(run(machine.body([identity])), '0', 'once more');
      t.strictSame(machine.state(A), landed);
    });

    await t.test('several devices', async t => {
      const machine = new Machine(t).device(A).device(B);
      t.equal(run(machine.body([identity, { ...identity, address: B }])), '0');
      t.strictSame([machine.state(A), machine.state(B)], [landed, landed]);
    });

    await t.test('another device at its place', async t => {
      for (const changes of [
        { vendor: '0x8086' },
        { device: '0x0011' },
        { subsystem_vendor: '0x0000' },
        { subsystem_device: '0x1101' },
        { class: '0x010803' },
        { class: undefined },
        { vendor: '' },
        { vendor: '0x1b36 0x1b36' },
      ]) {
        const machine = new Machine(t).device(A, changes);
        t.equal(run(machine.body([identity])), '0');
        t.strictSame(machine.state(A), untouched, JSON.stringify(changes));
        t.strictSame(machine.messages(), [
          `<3>iommufd-land: ${A}: left alone, it is not the device that was saved`,
        ]);
      }
    });

    await t.test('no device', async t => {
      const machine = new Machine(t).device(B);
      t.equal(run(machine.body([identity])), '0');
      t.strictSame(machine.messages(), [`<3>iommufd-land: ${A}: there is no device`]);
      t.strictSame(machine.state(B), untouched);
    });

    await t.test('a driver has it', async t => {
      const native = new Machine(t).device(A).bind(A, 'nvme');
      t.equal(run(native.body([identity])), '0');
      t.strictSame(native.state(A), untouched);
      t.match(native.messages(), [/left alone, another driver has it already/]);
      const vfio = new Machine(t).device(A).bind(A, 'vfio-pci');
      t.equal(run(vfio.body([identity])), '0');
      t.strictSame(vfio.state(A), landed);
    });

    await t.test('attributes that are not there', async t => {
      const machine = new Machine(t).device(A, { reset_method: undefined, d3cold_allowed: undefined });
      t.equal(run(machine.body([identity])), '0');
      t.strictSame(machine.state(A), {
        driver_override: 'vfio-pci',
        reset_method: undefined,
        d3cold_allowed: undefined,
      });
    });

    await t.test('attributes that do not take it', async t => {
      const machine = new Machine(t).device(A, { driver_override: undefined });
      mkdirSync(join(machine.root, 'devices', A, 'driver_override'));
      t.equal(run(machine.body([identity])), '0');
      t.strictSame(machine.messages(), [
        `<3>iommufd-land: ${A}: driver_override cannot be set to 'vfio-pci'`,
      ]);
    });

    await t.test('sourced by a shell that has variables and functions of its own', async t => {
      const machine = new Machine(t).device(A);
      const before = 'set -eu; value=mine; device=mine; say() { echo mine; }';
      const after = 'echo "$value $device $(say)"';
      t.equal(run(`${before}\n${machine.body([identity])}\n${after}\n`), '0mine mine mine\n');
      t.strictSame(machine.state(A), landed);
    });

    await t.test('without a kernel log', async t => {
      const machine = new Machine(t).device(A);
      const body = machine.body([identity]).replaceAll(machine.log, join(machine.root, 'no', 'kmsg'));
      t.equal(run(body), '0');
      t.strictSame(machine.state(A), landed);
    });

    await t.test('as initramfs-tools runs it', async t => {
      const machine = new Machine(t).device(A);
      const { text } = scriptInImage(ImageKind.InitramfsTools, machine.body([identity]));
      const path = join(machine.root, 'script');
      writeFileSync(path, text);
      const prereqs = spawnSync(program, [...args, path, 'prereqs'], { encoding: 'utf8' });
      t.match(prereqs, { status: 0, stdout: '\n', stderr: '' });
      t.strictSame(machine.state(A), untouched, 'asked for what it needs, it does nothing');
      t.match(spawnSync(program, [...args, path], { encoding: 'utf8' }), {
        status: 0,
        stdout: '',
        stderr: '',
      });
      t.strictSame(machine.state(A), landed);
    });

    t.end();
  });
}

t.test('the script names devices and numbers, and nothing else', async t => {
  const untrusted: [object, RegExp | typeof RangeError | typeof TypeError][] = [
    [{ address: '$(reboot)' }, RangeError],
    [{ address: '0000:00:04.0; reboot' }, RangeError],
    [{ vendorId: '0x1b36; reboot' }, TypeError],
    [{ vendorId: 0x1_0000 }, RangeError],
    [{ deviceId: -1 }, RangeError],
    [{ subsystemVendorId: 0.5 }, RangeError],
    [{ subsystemDeviceId: Number.NaN }, RangeError],
    [{ classCode: 0x100_0000 }, RangeError],
  ];
  for (const [change, error] of untrusted) {
    t.throws(
      () => landingBody([{ ...identity, ...change } as PciIdentity]),
      error as RegExp,
      JSON.stringify(change),
    );
  }
  const body = landingBody([identity]);
  t.match(body, /^land 0000:00:04\.0 0x1b36 0x0010 0x1af4 0x1100 0x010802$/m);
  t.match(body, 'device=/sys/bus/pci/devices/$1');
  t.equal(body.match(/\/dev\/kmsg/g)?.length, 2);
});

t.test('what is installed', async t => {
  const body = landingBody([identity]);
  const [script, ...others] = filesToInstall(ImageKind.InitramfsTools, body);
  t.strictSame(others, []);
  t.match(script, { path: '/etc/initramfs-tools/scripts/init-top/00-iommufd-land', mode: 0o755 });
  t.equal(script?.text, scriptInImage(ImageKind.InitramfsTools, body).text);
  const dracut = filesToInstall(ImageKind.Dracut, body);
  t.strictSame(
    dracut.map(({ path, mode }) => [path, mode]),
    [
      ['/usr/lib/dracut/modules.d/90iommufd-land/module-setup.sh', 0o755],
      ['/usr/lib/dracut/modules.d/90iommufd-land/iommufd-land.sh', 0o755],
    ],
  );
  t.match(dracut[0]?.text, '    inst_hook pre-udev 00 "$moddir/iommufd-land.sh"\n');
  t.equal(dracut[1]?.text, scriptInImage(ImageKind.Dracut, body).text);
  for (const { text } of dracut)
    t.equal(spawnSync('sh', ['-n'], { input: text }).status, 0, 'it is a script');
});
