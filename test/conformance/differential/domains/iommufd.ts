/** Sequences on /dev/iommu with mock devices. @module */
import { NOWHERE } from '../memory.js';
import type { Pick, Weighted } from '../pick.js';
import { type Integer, type Ioctl, ioctl, latestFd, latestId, type Step, type Value } from '../step.js';

const iommufd = latestFd('iommufd');
const PAGE = 4096;
/** Where a mock domain begins to translate. */
const APERTURE = 0x100_0000;
const RW = 6;
const SELFTEST = 0xdead;
const VIOMMU_SELFTEST = '0xdeadbeef';

/** Few enough that mappings meet. */
function iova(g: Pick): Integer {
  const dice = g.below(100);
  if (dice < 75) return APERTURE + g.below(48) * PAGE;
  if (dice < 82) return APERTURE + g.below(96) * 2048;
  if (dice < 86) return APERTURE + g.below(4096);
  return g.of<Integer>(
    0,
    PAGE,
    APERTURE - PAGE,
    0x7fff_f000,
    0x8000_0000,
    '0xfffffffffffff000',
    '0x8000000000000000',
    0x200_0000,
  );
}

/** Longer than any memory that there is, and yet no overflow. */
const LONG = '0x10000000000';

function length(g: Pick): Integer {
  const dice = g.below(100);
  if (dice < 84) return g.pages();
  if (dice < 92) return g.of(2048, 1024, 100, 1, 4097, 6144, 0);
  return g.of<Integer>(2 ** 21, 2 ** 20, LONG, '0xffffffffffffffff', '0xfffffffffffff000', 0);
}

function memory(g: Pick): Value {
  const dice = g.below(100);
  const page = g.below(24) * PAGE;
  if (dice < 60) return { at: 'shared', offset: page };
  if (dice < 68) return { at: 'shared', offset: page + g.of(1, 512, 2048, 4095) };
  if (dice < 80) return { at: 'anonymous', offset: page };
  if (dice < 86) return { at: 'readonly', offset: page };
  if (dice < 92) return { at: 'short', offset: g.below(8) * PAGE };
  if (dice < 95) return { at: 'huge', offset: g.of(0, PAGE, 2 ** 20) };
  return g.of<Value>(0, PAGE, '0xdead000000000000', '0xffff888000000000', '0xfffffffffffff000');
}

const mapFlags = (g: Pick): number => g.mostly(g.of(RW, 7, 7, 4, 5, 2, 3), 0, 1, 8, 0x8000_0000);

/** The IOVA of a mapping, or any. */
function mapped(g: Pick): Value {
  if (g.often(25)) return iova(g);
  const back = g.below(4);
  return g.often(75)
    ? { mapping: 'iova', back }
    : { mapping: 'iova', back, plus: g.of<Integer>(PAGE, 2 * PAGE, 2048, 1, '0xfffffffffffff000') };
}

const mappedLength = (g: Pick): Value => (g.often(55) ? { mapping: 'length', back: g.below(4) } : length(g));

function map(g: Pick): Step {
  const bytes = length(g);
  const place = memory(g);
  return ioctl(iommufd, 'IOMMU_IOAS_MAP', {
    flags: mapFlags(g),
    ioas_id: g.id('ioas'),
    // A part of so much may be mapped elsewhere, where each process has something else.
    user_va: bytes === LONG ? `0x${NOWHERE.toString(16)}` : place,
    length: bytes,
    iova: iova(g),
    ...(g.often(3) ? { __reserved: 1 } : {}),
  });
}

function mapFile(g: Pick): Step {
  const fd = g.mostly<Value>(
    { fd: g.of('memory:shared', 'memory:shared', 'memory:readonly', 'memory:short', 'memory:huge'), back: 0 },
    latestFd('event'),
    iommufd,
    latestFd('dmabuf'),
    latestFd('none'),
  );
  const start = g.often(85) ? g.below(24) * PAGE : g.of<Integer>(1, 2048, 2 ** 21, '0xfffffffffffff000');
  return ioctl(iommufd, 'IOMMU_IOAS_MAP_FILE', {
    flags: mapFlags(g),
    ioas_id: g.id('ioas'),
    fd,
    start,
    length: length(g),
    iova: iova(g),
  });
}

function unmap(g: Pick): Step {
  const fields = g.often(60) ? ({ back: g.below(4) } as const) : undefined;
  return ioctl(iommufd, 'IOMMU_IOAS_UNMAP', {
    ioas_id: g.id('ioas'),
    iova: fields ? { mapping: 'iova', ...fields } : mapped(g),
    length: fields ? { mapping: 'length', ...fields } : g.mostly<Value>(length(g), '0xffffffffffffffff'),
  });
}

