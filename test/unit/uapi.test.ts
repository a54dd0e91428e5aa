// The struct language, and what the declared structs make of it. Whether the declarations are the kernel's is
// for test/vm/headers.test.ts, which has the kernel's headers.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import * as uapi from '../../bindings/uapi/index.js';
import {
  array,
  decodeList,
  encodeList,
  type Fields,
  type FieldType,
  type FlexibleType,
  flexible,
  type IntegerType,
  iommu_hw_info,
  iommu_hwpt_invalidate,
  iommu_ioas_map,
  iommu_ioas_map_file,
  iommu_iova_range,
  liveupdate_ioctl_create_session,
  overlay,
  type Request,
  Struct,
  s32,
  struct,
  u8,
  u16,
  u32,
  u64,
  vfio_eeh_pe_op,
  vfio_irq_set,
  vfio_pci_dependent_device,
  vfio_region_info_cap_sparse_mmap,
} from '../../bindings/uapi/index.js';

type Values = Record<string, unknown>;

/** A struct of whatever fields, for tests that go through all of them. */
interface AnyStruct {
  readonly name: string;
  readonly size: number;
  readonly alignment: number;
  readonly fields: Struct['fields'];
  encode(view: DataView, values: Values, byteOffset?: number): void;
  decode(view: DataView, byteOffset?: number): Values;
  get(view: DataView, field: string, byteOffset?: number): unknown;
  set(view: DataView, field: string, value: unknown, byteOffset?: number): void;
  allocate(trailing?: number): { bytes: Uint8Array; view: DataView };
}

const isRequest = (value: unknown): value is Request =>
  typeof value === 'object' && value !== null && 'number' in value && 'argument' in value;

const exported: [string, unknown][] = Object.entries(uapi);
const structs = exported.filter((entry): entry is [string, Struct] => entry[1] instanceof Struct);
const requests = exported.filter((entry): entry is [string, Request] => isRequest(entry[1]));

const isInteger = (type: FieldType | FlexibleType): type is IntegerType => type.kind === 'integer';
const isArray = (type: FieldType): type is ReturnType<typeof array<unknown, unknown>> =>
  type.kind === 'array';
const isStruct = (type: FieldType): type is Struct => type instanceof Struct;

/** The fields that hold values, and whose bytes are their own. */
const ownFields = (type: Pick<Struct, 'fields'>) =>
  Object.values(type.fields).flatMap(field =>
    field.type.kind === 'flexible' || field.overlays !== undefined ? [] : [{ ...field, type: field.type }],
  );

const anyValue = (type: FieldType): fc.Arbitrary<unknown> => {
  if (isInteger(type)) {
    const { min, max } = type;
    return typeof min === 'bigint' || typeof max === 'bigint'
      ? fc.bigInt({ min: BigInt(min), max: BigInt(max) })
      : fc.integer({ min, max });
  }
  if (isArray(type)) {
    const length = { minLength: type.count, maxLength: type.count };
    return type.element === u8 ? fc.uint8Array(length) : fc.array(anyValue(type.element), length);
  }
  if (isStruct(type)) return anyStructValue(type);
  throw new Error(`no arbitrary for ${type.name}`);
};

const anyStructValue = (type: Pick<Struct, 'fields'>): fc.Arbitrary<Values> =>
  fc.record(Object.fromEntries(ownFields(type).map(field => [field.name, anyValue(field.type)])), {
    noNullPrototype: true,
  });

/** What decoding should give for a value that names no overlay: the overlays too. */
const withOverlays = (type: Pick<Struct, 'fields'>, value: Values): Values =>
  Object.fromEntries(
    Object.values(type.fields).flatMap(field => {
      if (field.type.kind === 'flexible') return [];
      const given = value[field.overlays ?? field.name];
      return [[field.name, isStruct(field.type) ? withOverlays(field.type, given as Values) : given]];
    }),
  );

/** The bytes of a value, by arithmetic alone. */
const model = (type: FieldType, value: unknown, bytes: Uint8Array, offset: number): void => {
  if (isInteger(type)) {
    const digits = BigInt.asUintN(8 * type.size, BigInt(value as number | bigint));
    for (let i = 0; i < type.size; i++) bytes[offset + i] = Number((digits >> BigInt(8 * i)) & 0xffn);
  } else if (isArray(type)) {
    const list = value as ArrayLike<unknown>;
    const step = type.size / type.count;
    for (let i = 0; i < list.length; i++) model(type.element, list[i], bytes, offset + i * step);
  } else if (isStruct(type)) {
    for (const field of ownFields(type)) {
      model(field.type, (value as Values)[field.name], bytes, offset + field.offset);
    }
  }
};

