/** The machine's memory and IOMMU: frames and their fragmentation, real page tables in memory, faults. */
import t from 'tap';
import { IOMMU_HWPT_ALLOC_DIRTY_TRACKING, IOMMU_HWPT_ALLOC_PASID } from '../../bindings/uapi/iommufd.js';
import { IommuGroup, type PagingDomain, Protection } from '../../src/sim/iommu/domain.js';
import { MachineProfile } from '../../src/sim/iommu/hardware.js';
import { type DmaFault, Iommu } from '../../src/sim/iommu/iommu.js';
import { MemoryObject } from '../../src/sim/machine/memory-object.js';
import { PAGE, PhysicalMemory, type PhysicalMemoryOptions } from '../../src/sim/machine/physical-memory.js';

const MIB = 2 ** 20;
const READ_WRITE = Protection.Read | Protection.Write;

/** The lengths of the runs of consecutive frames that an object of `pages` pages gets. */
function runs(options: PhysicalMemoryOptions, pages: number, pageSize = PAGE): number[] {
  const object = new MemoryObject(new PhysicalMemory(options), 'test', pages * PAGE, pageSize);
  const lengths: number[] = [];
  let last = -2;
  for (let page = 0; page < pages; page++) {
    const frame = object.frame(page) as number;
    if (frame === last + 1) lengths[lengths.length - 1]!++;
    else lengths.push(1);
    last = frame;
  }
  return lengths;
}

t.test('physical memory', async t => {
  await t.test('fragmentation is what a test sets', async t => {
    t.ok(
      runs({ longestRun: 1 }, 3000).every(length => length === 1),
      'every page by itself',
    );
    const mixed = runs({ longestRun: 8 }, 3000);
    t.ok(Math.max(...mixed) <= 8 && mixed.some(length => length > 1), `${mixed.length} runs`);
    t.strictSame(runs({ longestRun: Number.POSITIVE_INFINITY }, 3000), [3000], 'in one piece');
    t.strictSame(runs({ hugePages: 2 }, 512, 2 * MIB), [512], 'a huge page is');
    t.strictSame(runs({ seed: 7 }, 500), runs({ seed: 7 }, 500), 'the same from the same seed');
    t.notSame(runs({ seed: 7 }, 500), runs({ seed: 8 }, 500));
  });

  await t.test('frames come back, but not while they are pinned', async t => {
    const memory = new PhysicalMemory({ size: 64 * MIB, hugePages: 1 });
    const object = new MemoryObject(memory, 'test', 4 * PAGE);
    const frame = object.frame(2) as number;
    object.bytes[2 * PAGE] = 9;
    memory.pin(frame);
    object.put();
    t.equal(memory.usedPages, 1, 'the pinned one is left');
    t.equal(memory.ownerOf(frame), 'test');
    const seen = new Uint8Array(1);
    memory.read(BigInt(frame * PAGE), seen);
    t.equal(seen[0], 9, 'with its content');
    memory.unpin(frame);
    t.equal(memory.usedPages, 0);
    const huge = new MemoryObject(memory, 'huge', 2 * MIB, 2 * MIB);
    t.ok(huge.frame(0) !== undefined);
    t.equal(new MemoryObject(memory, 'more', 2 * MIB, 2 * MIB).frame(0), undefined, 'no second huge page');
    huge.put();
    t.equal(memory.freeHugePages, 1);
    const all = new MemoryObject(memory, 'all', 64 * MIB);
    let got = 0;
    while (all.frame(got) !== undefined) got++;
    t.ok(got > 4000, `${got} of 16384 pages, then there are no more`);
    all.put();
    t.equal(memory.usedPages, 0);
  });

  await t.test('what belongs to nobody', async t => {
    const memory = new PhysicalMemory();
    const seen = new Uint8Array(8).fill(1);
    memory.read(0x200_0000n, seen);
    t.strictSame(seen, new Uint8Array(8), 'reads as zero');
    memory.write(0x1ff_fff8n, new Uint8Array(16));
    t.strictSame(memory.strayWrites, [
      { address: 0x1ff_fff8n, length: 8 },
      { address: 0x200_0000n, length: 8 },
    ]);
  });
});