function copy(g: Pick): Step {
  return ioctl(iommufd, 'IOMMU_IOAS_COPY', {
    flags: mapFlags(g),
    dst_ioas_id: g.id('ioas'),
    src_ioas_id: g.id('ioas'),
    length: mappedLength(g),
    dst_iova: iova(g),
    src_iova: mapped(g),
  });
}

function ranges(g: Pick): Step {
  const room = g.of(0, 1, 2, 8, 8, 8, 16);
  return ioctl(iommufd, 'IOMMU_IOAS_IOVA_RANGES', {
    ioas_id: g.id('ioas'),
    num_iovas: room,
    allowed_iovas: g.mostly<Value>({ buffer: Math.max(room, 1) * 16 }, 0),
  });
}

function allow(g: Pick): Step {
  const count = g.of(0, 1, 1, 2, 3);
  const list: Value[] = [];
  let at = g.of(0, 0, APERTURE, APERTURE - PAGE);
  for (let i = 0; i < count; i++) {
    const first = at + g.below(32) * PAGE + (g.often(8) ? 1 : 0);
    const last = first + g.pages(64) - (g.often(85) ? 1 : 0);
    list.push(...(g.often(4) ? [last, first] : [first, last]));
    at = g.often(90) ? last + 1 : first;
  }
  if (g.often(15)) list.splice(0, list.length, 0, '0xffffffffffffffff');
  const given = list.length / 2;
  return ioctl(iommufd, 'IOMMU_IOAS_ALLOW_IOVAS', {
    ioas_id: g.id('ioas'),
    num_iovas: given,
    allowed_iovas: { list, width: 8 },
  });
}

function hwptAlloc(g: Pick): Step {
  const kind = g.below(10);
  const flags = g.of(0, 0, 0, 1, 1, 2, 3, 8, 4, 16);
  if (kind < 5) {
    return ioctl(iommufd, 'IOMMU_HWPT_ALLOC', { flags, dev_id: g.id('device'), pt_id: g.id('ioas') });
  }
  if (kind < 6) {
    return ioctl(iommufd, 'IOMMU_HWPT_ALLOC', {
      flags: g.of(0, 1, 2),
      dev_id: g.id('device'),
      pt_id: g.id('ioas'),
      data_type: SELFTEST,
      data_len: 8,
      data_uptr: { list: [0, g.of(0, 1, 2)], width: 4 },
    });
  }
  return ioctl(iommufd, 'IOMMU_HWPT_ALLOC', {
    flags: g.mostly(g.of(0, 4), 1, 8, 2),
    dev_id: g.id('device'),
    pt_id: g.id('hwpt', 'hwpt', 'viommu'),
    data_type: g.mostly(SELFTEST, 0, 1),
    data_len: g.mostly(8, 0, 4, 12),
    data_uptr: g.mostly<Value>({ list: [g.of<Integer>('0xbadbeef', 7), 0, 0], width: 4 }, 0),
    fault_id: g.mostly<Value>(latestId('fault'), 0, latestId('ioas')),
  });
}

const mockDomain = (g: Pick): Step =>
  g.often(70)
    ? ioctl(iommufd, 'TEST_MOCK_DOMAIN', { id: g.id('ioas', 'ioas', 'hwpt') })
    : ioctl(iommufd, 'TEST_MOCK_DOMAIN_FLAGS', {
        id: g.id('ioas', 'hwpt'),
        dev_flags: g.of(0, 1, 4, 5, 2, 8),
      });

const replace = (g: Pick): Step =>
  ioctl(iommufd, 'TEST_MOCK_DOMAIN_REPLACE', { id: g.id('stdev'), pt_id: g.id('ioas', 'hwpt', 'hwpt') });

const destroy = (g: Pick): Step =>
  ioctl(iommufd, 'IOMMU_DESTROY', {
    id: g.id('ioas', 'hwpt', 'hwpt', 'stdev', 'fault', 'viommu', 'vdevice', 'veventq', 'hwqueue', 'device'),
  });

const checkMap = (g: Pick): Step => {
  const back = g.below(4);
  return g.often(75)
    ? ioctl(iommufd, 'TEST_MD_CHECK_MAP', {
        id: g.id('hwpt'),
        iova: { mapping: 'iova', back },
        length: { mapping: 'length', back },
        uptr: { mapping: 'address', back },
      })
    : ioctl(iommufd, 'TEST_MD_CHECK_MAP', {
        id: g.id('hwpt'),
        iova: iova(g),
        length: g.pages(4),
        uptr: memory(g),
      });
};