const filled = (length: number): { bytes: Uint8Array; view: DataView } => {
  const bytes = new Uint8Array(length).fill(0xa5);
  return { bytes, view: new DataView(bytes.buffer) };
};

const anyU64 = fc.bigInt(0n, 2n ** 64n - 1n);
/** Typed, unlike the others, for the list functions. */
const anyRange = fc.record({ start: anyU64, last: anyU64 }, { noNullPrototype: true });

const runs = { numRuns: 50 };

t.test('every declared struct', async t => {
  t.ok(structs.length > 80, `${structs.length} structs`);
  for (const [exportName, declared] of structs) {
    const type: AnyStruct = declared as unknown as AnyStruct;
    await t.test(exportName, async t => {
      assert.equal(type.name, exportName, 'is exported under its name');

      let end = 0;
      let alignment = 1;
      for (const field of Object.values(type.fields)) {
        const element = field.type.kind === 'flexible' ? field.type.element : field.type;
        alignment = Math.max(alignment, element.alignment);
        if (field.overlays !== undefined) {
          assert.equal(
            field.offset,
            type.fields[field.overlays]?.offset,
            `${field.name} is where its union is`,
          );
          continue;
        }
        const padding = field.offset - end;
        assert.equal(field.offset % element.alignment, 0, `${field.name} is aligned`);
        assert.ok(
          padding >= 0 && padding < element.alignment,
          `${field.name} comes right after what is before it`,
        );
        assert.equal(field.size, field.type.kind === 'flexible' ? 0 : field.type.size);
        end = field.offset + field.size;
      }
      assert.equal(type.alignment, alignment, 'has the alignment of its most demanding field');
      assert.ok(type.size % alignment === 0 && type.size - end < alignment, 'has no more tail than it needs');

      // Once as it stands, once with bytes before and after that must not change.
      for (const [before, after] of [
        [0, 0],
        [8, 24],
      ] as const) {
        fc.assert(
          fc.property(anyStructValue(type), fc.boolean(), (value, second) => {
            const { bytes, view } = filled(before + type.size + after);
            const expected = bytes.slice();
            expected.fill(0, before, before + type.size);
            for (const field of ownFields(type)) {
              model(field.type, value[field.name], expected, before + field.offset);
            }
            const given: Values = {};
            for (const field of Object.values(type.fields)) {
              const name = field.overlays ?? field.name;
              // Of two names for the same bytes, give the one or the other.
              const other = Object.values(type.fields).find(f => f.overlays === name)?.name;
              if (field.type.kind !== 'flexible') given[second ? (other ?? name) : name] = value[name];
            }
            type.encode(view, given, before);
            assert.deepEqual(bytes, expected, 'encodes as the model does');
            const decoded = type.decode(view, before);
            assert.deepEqual(decoded, withOverlays(type, value), 'decodes to what was encoded');
            const again = filled(bytes.length);
            for (const [name, part] of Object.entries(decoded)) {
              assert.deepEqual(type.get(view, name, before), part);
              type.set(again.view, name, part, before);
              assert.deepEqual(type.get(again.view, name, before), part);
            }
            again.bytes.fill(0x5a);
            type.encode(again.view, decoded, before);
            assert.deepEqual(
              again.bytes.subarray(before, before + type.size),
              bytes.subarray(before, before + type.size),
            );
          }),
          runs,
        );
      }

      const { bytes, view } = filled(type.size);
      type.encode(view, {});
      assert.deepEqual(bytes, new Uint8Array(type.size), 'is all zero when nothing is given');

      for (const field of ownFields(type)) {
        if (!isInteger(field.type)) continue;
        const { max, min } = field.type;
        const bad: [unknown, string][] =
          typeof max === 'bigint'
            ? [
                [max + 1n, 'RangeError'],
                [BigInt(min) - 1n, 'RangeError'],
                [1, 'TypeError'],
              ]
            : [
                [max + 1, 'RangeError'],
                [Number(min) - 1, 'RangeError'],
                [1n, 'TypeError'],
              ];
        for (const [value, name] of bad) {
          const buffer = filled(type.size);
          assert.throws(() => type.encode(buffer.view, { [field.name]: value }), { name });
          assert.throws(() => type.set(buffer.view, field.name, value), { name });
          assert.deepEqual(buffer.bytes, filled(type.size).bytes, 'writes nothing when it refuses');
        }
      }
      t.pass('carries every value, and refuses others');
    });
  }
});

