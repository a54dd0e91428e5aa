/** The other commands for namespaces, and scatter-gather lists. @module */
import { DATA_PAGES, digest, hex, Page, type Probe } from './probe.js';
import { type Entry, PAGE } from './raw-queue.js';

export async function commands(
  probe: Probe,
  ask: (question: string, entry: Entry) => Promise<unknown>,
  rw: (opcode: number, lba: number, blocks: number, more?: Partial<Entry>) => Entry,
  fill: (seed: number) => void,
): Promise<void> {
  fill(5);
  await ask('write, to compare', rw(1, 100, 8));
  await ask('compare the same', rw(5, 100, 8));
  probe.data()[77] = (probe.data()[77] as number) ^ 1;
  await ask('compare another', rw(5, 100, 8));
  await ask('write zeroes', rw(8, 102, 2));
  await ask('read after write zeroes', rw(2, 100, 8));
  probe.note('read after write zeroes: data', String(digest(probe.data())));
  const view = new DataView(probe.data(2).buffer, probe.data(2).byteOffset, PAGE);
  const range = (index: number, lba: bigint, blocks: number): void => {
    view.setUint32(index * 16, 0, true);
    view.setUint32(index * 16 + 4, blocks, true);
    view.setBigUint64(index * 16 + 8, lba, true);
  };
  const dsm = (cdw10: number, cdw11: number, more: Partial<Entry> = {}): Entry => ({
    opcode: 9,
    nsid: 1,
    cdw10,
    cdw11,
    prp1: probe.dataAddress(2),
    ...more,
  });
  for (let i = 0; i < 256; i++) range(i, 5000n + BigInt(2 * i), 1);
  await ask('deallocate one range', dsm(0, 4));
  await ask('deallocate 256 ranges', dsm(255, 4));
  await ask('deallocate 257 ranges: the rest of the field is ignored', dsm(256, 4));
  await ask('hints of use only', dsm(0, 3));
  range(0, 1n << 40n, 1);
  await ask('deallocate beyond the end', dsm(0, 4));
  range(0, 5000n, 0xffff_ffff);
  await ask('deallocate too many blocks', dsm(0, 4));
  range(0, 5000n, 0);
  await ask('deallocate no blocks', dsm(0, 4));
  await ask('ranges with an offset in PRP 1', dsm(0, 4, { prp1: probe.dataAddress(2) + 16n }));
  // Copy
  fill(6);
  await ask('write, to copy', rw(1, 100, 8));
  const source = (index: number, lba: bigint, blocks: number): void => {
    view.setUint32(index * 32, 0, true);
    view.setUint32(index * 32 + 4, 0, true);
    view.setBigUint64(index * 32 + 8, lba, true);
    for (let at = 16; at < 32; at += 4) view.setUint32(index * 32 + at, 0, true);
    view.setUint16(index * 32 + 16, blocks - 1, true);
  };
  const copy = (to: number, ranges: number, format = 0): Entry => ({
    opcode: 0x19,
    nsid: 1,
    cdw10: to,
    cdw12: (ranges - 1) | (format << 8),
    prp1: probe.dataAddress(2),
  });
  source(0, 102n, 2);
  source(1, 100n, 2);
  await ask('copy two ranges', copy(700, 2));
  await ask('read what was copied', rw(2, 700, 4, { prp1: probe.dataAddress(4) }));
  probe.note('read what was copied: data', String(digest(probe.data(4).subarray(0, 2048))));
  for (const format of [1, 2, 3, 4, 15]) await ask(`copy with format ${format}`, copy(700, 2, format));
  await ask('copy to beyond the end', copy(0x7fff_ffff, 2));
  source(0, 1n << 40n, 1);
  await ask('copy from beyond the end', copy(700, 2));
  source(0, 100n, 129);
  await ask('copy a range too long', copy(700, 1));
  for (let i = 0; i < 128; i++) source(i, 100n, 2);
  await ask('copy 128 ranges', copy(700, 128));
  await ask('copy 129 ranges', copy(700, 129));
  await ask('flush namespace 1', { opcode: 0, nsid: 1 });
  await ask('flush all', { opcode: 0, nsid: 0xffff_ffff });
  await ask('fused flush', { opcode: 0, nsid: 1, flags: 1 });
  fill(8);
  await ask('write a block of 4096 to namespace 2', rw(1, 10, 1, { nsid: 2 }));
  probe.clearData();
  await ask('read a block of 4096 from namespace 2', rw(2, 10, 1, { nsid: 2 }));
  probe.note('read a block of 4096 from namespace 2: data', String(digest(probe.data())));
}