const checkRefs = (g: Pick): Step =>
  ioctl(iommufd, 'TEST_MD_CHECK_REFS', {
    length: g.pages(3),
    uptr: { at: 'shared', offset: g.below(24) * PAGE },
    refs: g.of(0, 0, 1, 1, 2, 3),
  });

const option = (g: Pick): Step =>
  ioctl(iommufd, 'IOMMU_OPTION', {
    option_id: g.mostly(g.of(1, 1, 0), 2),
    op: g.mostly(g.of(0, 1), 2),
    object_id: g.mostly<Value>(latestId('ioas'), 0, latestId('hwpt')),
    val64: g.of(0, 0, 1, 2),
    ...(g.often(4) ? { __reserved: 1 } : {}),
  });

const hwInfo = (g: Pick): Step => {
  const room = g.of(0, 4, 8, 8, 16, 64);
  return ioctl(iommufd, 'IOMMU_GET_HW_INFO', {
    flags: g.mostly(0, 1, 2),
    dev_id: g.id('device'),
    data_len: room,
    data_uptr: g.mostly<Value>({ buffer: Math.max(room, 1) }, 0),
    in_data_type: g.mostly<Value>(0, 1, '0xfeedbeef'),
  });
};

function dirty(g: Pick): Step {
  const hwpt = g.id('hwpt');
  if (g.often(40)) {
    return ioctl(iommufd, 'IOMMU_HWPT_SET_DIRTY_TRACKING', { flags: g.mostly(g.of(0, 1), 2), hwpt_id: hwpt });
  }
  const page = g.mostly(g.of(2048, 4096), 1024, 3000, 8192, 0);
  const where = { iova: mapped(g), length: g.mostly<Integer>(g.pages(), 0, '0xffffffffffffffff', 100) };
  return ioctl(iommufd, 'IOMMU_HWPT_GET_DIRTY_BITMAP', {
    hwpt_id: hwpt,
    flags: g.mostly(g.of(0, 0, 1), 2),
    page_size: page,
    data: { buffer: 64 },
    ...where,
  });
}

function faults(g: Pick): Step {
  switch (g.below(5)) {
    case 0:
      return ioctl(iommufd, 'IOMMU_FAULT_QUEUE_ALLOC', { flags: g.mostly(0, 1) });
    case 1:
    case 2:
      return ioctl(iommufd, 'TEST_TRIGGER_IOPF', {
        dev_id: g.id('device'),
        pasid: g.mostly<Integer>('0xffffffff', 5),
        grpid: g.below(4),
        perm: g.of(1, 2, 3),
        addr: iova(g),
      });
    case 3:
      return { call: 'read', on: g.fd('fault'), length: g.of(40, 40, 80, 160, 39, 0) };
    default: {
      const cookie = g.of('00', '00', '01', '02');
      const code = g.mostly(g.of('00', '01'), '02');
      return {
        call: 'write',
        on: g.fd('fault'),
        bytes: `${cookie}000000${code}000000`.slice(0, g.mostly(16, 8, 14)),
      };
    }
  }
}

function viommu(g: Pick): Step {
  const type = g.mostly<Integer>(VIOMMU_SELFTEST, 0, 1);
  switch (g.below(8)) {
    case 0:
    case 1:
      return ioctl(iommufd, 'IOMMU_VIOMMU_ALLOC', {
        flags: g.mostly(0, 1),
        type,
        dev_id: g.id('device'),
        hwpt_id: g.id('hwpt'),
        ...(g.often(50) ? { data_len: 24, data_uptr: { bytes: `2a${'00'.repeat(23)}` } } : {}),
      });
    case 2:
      return ioctl(iommufd, 'IOMMU_VDEVICE_ALLOC', {
        viommu_id: g.id('viommu'),
        dev_id: g.id('device'),
        virt_id: g.of<Integer>(0, 1, 5, 0x99, '0x100000000'),
      });
    case 3:
      return ioctl(iommufd, 'IOMMU_VEVENTQ_ALLOC', {
        flags: g.mostly(0, 1),
        viommu_id: g.id('viommu'),
        type: g.mostly<Integer>('0xbeefbeef', 0, 1),
        veventq_depth: g.mostly(2, 0, 1, 8),
      });
    case 4:
      return ioctl(iommufd, 'TEST_TRIGGER_VEVENT', { dev_id: g.id('device') });
    case 5:
      return { call: 'read', on: g.fd('veventq'), length: g.of(12, 12, 24, 36, 11, 8) };
    case 6:
      return ioctl(iommufd, 'IOMMU_HW_QUEUE_ALLOC', {
        flags: g.mostly(0, 1),
        viommu_id: g.id('viommu'),
        type,
        index: g.of(0, 0, 1, 2),
        // Within one page: more must be in one piece, and whether it is depends on the machine's memory.
        nesting_parent_iova: { mapping: 'iova', back: g.below(3) },
        length: g.mostly<Value>(1024, 0, 100),
      });
    default: {
      const nested = g.often(60);
      const entries = g.of(0, 1, 2);
      const width = nested ? 2 : 3;
      const list = Array.from({ length: entries * width }, (_, i) =>
        i % width === 0 ? g.mostly(g.of(0, 1), 2) : g.mostly(g.below(4), 4, 0x99),
      );
      return ioctl(iommufd, 'IOMMU_HWPT_INVALIDATE', {
        hwpt_id: nested ? g.id('hwpt') : g.id('viommu'),
        data_uptr: { list, width: 4 },
        data_type: g.mostly<Integer>('0xdeadbeef', 0, '0xdadbeef'),
        entry_len: g.mostly(width * 4, 0, 4, 16),
        entry_num: entries,
      });
    }
  }
}

