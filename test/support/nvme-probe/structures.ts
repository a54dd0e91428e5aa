/** Identify, log pages and features. @module */
import { hex, type Probe, sparse } from './probe.js';
import type { Entry } from './raw-queue.js';

export async function identify(probe: Probe): Promise<void> {
  await probe.start();
  const ids = [0, 1, 2, 3, 256, 257, 0xffff_fffe, 0xffff_ffff];
  for (let cns = 0; cns <= 0x20; cns++) {
    for (const nsid of ids) {
      await probe.askData(`identify ${hex(cns, 2)} nsid ${hex(nsid, 1)}`, { opcode: 6, nsid, cdw10: cns });
    }
  }
  for (const cns of [0x05, 0x06, 0x07, 0x1a, 0x1b]) {
    for (const csi of [1, 2, 3]) {
      const entry = { opcode: 6, nsid: 1, cdw10: cns, cdw11: csi << 24 };
      await probe.askData(`identify ${hex(cns, 2)} nsid 1 csi ${csi}`, entry);
    }
  }
  for (const cns of [0x12, 0x13, 0x14, 0x15]) {
    await probe.askData(`identify ${hex(cns, 2)} cntid 1`, { opcode: 6, nsid: 1, cdw10: cns | (1 << 16) });
  }
  await probe.askData('identify 00 from the middle of a page', {
    opcode: 6,
    nsid: 1,
    prp1: probe.dataAddress() + 0x800n,
    prp2: probe.dataAddress(1),
  });
  probe.note('identify 00 from the middle of a page: rest', sparse(probe.data(1)));
  await probe.ask('identify with PRP 2 in the middle of a page', {
    opcode: 6,
    nsid: 1,
    prp1: probe.dataAddress() + 0x800n,
    prp2: probe.dataAddress(1) + 8n,
  });
  await probe.ask('identify with a PRP 1 that is odd', {
    opcode: 6,
    nsid: 1,
    prp1: probe.dataAddress() + 3n,
    prp2: probe.dataAddress(1),
  });
  for (const flags of [1, 2, 3, 0x40, 0x80, 0xc0]) {
    await probe.ask(`identify with flags ${hex(flags, 2)}`, {
      opcode: 6,
      flags,
      nsid: 1,
      prp1: probe.dataAddress(),
    });
  }
}

export async function logs(probe: Probe): Promise<void> {
  await probe.start();
  const log = (page: number, length: number, offset = 0, nsid = 0xffff_ffff): Entry => ({
    opcode: 2,
    nsid,
    cdw10: ((((length / 4 - 1) & 0xffff) << 16) | page) >>> 0,
    cdw11: (length / 4 - 1) >>> 16,
    cdw12: offset,
  });
  // What was read and written, and for how long, depends on who was there before.
  const stable = (bytes: Uint8Array): void => void bytes.fill(0, 32, 144);
  for (const page of [...Array(0x22).keys(), 0x70, 0x80, 0xc0, 0xff]) {
    const mask = page === 2 ? stable : page === 9 ? (b: Uint8Array) => void b.fill(0) : undefined;
    for (const nsid of [0, 1, 3, 0xffff_ffff]) {
      const question = `log ${hex(page, 2)} nsid ${hex(nsid, 1)}`;
      await probe.askData(question, log(page, 4096, 0, nsid), mask);
    }
  }
  for (const [page, size] of [
    [1, 64],
    [2, 512],
    [3, 512],
    [4, 4096],
    [5, 4096],
  ] as const) {
    for (const offset of [1, 2, 4, size - 4, size, size + 4]) {
      const mask = page === 2 ? (bytes: Uint8Array) => void bytes.fill(0) : undefined;
      await probe.askData(`log ${hex(page, 2)} from ${offset}`, log(page, 64, offset), mask);
    }
    const high = { ...log(page, 64), cdw13: 1 };
    await probe.askData(`log ${hex(page, 2)} from 2^32`, high);
  }
  await probe.ask('log 01, 32 MiB', log(1, 32 * 2 ** 20));
  await probe.ask('log 05 csi 2', { ...log(5, 4096), cdw14: 2 << 24, prp1: probe.dataAddress() });
}

