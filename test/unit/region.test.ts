// Regions over a real file: access at exact width, by system call and by mapping, with holes in between.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { EACCES, EIO, ENODEV, ENOMEM } from '../../bindings/uapi/errno.js';
import {
  VFIO_REGION_INFO_CAP_SPARSE_MMAP,
  VFIO_REGION_INFO_FLAG_MMAP,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_info_cap_header,
  vfio_region_info,
} from '../../bindings/uapi/vfio.js';
import { DeviceErrorCode } from '../../src/errors.js';
import { queryRegion, Region } from '../../src/vfio/region.js';
import { runScript } from './support/child.js';
import { FakeVfioDevice, regionOffset } from './support/fake-vfio.js';

const RW = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
const MAPPABLE = RW | VFIO_REGION_INFO_FLAG_MMAP;
const BAR = 2;
const AT = regionOffset(BAR);

function open(kernel: FakeVfioDevice, index = BAR): Region {
  return new Region(kernel, kernel.fd, queryRegion(kernel, kernel.fd, index), `region ${index}`);
}

type Width = 8 | 16 | 32 | 64;
const widths: readonly Width[] = [8, 16, 32, 64];

function read(region: Region, width: Width, offset: number): bigint {
  switch (width) {
    case 8:
      return BigInt(region.read8(offset));
    case 16:
      return BigInt(region.read16(offset));
    case 32:
      return BigInt(region.read32(offset));
    case 64:
      return region.read64(offset);
  }
}

function write(region: Region, width: Width, offset: number, value: bigint): void {
  if (width === 64) region.write64(offset, value);
  else if (width === 32) region.write32(offset, Number(value));
  else if (width === 16) region.write16(offset, Number(value));
  else region.write8(offset, Number(value));
}

t.test('what VFIO tells of a region', async t => {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(0, { size: 0x4000, flags: RW });
  t.same(queryRegion(kernel, kernel.fd, 0), {
    index: 0,
    size: 0x4000,
    fileOffset: 0,
    readable: true,
    writeable: true,
    mappable: [],
    type: undefined,
  });
  t.equal(kernel.count('VFIO_DEVICE_GET_REGION_INFO'), 1, 'one call where there are no capabilities');

  kernel.regions.set(1, { size: 0x4000, flags: VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_MMAP });
  t.match(queryRegion(kernel, kernel.fd, 1), {
    fileOffset: 2 ** 40,
    writeable: false,
    mappable: [{ offset: 0, size: 0x4000 }],
  });

  kernel.regions.set(2, {
    size: 0x4000,
    flags: MAPPABLE,
    type: [0x8000_8086, 1],
    sparse: [
      { offset: 0n, size: 0x1000n },
      { offset: 0x2000n, size: 0x2000n },
    ],
  });
  kernel.forget();
  t.match(queryRegion(kernel, kernel.fd, 2), {
    mappable: [
      { offset: 0, size: 0x1000 },
      { offset: 0x2000, size: 0x2000 },
    ],
    type: { type: 0x8000_8086, subtype: 1 },
  });
  t.equal(kernel.count('VFIO_DEVICE_GET_REGION_INFO'), 2, 'a second call has room for capabilities');

  kernel.regions.set(3, { size: 0x4000, flags: MAPPABLE, sparse: [] });
  t.same(queryRegion(kernel, kernel.fd, 3).mappable, [], 'a sparse region without areas');
  kernel.regions.set(4, { size: 0x4000, flags: RW, sparse: [{ offset: 0n, size: 0x1000n }] });
  t.same(queryRegion(kernel, kernel.fd, 4).mappable, [], 'areas do not make a region mappable');
  kernel.regions.set(5, { size: 0, flags: MAPPABLE });
  t.same(queryRegion(kernel, kernel.fd, 5), {
    index: 5,
    size: 0,
    fileOffset: regionOffset(5),
    readable: true,
    writeable: true,
    mappable: [],
    type: undefined,
  });

  t.throws(() => queryRegion(kernel, kernel.fd, 9), {
    name: 'KernelError',
    code: 'EINVAL',
    request: 'VFIO_DEVICE_GET_REGION_INFO',
    args: { index: 9 },
  });
  kernel.forget();
  for (const index of [-1, 0.5, Number.NaN, 2 ** 32]) {
    t.throws(() => queryRegion(kernel, kernel.fd, index), RangeError);
  }
  t.same(kernel.calls, []);
  kernel.close(kernel.fd);
});