const checkCaches = (g: Pick): Step =>
  g.often(50)
    ? ioctl(iommufd, 'TEST_MD_CHECK_IOTLB', {
        id: g.id('hwpt'),
        iotlb_id: g.below(5),
        iotlb: g.of<Integer>('0xbadbeef', 0),
      })
    : ioctl(iommufd, 'TEST_DEV_CHECK_CACHE', {
        id: g.id('device'),
        cache_id: g.below(5),
        cache: g.of<Integer>('0xbaddad', 0),
      });

function access(g: Pick): Step {
  const id = g.fd('access');
  switch (g.below(8)) {
    case 0:
    case 1:
      return ioctl(iommufd, 'TEST_CREATE_ACCESS', { id: g.id('ioas'), flags: g.mostly(g.of(0, 1), 2) });
    case 2:
    case 3:
      return ioctl(iommufd, 'TEST_ACCESS_PAGES', {
        id,
        flags: g.mostly(g.of(0, 1), 4),
        iova: mapped(g),
        length: g.often(50) ? g.pages(4) : mappedLength(g),
        uptr: g.often(60) ? 0 : { mapping: 'address', back: 0 },
      });
    case 4:
      return ioctl(iommufd, 'TEST_DESTROY_ACCESS_PAGES', { id, access_pages_id: g.id('pages') });
    case 5:
      return ioctl(iommufd, 'TEST_ACCESS_REPLACE_IOAS', { id, ioas_id: g.mostly(g.id('ioas'), 0) });
    default:
      return ioctl(iommufd, 'TEST_ACCESS_RW', {
        id,
        iova: mapped(g),
        length: g.of(1, 8, 64, 100, PAGE, 5000, 0),
        uptr: { bytes: 'c3'.repeat(64) + '00'.repeat(5000) },
        flags: g.mostly(g.of(0, 1, 4, 5), 2),
      });
  }
}

function pasid(g: Pick): Step {
  const number = g.mostly(g.of(1, 2, 3), 0, 1024, 2 ** 20);
  const stdev = g.id('stdev');
  switch (g.below(5)) {
    case 0:
    case 1:
      return ioctl(iommufd, 'TEST_PASID_ATTACH', { id: stdev, pasid: number, pt_id: g.id('ioas', 'hwpt') });
    case 2:
      return ioctl(iommufd, 'TEST_PASID_REPLACE', { id: stdev, pasid: number, pt_id: g.id('ioas', 'hwpt') });
    case 3:
      return ioctl(iommufd, 'TEST_PASID_DETACH', { id: stdev, pasid: number });
    default:
      return ioctl(iommufd, 'TEST_PASID_CHECK_HWPT', {
        id: stdev,
        pasid: number,
        hwpt_id: g.mostly(g.id('hwpt'), 0),
      });
  }
}

