/** The simulated edu device: what QEMU 7.2's showed through the same accesses, in each case. */
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { EduModel, type EduOptions } from '../../src/sim/devices/edu.js';
import { EDU_BUFFER, Edu } from '../support/edu-registers.js';
import { PlainPort, readBar, writeBar } from './support/plain-port.js';

const TO_DEVICE = 1n;
const FROM_DEVICE = 3n;
const INTERRUPT = 4n;

function makeEdu(options: EduOptions = {}): {
  edu: EduModel;
  port: PlainPort;
  read: (offset: number, size?: number) => bigint;
  write: (offset: number, value: bigint, size?: number) => void;
  transfer: (source: bigint, destination: bigint, count: bigint, command: bigint) => Promise<void>;
} {
  const edu = new EduModel(options);
  const port = new PlainPort(65536);
  port.interruptMode = 'msi';
  edu.plug(port);
  const read = (offset: number, size = 4): bigint => readBar(edu, offset, size);
  const write = (offset: number, value: bigint, size = 4): void => writeBar(edu, offset, size, value);
  const transfer = async (
    source: bigint,
    destination: bigint,
    count: bigint,
    command: bigint,
  ): Promise<void> => {
    write(Edu.DmaSource, source, 8);
    write(Edu.DmaDestination, destination, 8);
    write(Edu.DmaCount, count, 8);
    write(Edu.DmaCommand, command, 8);
    while (read(Edu.DmaCommand, 8) & 1n) await sleep(5);
  };
  return { edu, port, read, write, transfer };
}

t.test('what it is', async t => {
  const { edu, read } = makeEdu();
  t.match(edu.identity, { vendorId: 0x1234, deviceId: 0x11e8, classCode: 0x00ff00, revision: 0x10 });
  t.strictSame(edu.bars, [{ index: 0, size: 2 ** 20, kind: 'memory' }]);
  t.strictSame(edu.capabilities, { msi: 1 });
  t.equal(read(Edu.Identification), 0x010000edn);
});

t.test('sizes of accesses', async t => {
  const { read, write } = makeEdu();
  const ones = 0xffff_ffffn;
  for (const offset of [0x0c, 0x28, 0x60, 0x64, 0x7c, 0x84, 0x8c, 0x9c, 0xa0, 0x1000, 0xffffc]) {
    t.equal(read(offset), ones, `no register at 0x${offset.toString(16)}`);
  }
  for (const offset of [0, 8, 0x20, 0xa0]) {
    t.equal(read(offset, 8), 2n ** 64n - 1n, `8 bytes at 0x${offset.toString(16)}`);
  }
  for (const offset of [0, 2, 0x80]) t.equal(read(offset, 2), 0n, `2 bytes at 0x${offset.toString(16)}`);
  write(Edu.Liveness, 1n, 8);
  t.equal(read(Edu.Liveness), 0n, 'a write of 8 bytes does nothing there');
  write(Edu.DmaSource, 0x1122_3344_5566_7788n, 8);
  t.equal(read(Edu.DmaSource, 8), 0x1122_3344_5566_7788n);
  t.equal(read(Edu.DmaSource), 0x5566_7788n);
  write(Edu.DmaSource, 0x99aa_bbccn);
  t.equal(read(Edu.DmaSource, 8), 0x99aa_bbccn, '4 bytes are all of it');
  write(Edu.DmaSource + 4, 1n);
  t.equal(read(Edu.DmaSource, 8), 0x99aa_bbccn, 'its upper half cannot be written');
});

t.test('liveness and factorial', async t => {
  const { read, write, port } = makeEdu();
  t.equal(read(Edu.Liveness), 0n);
  write(Edu.Liveness, 0x1234_5678n);
  t.equal(read(Edu.Liveness), 0xedcb_a987n);
  for (const [value, expected] of [
    [0n, 1n],
    [10n, 3_628_800n],
    [13n, 1_932_053_504n],
    [40n, 0n],
  ] as const) {
    write(Edu.Factorial, value);
    t.equal(read(Edu.Status) & 1n, 1n, 'computing');
    write(Edu.Factorial, 3n);
    await sleep(5);
    t.equal(read(Edu.Status), 0n);
    t.equal(read(Edu.Factorial), expected, `${value}!`);
  }
  t.equal(port.messages.size, 0, 'no interrupt');
  write(Edu.Status, 0xffff_ffffn);
  t.equal(read(Edu.Status), 0x80n, 'one bit can be set');
  write(Edu.Factorial, 5n);
  await sleep(5);
  t.equal(read(Edu.InterruptStatus), 1n);
  t.equal(port.messages.get(0), 1);
});

