/**
 * A model of /dev/iommu behind the real calls for memory: address spaces with their mappings, and the physical
 * pages that a device without IOMMU would see.
 *
 * @module
 */
import type { SyscallResult } from '../../../bindings/syscalls.js';
import { EBUSY, EEXIST, EINVAL, EMSGSIZE, ENOENT, ENOTTY, EOPNOTSUPP } from '../../../bindings/uapi/errno.js';
import * as uapi from '../../../bindings/uapi/iommufd.js';
import { decodeList, encodeList } from '../../../bindings/uapi/struct.js';
import type { Ioas } from '../../../src/iommufd/ioas.js';
import { Iommufd } from '../../../src/iommufd/iommufd.js';
import { DelegatingKernel } from './delegating-kernel.js';

const PAGE = 4096n;
const U64_MAX = 0xffff_ffff_ffff_ffffn;

function smaller(a: bigint, b: bigint): bigint {
  if (a < b) return a;
  return b;
}

/** One mapping of an address space. */
export interface FakeMapping {
  readonly iova: bigint;
  readonly length: bigint;
  readonly flags: number;
  /** The file and the place in it, for a mapping by file. */
  readonly file: { readonly fd: number; readonly start: bigint } | undefined;
  /** The address in the process, for any other. */
  readonly userAddress: bigint | undefined;
}

/** An ioctl as it arrived. */
export interface RawRequest {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const requests = new Map(
  Object.values(uapi)
    .filter(value => typeof value === 'object' && 'number' in value && 'minimumSize' in value)
    .map(value => [value.number, value] as const),
);

export class FakeIommufd extends DelegatingKernel {
  readonly arrived: RawRequest[] = [];
  /** Mappings by IOVA, by address space. */
  readonly spaces = new Map<number, Map<bigint, FakeMapping>>();
  readonly options = new Map<number, bigint>();
  /** What the kernel was told to keep usable. */
  allowed: { start: bigint; last: bigint }[] = [];
  /** What the kernel says can be mapped. */
  usable: { start: bigint; last: bigint }[] = [{ start: 0n, last: (1n << 48n) - 1n }];
  /** Ids that cannot be destroyed. */
  readonly inUse = new Set<number>();
  /** The physical page behind the page at an IOVA, while a device without IOMMU is attached. */
  physicalPage: ((iova: bigint) => bigint) | undefined;
  readonly #files = new Set<number>();
  #nextId = 1;

  protected override openFile(path: string, flags: number): SyscallResult {
    if (path !== '/dev/iommu') return super.openFile(path, flags);
    const fd = this.real.memfdCreate('fake-iommu', 1);
    this.#files.add(fd);
    return fd;
  }

  override close(fd: number): SyscallResult {
    this.#files.delete(fd);
    return super.close(fd);
  }

  protected override requestName(fd: number, request: number): string {
    if (!this.#files.has(fd)) return super.requestName(fd, request);
    return requests.get(request)?.name ?? 'ioctl';
  }

  /** The mappings of an address space, by IOVA. */
  mappingsOf(ioas: Ioas): FakeMapping[] {
    return [...(this.spaces.get(ioas.id)?.values() ?? [])];
  }

  protected override answer(fd: number, number: number, argument: Uint8Array | number): SyscallResult {
    if (!this.#files.has(fd) || typeof argument === 'number') return super.answer(fd, number, argument);
    const request = requests.get(number);
    if (!request?.argument) return -ENOTTY;
    this.arrived.push({ name: request.name, bytes: argument.slice() });
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    if (view.getUint32(0, true) !== request.argument.size) return -EINVAL;
    switch (number) {
      case uapi.IOMMU_IOAS_ALLOC.number:
        return this.#alloc(view);
      case uapi.IOMMU_DESTROY.number:
        return this.#destroy(uapi.iommu_destroy.get(view, 'id'));
      case uapi.IOMMU_IOAS_MAP.number: {
        const { flags, ioas_id, user_va, length, iova } = uapi.iommu_ioas_map.decode(view);
        return this.#map(ioas_id, flags, iova, length, { file: undefined, userAddress: user_va });
      }
      case uapi.IOMMU_IOAS_MAP_FILE.number: {
        const { flags, ioas_id, fd: file, start, length, iova } = uapi.iommu_ioas_map_file.decode(view);
        return this.#map(ioas_id, flags, iova, length, {
          file: { fd: file, start },
          userAddress: undefined,
        });
      }
      case uapi.IOMMU_IOAS_COPY.number: {
        const { flags, dst_ioas_id, src_ioas_id, length, dst_iova, src_iova } =
          uapi.iommu_ioas_copy.decode(view);
        const source = this.spaces.get(src_ioas_id)?.get(src_iova);
        if (!source || source.length !== length) return -ENOENT;
        return this.#map(dst_ioas_id, flags, dst_iova, length, source);
      }
      case uapi.IOMMU_IOAS_UNMAP.number:
        return this.#unmap(view);
      case uapi.IOMMU_IOAS_IOVA_RANGES.number:
        return this.#ranges(view);
      case uapi.IOMMU_IOAS_ALLOW_IOVAS.number: {
        const { num_iovas, allowed_iovas } = uapi.iommu_ioas_allow_iovas.decode(view);
        this.allowed =
          num_iovas === 0
            ? []
            : decodeList(this.#at(allowed_iovas, num_iovas), uapi.iommu_iova_range, num_iovas);
        return 0;
      }
      case uapi.IOMMU_IOAS_NOIOMMU_GET_PA.number:
        return this.#physical(view);
      case uapi.IOMMU_OPTION.number: {
        const { option_id, op, val64 } = uapi.iommu_option.decode(view);
        if (op === uapi.IOMMU_OPTION_OP_SET) this.options.set(option_id, val64);
        else uapi.iommu_option.set(view, 'val64', this.options.get(option_id) ?? 0n);
        return 0;
      }
      default:
        return -ENOTTY;
    }
  }

  /** The memory of an array that a request points at. */
  #at(address: bigint, count: number): DataView {
    return new DataView(this.real.view(address, count * uapi.iommu_iova_range.size));
  }

