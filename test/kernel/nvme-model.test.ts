/**
 * QEMU's NVMe controller answers as it is written down in test/golden/nvme-qemu-7.2.json, which is what the simulated
 * one is held to (test/unit/sim-nvme-qemu.test.ts). `answers.json` in the results is a new record.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { claim, DmaArena, InterruptKind, openDevice } from 'iommufd';
import t from 'tap';
import { type Answers, PROBE_MEMORY, probeController } from '../support/nvme-probe/index.js';
import { guestEnv, nvmeA } from '../vm/topology.js';
import { isNoiommu, profile } from './support/profile.js';

const golden = JSON.parse(
  readFileSync(new URL('../../../test/golden/nvme-qemu-7.2.json', import.meta.url), 'utf8'),
) as Answers;
/** Nothing is mapped there. */
const UNREACHABLE = 0x70_0000_0000n;

t.test(`what QEMU's NVMe controller answers, ${profile}`, async t => {
  using claimed = await claim(nvmeA.address);
  using device = openDevice(claimed, { noiommu: isNoiommu });
  device.config.memory = true;
  const registers = device.bar(0);
  using arena = DmaArena.create(device.space, PROBE_MEMORY);
  using buffer = arena.allocate(PROBE_MEMORY, { alignment: 4096 });
  const counts = new Map<number, number>();
  for (const vector of device.interrupts.enable(InterruptKind.Msix, 2)) {
    vector.listen(count => counts.set(vector.index, (counts.get(vector.index) ?? 0) + Number(count)));
  }
  const answers = await probeController({
    read(offset, size) {
      if (size === 8) return registers.read64(offset);
      return BigInt(size === 4 ? registers.read32(offset) : registers.read16(offset));
    },
    write(offset, size, value) {
      if (size === 8) registers.write64(offset, value);
      else if (size === 4) registers.write32(offset, Number(value));
      else registers.write16(offset, Number(value));
    },
    memory: buffer.bytes,
    address: index => buffer.deviceAddress(index * 4096),
    unreachable: UNREACHABLE,
    setBusMaster: enabled => (device.config.busMaster = enabled),
    interrupts: vector => counts.get(vector) ?? 0,
    sleep,
  });
  device.config.busMaster = false;
  const results = process.env[guestEnv.results];
  if (results) writeFileSync(join(results, 'answers.json'), JSON.stringify(answers, null, 2));
  for (const [question, answer] of Object.entries(golden)) t.equal(answers[question], answer, question);
  t.equal(Object.keys(answers).length, Object.keys(golden).length, 'nothing else was asked');
});
