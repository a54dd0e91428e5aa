/** Writes and reads a megabyte. Arguments: PCI address, `true` to accept a device without IOMMU. */
import { claim, openDevice } from 'iommufd';
import { NvmeController } from 'iommufd/nvme';
import { random } from '../../support/random.js';

const [address = '', noiommu] = process.argv.slice(2);
using claimed = await claim(address);
using device = openDevice(claimed, { noiommu: noiommu === 'true' });
await using controller = await NvmeController.open(device);
const namespace = controller.namespace(1);
const data = new Uint8Array(2 ** 20);
random().fill(data);
await namespace.write(0, data);
const back = await namespace.readBlocks(0, data.length / namespace.blockSize);
console.log(Buffer.compare(data, back) === 0 ? 'identical' : 'different');