  #alloc(view: DataView): SyscallResult {
    const id = this.#nextId++;
    this.spaces.set(id, new Map());
    uapi.iommu_ioas_alloc.set(view, 'out_ioas_id', id);
    return 0;
  }

  #destroy(id: number): SyscallResult {
    if (this.inUse.has(id)) return -EBUSY;
    return this.spaces.delete(id) ? 0 : -ENOENT;
  }

  #map(
    id: number,
    flags: number,
    iova: bigint,
    length: bigint,
    memory: Pick<FakeMapping, 'file' | 'userAddress'>,
  ): SyscallResult {
    const space = this.spaces.get(id);
    if (!space) return -ENOENT;
    if (!(flags & uapi.IOMMU_IOAS_MAP_FIXED_IOVA)) return -EOPNOTSUPP;
    if (iova % PAGE || length % PAGE || length === 0n) return -EINVAL;
    for (const other of space.values()) {
      if (iova < other.iova + other.length && other.iova < iova + length) return -EEXIST;
    }
    space.set(iova, { ...memory, iova, length, flags });
    return 0;
  }

  #unmap(view: DataView): SyscallResult {
    const { ioas_id, iova, length } = uapi.iommu_ioas_unmap.decode(view);
    const space = this.spaces.get(ioas_id);
    if (!space) return -ENOENT;
    const all = iova === 0n && length === U64_MAX;
    let unmapped = 0n;
    for (const [at, mapping] of [...space]) {
      const end = at + mapping.length;
      if (end <= iova || at >= iova + length) continue;
      if (!all && (at < iova || end > iova + length)) return -ENOENT;
      space.delete(at);
      unmapped += mapping.length;
    }
    if (unmapped === 0n && !all) return -ENOENT;
    uapi.iommu_ioas_unmap.set(view, 'length', unmapped);
    return 0;
  }

  #ranges(view: DataView): SyscallResult {
    const { num_iovas, allowed_iovas } = uapi.iommu_ioas_iova_ranges.decode(view);
    const room = Math.min(num_iovas, this.usable.length);
    if (room > 0)
      encodeList(this.#at(allowed_iovas, num_iovas), uapi.iommu_iova_range, this.usable.slice(0, room));
    uapi.iommu_ioas_iova_ranges.set(view, 'num_iovas', this.usable.length);
    uapi.iommu_ioas_iova_ranges.set(view, 'out_iova_alignment', PAGE);
    return num_iovas < this.usable.length ? -EMSGSIZE : 0;
  }

  #physical(view: DataView): SyscallResult {
    const { ioas_id, iova, length } = uapi.iommu_ioas_noiommu_get_pa.decode(view);
    if (!this.physicalPage) return -EOPNOTSUPP;
    const mapping = [...(this.spaces.get(ioas_id)?.values() ?? [])].find(
      candidate => iova >= candidate.iova && iova < candidate.iova + candidate.length,
    );
    if (!mapping) return -ENOENT;
    const { physicalPage } = this;
    const inPage = iova % PAGE;
    const first = physicalPage(iova - inPage);
    const end = smaller(iova + length, mapping.iova + mapping.length);
    let next = iova - inPage + PAGE;
    while (next < end && physicalPage(next) === first + (next - (iova - inPage))) next += PAGE;
    uapi.iommu_ioas_noiommu_get_pa.set(view, 'out_phys', first + inPage);
    uapi.iommu_ioas_noiommu_get_pa.set(view, 'length', smaller(next, end) - iova);
    return 0;
  }
}

/** An open context with an empty address space on a model. */
export function fakeSpace(): { kernel: FakeIommufd; iommufd: Iommufd; ioas: Ioas } {
  const kernel = new FakeIommufd();
  const iommufd = Iommufd.open(kernel);
  return { kernel, iommufd, ioas: iommufd.allocIoas() };
}

/** Physical pages in no order: neighbours by chance only, each page once, above 4 GiB. */
export function scatteredPage(iova: bigint): bigint {
  return (0x10_0000n + (((iova / PAGE) * 0x9e37_79b1n) & 0xf_ffffn)) * PAGE;
}
