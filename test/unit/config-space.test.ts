// PCI configuration space: registers, and capability lists as devices have them and as broken devices have them.
import t from 'tap';
import { VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE } from '../../bindings/uapi/vfio.js';
import { CapabilityId, ConfigRegister, ConfigSpace } from '../../src/vfio/config-space.js';
import { queryRegion, Region } from '../../src/vfio/region.js';
import { FakeVfioDevice, regionOffset } from './support/fake-vfio.js';

const CONFIG = 7;
const AT = regionOffset(CONFIG);

function configSpace(size = 4096): { kernel: FakeVfioDevice; config: ConfigSpace } {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(CONFIG, { size, flags: VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE });
  const region = new Region(kernel, kernel.fd, queryRegion(kernel, kernel.fd, CONFIG), 'config');
  return { kernel, config: new ConfigSpace(region) };
}

/** Writes a list: the register that says there is one, the pointer, and each capability with its next. */
function standard(
  kernel: FakeVfioDevice,
  first: number,
  ...list: [offset: number, id: number, next: number][]
): void {
  kernel.poke(AT + 6, 0x10, 0);
  kernel.poke(AT + 0x34, first);
  for (const [offset, id, next] of list) kernel.poke(AT + offset, id, next);
}

function extended(kernel: FakeVfioDevice, offset: number, id: number, version: number, next: number): void {
  const header = (id | (version << 16) | (next << 20)) >>> 0;
  kernel.poke(AT + offset, header & 0xff, (header >>> 8) & 0xff, (header >>> 16) & 0xff, header >>> 24);
}

t.test('registers', async t => {
  const { kernel, config } = configSpace();
  kernel.poke(AT, 0x36, 0x1b, 0x10, 0x00, 0x03, 0x04, 0x10, 0x00, 0x02);
  t.equal(config.size, 4096);
  t.equal(config.vendorId, 0x1b36);
  t.equal(config.deviceId, 0x10);
  t.equal(config.read8(ConfigRegister.RevisionId), 2);
  t.equal(config.read32(0), 0x0010_1b36);
  t.equal(config.memory, true);
  t.equal(config.busMaster, false);
  kernel.accesses.length = 0;
  config.busMaster = true;
  t.same(kernel.accesses, [
    ['pread', AT + 4, 2],
    ['pwrite', AT + 4, 2],
  ]);
  t.same(kernel.peek(AT + 4, 4), [0x07, 0x04, 0x10, 0x00], 'the other bits, and the status next to it, stay');
  config.memory = false;
  t.same(kernel.peek(AT + 4, 2), [0x05, 0x04]);
  config.busMaster = false;
  t.same(kernel.peek(AT + 4, 2), [0x01, 0x04]);
  t.equal(config.present, true);
  kernel.poke(AT, ...new Array<number>(64).fill(0xff));
  t.equal(config.present, false, 'a device that is gone reads as all ones');
  kernel.poke(AT, 0x36, 0x1b, 0x10, 0x00);
  t.equal(config.present, false, 'whatever the ids, which the kernel answers for');
  config.write8(0x40, 0xab);
  config.write16(0x42, 0xcdef);
  config.write32(0x44, 0xdead_beef);
  t.same(kernel.peek(AT + 0x40, 8), [0xab, 0, 0xef, 0xcd, 0xef, 0xbe, 0xad, 0xde]);
  t.throws(() => config.read32(4096), RangeError);
  t.throws(() => config.read16(1), RangeError);
  kernel.close(kernel.fd);
});

