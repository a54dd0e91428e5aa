/**
 * Opens a device in a process of its own and prints how that went: `ok`, or `<code>: <message>`. Arguments: PCI
 * address; `true`, `false` (whether no IOMMU is acceptable) or `claim`; bytes of DMA memory.
 */
import { claim, DmaArena, openDevice } from 'iommufd';

const [address = '', mode = 'false', bytes = '65536'] = process.argv.slice(2);
try {
  if (mode === 'claim') {
    (await claim(address)).release();
  } else {
    using device = openDevice(address, { noiommu: mode === 'true' });
    using arena = DmaArena.create(device.space, Number(bytes));
    arena.deviceAddress(0);
  }
  console.log('ok');
} catch (error) {
  const { code, message } = error as Error & { code?: string };
  console.log(`${code}: ${message}`);
}
