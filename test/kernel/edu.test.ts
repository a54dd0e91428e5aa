/** QEMU's edu device: registers, DMA both ways, interrupts. Shows that the library is not NVMe-shaped. */
import { claim, type Device, DmaArena, InterruptKind, openDevice, type Region } from 'iommufd';
import t from 'tap';
import { EDU_BUFFER, EDU_MAX_DMA, Edu, EduDma } from '../support/edu-registers.js';
import { simulation } from '../support/simulation.js';
import { address } from '../vm/topology.js';
import { nothingLeaked, snapshot } from './support/leaks.js';
import { isNoiommu, profile } from './support/profile.js';

async function withEdu(body: (device: Device, registers: Region) => Promise<void>): Promise<void> {
  using claimed = await claim(address.edu);
  using device = openDevice(claimed, { noiommu: isNoiommu });
  device.config.memory = true;
  await body(device, device.bar(0));
}

/** The next interrupt, or a rejection after `ms`. */
function within<T>(promise: Promise<T>, ms = 10_000): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing happened within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

t.test(`edu, ${profile}`, async t => {
  const before = snapshot();

  await t.test('registers', t =>
    withEdu(async (_device, registers) => {
      t.equal(registers.read32(Edu.Identification) & 0xff, 0xed, 'identification');
      registers.write32(Edu.Liveness, 0x1234_5678);
      t.equal(registers.read32(Edu.Liveness), ~0x1234_5678 >>> 0, 'liveness is inverted');
      registers.write32(Edu.Factorial, 10);
      while (registers.read32(Edu.Status) & 1) await new Promise(setImmediate);
      t.equal(registers.read32(Edu.Factorial), 3_628_800, '10!');
      // Nothing could trap a load or store of this process on a simulated machine.
      t.equal(registers.mapped, simulation() === undefined, 'the BAR is mapped');
      registers.unmap();
      t.equal(registers.read32(Edu.Identification) & 0xff, 0xed, 'the same through the file');
      t.throws(() => registers.read32(2), RangeError, 'misaligned');
      t.throws(() => registers.read32(registers.size), RangeError, 'beyond the end');
    }),
  );

  for (const kind of [InterruptKind.Msi, InterruptKind.Intx]) {
    const name = kind === InterruptKind.Msi ? 'MSI' : 'INTx';
    await t.test(`${name} interrupts`, t =>
      withEdu(async (device, registers) => {
        const [vector] = device.interrupts.enable(kind);
        device.config.busMaster = true; // MSI is a write to memory
        const counts = vector![Symbol.asyncIterator]();
        for (let round = 1; round <= 3; round++) {
          const next = counts.next();
          registers.write32(Edu.InterruptRaise, round);
          const { value } = await within(next);
          t.ok((value ?? 0) >= 1, `interrupt ${round}`);
          t.equal(registers.read32(Edu.InterruptStatus), round, 'with its reason');
          registers.write32(Edu.InterruptAcknowledge, round);
          // INTx was unmasked before the line was lowered, and may have fired once more.
          await new Promise(resolve => setTimeout(resolve, 20));
        }
        await counts.return?.();
        if (kind === InterruptKind.Msi) {
          const next = within(vector![Symbol.asyncIterator]().next());
          device.interrupts.trigger(kind);
          t.equal((await next).value, 1, 'triggered by the kernel itself');
        }
      }),
    );
  }

  await t.test('DMA both ways, with an interrupt at the end', t =>
    withEdu(async (device, registers) => {
      using arena = DmaArena.create(device.space, 64 * 1024);
      using source = arena.allocate(EDU_MAX_DMA, { alignment: 4096 });
      using target = arena.allocate(EDU_MAX_DMA, { alignment: 4096 });
      for (let i = 0; i < EDU_MAX_DMA; i++) source.bytes[i] = (i * 7) & 0xff;
      const [vector] = device.interrupts.enable(InterruptKind.Msi);
      device.config.busMaster = true;
      const transfer = async (from: bigint, to: bigint, command: number): Promise<void> => {
        const done = vector![Symbol.asyncIterator]().next();
        registers.write64(Edu.DmaSource, from);
        registers.write64(Edu.DmaDestination, to);
        registers.write64(Edu.DmaCount, BigInt(EDU_MAX_DMA));
        registers.write64(Edu.DmaCommand, BigInt(command | EduDma.Start | EduDma.Interrupt));
        await within(done);
        registers.write32(Edu.InterruptAcknowledge, registers.read32(Edu.InterruptStatus));
      };
      await transfer(source.deviceAddress(), EDU_BUFFER, 0);
      await transfer(EDU_BUFFER, target.deviceAddress(), EduDma.FromDevice);
      t.strictSame(Buffer.from(target.bytes), Buffer.from(source.bytes), 'what went in came out');
    }),
  );

  await t.test('configuration space', t =>
    withEdu(async device => {
      t.equal(device.config.vendorId, 0x1234);
      t.equal(device.config.deviceId, 0x11e8);
      t.equal(device.config.busMaster, false, 'bus mastering is off when a device is opened');
      device.config.busMaster = true;
      t.equal(device.config.busMaster, true);
      t.ok(
        device.config.capabilities().some(capability => capability.id === 5),
        'MSI capability',
      );
    }),
  );

  await nothingLeaked(t, before);
});