t.test('every declared request', async t => {
  t.ok(requests.length > 55, `${requests.length} requests`);
  for (const [exportName, { name, number, argument, minimumSize }] of requests) {
    t.equal(name, exportName);
    t.ok(number >>> 8 === 0x3b || number >>> 8 === 0xba, `${name} is of iommufd, VFIO or live update`);
    if (argument === undefined) {
      t.equal(minimumSize, 0);
    } else {
      t.match(Object.keys(argument.fields)[0], /^(size|argsz)$/, `${name} starts with its size`);
      t.ok(minimumSize >= 8 && minimumSize <= argument.size, `${name} takes ${minimumSize} bytes or more`);
    }
  }
  t.equal(uapi.IOMMU_IOAS_MAP.number, 0x3b85);
  t.equal(uapi.IOMMU_HWPT_ALLOC.minimumSize, 24, 'what came later is not required');
  t.equal(uapi.VFIO_DEVICE_BIND_IOMMUFD.minimumSize, 16);
  t.equal(
    uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO.number,
    uapi.VFIO_IOMMU_GET_INFO.number,
    'a number may mean one thing on a device and another on a container',
  );
  t.throws(
    () => uapi.request('X', 1, iommu_ioas_map as Struct, 'nothing'),
    /X: iommu_ioas_map has no field nothing/,
  );
});

t.test('every declared constant is an integer that fits its C type, or a string', async t => {
  for (const [name, value] of exported) {
    if (typeof value === 'number') assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** 32, name);
    if (typeof value === 'bigint') assert.ok(value >= 0n && value < 2n ** 64n, name);
  }
  t.pass(`${exported.length} of them`);
});

t.test('layouts that are known', async t => {
  const sizes: Record<string, number> = {
    iommu_destroy: 8,
    iommu_ioas_alloc: 12,
    iommu_ioas_map: 40,
    iommu_ioas_unmap: 24,
    iommu_hwpt_alloc: 48,
    iommu_hw_info: 40,
    iommu_hw_info_arm_smmuv3: 40,
    iommu_hwpt_pgfault: 40,
    vfio_device_info: 24,
    vfio_region_info: 32,
    vfio_irq_set: 20,
    vfio_pci_hot_reset_info: 12,
    vfio_device_gfx_plane_info: 64,
    vfio_device_bind_iommufd: 24,
    vfio_iommu_type1_info_cap_migration: 32,
    vfio_iommu_type1_dirty_bitmap_get: 40,
    vfio_eeh_pe_op: 40,
    liveupdate_ioctl_create_session: 72,
  };
  const byName = new Map<string, Struct>(structs);
  for (const [name, size] of Object.entries(sizes))
    t.equal(byName.get(name)?.size, size, `${name}: ${size} bytes`);
  t.equal(iommu_hw_info.fields.out_data_type.offset, 24);
  t.equal(iommu_hw_info.fields.out_data_type.overlays, 'in_data_type');
  t.equal(iommu_hw_info.fields.out_max_pasid_log2.offset, 28);
  t.equal(vfio_eeh_pe_op.fields.err.offset, 16, 'a nested struct is aligned as its own fields are');
  t.equal(vfio_irq_set.fields.data.offset, 20);
  t.equal(vfio_region_info_cap_sparse_mmap.fields.areas.type.element.size, 16);

  const { bytes, view } = iommu_ioas_map_file.allocate();
  iommu_ioas_map_file.encode(view, {
    size: 40,
    flags: 7,
    ioas_id: 1,
    fd: -2,
    start: 0x1000n,
    iova: 2n ** 63n,
  });
  t.equal(
    Buffer.from(bytes).toString('hex'),
    '28000000' +
      '07000000' +
      '01000000' +
      'feffffff' +
      '0010000000000000' +
      '0000000000000000' +
      '0000000000000080',
  );
});

