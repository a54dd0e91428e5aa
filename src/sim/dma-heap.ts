/** `/dev/dma_heap/system`: makes dma-bufs of ordinary memory, which iommufd does not take (linux/dma-heap.h). @module */
import { EINVAL, EOPNOTSUPP } from '../../bindings/uapi/errno.js';
import { DmaBufFile } from './iommufd/dma-buf.js';
import type { DeviceNode } from './process/file-tree.js';
import { OpenFile } from './process/open-file.js';
import type { SimulatedProcess } from './process/process.js';

const DMA_HEAP_IOCTL_ALLOC = 0xc018_4800;
/** struct dma_heap_allocation_data: u64 length, u32 descriptor, u32 its flags, u64 flags. */
const DESCRIPTOR_AT = 8;

/** Memory of a heap. Its exporter gives nobody a physical address. */
class HeapBuffer extends DmaBufFile {
  readonly size: number;

  constructor(size: number) {
    super();
    this.size = size;
  }

  physicalRange(): number {
    return -EOPNOTSUPP;
  }

  protected override release(): void {}
}

class HeapFile extends OpenFile {
  override readonly name = '/dev/dma_heap/system';

  override ioctl(process: SimulatedProcess, request: number, argument: Uint8Array | number): number {
    if (request !== DMA_HEAP_IOCTL_ALLOC || typeof argument === 'number') {
      return super.ioctl(process, request, argument);
    }
    const view = new DataView(argument.buffer, argument.byteOffset, argument.byteLength);
    const size = Number(view.getBigUint64(0, true));
    if (size === 0) return -EINVAL;
    const fd = process.install(new HeapBuffer(size));
    if (fd >= 0) view.setUint32(DESCRIPTOR_AT, fd, true);
    return Math.min(fd, 0);
  }

  protected override release(): void {}
}

export const dmaHeap: DeviceNode = { kind: 'device', open: () => new HeapFile() };