for (const profile of Object.values(MachineProfile).filter(name => name !== 'noiommu')) {
  t.test(`IOMMU, ${profile}`, async t => {
    const memory = new PhysicalMemory({ longestRun: 3 });
    const iommu = new Iommu(profile, memory);
    const device = iommu.device('0000:00:04.0', new IommuGroup(1));
    const path = iommu.path(device);
    const data = new MemoryObject(memory, 'data', 64 * PAGE);
    const seen: DmaFault[] = [];
    using _faults = iommu.onFault(fault => seen.push(fault));
    const bytes = new Uint8Array(3 * PAGE).map((_, index) => index * 7);

    t.equal(path.write(0x1000n, bytes), false, 'attached to nothing');
    t.equal(seen.at(-1)?.reason, 'blocked');
    t.equal(typeof device.allocatePaging(IOMMU_HWPT_ALLOC_DIRTY_TRACKING, undefined), 'number');
    const domain = device.allocatePaging(0, undefined) as PagingDomain;
    t.equal(domain.kind, 'paging');
    t.equal(device.attach(domain), 0);
    const base = 0x4000_0000n;
    for (let page = 0; page < 64; page++) {
      const address = BigInt((data.frame(page) as number) * PAGE);
      const protection = page < 32 ? READ_WRITE : Protection.Read;
      t.equal(domain.map(base + BigInt(page * PAGE), address, BigInt(PAGE), protection), 0);
    }
    t.equal(domain.map(base, 0x100_0000n, BigInt(PAGE), READ_WRITE), -98, 'mapped already');
    const table = iommu.view(device.name)?.table;
    table?.verify();
    t.ok(memory.ownerOf(Number((table?.root ?? 0n) >> 12n)), 'the table lies in the machine’s memory');
    const root = new Uint8Array(PAGE);
    memory.read(table?.root ?? 0n, root);
    t.ok(
      root.some(byte => byte !== 0),
      'where its entries can be read',
    );

    t.equal(path.write(base + 100n, bytes), true);
    t.strictSame(data.bytes.slice(100, 100 + bytes.length), bytes, 'a write across scattered pages');
    const back = new Uint8Array(bytes.length);
    t.equal(path.read(base + 100n, back), true);
    t.strictSame(back, bytes);
    t.equal(path.write(base + BigInt(31 * PAGE + 4000), new Uint8Array(200).fill(1)), false);
    t.match(seen.at(-1), { access: 'write', reason: 'not writeable', address: base + BigInt(32 * PAGE) });
    t.equal(data.bytes[31 * PAGE + 4000], 1, 'what came before was done');
    t.equal(path.read(base + BigInt(40 * PAGE), back), true, 'reading is fine there');
    t.equal(path.read(base - 8n, new Uint8Array(16)), false);
    t.match(seen.at(-1), { access: 'read', reason: 'not mapped', address: base - 8n });
    t.equal(path.read(0xffff_ffff_ffff_f000n, new Uint8Array(8)), false, 'beyond what it translates');

    t.equal(domain.unmap(base, BigInt(16 * PAGE)), BigInt(16 * PAGE));
    t.equal(path.write(base, new Uint8Array(4)), false, 'nothing stays in a cache');
    t.equal(domain.map(0x8000_0000n, 0x800_0000n, 0x40_0000n, READ_WRITE), 0);
    t.equal(table?.translate(0x8000_0000n as never)?.entrySize, profile === 'amd' ? 0x40_0000n : 0x20_0000n);
    t.equal(domain.translate(0x8012_3456n), 0x812_3456n);
    t.equal(domain.enforceCacheCoherency?.(), !['vtd', 'legacy'].includes(profile));

    const free = table?.memory.freePages ?? 0;
    t.equal(device.attach(device.blocked), 0);
    domain.free();
    t.ok((table?.memory.freePages ?? 0) > free, 'its tables are given back');
    t.equal(table?.memory.freePages, 3840, 'all of them');
    t.equal(iommu.faultCount, seen.length);
    t.equal(typeof device.allocatePaging(IOMMU_HWPT_ALLOC_PASID, undefined) === 'number', profile === 'amd');
  });
}

t.test('without IOMMU', async t => {
  const memory = new PhysicalMemory();
  const iommu = new Iommu('noiommu', memory);
  const device = iommu.device('0000:00:04.0', new IommuGroup(0));
  const data = new MemoryObject(memory, 'data', PAGE);
  const address = BigInt((data.frame(0) as number) * PAGE);
  t.equal(iommu.path(device).write(address, new Uint8Array([1, 2, 3])), true);
  t.strictSame(data.bytes.slice(0, 3), new Uint8Array([1, 2, 3]));
  t.equal(iommu.path(device).write(0x123_0000n, new Uint8Array(4)), true, 'anywhere');
  t.equal(memory.strayWrites.length, 1);
  t.equal(iommu.view(device.name), undefined);
  t.equal(device.hardwareInfo(0), undefined);
});