t.test('what is refused is refused before anything is written', async t => {
  const { view, bytes } = filled(64);
  const untouched = bytes.slice();
  const map = iommu_ioas_map as unknown as AnyStruct;
  const info = iommu_hw_info as unknown as AnyStruct;
  const eeh = vfio_eeh_pe_op as unknown as AnyStruct;
  const session = liveupdate_ioctl_create_session as unknown as AnyStruct;
  const big = filled(80);
  const cases: [() => void, string, RegExp][] = [
    [() => map.encode(view, { flags: 1, iovaa: 1n }), 'TypeError', /iommu_ioas_map has no field iovaa/],
    [() => map.encode(view, { constructor: 1 }), 'TypeError', /no field constructor/],
    [
      () => map.encode(view, { flags: 1, iova: 4096 }),
      'TypeError',
      /iommu_ioas_map\.iova: u64 takes a bigint, got the number 4096/,
    ],
    [
      () => map.encode(view, { flags: 1n }),
      'TypeError',
      /iommu_ioas_map\.flags: u32 takes a number, got the bigint 1n/,
    ],
    [() => map.encode(view, { flags: '1' }), 'TypeError', /got a value of type string/],
    [() => map.encode(view, { flags: true }), 'TypeError', /got a value of type boolean/],
    [() => map.encode(view, { flags: undefined }), 'TypeError', /got undefined/],
    [() => map.encode(view, { flags: null }), 'TypeError', /got null/],
    [
      () => map.encode(view, { flags: -1 }),
      'RangeError',
      /flags: u32 takes an integer from 0 to 4294967295, got -1/,
    ],
    [() => map.encode(view, { flags: 0.5 }), 'RangeError', /got 0\.5/],
    [() => map.encode(view, { flags: Number.NaN }), 'RangeError', /got NaN/],
    [() => map.encode(view, { flags: Number.POSITIVE_INFINITY }), 'RangeError', /got Infinity/],
    [
      () => map.encode(view, { size: 40, iova: -1n }),
      'RangeError',
      /iova: u64 takes an integer from 0 to 2\^64 - 1, got -1n/,
    ],
    [() => map.encode(view, { size: 40, iova: 1n << 64n }), 'RangeError', /iova/],
    [() => map.encode(view, null as unknown as Values), 'TypeError', /expected an object/],
    [() => map.encode(view, [] as unknown as Values), 'TypeError', /expected an object.*got an array/],
    [() => map.encode(view, bytes as unknown as Values), 'TypeError', /got a Uint8Array/],
    [() => map.encode(view, {}, 25), 'RangeError', /40 bytes at offset 25 are outside the view of 64 bytes/],
    [() => map.encode(view, {}, -8), 'RangeError', /offset -8/],
    [() => map.encode(view, {}, 0.5), 'RangeError', /offset 0\.5/],
    [
      () => map.encode(bytes as unknown as DataView, {}),
      'TypeError',
      /expected a DataView, got a Uint8Array/,
    ],
    [() => map.decode(view, 25), 'RangeError', /outside/],
    [() => map.decode(bytes as unknown as DataView), 'TypeError', /expected a DataView/],
    [() => map.get(view, 'iova', 30), 'RangeError', /iommu_ioas_map\.iova/],
    [() => map.get(view, 'nothing'), 'TypeError', /no field nothing/],
    [() => map.set(view, 'iova', 1n, 30), 'RangeError', /outside/],
    [() => map.set(view, 'nothing', 1), 'TypeError', /no field nothing/],
    [() => map.set(view, 'iova', undefined), 'TypeError', /got undefined/],
    [
      () => info.encode(view, { in_data_type: 1, out_data_type: 2 }),
      'TypeError',
      /in_data_type and out_data_type share their bytes but differ/,
    ],
    [
      () => info.encode(view, { dev_id: 1, __reserved: [1, 2, 256] }),
      'RangeError',
      /iommu_hw_info\.__reserved\[2\]: u8/,
    ],
    [
      () => info.encode(view, { dev_id: 1, __reserved: [1, 2, 3, 4] }),
      'RangeError',
      /u8\[3\] takes at most 3 elements, got 4/,
    ],
    [() => info.encode(view, { dev_id: 1, __reserved: 'abc' }), 'TypeError', /u8\[3\] takes an array/],
    [() => info.encode(view, { dev_id: 1, __reserved: [1, '2'] }), 'TypeError', /__reserved\[1\]/],
    [() => info.set(view, '__reserved', [1, 2, 256]), 'RangeError', /__reserved\[2\]/],
    [
      () => eeh.encode(view, { op: 9, err: { type: 1, mask: -1n } }),
      'RangeError',
      /vfio_eeh_pe_op\.err\.mask/,
    ],
    [() => eeh.encode(view, { op: 9, err: { typo: 1 } }), 'TypeError', /vfio_eeh_pe_err has no field typo/],
    [() => eeh.encode(view, { op: 9, err: 1 }), 'TypeError', /vfio_eeh_pe_op\.err: expected an object/],
    [() => eeh.set(view, 'err', { type: 1, mask: 1 }), 'TypeError', /vfio_eeh_pe_op\.err\.mask/],
    [
      () => (vfio_irq_set as unknown as AnyStruct).encode(view, { count: 1, data: [1] }),
      'TypeError',
      /vfio_irq_set\.data is a flexible array/,
    ],
    [() => (vfio_irq_set as unknown as AnyStruct).get(view, 'data'), 'TypeError', /flexible array/],
    [
      () => session.encode(big.view, { name: new Uint8Array(65) }),
      'RangeError',
      /at most 64 elements, got 65/,
    ],
    [() => iommu_ioas_map.allocate(-1), 'RangeError', /-1 trailing bytes/],
    [() => encodeList(view, s32, [1, 2, 2 ** 31]), 'RangeError', /s32\[2\]/],
    [() => encodeList(view, s32, [1, 2, 3], 56), 'RangeError', /12 bytes at offset 56/],
    [() => encodeList(view, s32, 3 as unknown as number[]), 'TypeError', /expected an array/],
    [
      () => encodeList(view, iommu_iova_range, [{ start: 1n }, { last: -1n }]),
      'RangeError',
      /iommu_iova_range.*\.last/,
    ],
    [() => decodeList(view, s32, 17), 'RangeError', /68 bytes/],
    [() => decodeList(view, s32, -1), 'RangeError', /-1 elements/],
    [() => decodeList(view, s32, 1.5), 'RangeError', /1\.5 elements/],
  ];
  for (const [call, name, message] of cases) {
    t.throws(call, { name, message }, String(message));
    t.same(bytes, untouched);
  }
  t.same(big.bytes, filled(80).bytes);
});

