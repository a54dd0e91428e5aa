/** The kernel's selftest iommu/iommufd.c: /dev/iommu as a legacy container, with a mock device in it. @module */
import { EINVAL, ENOENT } from '../../../bindings/uapi/errno.js';
import {
  IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_SET,
} from '../../../bindings/uapi/iommufd.js';
import { MOCK_APERTURE_LAST, MOCK_APERTURE_START } from '../../../bindings/uapi/iommufd-test.js';
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_info_cap_header,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../../../bindings/uapi/vfio.js';
import { random } from '../../../src/sim/random.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, refused } from '../support/expect.js';
import { BUFFER_SIZE, IommufdFixture } from '../support/iommufd.js';
import { fixtureCases } from '../support/iommufd-cases.js';
import { anonymousHuge, HUGE_PAGE, PAGE } from '../support/memory.js';

/** What VFIO_SET_IOMMU takes, by variant. */
const types: Record<string, number> = { Ver1v2: VFIO_TYPE1v2_IOMMU, Ver1v0: VFIO_TYPE1_IOMMU };

const APERTURE = BigInt(MOCK_APERTURE_START);
/** Repeatable, so that a failure comes again. */
const SEED = 0x10fd;

/** What was in the memory after an answer, which must be there still. */
const UNTOUCHED = 0xaa;

/** A container with a mock device, as a group would bring one. */
class Container extends IommufdFixture {
  readonly ioasId: number;
  readonly type: number;

  constructor(host: ConformanceHost, type: number) {
    super(host);
    this.type = type;
    this.ioasId = this.allocIoas();
    this.mockDevice(this.ioasId);
    const { result } = this.call(IOMMU_VFIO_IOAS, { op: IOMMU_VFIO_IOAS_SET, ioas_id: this.ioasId });
    equal(result, 0, 'IOMMU_VFIO_IOAS_SET');
    equal(this.kernel.ioctl(this.fd, VFIO_SET_IOMMU.number, type), 0, 'VFIO_SET_IOMMU');
  }

  mapDma(address: bigint, iova: bigint, size: number): void {
    const flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    const { result } = this.call(VFIO_IOMMU_MAP_DMA, { flags, vaddr: address, iova, size: BigInt(size) });
    equal(result, 0, 'VFIO_IOMMU_MAP_DMA');
  }

  tryUnmapDma(iova: bigint, size: number, flags = 0): { result: number; size: bigint } {
    const { result, values } = this.call(VFIO_IOMMU_UNMAP_DMA, { flags, iova, size: BigInt(size) });
    return { result, size: values.size };
  }

  unmapDma(iova: bigint, size: number, flags = 0): bigint {
    const answer = this.tryUnmapDma(iova, size, flags);
    equal(answer.result, 0, 'VFIO_IOMMU_UNMAP_DMA');
    return answer.size;
  }
}

function optionHugePages(iommu: Container): void {
  const { result, values } = iommu.call(IOMMU_OPTION, {
    option_id: IOMMU_OPTION_HUGE_PAGES,
    op: IOMMU_OPTION_OP_GET,
    object_id: iommu.ioasId,
    val64: 3n,
  });
  equal(result, 0, 'IOMMU_OPTION');
  // Type 1 without v2 can cut mappings anywhere, which an entry for a large page would not let it.
  equal(values.val64, iommu.type === VFIO_TYPE1_IOMMU ? 0n : 1n, 'huge pages');
}

/** The chain of capabilities lies within the answer and says what a mock device has. @returns their ids */
function checkChain(view: DataView, argsz: number, first: number): number[] {
  const seen: number[] = [];
  for (let at = first; ; ) {
    holds(argsz >= at + vfio_info_cap_header.size, 'the header of a capability lies within the answer');
    const { id, version, next } = vfio_info_cap_header.decode(view, at);
    const size = (next === 0 ? argsz : next) - at;
    equal(version, 1, 'version of the capability');
    seen.push(id);
    if (id === VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
      equal(vfio_iommu_type1_info_cap_iova_range.get(view, 'nr_iovas', at), 1, 'ranges of IOVAs');
      const range = vfio_iova_range.decode(view, at + vfio_iommu_type1_info_cap_iova_range.size);
      equal(range.start, APERTURE, 'first IOVA');
      equal(range.end, BigInt(MOCK_APERTURE_LAST), 'last IOVA');
    } else if (id === VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
      equal(size, Math.ceil(vfio_iommu_type1_info_dma_avail.size / 8) * 8, 'size of the capability');
      equal(vfio_iommu_type1_info_dma_avail.get(view, 'avail', at), 0xffff_ffff, 'mappings that may be made');
    } else {
      holds(false, `capability ${id} is one that is known`);
    }
    if (next === 0) return seen;
    holds(next > at, 'the chain goes forwards');
    at = next;
  }
}