/** Scatter-gather lists. */
export async function scattered(
  probe: Probe,
  rw: (opcode: number, lba: number, blocks: number, more?: Partial<Entry>) => Entry,
  fill: (seed: number) => void,
): Promise<void> {
  const { controller, io } = probe;
  const listAt = Page.List * PAGE;
  const view = new DataView(
    controller.memory.buffer,
    controller.memory.byteOffset,
    controller.memory.byteLength,
  );
  const descriptor = (at: number, address: bigint, length: number, type: number): void => {
    view.setBigUint64(at, address, true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, 0, true);
    view.setUint8(at + 15, type);
  };
  const ask = async (
    question: string,
    entry: Entry,
    address: bigint,
    length: number,
    type: number,
    psdt = 1,
  ): Promise<void> => {
    io.put({ ...entry, flags: psdt << 6 });
    descriptor(io.lastPointer, address, length, type);
    io.ring();
    const completion = await io.next();
    probe.note(`SGL: ${question}`, completion ? hex(completion.status) : 'nothing');
  };
  fill(9);
  const data = probe.dataAddress();
  await ask('write from one data block', rw(1, 900, 8), data, 4096, 0);
  await ask('a data block too short', rw(2, 900, 8), data, 4095, 0);
  await ask('a data block too long', rw(2, 900, 8), data, 8192, 0);
  await ask('a data block of no length', rw(2, 900, 8), data, 0, 0);
  for (const type of [0x10, 0x20, 0x30, 0x40, 0x50, 0xf0, 0x01]) {
    await ask(`type ${hex(type, 2)} in the command`, rw(2, 900, 8), data, 4096, type);
  }
  const list = controller.address(Page.List);
  probe.clearData();
  descriptor(listAt, data + 100n, 1000, 0);
  descriptor(listAt + 16, data + 4096n, 0, 0);
  descriptor(listAt + 32, probe.dataAddress(2) + 1n, 3096, 0);
  await ask('a last segment of three data blocks', rw(2, 900, 8), list, 48, 0x30);
  const all = controller.memory.subarray(Page.Data * PAGE, (Page.Data + DATA_PAGES) * PAGE);
  probe.note('SGL: a last segment of three data blocks: data', String(digest(all)));
  await ask('the same with PSDT 2', rw(2, 900, 8), list, 48, 0x30, 2);
  await ask('a segment that ends in a data block', rw(2, 900, 8), list, 48, 0x20);
  await ask('a segment whose length is odd', rw(2, 900, 8), list, 47, 0x30);
  await ask('a segment of no length', rw(2, 900, 8), list, 0, 0x30);
  descriptor(listAt + 16, data, 64, 0x10);
  await ask('a bit bucket in a segment', rw(2, 900, 8), list, 48, 0x30);
  descriptor(listAt, data, 2000, 0);
  descriptor(listAt + 16, list + 64n, 32, 0x30);
  descriptor(listAt + 64, data + 2000n, 96, 0);
  descriptor(listAt + 80, probe.dataAddress(1), 2000, 0);
  await ask('a segment and a last segment', rw(2, 900, 8), list, 32, 0x20);
  await ask('a last segment that leads on', rw(2, 900, 8), list, 32, 0x30);
  descriptor(listAt + 80, probe.dataAddress(1), 1999, 0);
  await ask('a byte too few', rw(2, 900, 8), list, 32, 0x20);
  descriptor(listAt + 80, probe.dataAddress(1), 2001, 0);
  await ask('a byte too many', rw(2, 900, 8), list, 32, 0x20);
  descriptor(listAt + 64, data + 2000n, 4000, 0);
  await ask('a data block too many', rw(2, 900, 8), list, 32, 0x20);
  if (controller.unreachable !== undefined) {
    await ask('a segment it cannot reach', rw(2, 900, 8), controller.unreachable, 16, 0x30);
  }
}