t.test('arrays', async t => {
  const { view, bytes } = liveupdate_ioctl_create_session.allocate(4);
  t.equal(bytes.length, 76);
  bytes.fill(0xff);
  liveupdate_ioctl_create_session.encode(view, { name: Buffer.from('arena') });
  const { name } = liveupdate_ioctl_create_session.decode(view);
  t.ok(name instanceof Uint8Array, 'bytes decode to a Uint8Array');
  t.equal(name.length, 64);
  t.equal(Buffer.from(name).toString('latin1'), `arena${'\0'.repeat(59)}`, 'missing elements are 0');
  name.fill(1);
  t.equal(view.getUint8(8), 'a'.charCodeAt(0), 'which is a copy');
  t.equal(view.getUint32(72), 0xffff_ffff, 'what follows the struct is left alone');
  liveupdate_ioctl_create_session.set(view, 'name', [65]);
  t.same(bytes.slice(8, 14), [65, 0, 0, 0, 0, 0], 'setting an array replaces all of it');

  const grid = struct('grid', { cells: array(array(u16, 2), 3), last: u8 });
  t.equal(grid.size, 14);
  const memory = grid.allocate();
  grid.encode(memory.view, { cells: [[1, 2], [3], [5, 6]], last: 7 });
  t.same(grid.decode(memory.view), {
    cells: [
      [1, 2],
      [3, 0],
      [5, 6],
    ],
    last: 7,
  });
  t.throws(() => array(u8, 0), RangeError);
});