t.test('interrupts', async t => {
  const { read, write, port } = makeEdu();
  write(Edu.InterruptRaise, 0x8000_0010n);
  t.equal(read(Edu.InterruptStatus), 0x8000_0010n);
  t.equal(port.messages.get(0), 1);
  write(Edu.InterruptRaise, 1n);
  t.equal(port.messages.get(0), 2, 'each is a message');
  write(Edu.InterruptAcknowledge, 1n);
  t.equal(read(Edu.InterruptStatus), 0x8000_0010n);
  write(Edu.InterruptAcknowledge, 0xffff_ffffn);
  t.equal(read(Edu.InterruptStatus), 0n);
  t.equal(port.assertions, 0);
  port.interruptMode = 'intx';
  write(Edu.InterruptRaise, 3n);
  t.equal(port.asserted, true);
  write(Edu.InterruptAcknowledge, 1n);
  t.equal(port.asserted, true, 'one reason is left');
  write(Edu.InterruptAcknowledge, 2n);
  t.equal(port.asserted, false);
});

t.test('DMA', async t => {
  const { read, write, port, transfer } = makeEdu();
  port.memory.fill(7, 0, 100);
  write(Edu.DmaCommand, 6n, 8);
  t.equal(read(Edu.DmaCommand, 8), 0n, 'a command without the run bit is ignored');
  const started = performance.now();
  const done = transfer(port.base, EDU_BUFFER, 100n, TO_DEVICE | INTERRUPT);
  t.equal(read(Edu.DmaCommand, 8), 5n);
  write(Edu.DmaCount, 5n, 8);
  t.equal(read(Edu.DmaCount, 8), 100n, 'registers do not change meanwhile');
  await done;
  t.ok(performance.now() - started > 90, 'it takes 100 ms');
  t.equal(read(Edu.DmaCommand, 8), 4n);
  t.equal(read(Edu.InterruptStatus), 0x100n);
  t.equal(port.messages.get(0), 1);
  await transfer(EDU_BUFFER + 98n, port.base + 1000n, 4n, FROM_DEVICE);
  t.strictSame([...port.memory.subarray(998, 1006)], [0, 0, 7, 7, 0, 0, 0, 0]);
  t.equal(port.messages.get(0), 1, 'no interrupt was asked for');
});

t.test('DMA that cannot be', async t => {
  const { edu, read, port, transfer } = makeEdu();
  port.busMaster = false;
  await transfer(EDU_BUFFER, port.base, 4n, FROM_DEVICE | INTERRUPT);
  t.equal(read(Edu.DmaCommand, 8), 6n, 'it ends as if nothing had been');
  t.equal(edu.failedTransfers, 1);
  port.busMaster = true;
  for (const [start, count] of [
    [EDU_BUFFER - 1n, 1n],
    [EDU_BUFFER, 4096n],
    [EDU_BUFFER + 4095n, 1n],
    [0n, 2n ** 63n],
    [EDU_BUFFER, 2n ** 64n - 1n],
  ] as const) {
    await transfer(start, port.base, count, FROM_DEVICE);
    t.strictSame(edu.overruns.at(-1), { start, length: count }, 'QEMU ends there');
  }
  await transfer(EDU_BUFFER, port.base, 4095n, FROM_DEVICE);
  t.equal(edu.overruns.length, 5, '4095 bytes are the most that QEMU takes');
});

t.test('a device that drives few address bits', async t => {
  const { port, transfer } = makeEdu({ dmaMask: 0x0fff_ffffn });
  port.memory.fill(9, 0, 4);
  await transfer(port.base + 0x1_0000_0000n, EDU_BUFFER, 4n, TO_DEVICE);
  await transfer(EDU_BUFFER, port.base + 0x7000_0000_0100n, 4n, FROM_DEVICE);
  t.strictSame([...port.memory.subarray(0x100, 0x104)], [9, 9, 9, 9], 'the others are lost');
});

t.test('a reset, and being pulled out', async t => {
  const { edu, read, write, port } = makeEdu();
  port.interruptMode = 'intx';
  write(Edu.InterruptRaise, 1n);
  write(Edu.Liveness, 0n);
  write(Edu.DmaCommand, 1n, 8);
  edu.reset();
  t.equal(port.asserted, false);
  for (const register of [Edu.Liveness, Edu.InterruptStatus, Edu.DmaCommand]) t.equal(read(register), 0n);
  write(Edu.Factorial, 3n);
  write(Edu.DmaCommand, 1n, 8);
  edu.plug(undefined);
  await sleep(150);
  t.pass('nothing happens any more');
});