t.test('capabilities that make no sense', async t => {
  const kernel = new FakeVfioDevice();
  const { size } = vfio_region_info;
  // Room for two headers; the first capability is at `first`, unless another place is given.
  const first = size;
  const second = size + 8;
  for (const [name, headers, start = first] of [
    [
      'a loop',
      [
        [first, second],
        [second, first],
      ],
    ],
    ['a loop of one', [[first, first]]],
    ['a chain that leaves the memory', [[first, 0xffff_fff0]]],
    ['a header that is cut off', [[first, second + 4]]],
    ['a first one outside', [], 4096],
  ] as [string, [at: number, next: number][], number?][]) {
    const writeTo = (view: DataView): number => {
      for (const [at, next] of headers) vfio_info_cap_header.encode(view, { id: 99, version: 1, next }, at);
      return start;
    };
    kernel.regions.set(0, { size: 64, flags: RW, raw: { bytes: 16, write: writeTo } });
    t.match(queryRegion(kernel, kernel.fd, 0), { size: 64, type: undefined }, name);
  }
  // More areas than there is memory: refused, not invented.
  kernel.regions.set(0, {
    size: 64,
    flags: MAPPABLE,
    raw: {
      bytes: 16,
      write(view) {
        vfio_info_cap_header.encode(
          view,
          { id: VFIO_REGION_INFO_CAP_SPARSE_MMAP, version: 1, next: 0 },
          size,
        );
        view.setUint32(size + 8, 1000, true);
        return size;
      },
    },
  });
  t.throws(() => queryRegion(kernel, kernel.fd, 0), RangeError);
  kernel.close(kernel.fd);
});

t.test('access by system call', async t => {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(BAR, { size: 64, flags: RW });
  const region = open(kernel);
  t.equal(region.size, 64);
  t.equal(region.mapped, false);
  region.map();
  t.equal(region.mapped, false, 'there is nothing to map');
  kernel.poke(AT, ...Array.from({ length: 64 }, (_, i) => 0xf0 ^ i));
  for (const width of widths) {
    const bytes = width / 8;
    const { length } = kernel.accesses;
    const expected = Array.from({ length: bytes }, (_, i) => BigInt(0xf0 ^ (16 + i)) << BigInt(8 * i));
    t.equal(
      read(region, width, 16),
      expected.reduce((sum, part) => sum | part),
      `read${width}`,
    );
    write(region, width, 64 - bytes, 2n ** BigInt(width) - 2n);
    t.same(
      kernel.peek(AT + 64 - bytes, bytes),
      [0xfe, ...new Array<number>(bytes - 1).fill(0xff)],
      `write${width}`,
    );
    t.same(
      kernel.accesses.slice(length),
      [
        ['pread', AT + 16, bytes],
        ['pwrite', AT + 64 - bytes, bytes],
      ],
      'one access each, of exactly this width',
    );
  }
  t.same(region.readBytes(1, 5), Uint8Array.from([0xf1, 0xf2, 0xf3, 0xf4, 0xf5]));
  t.same(region.readBytes(64, 0), new Uint8Array(0));
  kernel.close(kernel.fd);
});

