/** A device that is taken away: announced (release request), and by surprise (everything reads as ones). */
import { setTimeout as sleep } from 'node:timers/promises';
import { claim, DeviceError, listPciDevices, openDevice, readPciDevice } from 'iommufd';
import { NvmeController } from 'iommufd/nvme';
import t from 'tap';
import { monitor } from '../vm/monitor.js';
import { address, nvmeB, nvmeBDevice, qemuId } from '../vm/topology.js';
import { snapshot } from './support/leaks.js';
import { withNvme } from './support/nvme.js';
import { cutPower } from './support/power.js';
import { isNoiommu, profile } from './support/profile.js';

/** Tries until `attempt` succeeds; what it last threw after 30 s. */
async function eventually(what: string, attempt: () => Promise<unknown>): Promise<void> {
  for (const end = Date.now() + 30_000; ; await sleep(50)) {
    try {
      await attempt();
      return;
    } catch (error) {
      if (Date.now() > end) throw new Error(`${what}: ${error}`, { cause: error });
    }
  }
}

t.test(`removal, ${profile}`, async t => {
  await t.test('announced: the driver is asked to let go', async t => {
    const before = snapshot();
    await withNvme(nvmeB.address, async (controller, device) => {
      using _errors = device.onError(() => t.fail('an error was reported'));
      const asked = new Promise<void>(resolve => device.onReleaseRequest(resolve));
      await controller.namespace(1).write(0, new Uint8Array(512));
      await monitor('device_del', { id: qemuId.nvmeB });
      const kept = setTimeout(() => undefined, 60_000); // the request alone keeps nobody alive
      await asked;
      clearTimeout(kept);
      t.pass('the request arrived');
    });
    await eventually('the device to leave', async () => {
      if (listPciDevices().some(device => device.address === nvmeB.address)) throw new Error('still there');
    });
    t.throws(
      () => readPciDevice(nvmeB.address),
      { code: 'ENOENT', hint: /no PCI device/ },
      'the device has left',
    );
    const after = snapshot();
    t.strictSame(after.descriptors, before.descriptors);
    t.strictSame(after.mappings, before.mappings);
    await t.rejects(claim(nvmeB.address), { code: 'ENOENT' });
  });

  await t.test('back again', async t => {
    // QEMU lets the old device go only when the guest has switched its slot off, which takes a few seconds.
    await eventually('device_add', () => monitor('device_add', nvmeBDevice));
    await eventually('the nvme driver', async () => {
      if (readPciDevice(nvmeB.address).driver !== 'nvme') throw new Error('not bound yet');
    });
    await withNvme(nvmeB.address, async controller => {
      t.equal(controller.identity.serialNumber, nvmeB.serial);
    });
  });

  await t.test('by surprise, in the middle of I/O', async t => {
    const before = snapshot();
    const claimed = await claim(nvmeB.address);
    const device = openDevice(claimed, { noiommu: isNoiommu });
    const controller = await NvmeController.open(device);
    const namespace = controller.namespace(1);
    let stop = false;
    const errors: unknown[] = [];
    const worker = async (lba: number): Promise<void> => {
      while (!stop) await namespace.write(lba, new Uint8Array(4096));
    };
    const workers = Array.from({ length: 8 }, (_, index) =>
      worker(index * 8).catch(error => errors.push(error)),
    );
    await sleep(200);
    cutPower(address.nvmeBPort);
    const end = setTimeout(() => (stop = true), 20_000);
    await Promise.all(workers);
    clearTimeout(end);
    t.equal(errors.length, 8, 'every command in flight ended');
    t.ok(
      errors.every(error => error instanceof DeviceError && error.code === 'GONE'),
      `each with GONE: ${errors[0]}`,
    );
    await t.rejects(namespace.readBlocks(0, 1), { code: 'GONE' }, 'and so does every later one');
    await controller.close();
    device[Symbol.dispose]();
    const after = snapshot();
    t.strictSame(after.descriptors, before.descriptors, 'no descriptor is left');
    t.strictSame(after.mappings, before.mappings, 'no mapping is left');
  });
});