t.test('capabilities', async t => {
  const { kernel, config } = configSpace();
  t.same(config.capabilities(), [], 'none');
  // The two low bits of a pointer are reserved.
  standard(
    kernel,
    0x43,
    [0x40, CapabilityId.Msix, 0x82],
    [0x80, CapabilityId.PciExpress, 0x60],
    [0x60, CapabilityId.PowerManagement, 0],
  );
  extended(kernel, 0x100, 0x0001, 2, 0x148);
  extended(kernel, 0x148, 0, 0, 0x200);
  extended(kernel, 0x200, 0x0010, 1, 0);
  t.same(config.capabilities(), [
    { id: 0x11, offset: 0x40, extended: false, version: 0 },
    { id: 0x10, offset: 0x80, extended: false, version: 0 },
    { id: 0x01, offset: 0x60, extended: false, version: 0 },
    { id: 0x01, offset: 0x100, extended: true, version: 2 },
    { id: 0x10, offset: 0x200, extended: true, version: 1 },
  ]);
  t.same(config.findCapability(CapabilityId.PciExpress), {
    id: 0x10,
    offset: 0x80,
    extended: false,
    version: 0,
  });
  t.same(config.findCapability(0x10, true), { id: 0x10, offset: 0x200, extended: true, version: 1 });
  t.equal(config.findCapability(CapabilityId.Msi), undefined);
  t.equal(config.findCapability(0, true), undefined, 'a hidden one is not there');
  kernel.poke(AT + 6, 0, 0);
  t.equal(
    config.findCapability(CapabilityId.Msix),
    undefined,
    'without the status bit the pointer means nothing',
  );
  kernel.close(kernel.fd);
});

t.test('lists that lead nowhere end', async t => {
  const ids = (config: ConfigSpace): number[] => config.capabilities().map(entry => entry.id);
  for (const [name, first, list, expected] of [
    [
      'a loop',
      0x40,
      [
        [0x40, 1, 0x50],
        [0x50, 5, 0x40],
      ],
      [1, 5],
    ],
    [
      'a loop that does not come back to the start',
      0x40,
      [
        [0x40, 1, 0x50],
        [0x50, 5, 0x60],
        [0x60, 9, 0x50],
      ],
      [1, 5, 9],
    ],
    ['one that points at itself', 0x40, [[0x40, 1, 0x40]], [1]],
    [
      'into the header',
      0x40,
      [
        [0x40, 1, 0x10],
        [0x10, 5, 0],
      ],
      [1],
    ],
    ['from the start into the header', 0x3c, [[0x3c, 1, 0]], []],
    ['an empty list', 0, [], []],
    ['nothing answers', 0x40, [[0x40, 0xff, 0xff]], []],
    [
      'the last dword',
      0x40,
      [
        [0x40, 1, 0xfc],
        [0xfc, 9, 0xff],
      ],
      [1, 9],
    ],
  ] as [string, number, [number, number, number][], number[]][]) {
    const { kernel, config } = configSpace(256);
    standard(kernel, first, ...list);
    t.same(ids(config), expected, name);
    kernel.close(kernel.fd);
  }
  for (const [name, list, expected] of [
    [
      'a loop',
      [
        [0x100, 1, 0x200],
        [0x200, 2, 0x100],
      ],
      [1, 2],
    ],
    ['one that points at itself', [[0x100, 1, 0x100]], [1]],
    [
      'into standard space',
      [
        [0x100, 1, 0x40],
        [0x40, 9, 0],
      ],
      [1],
    ],
    [
      'the last dword',
      [
        [0x100, 1, 0xffc],
        [0xffc, 3, 0],
      ],
      [1, 3],
    ],
    ['nothing answers', [[0x100, 0xffff, 0xfff]], []],
  ] as [string, [number, number, number][], number[]][]) {
    const { kernel, config } = configSpace();
    for (const [offset, id, next] of list) extended(kernel, offset, id, id === 0xffff ? 0xf : 1, next);
    t.same(ids(config), expected, `extended: ${name}`);
    kernel.close(kernel.fd);
  }
  const { kernel, config } = configSpace(256);
  extended(kernel, 0x100, 1, 1, 0);
  t.same(config.capabilities(), [], 'conventional PCI has no extended space');
  kernel.close(kernel.fd);
});