t.test('arguments', async t => {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(BAR, { size: 64, flags: MAPPABLE });
  for (const mapped of [false, true]) {
    const region = open(kernel);
    if (mapped) region.map();
    kernel.forget();
    for (const width of widths) {
      const bytes = width / 8;
      const bad = [-bytes, -1, 64, 64 - bytes + 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53];
      if (width > 8) bad.push(1, bytes / 2, 64 - bytes / 2);
      for (const offset of bad) {
        t.throws(() => read(region, width, offset), RangeError, `read${width} at ${offset}`);
        t.throws(() => write(region, width, offset, 0n), RangeError, `write${width} at ${offset}`);
      }
      t.throws(() => read(region, width, '0' as unknown as number), TypeError);
      t.throws(() => read(region, width, undefined as unknown as number), TypeError);
      t.throws(
        () => write(region, width, 0, 2n ** BigInt(width)),
        RangeError,
        `write${width} of what does not fit`,
      );
      t.throws(() => write(region, width, 0, -1n), RangeError);
    }
    t.throws(() => region.write8(0, 0.5), RangeError);
    t.throws(() => region.write16(0, Number.NaN), RangeError);
    t.throws(() => region.write32(0, 1n as unknown as number), TypeError);
    t.throws(() => region.write64(0, 1 as unknown as bigint), TypeError);
    t.throws(() => region.readBytes(60, 5), RangeError);
    t.throws(() => region.readBytes(-1, 5), RangeError);
    t.throws(() => region.readBytes(0, 1.5), RangeError);
    t.same(kernel.calls, [], 'no access was made');
    region[Symbol.dispose]();
  }
  kernel.close(kernel.fd);
});

t.test('access by mapping, around a hole', async t => {
  const kernel = new FakeVfioDevice();
  // Page 1 is not mapped, as the one with the MSI-X table in it.
  kernel.regions.set(BAR, {
    size: 0x4000,
    flags: MAPPABLE,
    sparse: [
      { offset: 0n, size: 0x1000n },
      { offset: 0x2000n, size: 0x2000n },
    ],
  });
  const region = open(kernel);
  region.map();
  t.equal(region.mapped, true);
  t.equal(kernel.mapped.size, 2);
  region.map();
  t.equal(kernel.mapped.size, 2, 'mapped once');
  const inHole = (offset: number): boolean => offset >= 0x1000 && offset < 0x2000;

  const model = new DataView(new ArrayBuffer(0x4000));
  fc.assert(
    fc.property(
      fc.constantFrom(...widths),
      fc.oneof(
        fc.nat(0x3fff),
        fc.constantFrom(0, 0xff8, 0xffc, 0xfff, 0x1000, 0x1ff8, 0x1fff, 0x2000, 0x3ff8, 0x3fff),
      ),
      fc.bigInt(0n, 2n ** 64n - 1n),
      fc.boolean(),
      (width, anywhere, value, writing) => {
        const bytes = width / 8;
        const offset = anywhere - (anywhere % bytes);
        const { length } = kernel.accesses;
        if (writing) {
          const fits = BigInt.asUintN(width, value);
          write(region, width, offset, fits);
          for (let i = 0; i < bytes; i++) model.setUint8(offset + i, Number((fits >> BigInt(8 * i)) & 0xffn));
          assert.deepEqual(kernel.peek(AT + offset, bytes), [...new Uint8Array(model.buffer, offset, bytes)]);
        } else {
          let expected = 0n;
          for (let i = 0; i < bytes; i++) expected |= BigInt(model.getUint8(offset + i)) << BigInt(8 * i);
          assert.equal(read(region, width, offset), expected);
        }
        assert.deepEqual(
          kernel.accesses.slice(length),
          inHole(offset) ? [[writing ? 'pwrite' : 'pread', AT + offset, bytes]] : [],
          'a system call in the hole, none elsewhere',
        );
      },
    ),
    { numRuns: 3000 },
  );
  assert.deepEqual(kernel.peek(AT, 0x4000), [...new Uint8Array(model.buffer)]);
  t.pass('reads and writes as a model');

  region.unmap();
  t.equal(region.mapped, false);
  t.equal(kernel.mapped.size, 0);
  const { length } = kernel.accesses;
  t.equal(region.read8(0), model.getUint8(0));
  t.equal(kernel.accesses.length, length + 1, 'system calls again');
  region.map();
  t.equal(region.read8(0), model.getUint8(0));
  t.equal(kernel.accesses.length, length + 1, 'and mapped again');
  region[Symbol.dispose]();
  t.equal(kernel.mapped.size, 0);
  kernel.close(kernel.fd);
});

