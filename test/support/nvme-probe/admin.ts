/** Which commands there are; creating and deleting queues; asynchronous events. @module */
import { hex, Page, type Probe } from './probe.js';
import { type Completion, DOORBELLS, type Entry } from './raw-queue.js';

export async function opcodes(probe: Probe): Promise<void> {
  await probe.start();
  await probe.makeIoQueue();
  for (let opcode = 0; opcode < 256; opcode++) {
    // An event request does not end; shadow doorbells do not, either.
    if (opcode === 0x0c || opcode === 0x7c) continue;
    const entry = { opcode, prp1: probe.dataAddress() };
    await probe.ask(`admin ${hex(opcode, 2)}`, entry);
  }
  await probe.ask('admin 7c, not aligned', { opcode: 0x7c, prp1: 8n });
  await probe.ask('admin 80 nsid 3', { opcode: 0x80, nsid: 3 });
  await probe.ask('admin 80 nsid 101', { opcode: 0x80, nsid: 0x101 });
  await probe.ask('admin 80 nsid 1, format 9', { opcode: 0x80, nsid: 1, cdw10: 9 });
  await probe.ask('admin 80 nsid 1, format 0 with protection', { opcode: 0x80, nsid: 1, cdw10: 1 << 5 });
  probe.clearData();
  await probe.ask('admin 15 nsid 1', { opcode: 0x15, nsid: 1, prp1: probe.dataAddress() });
  await probe.ask('admin 15 nsid 3', { opcode: 0x15, nsid: 3, prp1: probe.dataAddress() });
  for (let opcode = 0; opcode < 256; opcode++) {
    for (const nsid of opcode < 0x20 ? [0, 1, 3, 0x101, 0xffff_ffff] : [1]) {
      probe.clearData();
      const entry = { opcode, nsid, cdw10: 0, prp1: probe.dataAddress() };
      await probe.ask(`I/O ${hex(opcode, 2)} nsid ${hex(nsid, 1)}`, entry, probe.io);
    }
  }
  for (const sq of [0, 1, 2, 64, 65, 0xffff]) {
    await probe.ask(`abort of an unknown command in queue ${sq}`, {
      opcode: 8,
      cdw10: (0x7777_0000 | sq) >>> 0,
    });
  }
}

export async function queues(probe: Probe): Promise<void> {
  await probe.start();
  const { controller } = probe;
  const prp1 = controller.address(Page.IoCq);
  const cq = (name: string, fields: Partial<Entry> & { id?: number; size?: number }): Promise<unknown> =>
    probe.ask(`create completion queue: ${name}`, {
      opcode: 5,
      prp1,
      cdw10: (((fields.size ?? 7) << 16) | (fields.id ?? 1)) >>> 0,
      cdw11: fields.cdw11 ?? 1,
      ...(fields.prp1 === undefined ? {} : { prp1: fields.prp1 }),
    });
  const sq = (name: string, fields: Partial<Entry> & { id?: number; size?: number }): Promise<unknown> =>
    probe.ask(`create submission queue: ${name}`, {
      opcode: 1,
      prp1: fields.prp1 ?? controller.address(Page.IoSq),
      cdw10: (((fields.size ?? 7) << 16) | (fields.id ?? 1)) >>> 0,
      cdw11: fields.cdw11 ?? 0x1_0001,
    });
  await sq('without a completion queue', {});
  await cq('id 0', { id: 0 });
  await cq('id 64', { id: 64, size: 3 });
  await cq('id 65', { id: 65 });
  await cq('size 1', { size: 0 });
  await cq('size 2048', { id: 2, size: 2047 });
  await cq('size 2049', { id: 3, size: 2048 });
  await cq('address not aligned', { prp1: prp1 + 64n });
  await cq('vector 64', { id: 4, cdw11: (64 << 16) | 3 });
  await cq('vector 65', { id: 5, cdw11: (65 << 16) | 3 });
  await cq('vector 65 without interrupts', { id: 5, cdw11: (65 << 16) | 1 });
  await cq('not contiguous', { cdw11: 2 });
  await cq('right', { cdw11: (1 << 16) | 3 });
  await cq('again', {});
  await cq('several things wrong: id and size', { id: 0, size: 0 });
  await cq('several things wrong: size and address', { id: 6, size: 0, prp1: 1n });
  await cq('several things wrong: vector and flags', { id: 6, cdw11: 65 << 16 });
  await sq('id 0', { id: 0 });
  await sq('id 65', { id: 65 });
  await sq('size 1', { size: 0 });
  await sq('size 2049', { size: 2048 });
  await sq('address not aligned', { prp1: prp1 + 64n });
  await sq('not contiguous', { cdw11: 0x1_0000 });
  await sq('completion queue 0', { cdw11: 0x0_0001 });
  await sq('completion queue 9', { cdw11: 0x9_0001 });
  await sq('right', {});
  await sq('again', {});
  await sq('another with the same completion queue', { id: 2 });
  await sq('priority 3', { id: 3, cdw11: 0x1_0007 });
  await probe.ask('set number of queues with queues there', { opcode: 9, cdw10: 7, cdw11: 0 });
  await probe.ask('delete completion queue 1 in use', { opcode: 4, cdw10: 1 });
  await probe.ask('delete completion queue 0', { opcode: 4, cdw10: 0 });
  await probe.ask('delete completion queue 9', { opcode: 4, cdw10: 9 });
  await probe.ask('delete submission queue 0', { opcode: 0, cdw10: 0 });
  await probe.ask('delete submission queue 9', { opcode: 0, cdw10: 9 });
  for (const id of [1, 2, 3]) await probe.ask(`delete submission queue ${id}`, { opcode: 0, cdw10: id });
  await probe.ask('delete completion queue 1', { opcode: 4, cdw10: 1 });
  await probe.ask('delete completion queue 1 twice', { opcode: 4, cdw10: 1 });
  await probe.start();
  await probe.ask('the number of queues can be set after a reset', { opcode: 9, cdw10: 7, cdw11: 0 });
}

