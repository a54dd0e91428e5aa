/** Writes at queue depth 32 until it is killed. Arguments: PCI address, `true` to accept a device without IOMMU. */
import { claim, DmaArena, openDevice } from 'iommufd';
import { NvmeController } from 'iommufd/nvme';

const [address = '', noiommu] = process.argv.slice(2);
const claimed = await claim(address);
const device = openDevice(claimed, { noiommu: noiommu === 'true' });
const controller = await NvmeController.open(device);
const namespace = controller.namespace(1);
const arena = DmaArena.create(device.space, 32 * 65536);
let done = 0;
await Promise.all(
  Array.from({ length: 32 }, async (_, worker) => {
    const buffer = arena.allocate(65536);
    for (;;) {
      await namespace.write(worker * 128, buffer);
      if (++done === 64) console.log('writing');
    }
  }),
);