/** This descriptor as a legacy container. */
function compat(g: Pick): Step {
  switch (g.below(9)) {
    case 0:
    case 1:
      return ioctl(iommufd, 'IOMMU_VFIO_IOAS', {
        ioas_id: g.id('ioas'),
        op: g.mostly(g.below(3), 3),
        ...(g.often(4) ? { __reserved: 1 } : {}),
      });
    case 2:
      return { call: 'ioctl', on: iommufd, request: 'VFIO_CHECK_EXTENSION', argument: g.below(12) };
    case 3:
      return { call: 'ioctl', on: iommufd, request: 'VFIO_SET_IOMMU', argument: g.of(1, 3, 3, 8, 9, 2) };
    case 4:
      return { call: 'ioctl', on: iommufd, request: 'VFIO_GET_API_VERSION', argument: 0 };
    case 5: {
      const size = g.of(8, 24, 24, 200, 120);
      return { call: 'ioctl', on: iommufd, request: 'VFIO_IOMMU_GET_INFO', size };
    }
    case 6:
    case 7:
      return ioctl(iommufd, 'VFIO_IOMMU_MAP_DMA', {
        flags: g.mostly(g.of(3, 1, 2), 0, 4),
        vaddr: memory(g),
        iova: iova(g),
        size: length(g),
      });
    default:
      return ioctl(iommufd, 'VFIO_IOMMU_UNMAP_DMA', {
        flags: g.mostly(g.of(0, 0, 2), 1),
        iova: mapped(g),
        size: mappedLength(g),
      });
  }
}

const reserve = (g: Pick): Step =>
  ioctl(iommufd, 'TEST_ADD_RESERVED', {
    id: g.id('ioas'),
    start: iova(g),
    length: g.mostly<Integer>(g.pages(4), 0, length(g)),
  });

const dmabuf = (g: Pick): Step =>
  g.often(60)
    ? ioctl(iommufd, 'TEST_DMABUF_GET', { length: g.mostly(g.pages(8), 0, 100), open_flags: 2 })
    : ioctl(iommufd, 'TEST_DMABUF_REVOKE', { dmabuf_fd: g.fd('dmabuf'), revoked: g.below(2) });

/** What is not for descriptors of this kind. */
function anyFile(g: Pick): Step {
  const file = g.fd(g.of('iommufd', 'event', 'fault', 'veventq', 'access', 'dmabuf'));
  const place = g.often(50) ? { offset: g.of(0, 8, PAGE) } : {};
  switch (g.below(4)) {
    case 0:
      return { call: 'read', on: file, length: g.of(8, 40, 4), ...place };
    case 1:
      return { call: 'write', on: file, bytes: `01${'00'.repeat(g.of(7, 3, 15))}`, ...place };
    case 2:
      return { call: 'ftruncate', on: file, length: PAGE };
    default:
      return { call: 'fcntl', on: file, command: g.of(1033, 1034), argument: 1 };
  }
}

const plain: readonly Weighted[] = [
  [3, g => ioctl(iommufd, 'IOMMU_IOAS_ALLOC', { flags: g.mostly(0, 1) })],
  [22, map],
  [10, mapFile],
  [12, unmap],
  [6, copy],
  [5, ranges],
  [3, allow],
  [6, hwptAlloc],
  [4, mockDomain],
  [5, replace],
  [8, destroy],
  [9, checkMap],
  [4, checkRefs],
  [3, option],
  [2, hwInfo],
  [8, dirty],
  [5, faults],
  [8, viommu],
  [2, checkCaches],
  [9, access],
  [5, pasid],
  [5, compat],
  [2, reserve],
  [1, dmabuf],
  [1, () => ioctl(iommufd, 'IOMMU_IOAS_CHANGE_PROCESS')],
  [1, g => ({ call: 'close', on: g.fd(g.of('fault', 'veventq', 'access', 'event', 'dmabuf')) })],
  [1, g => anyFile(g)],
];

/** Something that sequences are about, beyond the usual: what is made first, and what is done with it. */
interface Theme {
  readonly prologue: readonly Step[];
  readonly table: readonly Weighted[];
}

const ofDevice = { dev_id: latestId('device'), pt_id: latestId('ioas') };
const parent = ioctl(iommufd, 'IOMMU_HWPT_ALLOC', { flags: 1, ...ofDevice }, 'parent');
const nested = (g: Pick): Ioctl => ({
  ...ioctl(iommufd, 'IOMMU_HWPT_ALLOC', {
    flags: g.of(0, 4),
    dev_id: g.id('device'),
    pt_id: g.id('parent', 'parent', 'viommu'),
    data_type: SELFTEST,
    data_len: 8,
    data_uptr: { list: ['0xbadbeef', 0], width: 4 },
    fault_id: g.mostly<Value>(latestId('fault'), 0),
  }),
  as: 'nested',
});
const replaceWith = (g: Pick, ...kinds: string[]): Step =>
  ioctl(iommufd, 'TEST_MOCK_DOMAIN_REPLACE', { id: g.id('stdev'), pt_id: g.id(...kinds) });