export async function events(probe: Probe): Promise<void> {
  await probe.start();
  const { admin, controller } = probe;
  const show = (completion: Completion | undefined): string =>
    completion ? `${hex(completion.status)} ${hex(completion.result, 1)}` : 'nothing';
  const smart = { opcode: 2, nsid: 0xffff_ffff, cdw10: (127 << 16) | 2, prp1: probe.dataAddress() };
  // Temperature events have to be asked for.
  await probe.ask('events: threshold below the temperature, not asked for', {
    opcode: 9,
    cdw10: 4,
    cdw11: 0x100,
  });
  admin.put({ opcode: 12 });
  admin.ring();
  probe.note('events: not asked for', show(await admin.next(50)));
  const set = (cdw10: number, cdw11: number): Promise<Completion | undefined> =>
    probe.run(admin, { opcode: 9, cdw10, cdw11 });
  await set(0xb, 0x1f);
  admin.put({ opcode: 9, cdw10: 4, cdw11: 0x100 });
  admin.ring();
  const both = [await admin.next(), await admin.next(50)];
  probe.note('events: temperature', both.map(show).sort().join(', '));
  // The next one waits for the log to be read.
  await set(4, 0x101);
  admin.put({ opcode: 12 });
  admin.ring();
  probe.note('events: masked until the log is read', show(await admin.next(50)));
  const retained = await probe.run(admin, { ...smart, cdw10: smart.cdw10 | 0x8000 });
  probe.note('events: log with the event retained', show(retained));
  await set(4, 0x102);
  probe.note('events: still masked', show(await admin.next(50)));
  // What was held back comes with the log.
  admin.put(smart);
  admin.ring();
  const released = [await admin.next(), await admin.next(50)];
  probe.note('events: log', released.map(show).sort().join(', '));
  probe.note('events: SMART critical warning', hex(probe.data()[0] as number));
  await set(4, 0x157);
  await probe.run(admin, smart);
  // The limit
  const results: string[] = [];
  for (let i = 0; i < 6; i++) admin.put({ opcode: 12 });
  admin.ring();
  for (let i = 0; i < 6; i++) {
    const completion = await admin.next(50);
    if (completion) results.push(show(completion));
  }
  probe.note('events: six requests', results.join(', '));
  const wrong = async (what: string, register: number, value: bigint): Promise<void> => {
    controller.write(register, 4, value);
    probe.note(`events: ${what}`, show(await admin.next(50)));
    const log = { opcode: 2, nsid: 0xffff_ffff, cdw10: (15 << 16) | 1, prp1: probe.dataAddress() };
    probe.note(`events: ${what}: log`, show(await probe.run(admin, log)));
  };
  await wrong('tail of a queue that is not there', DOORBELLS + 8 * 5, 0n);
  await wrong('head of a queue that is not there', DOORBELLS + 8 * 5 + 4, 0n);
  await wrong('a tail too large', DOORBELLS, 32n);
  await wrong('a head too large', DOORBELLS + 4, 0xffffn);
  probe.note('events: no requests left', show(await admin.next(20)));
  await wrong('a tail too large without requests', DOORBELLS, 33n);
  const id = admin.put({ opcode: 12 });
  admin.ring();
  await controller.sleep(20);
  admin.put({ opcode: 8, cdw10: id << 16 });
  admin.ring();
  const abort = [await admin.next(), await admin.next(50)];
  probe.note('events: abort of a request', abort.map(show).sort().join(', '));
}
