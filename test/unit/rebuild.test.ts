// What a state tells of, built anew: every mapping in its place, in pieces that are reported, or nothing at all.
import t from 'tap';
import { EIO, ENOMEM } from '../../bindings/uapi/errno.js';
import { IOMMU_IOAS_MAP_FILE } from '../../bindings/uapi/iommufd.js';
import { iova } from '../../src/address.js';
import {
  claim,
  DmaArena,
  encodeState,
  Iommufd,
  KeepAlive,
  MappingTable,
  openDevice,
  PageSize,
  rebuild,
  type State,
} from '../../src/index.js';
import { createSealedMemfd } from '../../src/memory/memfd.js';
import { NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import { faulty } from '../../src/testing/index.js';
import { CountedModel } from './support/keepalive-stage.js';

const SIZE = 2 ** 20;
const COUNT = 10_000;

/** Two address spaces; the arenas' own mappings are first, last and in the middle. */
function stateOf(): State {
  const first = new MappingTable();
  first.push({ iova: iova(0x10_0000), length: SIZE, arena: 7n, offset: 0 });
  for (let index = 0; index < COUNT; index++) {
    if (index === 5000)
      first.push({ iova: iova(0x1_0000_0000n), length: SIZE, arena: 8n, offset: 0, writeable: false });
    const at = BigInt(index + (index >> 3)) * 4096n + (index < 5000 ? 0x1000_0000n : 0x2_0000_0000n);
    const arena = index % 3 === 0 ? 8n : 7n;
    first.push({
      iova: iova(at),
      length: 4096,
      arena,
      offset: (index % 256) * 4096,
      readable: index % 5 > 0,
    });
  }
  first.push({ iova: iova(2n ** 40n), length: SIZE, arena: 9n, offset: 0 });
  const second = new MappingTable();
  second.push({ iova: iova(0x10_0000), length: SIZE, arena: 10n, offset: 0 });
  const place = (ioas: number, at: bigint | number) => ({ iommufd: 4, ioas, iova: iova(at) });
  const places = new Map([
    [7n, place(1, 0x10_0000)],
    [8n, place(1, 0x1_0000_0000n)],
    [9n, place(1, 2n ** 40n)],
    [10n, place(2, 0x10_0000)],
  ]);
  return {
    arenas: [...places].map(([token, place]) => {
      return { token, size: SIZE, pageSize: PageSize.Small, name: `arena ${token}`, place };
    }),
    iommufds: [
      {
        id: 4,
        ioases: [
          { id: 1, allowed: [], mappings: first },
          { id: 2, allowed: [], mappings: second },
        ],
      },
    ],
    devices: [],
    sessions: [],
    drivers: [],
  };
}

t.test('every mapping is where it was, and progress is told', async t => {
  const host = new SimulatedHost();
  const state = stateOf();
  const told: [done: number, total: number][] = [];
  const kept = await rebuild(state, {
    kernel: host.process(),
    memory: () => undefined,
    onProgress: (done, total) => told.push([done, total]),
  });
  const total = COUNT + 4;
  const pieces = [0, 4096, 5000, 5000 + 4096, COUNT].slice(1);
  // Behind the first arena's own mapping, and from 5000 on behind the second's.
  const expected = pieces.map(done => done + (done > 5000 ? 2 : 1));
  t.strictSame(
    told,
    [...expected, total].map(done => [done, total]),
  );
  const [ioas, other] = [...kept.iommufds[0]!.ioases];
  t.equal(ioas?.mappingCount, COUNT + 3);
  t.strictSame(
    [...other!.mappings],
    [
      {
        iova: 0x10_0000n,
        length: BigInt(SIZE),
        file: kept.arena(10n),
        offset: 0n,
        readable: true,
        writeable: true,
      },
    ],
  );
  const captured = kept.capture();
  for (const [index, { mappings }] of state.iommufds[0]!.ioases.entries()) {
    const found = captured.iommufds[0]!.ioases[index]!.mappings;
    t.strictSame([...found], [...mappings]);
  }
  t.strictSame(
    captured.arenas.map(({ token, place }) => [token, place?.iova]).sort(),
    state.arenas.map(({ token, place }) => [token, place?.iova]).sort(),
  );
  // The kernel has them, not only the books.
  t.equal(ioas?.unmap(iova(0x1000_0000), 8 * 4096), 8n * 4096n);
  t.equal(ioas?.mappingCount, COUNT - 5);
  t.ok(encodeState(kept.capture()).length > 0);
  kept[Symbol.dispose]();
  t.strictSame(host.leftovers(), []);
});

t.test('a mapping that fails: the same error as of any other, and nothing is left', async t => {
  const host = new SimulatedHost();
  const kernel = faulty(host.process(), [{ request: IOMMU_IOAS_MAP_FILE, nth: 6000, errno: ENOMEM }]);
  const told: number[] = [];
  await t.rejects(
    rebuild(stateOf(), { kernel, memory: () => undefined, onProgress: done => told.push(done) }),
    {
      name: 'KernelError',
      code: 'ENOMEM',
      request: 'IOMMU_IOAS_MAP_FILE',
      // The arenas' own come first.
      args: { flags: 3, start: 107n * 4096n, length: 4096n, iova: 0x2_0000_0000n + 6744n * 4096n },
      hint: /RLIMIT_MEMLOCK/,
    },
  );
  t.match(kernel.injected, [{ request: IOMMU_IOAS_MAP_FILE.number }]);
  t.strictSame(told, [4097, 5001]);
  t.strictSame(host.leftovers(), []);
});

t.test('no device is reset when another one cannot be reset any more', async t => {
  const addresses = ['0000:00:04.0', '0000:00:05.0'];
  const models = addresses.map(serial => {
    return new CountedModel({
      serial,
      namespaces: [new NvmeNamespaceModel({ id: 1, blockSize: 512, size: 2 ** 20 })],
    });
  });
  const host = new SimulatedHost({
    profile: 'vtd',
    devices: models.map((model, index) => ({ address: addresses[index] as string, function: model })),
  });
  const before = host.process();
  const iommufd = Iommufd.open(before);
  const space = iommufd.allocIoas();
  const devices = [];
  for (const address of addresses) {
    devices.push(openDevice(await claim(address, { kernel: before }), { space }));
  }
  DmaArena.create(space, SIZE, { name: 'memory' });
  const state = KeepAlive.of(iommufd).capture();
  before.exit();

  const resets = models.map(model => model.resets);
  const after = host.process();
  // Its first is the one that switches resets off.
  const kernel = faulty(after, [
    { call: 'writeText', file: new RegExp(`${addresses[1]}/reset_method$`), nth: 2, errno: EIO },
  ]);
  const memory = (): number => createSealedMemfd(after, 'memory', SIZE, PageSize.Small);
  await t.rejects(rebuild(state, { kernel, memory }), { code: 'EIO' });
  t.equal(kernel.injected.length, 1);
  t.strictSame(
    models.map(model => model.resets),
    resets,
  );
  const rebuilt = await rebuild(state, { kernel: after, memory });
  t.equal(rebuilt.devices.length, 2, 'and then it goes through');
  rebuilt[Symbol.dispose]();
  after.exit();
  t.strictSame(
    host.leftovers(),
    addresses.map(address => `${address} is with vfio-pci`),
    'where the first process, which did not give them back, has left them',
  );
});