t.test('two names for the same bytes', async t => {
  const { view } = vfio_pci_dependent_device.allocate();
  vfio_pci_dependent_device.encode(view, { devid: 7 });
  t.equal(vfio_pci_dependent_device.get(view, 'group_id'), 7);
  vfio_pci_dependent_device.set(view, 'group_id', 9);
  t.match(vfio_pci_dependent_device.decode(view), { group_id: 9, devid: 9 });
  vfio_pci_dependent_device.encode(view, { group_id: 3, devid: 3, bus: 1 });
  t.match(vfio_pci_dependent_device.decode(view), { group_id: 3, devid: 3, bus: 1 });
});

t.test('lists', async t => {
  const fds = [3, -1, 2 ** 31 - 1];
  const { view, bytes } = vfio_irq_set.allocate(4 * fds.length);
  vfio_irq_set.encode(view, { argsz: bytes.length, count: fds.length });
  encodeList(view, s32, fds, vfio_irq_set.fields.data.offset);
  t.same(decodeList(view, s32, 3, 20), fds);
  t.equal(vfio_irq_set.get(view, 'argsz'), 32, 'and the struct before it is left alone');

  fc.assert(
    fc.property(fc.array(anyRange), ranges => {
      const memory = filled(ranges.length * iommu_iova_range.size + 8);
      encodeList(memory.view, iommu_iova_range, ranges);
      t.strictSame(decodeList(memory.view, iommu_iova_range, ranges.length), ranges);
      t.same(memory.bytes.subarray(-8), new Uint8Array(8).fill(0xa5));
    }),
    runs,
  );

  const part = filled(32);
  encodeList(part.view, iommu_iova_range, [{ last: 5n }, {}]);
  t.strictSame(decodeList(part.view, iommu_iova_range, 2), [
    { start: 0n, last: 5n },
    { start: 0n, last: 0n },
  ]);
});

t.test('a view need not start where its buffer does', async t => {
  const bytes = new Uint8Array(100).fill(0xa5);
  const view = new DataView(bytes.buffer, 12, 48);
  iommu_hw_info.encode(view, { size: 40, __reserved: [1, 2, 3], out_capabilities: 5n }, 8);
  t.same(iommu_hw_info.decode(view, 8).__reserved, [1, 2, 3]);
  t.equal(bytes[20], 40);
  t.ok(bytes.subarray(0, 20).every(byte => byte === 0xa5) && bytes.subarray(60).every(byte => byte === 0xa5));
  const shared = new DataView(new SharedArrayBuffer(40));
  iommu_hw_info.encode(shared, { __reserved: [1, 2, 3] });
  const { __reserved } = iommu_hw_info.decode(shared);
  t.ok(__reserved.buffer instanceof ArrayBuffer, 'bytes are copied out of shared memory');
  t.same(__reserved, [1, 2, 3]);
});

t.test('layout follows the C ABI', async t => {
  const mixed = struct('mixed', { a: u8, b: u64, c: u16, d: u32, e: u8, tail: flexible(u32) });
  t.same(
    Object.values(mixed.fields).map(field => field.offset),
    [0, 8, 16, 20, 24, 28],
  );
  t.equal(mixed.size, 32, 'a flexible array may start inside the tail padding');
  t.equal(mixed.alignment, 8);
  t.equal(struct('bytes', { a: array(u8, 3) }).size, 3);
  t.equal(struct('padded', { a: u32, b: u8 }).size, 8);
  t.equal(
    struct('aligned', { a: u8, tail: flexible(u64) }).size,
    8,
    'a flexible array adds alignment, not size',
  );
  t.equal(struct('outer', { a: u8, inner: struct('inner', { x: u64, y: u8 }), b: u8 }).size, 32);
});

t.test('declarations that make no sense', async t => {
  const declare = (fields: Fields) => () => struct('odd', fields);
  t.throws(declare({ a: flexible(u8), b: u8 }), /odd\.b: the flexible array a must be the last field/);
  t.throws(declare({ a: overlay('b', u32), b: u32 }), /odd\.a: b is not a u32 declared before it/);
  t.throws(declare({ a: u32, b: overlay('a', s32) }), /odd\.b: a is not a s32 declared before it/);
});

t.test('declarations cannot be changed', async t => {
  t.ok(Object.isFrozen(iommu_hwpt_invalidate) && Object.isFrozen(iommu_hwpt_invalidate.fields));
  t.ok(Object.isFrozen(iommu_hwpt_invalidate.fields.size) && Object.isFrozen(uapi.IOMMU_HWPT_INVALIDATE));
});
