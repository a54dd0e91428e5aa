// The simulated machine as a whole: which driver has a device after a boot, and what a kexec does to the rest.
import { constants } from 'node:fs';
import t from 'tap';
import { ENODEV, ENOENT } from '../../bindings/uapi/errno.js';
import { readPciDevice } from '../../src/pci/devices.js';
import { EduModel } from '../../src/sim/devices/edu.js';
import { NvmeModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { DriverOptions } from '../../src/sim/pci/bus.js';
import { Command, Header } from '../../src/sim/pci/registers.js';

const NVME = '0000:00:04.0';
const EDU = '0000:00:05.0';
const PORT = '0000:00:07.0';
const BEHIND_PORT = '0000:01:00.0';
const sysfs = (address: string): string => `/sys/bus/pci/devices/${address}`;

function machine(): SimulatedHost {
  return new SimulatedHost({
    devices: [
      { address: NVME, function: new NvmeModel() },
      { address: EDU, function: new EduModel() },
    ],
  });
}

t.test('who takes a device at boot', async t => {
  using host = machine();
  const driverOf = (address: string): string | undefined => readPciDevice(address, host.process()).driver;
  const after = (options: DriverOptions, address = NVME): string | undefined => {
    host.kexec(options);
    return driverOf(address);
  };
  t.equal(driverOf(NVME), 'nvme');
  t.equal(driverOf(EDU), undefined, 'nothing in the kernel drives it');
  t.equal(after({}), 'nvme');
  t.equal(after({ vfioPciIds: ['1b36:0010'] }), 'nvme', 'it was there first');
  t.equal(after({ vfioPciIds: ['1B36:0010'], blacklist: ['nvme'] }), 'vfio-pci');
  t.strictSame(host.leftovers(), [`${NVME} is with vfio-pci`]);
  t.equal(after({ blacklist: ['nvme'] }), undefined);
  t.equal(after({ vfioPciIds: ['1234:11e9'] }, EDU), undefined);
  t.equal(after({ vfioPciIds: ['1234:11e8'] }, EDU), 'vfio-pci');
  t.equal(after({ vfioPciIds: ['1234:11e8'], blacklist: ['vfio-pci'] }, EDU), undefined);
});

t.test('a kexec ends all processes, and stops every bus master', async t => {
  using host = machine();
  const [first, second] = [host.process(), host.process()];
  t.ok(first.open('/dev/iommu', constants.O_RDWR) >= 0);
  const slot = host.bus.slot(NVME);
  slot?.changeConfig(Header.Command, 0, Command.Memory | Command.Master);
  t.equal(slot?.busMaster, true);
  const { physical } = host;

  host.kexec();
  t.throws(() => first.open('/dev/iommu', constants.O_RDWR));
  t.throws(() => second.open('/dev/iommu', constants.O_RDWR));
  t.equal(host.bus.slot(NVME)?.busMaster, false);
  t.not(host.physical, physical);
  t.strictSame(host.leftovers(), [], 'what they held is gone with them');
  t.ok(host.process().open('/dev/iommu', constants.O_RDWR) >= 0);
});

t.test('the next kernel finds the devices that are plugged in by then', async t => {
  using host = machine();
  host.plug({ address: BEHIND_PORT, port: PORT, function: new NvmeModel() });
  await host.unplug(EDU);
  host.kexec();
  const process = host.process();
  t.equal(process.access(sysfs(NVME), 0), 0);
  t.equal(process.access(sysfs(BEHIND_PORT), 0), 0);
  t.equal(process.access(sysfs(EDU), 0), -ENOENT);
  await host.pull(BEHIND_PORT);
  host.kexec();
  t.equal(host.process().access(sysfs(BEHIND_PORT), 0), -ENOENT);
  const bind = host.process().writeText('/sys/bus/pci/drivers/nvme/bind', BEHIND_PORT);
  t.equal(bind, -ENODEV);
});