const inMapping = (g: Pick): Ioctl['fields'] => {
  const back = g.below(3);
  return g.often(60)
    ? { iova: { mapping: 'iova', back }, length: { mapping: 'length', back } }
    : {
        iova: { mapping: 'iova', back, plus: g.of(0, PAGE, 2048, 100) },
        length: g.of(1, 100, 2048, PAGE, 2 * PAGE),
      };
};

const virtual: Theme = {
  prologue: [
    parent,
    ioctl(iommufd, 'IOMMU_FAULT_QUEUE_ALLOC'),
    ioctl(iommufd, 'IOMMU_VIOMMU_ALLOC', {
      type: VIOMMU_SELFTEST,
      dev_id: latestId('device'),
      hwpt_id: latestId('parent'),
    }),
  ],
  table: [
    [5, nested],
    [4, viommu],
    [2, g => ({ ...parent, as: g.of('parent', 'other') })],
    [4, g => replaceWith(g, 'nested', 'nested', 'parent', 'ioas')],
    [
      3,
      g =>
        ioctl(iommufd, 'IOMMU_VDEVICE_ALLOC', {
          viommu_id: g.id('viommu'),
          dev_id: g.id('device'),
          virt_id: g.below(3),
        }),
    ],
    [
      3,
      g =>
        ioctl(iommufd, 'IOMMU_VEVENTQ_ALLOC', {
          viommu_id: g.id('viommu'),
          type: '0xbeefbeef',
          veventq_depth: 1 + g.below(3),
        }),
    ],
    [4, g => ioctl(iommufd, 'TEST_TRIGGER_VEVENT', { dev_id: g.id('device') })],
    [4, g => ({ call: 'read', on: g.fd('veventq'), length: g.of(12, 24, 8, 20) })],
    [3, faults],
    [
      3,
      g =>
        ioctl(iommufd, 'IOMMU_HW_QUEUE_ALLOC', {
          viommu_id: g.id('viommu'),
          type: VIOMMU_SELFTEST,
          index: g.below(3),
          nesting_parent_iova: { mapping: 'iova', back: g.below(3) },
          length: g.of(1024, 512, 100),
        }),
    ],
    [
      3,
      g =>
        ioctl(iommufd, 'IOMMU_HWPT_INVALIDATE', {
          hwpt_id: g.id('nested'),
          data_uptr: { list: [g.below(2), g.below(5), g.below(3), g.below(5)], width: 4 },
          data_type: '0xdeadbeef',
          entry_len: 8,
          entry_num: g.below(3),
        }),
    ],
    [
      2,
      g =>
        ioctl(iommufd, 'TEST_MD_CHECK_IOTLB', {
          id: g.id('nested'),
          iotlb_id: g.below(5),
          iotlb: g.of<Integer>('0xbadbeef', 0),
        }),
    ],
    [
      2,
      _g =>
        ioctl(iommufd, 'TEST_MD_CHECK_IOTLB', { id: latestId('nested'), iotlb_id: 0, iotlb: '0xbadbeef' }),
    ],
    [2, checkCaches],
    [
      4,
      g =>
        ioctl(iommufd, 'IOMMU_DESTROY', {
          id: g.id('viommu', 'vdevice', 'veventq', 'hwqueue', 'nested', 'parent', 'stdev', 'fault'),
        }),
    ],
    [3, g => ioctl(iommufd, 'TEST_MOCK_DOMAIN', { id: g.id('ioas', 'parent') })],
    [3, g => ({ call: 'close', on: g.fd(g.of('fault', 'veventq')) })],
  ],
};

/** Without large pages: how many pages have a bit in common would depend on the machine's memory. */
const small: readonly Step[] = [
  ioctl(iommufd, 'IOMMU_IOAS_ALLOC', {}, 'tracked'),
  ioctl(iommufd, 'IOMMU_OPTION', { option_id: 1, op: 0, object_id: latestId('tracked'), val64: 0 }),
];
const ofTracked = { dev_id: latestId('device'), pt_id: latestId('tracked') };
const onTracked = (step: Step): Step =>
  step.call === 'ioctl' ? { ...step, fields: { ...step.fields, ioas_id: latestId('tracked') } } : step;