t.test('after disposal', async t => {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(BAR, { size: 0x1000, flags: MAPPABLE });
  const region = open(kernel);
  region.map();
  region[Symbol.dispose]();
  region[Symbol.dispose]();
  kernel.forget();
  const disposed = { name: 'DisposedError' };
  for (const width of widths) {
    t.throws(() => read(region, width, 0), disposed);
    t.throws(() => write(region, width, 0, 1n), disposed);
  }
  t.throws(() => region.readBytes(0, 4), disposed);
  t.throws(() => region.map(), disposed);
  t.same(kernel.calls, []);
  kernel.close(kernel.fd);
});

t.test('a device that does not answer', async t => {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(BAR, { size: 0x1000, flags: MAPPABLE });
  const region = open(kernel);
  const gone = { name: 'DeviceError', code: DeviceErrorCode.Gone, hint: /Memory decoding is off/ };
  kernel.refuse('pread', EIO);
  t.throws(() => region.read32(4), gone);
  kernel.refuse('pwrite', EIO);
  t.throws(() => region.write32(4, 1), gone);
  kernel.refuse('pread', EIO);
  t.throws(() => region.readBytes(4, 4), gone, 'a dump says the same');
  kernel.refuse('pread', ENODEV);
  t.throws(() => region.read8(4), {
    name: 'KernelError',
    code: 'ENODEV',
    syscall: 'pread',
    args: { offset: 4 },
  });
  kernel.refuse('pwrite', EACCES);
  t.throws(() => region.write64(8, 1n), { name: 'KernelError', code: 'EACCES', syscall: 'pwrite' });
  kernel.close(kernel.fd);
});

t.test('mapping that fails leaves nothing mapped', async t => {
  const kernel = new FakeVfioDevice();
  kernel.regions.set(BAR, {
    size: 0x4000,
    flags: MAPPABLE,
    sparse: [
      { offset: 0n, size: 0x1000n },
      { offset: 0x2000n, size: 0x1000n },
    ],
  });
  const region = open(kernel);
  for (const [call, expected] of [
    ['mmap', { name: 'KernelError', code: 'ENOMEM', syscall: 'mmap' }],
    ['view', { message: 'view refused' }],
  ] as const) {
    for (const after of [0, 1]) {
      kernel.refuse(call, ENOMEM, after);
      t.throws(() => region.map(), expected);
      t.equal(kernel.mapped.size, 0, `${call} of area ${after}`);
      t.equal(region.mapped, false);
    }
  }
  t.equal(region.read8(0), 0, 'still works by system call');
  kernel.close(kernel.fd);
});

t.test('a region beyond 4 GiB', async t => {
  for (const size of [2 ** 32, 2 ** 32 + 2 ** 20, 6 * 2 ** 30]) {
    // A device with that much video memory: in a process of its own, which must survive it.
    const outcome = await runScript(`
      import { FakeVfioDevice, regionOffset } from ${JSON.stringify(new URL('./support/fake-vfio.js', import.meta.url))};
      import { queryRegion, Region } from ${JSON.stringify(new URL('../../src/vfio/region.js', import.meta.url))};
      const kernel = new FakeVfioDevice();
      kernel.regions.set(2, { size: ${size}, flags: ${MAPPABLE} });
      const region = new Region(kernel, kernel.fd, queryRegion(kernel, kernel.fd, 2), 'BAR 2');
      region.map();
      for (const offset of [8, 2 ** 31 - 8, 2 ** 31, ${size} - 8]) {
        region.write32(offset, 0x01020304);
        region.write8(offset + 5, 0x55);
        console.log(kernel.peek(regionOffset(2) + offset, 8).join(), region.read32(offset), String(region.read64(offset)));
      }
      region[Symbol.dispose]();
      console.log(kernel.mapped.size);`);
    const line = `4,3,2,1,0,85,0,0 ${0x01020304} ${(0x55n << 40n) + 0x01020304n}\n`;
    t.match(outcome, { code: 0, signal: null, stdout: `${line.repeat(4)}0\n` }, `${size} bytes`);
  }
});
