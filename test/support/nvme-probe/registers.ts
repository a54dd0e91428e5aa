/** Registers, and starting and stopping a controller. @module */
import { ENABLED, hex, type Probe, Register } from './probe.js';

export async function registers(probe: Probe): Promise<void> {
  const { controller } = probe;
  await probe.configure(0n);
  for (let offset = 0; offset < 0x68; offset += 4) {
    // What is left of the queues' addresses, and of interrupt masks, is the driver's before.
    if (offset >= Register.AQA && offset < Register.ACQ + 8) continue;
    probe.note(`register ${hex(offset, 2)}`, hex(controller.read(offset, 4), 8));
  }
  for (const offset of [0xe00, 0xe04, 0xe08, 0xe10, 0xe14, 0xffc, 0x1000, 0x1004, 0x1008, 0x1ff8]) {
    probe.note(`register ${hex(offset, 3)}`, hex(controller.read(offset, 4), 8));
  }
  probe.note('CAP in one access of 8', hex(controller.read(Register.CAP, 8), 16));
  probe.note('VS and INTMS in one access of 8', hex(controller.read(8, 8), 16));
  for (const offset of [0, 2, 4, 6, 8, 10]) {
    probe.note(`2 bytes at ${offset}`, hex(controller.read(offset, 2)));
  }
  const write = (offset: number, size: 2 | 4 | 8, value: bigint, read: number): void => {
    controller.write(offset, size, value);
    const back = hex(controller.read(read, 8), 16);
    probe.note(`${hex(value)} in ${size} bytes to ${hex(offset, 2)}, then 8 bytes at ${hex(read, 2)}`, back);
  };
  write(Register.AQA, 4, 0x001f_001fn, 0x20);
  write(Register.AQA, 4, 0xffff_ffffn, 0x20);
  write(Register.AQA, 2, 0x1234n, 0x20);
  write(Register.AQA + 2, 2, 0x1234n, 0x20);
  write(Register.ASQ, 8, 0x1122_3344_5566_7788n, Register.ASQ);
  write(Register.ASQ, 4, 0x99aa_bbccn, Register.ASQ);
  write(Register.ASQ + 4, 4, 0xddee_ff00n, Register.ASQ);
  write(Register.ACQ, 8, 0xfedc_ba98_7654_3210n, Register.ACQ);
  write(Register.ACQ, 4, 0x1000n, Register.ACQ);
  write(Register.ACQ, 2, 0x2345n, Register.ACQ);
  write(0x0c, 4, 0x5n, 0x08);
  write(0x0c, 4, 0x5n, 0x10);
  write(0x10, 4, 0x4n, 0x08);
  write(0x10, 4, 0xffff_ffffn, 0x08);
  write(0x20, 4, 0x4e56_4d65n, 0x18);
  write(0x1c, 4, 0x10n, 0x18);
  write(0x08, 4, 0xffff_ffffn, 0x08);
  write(0x00, 4, 0xffff_ffffn, 0x00);
  write(0x38, 4, 0xffff_ffffn, 0x38);
  write(0x50, 8, 0x3n, 0x50);
  write(0x28, 8, 0n, 0x28);
  write(0x30, 8, 0n, 0x30);
}

export async function starting(probe: Probe): Promise<void> {
  const { controller } = probe;
  const enabled = hex(await probe.start());
  probe.note('enabled', enabled);
  probe.note('enabled: CC', hex(controller.read(Register.CC, 4), 8));
  probe.note('enabled: no doorbell', hex(controller.read(0x1000, 4), 8));
  probe.note('shutdown notification', hex(await probe.configure(ENABLED | (1n << 14n))));
  probe.note('shutdown notification again', hex(await probe.configure(ENABLED | (1n << 14n))));
  probe.note('shutdown notification withdrawn', hex(await probe.configure(ENABLED)));
  probe.note('abrupt shutdown', hex(await probe.configure(ENABLED | (2n << 14n))));
  probe.note('disabled after the shutdown', hex(await probe.configure(2n << 14n)));
  probe.note('disabled after the shutdown: CC', hex(controller.read(Register.CC, 4), 8));
  probe.note('shutdown notification while disabled', hex(await probe.configure(1n << 14n)));
  probe.note('CC while disabled', hex(controller.read(Register.CC, 4), 8));
  await probe.configure(0n);
  for (const [what, cc] of [
    ['entry sizes 0', 0x1n],
    ['entries of 2^7 and 2^4 bytes', 0x0047_0001n],
    ['entries of 2^6 and 2^5 bytes', 0x0056_0001n],
    ['pages of 128 KiB', ENABLED | (5n << 7n)],
    ['pages of 128 MiB', ENABLED | (15n << 7n)],
    ['command set 1', ENABLED | (1n << 4n)],
    ['command set 6', ENABLED | (6n << 4n)],
    ['command set 7', ENABLED | (7n << 4n)],
    ['arbitration 7', ENABLED | (7n << 11n)],
  ] as const) {
    probe.note(`start with ${what}`, hex(await probe.start(cc)));
    probe.note(`start with ${what}: CC`, hex(controller.read(Register.CC, 4), 8));
    probe.note(`start with ${what}, then CC 0`, hex(await probe.configure(0n)));
  }
  await probe.configure(0n);
  for (const [what, aqa] of [
    ['ASQS 0', 0x001f_0000n],
    ['ACQS 0', 0x0000_001fn],
    ['ASQS and ACQS 1', 0x0001_0001n],
    ['ASQS and ACQS 4095', 0x0fff_0fffn],
    ['reserved bits only', 0xf000_f000n],
  ] as const) {
    controller.write(Register.AQA, 4, aqa);
    probe.note(`start with ${what}`, hex(await probe.configure(ENABLED)));
    await probe.configure(0n);
  }
  controller.write(Register.AQA, 4, 0x001f_001fn);
  for (const [what, register] of [
    ['ASQ', Register.ASQ],
    ['ACQ', Register.ACQ],
  ] as const) {
    const before = controller.read(register, 8);
    probe.address(register, before + 8n);
    probe.note(`start with ${what} in the middle of a page`, hex(await probe.configure(ENABLED)));
    await probe.configure(0n);
    probe.address(register, before);
  }
  probe.note('AQA after a reset', hex(controller.read(Register.AQA, 4), 8));
}