const dirtyTable = ioctl(iommufd, 'IOMMU_HWPT_ALLOC', { flags: 2, ...ofTracked }, 'dirty');
const tracking: Theme = {
  prologue: [
    ...small,
    dirtyTable,
    ioctl(iommufd, 'IOMMU_HWPT_SET_DIRTY_TRACKING', { flags: 1, hwpt_id: latestId('dirty') }),
  ],
  table: [
    [2, () => dirtyTable],
    [
      2,
      g => ({
        ...ioctl(iommufd, 'IOMMU_HWPT_ALLOC', {
          flags: 2,
          ...ofTracked,
          data_type: SELFTEST,
          data_len: 8,
          data_uptr: { list: [0, 1], width: 4 },
        }),
        as: g.of('dirty', 'other'),
      }),
    ],
    [4, g => ioctl(iommufd, 'IOMMU_HWPT_SET_DIRTY_TRACKING', { flags: g.below(2), hwpt_id: g.id('dirty') })],
    [
      10,
      g =>
        ioctl(iommufd, 'TEST_DIRTY', {
          id: g.id('dirty'),
          page_size: g.mostly(2048, 4096, 8192),
          uptr: { bytes: g.of('ff', '01', 'a5a5', '00ff00ff', '80', 'ffffffff') + '00'.repeat(60) },
          ...inMapping(g),
        }),
    ],
    [
      10,
      g =>
        ioctl(iommufd, 'IOMMU_HWPT_GET_DIRTY_BITMAP', {
          hwpt_id: g.id('dirty'),
          flags: g.of(0, 0, 1),
          page_size: g.of(2048, 4096, 8192, 65536),
          data: { buffer: 64 },
          ...(g.often(70) ? inMapping(g) : { iova: iova(g), length: g.pages() }),
        }),
    ],
    [3, g => replaceWith(g, 'dirty', 'tracked')],
    [4, g => onTracked(map(g))],
    [3, g => onTracked(unmap(g))],
  ],
};

const accesses: Theme = {
  prologue: [
    ioctl(iommufd, 'TEST_CREATE_ACCESS', { id: latestId('ioas'), flags: 1 }),
    ioctl(iommufd, 'IOMMU_IOAS_MAP', {
      flags: 7,
      ioas_id: latestId('ioas'),
      user_va: { at: 'shared', offset: 0 },
      length: 8 * PAGE,
      iova: APERTURE,
    }),
  ],
  table: [
    [2, g => ioctl(iommufd, 'TEST_CREATE_ACCESS', { id: g.id('ioas'), flags: g.mostly(1, 0) })],
    [
      10,
      g => ioctl(iommufd, 'TEST_ACCESS_PAGES', { id: g.fd('access'), flags: g.below(2), ...inMapping(g) }),
    ],
    [
      5,
      g =>
        ioctl(iommufd, 'TEST_DESTROY_ACCESS_PAGES', {
          id: g.fd('access'),
          access_pages_id: g.mostly<Value>(g.id('pages'), 1),
        }),
    ],
    [
      8,
      g =>
        ioctl(iommufd, 'TEST_ACCESS_RW', {
          id: g.fd('access'),
          iova: { mapping: 'iova', back: g.below(3), plus: g.of(0, 1, 4090, 5000) },
          length: g.of(1, 8, 64, 100, PAGE, 5000, 16),
          uptr: { bytes: 'c3'.repeat(64) + '00'.repeat(5000) },
          flags: g.of(0, 1, 4, 5),
        }),
    ],
    [
      2,
      g =>
        ioctl(iommufd, 'TEST_ACCESS_REPLACE_IOAS', {
          id: g.fd('access'),
          ioas_id: g.mostly<Value>(g.id('ioas'), 0),
        }),
    ],
    [5, map],
    [2, mapFile],
    [6, unmap],
    [3, copy],
    [5, checkRefs],
    [2, replace],
    [2, destroy],
    [1, g => ({ call: 'close', on: g.fd('access') })],
    [1, () => ioctl(iommufd, 'IOMMU_IOAS_CHANGE_PROCESS')],
  ],
};

const pasidTable = (flags: number): Ioctl => ({
  ...ioctl(iommufd, 'IOMMU_HWPT_ALLOC', { flags, ...ofDevice }),
  as: 'tagged',
});
const pasids: Theme = {
  prologue: [
    ioctl(iommufd, 'TEST_MOCK_DOMAIN_FLAGS', { id: latestId('ioas'), dev_flags: 4 }, 'pasid'),
    pasidTable(8),
  ],
  table: [
    [2, g => pasidTable(g.of(8, 9, 10))],
    [
      8,
      g =>
        ioctl(iommufd, 'TEST_PASID_ATTACH', {
          id: g.id('stdev'),
          pasid: 1 + g.below(3),
          pt_id: g.id('tagged', 'tagged', 'ioas'),
        }),
    ],
    [
      6,
      g =>
        ioctl(iommufd, 'TEST_PASID_REPLACE', {
          id: g.id('stdev'),
          pasid: 1 + g.below(3),
          pt_id: g.id('tagged', 'tagged', 'ioas'),
        }),
    ],
    [5, g => ioctl(iommufd, 'TEST_PASID_DETACH', { id: g.id('stdev'), pasid: 1 + g.below(3) })],
    [
      5,
      g =>
        ioctl(iommufd, 'TEST_PASID_CHECK_HWPT', {
          id: g.id('stdev'),
          pasid: 1 + g.below(3),
          hwpt_id: g.mostly<Value>(g.id('tagged', 'hwpt'), 0),
        }),
    ],
    [5, g => replaceWith(g, 'tagged', 'ioas', 'hwpt')],
    [2, g => ioctl(iommufd, 'TEST_PASID_REPLACE', { id: g.id('stdev'), pasid: 1024, pt_id: g.id('tagged') })],
    [1, g => ioctl(iommufd, 'TEST_PASID_ATTACH', { id: g.id('stdev'), pasid: 1024, pt_id: g.id('tagged') })],
    [3, destroy],
  ],
};