function getInfo(iommu: Container): void {
  const bytes = new Uint8Array(new ArrayBuffer(BUFFER_SIZE));
  const view = new DataView(bytes.buffer);
  const both = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
  const ask = (argsz: number) => {
    bytes.fill(UNTOUCHED);
    bytes.fill(0, 0, argsz);
    view.setUint32(0, argsz, true);
    equal(iommu.kernel.ioctl(iommu.fd, VFIO_IOMMU_GET_INFO.number, bytes), 0, () => `argsz ${argsz}`);
    const beyond = bytes.findIndex((byte, i) => i >= argsz && byte !== UNTOUCHED);
    equal(beyond, -1, () => `what was written beyond argsz ${argsz}`);
    const info = vfio_iommu_type1_info.decode(view);
    equal(info.flags, both, () => `flags with argsz ${argsz}`);
    return info;
  };

  holds(ask(VFIO_IOMMU_GET_INFO.minimumSize).iova_pgsizes !== 0n, 'page sizes, as before capabilities');
  const whole = vfio_iommu_type1_info.size;
  const empty = ask(whole);
  holds(empty.iova_pgsizes !== 0n, 'page sizes');
  equal(empty.cap_offset, 0, 'offset of capabilities that have no room');
  holds(empty.argsz > whole, 'argsz says what all of them take');
  for (let argsz = whole; argsz < empty.argsz; argsz++) {
    const info = ask(argsz);
    if (info.cap_offset !== 0) checkChain(view, info.argsz, info.cap_offset);
  }
  // With all the room that was asked for, which the selftest stops short of.
  const full = ask(empty.argsz);
  equal(
    checkChain(view, full.argsz, full.cap_offset).sort().join(),
    [VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL].join(),
    'capabilities',
  );
}

function map(iommu: Container): void {
  const { address } = iommu.buffer;
  const size = BigInt(BUFFER_SIZE);
  iommu.mapDma(address, APERTURE, BUFFER_SIZE);
  equal(iommu.unmapDma(APERTURE, BUFFER_SIZE), size, 'bytes unmapped');
  equal(iommu.unmapDma(APERTURE, BUFFER_SIZE), 0n, 'bytes unmapped where there is nothing');

  iommu.mapDma(address, APERTURE, BUFFER_SIZE);
  const withRange = iommu.tryUnmapDma(APERTURE, BUFFER_SIZE, VFIO_DMA_UNMAP_FLAG_ALL);
  refused(withRange.result, EINVAL, 'unmapping all, with a range');
  equal(iommu.unmapDma(0n, 0, VFIO_DMA_UNMAP_FLAG_ALL), size, 'bytes of all');

  const pages = Array.from({ length: BUFFER_SIZE / PAGE }, (_, i) => BigInt(i * PAGE));
  for (const offset of pages) iommu.mapDma(address + offset, APERTURE + offset, PAGE);
  for (const offset of random(SEED).shuffle(pages)) {
    equal(iommu.unmapDma(APERTURE + offset, PAGE), BigInt(PAGE), 'bytes of a page');
  }
}

/** Version 1 cuts a mapping in pieces, version 2 only unmaps all of it. */
function hugeMap(iommu: Container): void {
  using memory = anonymousHuge(iommu, 2 * HUGE_PAGE);
  iommu.mapDma(memory.address, APERTURE, memory.length);
  const size = memory.length / 16;
  const pieces = random(SEED).shuffle(Array.from({ length: 16 }, (_, i) => APERTURE + BigInt(i * size)));
  for (const iova of pieces) {
    if (iommu.type === VFIO_TYPE1_IOMMU) equal(iommu.unmapDma(iova, size), BigInt(size), 'bytes of a piece');
    else refused(iommu.tryUnmapDma(iova, size).result, ENOENT, 'a piece of a mapping');
  }
}

export const cases: readonly Case[] = Object.entries(types).flatMap(([name, type]) =>
  fixtureCases(
    'vfio_compat_mock_domain',
    host => new Container(host, type),
    {
      simple_close() {},
      option_huge_pages: optionHugePages,
      get_info: getInfo,
      map,
      huge_map: hugeMap,
    },
    name,
  ),
);
