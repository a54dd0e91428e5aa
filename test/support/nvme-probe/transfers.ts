/** Reads and writes: bounds, PRP entries and lists. @module */
import { commands, scattered } from './commands.js';
import { DATA_PAGES, digest, Page, type Probe } from './probe.js';
import { type Entry, PAGE } from './raw-queue.js';

/** Reads and writes. Block 100 on of namespaces 1 and 2 are written to. */
export async function transfers(probe: Probe): Promise<void> {
  await probe.start();
  await probe.makeIoQueue();
  const { controller, io } = probe;
  const list = new DataView(
    controller.memory.buffer,
    controller.memory.byteOffset + Page.List * PAGE,
    2 * PAGE,
  );
  const rw = (opcode: number, lba: number, blocks: number, more: Partial<Entry> = {}): Entry => ({
    opcode,
    nsid: 1,
    cdw10: lba,
    cdw12: blocks - 1,
    prp1: probe.dataAddress(),
    ...more,
  });
  const ask = (question: string, entry: Entry): Promise<unknown> => probe.ask(question, entry, io);
  const whole = await size(probe, 1);
  const fill = (seed: number): void => {
    for (let at = 0; at < DATA_PAGES * PAGE; at++) {
      controller.memory[Page.Data * PAGE + at] = (at * 7 + (at >> 8) + seed) & 0xff;
    }
  };
  fill(1);
  await ask('write 8 blocks', rw(1, 100, 8));
  probe.clearData();
  await ask('read 8 blocks', rw(2, 100, 8));
  probe.note('read 8 blocks: data', String(digest(probe.data())));
  await ask('read the last block', rw(2, whole - 1, 1));
  await ask('read beyond the end', rw(2, whole, 1));
  await ask('read across the end', rw(2, whole - 1, 2));
  await ask('read far beyond the end', rw(2, 0, 1, { cdw11: 0xffff_ffff }));
  await ask('read at the last address there is', rw(2, 0xffff_ffff, 1, { cdw11: 0xffff_ffff }));
  await ask('write beyond the end', rw(1, whole, 1));
  await ask('write zeroes beyond the end', rw(8, whole, 1));
  await ask('verify beyond the end', rw(0xc, whole, 1));
  await ask('compare beyond the end', rw(5, whole, 1));
  await ask('read 4 MiB and a block', rw(2, 0, 8193));
  await ask('write 4 MiB and a block', rw(1, 0, 8193));
  await ask('compare 4 MiB and a block', rw(5, 0, 8193));
  await ask('verify 512 KiB', rw(0xc, 0, 1024));
  await ask('verify 512 KiB and a block', rw(0xc, 0, 1025));
  await ask('write zeroes to 32 MiB', rw(8, 1000, 65536));
  await ask('too long and beyond the end', rw(2, whole, 8193));
  await ask('fused', rw(2, 100, 1, { flags: 1 }));
  await ask('PSDT 3', rw(2, 100, 1, { flags: 0xc0 }));
  await ask('protection information asked for', rw(2, 100, 1, { cdw12: 0x2000_0000 }));
  await ask('force unit access', rw(1, 100, 1, { cdw12: 0x4000_0000 }));
  // PRP entries
  await ask('an offset of 8 in PRP 1', rw(2, 100, 1, { prp1: probe.dataAddress() + 8n }));
  await ask('an odd offset in PRP 1', rw(2, 100, 1, { prp1: probe.dataAddress() + 5n }));
  fill(2);
  await ask(
    'write 8 blocks from the middle of a page',
    rw(1, 200, 8, { prp1: probe.dataAddress() + 512n, prp2: probe.dataAddress(1) }),
  );
  probe.clearData();
  await ask('read them', rw(2, 200, 8, { prp1: probe.dataAddress(3) }));
  probe.note('read them: data', String(digest(probe.data(3))));
  await ask('an offset in PRP 2', rw(2, 100, 16, { prp2: probe.dataAddress(1) + 512n }));
  const entries = (first: number, count: number, at = 0): void => {
    for (let i = 0; i < count; i++) list.setBigUint64(at + 8 * i, probe.dataAddress(first + i), true);
  };
  const listAddress = controller.address(Page.List);
  entries(1, 31);
  fill(3);
  await ask('write 128 KiB with a list', rw(1, 400, 256, { prp2: listAddress }));
  probe.clearData();
  entries(1, 31, 512);
  await ask(
    'read 128 KiB with a list in the middle of a page',
    rw(2, 400, 256, { prp2: listAddress + 512n }),
  );
  const { memory } = controller;
  const all = memory.subarray(Page.Data * PAGE, (Page.Data + DATA_PAGES) * PAGE);
  probe.note('read 128 KiB with a list in the middle of a page: data', String(digest(all)));
  probe.clearData();
  // 4 entries in the first page, the last of which leads to the next page.
  entries(1, 3, PAGE - 32);
  list.setBigUint64(PAGE - 8, controller.address(Page.List + 1), true);
  entries(4, 28, PAGE);
  await ask('read 128 KiB with two lists', rw(2, 400, 256, { prp2: listAddress + BigInt(PAGE - 32) }));
  probe.note('read 128 KiB with two lists: data', String(digest(all)));
  list.setBigUint64(PAGE - 8, controller.address(Page.List + 1) + 8n, true);
  await ask('a next list with an offset', rw(2, 400, 256, { prp2: listAddress + BigInt(PAGE - 32) }));
  probe.clearData();
  entries(1, 4, PAGE - 32);
  await ask('a list that ends with its page', rw(2, 400, 40, { prp2: listAddress + BigInt(PAGE - 32) }));
  probe.note('a list that ends with its page: data', String(digest(all)));
  entries(1, 31);
  list.setBigUint64(8, probe.dataAddress(2) + 4n, true);
  await ask('an offset in an entry of a list', rw(2, 400, 256, { prp2: listAddress }));
  entries(1, 31);
  if (controller.unreachable !== undefined) {
    const nowhere = controller.unreachable;
    await ask('data at an address it cannot reach: read', rw(2, 100, 8, { prp1: nowhere }));
    await ask('data at an address it cannot reach: write', rw(1, 600, 8, { prp1: nowhere }));
    probe.clearData();
    await ask('what was written then', rw(2, 600, 8));
    probe.note('what was written then: data', String(digest(probe.data())));
    await ask('list at an address it cannot reach', rw(2, 400, 256, { prp2: nowhere }));
    list.setBigUint64(8, nowhere, true);
    await ask('an entry of a list it cannot reach', rw(2, 400, 256, { prp2: listAddress }));
    entries(1, 31);
    const compare = rw(5, 100, 8, { prp1: nowhere });
    await ask('compare with what it cannot reach', compare);
    const ranges = { opcode: 9, nsid: 1, cdw11: 4, prp1: nowhere };
    await ask('ranges at an address it cannot reach', ranges);
    await probe.ask('identify to an address it cannot reach', { opcode: 6, nsid: 1, prp1: nowhere });
    await probe.ask('timestamp from an address it cannot reach', { opcode: 9, cdw10: 0xe, prp1: nowhere });
  }
  await commands(probe, ask, rw, fill);
  await scattered(probe, rw, fill);
}

/** Blocks of a namespace. */
async function size(probe: Probe, nsid: number): Promise<number> {
  await probe.run(probe.admin, { opcode: 6, nsid, prp1: probe.dataAddress() });
  const data = probe.data();
  return Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
}