export async function features(probe: Probe): Promise<void> {
  await probe.start();
  // Whoever was there before may have set them.
  probe.clearData();
  await probe.run(probe.admin, { opcode: 9, cdw10: 0x16, prp1: probe.dataAddress() });
  await probe.run(probe.admin, { opcode: 9, cdw10: 0xb });
  const fids = [...Array(0x20).keys(), 0x78, 0x80, 0x81, 0xff];
  for (const fid of fids) {
    for (const select of [0, 1, 2, 3, 4]) {
      // The clock goes on.
      if (fid === 0x0e && (select === 0 || select === 4)) continue;
      const entry = { opcode: 10, cdw10: fid | (select << 8), nsid: 0 };
      await probe.askData(`feature ${hex(fid, 2)} select ${select}`, entry);
    }
    for (const nsid of [1, 3, 0xffff_ffff]) {
      if (fid === 0x0e) continue;
      await probe.askData(`feature ${hex(fid, 2)} nsid ${hex(nsid, 1)}`, { opcode: 10, cdw10: fid, nsid });
    }
  }
  for (const cdw11 of [0x10_0000, 0x20_0000, 0x30_0000, 0x1_0000, 0x11_0000]) {
    await probe.ask(`feature 04 of ${hex(cdw11, 6)}`, { opcode: 10, cdw10: 4, cdw11 });
  }
  for (const cdw11 of [0, 1, 63, 64, 65, 1000]) {
    await probe.ask(`feature 09 of vector ${cdw11}`, { opcode: 10, cdw10: 9, cdw11 });
  }
  for (const fid of fids) {
    const value = fid === 4 ? 0x157 : fid === 7 ? 0x0003_0003 : 0;
    for (const nsid of [0, 1, 3, 0x101, 0xffff_ffff]) {
      probe.clearData();
      const entry = { opcode: 9, cdw10: fid, cdw11: value, nsid, prp1: probe.dataAddress() };
      await probe.ask(`set feature ${hex(fid, 2)} nsid ${hex(nsid, 1)}`, entry);
    }
    await probe.ask(`save feature ${hex(fid, 2)}`, { opcode: 9, cdw10: (fid | 0x8000_0000) >>> 0 });
  }
  const change = async (name: string, fid: number, cdw11: number, get = cdw11): Promise<void> => {
    await probe.ask(`set ${name}`, { opcode: 9, cdw10: fid, cdw11: cdw11 >>> 0 });
    const read = { opcode: 10, cdw10: fid, cdw11: get >>> 0 };
    await probe.ask(`${name} afterwards`, read);
  };
  await change('upper threshold 0x180', 4, 0x180, 0);
  await change('lower threshold 0x20', 4, 0x10_0020, 0x10_0000);
  await change('threshold of sensor 1', 4, 0x1_0100);
  await change('threshold type 2', 4, 0x20_0100);
  await change('lower threshold 0', 4, 0x10_0000);
  await change('upper threshold 0x157', 4, 0x157, 0);
  await change('write cache off', 6, 0, 0);
  await change('write cache on', 6, 1, 0);
  await change('write cache 2', 6, 2, 0);
  await change('write cache on again', 6, 1, 0);
  await change('1 queue', 7, 0, 0);
  await change('0xffff submission queues', 7, 0xffff, 0);
  await change('0xffff completion queues', 7, 0xffff_0000, 0);
  await change('65535 queues', 7, 0xfffe_fffe, 0);
  await change('event configuration', 0xb, 0x11f, 0);
  await change('all event configuration', 0xb, 0xffff_ffff, 0);
  await change('no event configuration', 0xb, 0, 0);
  await change('command set profile 1', 0x19, 1, 0);
  await change('command set profile 0x200', 0x19, 0x200, 0);
  const data = probe.data();
  probe.clearData();
  data.set([0x00, 0x10, 0x32, 0x54, 0x76, 0x01, 0xff, 0xff]);
  await probe.ask('set timestamp', { opcode: 9, cdw10: 0xe, prp1: probe.dataAddress() });
  await probe.askData('timestamp afterwards, upper bytes', { opcode: 10, cdw10: 0xe }, bytes => {
    bytes.fill(0, 0, 4);
  });
  await probe.start();
  await probe.askData('timestamp after a reset, upper bytes', { opcode: 10, cdw10: 0xe }, bytes => {
    bytes.fill(0, 0, 4);
  });
  await probe.ask('event configuration after a reset', { opcode: 10, cdw10: 0xb });
}