const container: Theme = {
  prologue: [
    ioctl(iommufd, 'IOMMU_VFIO_IOAS', { op: 1, ioas_id: latestId('ioas') }),
    { call: 'ioctl', on: iommufd, request: 'VFIO_SET_IOMMU', argument: 1 },
  ],
  table: [
    [4, compat],
    [
      6,
      g =>
        ioctl(iommufd, 'VFIO_IOMMU_MAP_DMA', {
          flags: g.mostly(3, 1),
          vaddr: memory(g),
          iova: iova(g),
          size: length(g),
        }),
    ],
    [
      5,
      g =>
        ioctl(iommufd, 'VFIO_IOMMU_UNMAP_DMA', {
          flags: g.mostly(0, 2),
          iova: iova(g),
          size: g.mostly<Value>(length(g), 0),
        }),
    ],
    [
      1,
      g => ({
        call: 'ioctl',
        on: iommufd,
        request: 'VFIO_IOMMU_GET_INFO',
        size: g.of(24, 48, 64, 96, 128, 200),
      }),
    ],
    [3, ranges],
    [2, unmap],
    [2, map],
  ],
};

const buffers: Theme = {
  prologue: [ioctl(iommufd, 'TEST_DMABUF_GET', { length: 8 * PAGE, open_flags: 2 })],
  table: [
    [3, dmabuf],
    [
      8,
      g =>
        ioctl(iommufd, 'IOMMU_IOAS_MAP_FILE', {
          flags: g.of(7, 6, 5),
          ioas_id: g.id('ioas'),
          fd: g.fd('dmabuf'),
          start: g.mostly(g.below(6) * PAGE, 100, 2048),
          length: g.mostly(g.pages(8), 100),
          iova: iova(g),
        }),
    ],
    [3, copy],
    [4, unmap],
    [2, replace],
    [2, g => ioctl(iommufd, 'TEST_MD_CHECK_MAP', { id: g.id('hwpt'), uptr: 0, ...inMapping(g) })],
    [2, access],
  ],
};

const themes: readonly Theme[] = [virtual, virtual, tracking, accesses, accesses, pasids, container, buffers];

/** The same request with a struct of another size, or with something wrong around it. */
function disturb(g: Pick, step: Step): Step {
  if (step.call !== 'ioctl' || step.argument !== undefined) return step;
  switch (g.below(5)) {
    case 0:
      return { ...step, size: g.of(0, 3, 4, 7, 8, 12, 15) };
    case 1:
      return { ...step, size: g.of(128, 256, 4096) };
    case 2:
      return { ...step, size: 256, junk: true };
    case 3:
      return { ...step, argument: 0 };
    default:
      return {
        call: 'ioctl',
        on: g.of(iommufd, latestFd('fault')),
        request: g.of('0x3b96', '0x3bff', '0x3b10', '0x1234'),
      };
  }
}

const prologue: readonly Step[] = [
  { call: 'open', path: '/dev/iommu', keep: 'iommufd' },
  { call: 'eventfd', keep: 'event' },
  ioctl(iommufd, 'IOMMU_IOAS_ALLOC'),
  ioctl(iommufd, 'TEST_MOCK_DOMAIN', { id: latestId('ioas') }),
];

/** @param count calls after the first ones, which are the same for many */
export function iommufdSteps(g: Pick, count: number): Step[] {
  const theme = g.often(50) ? undefined : g.of(...themes);
  const steps = Array.from({ length: count }, () => {
    const step = g.step(theme !== undefined && g.often(60) ? theme.table : plain);
    return g.often(5) ? disturb(g, step) : step;
  });
  return [...prologue, ...(theme?.prologue ?? []), ...steps];
}
