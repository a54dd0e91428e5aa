/** What kbuild and depmod write down of a kernel where it is installed. @module */
import type { Directory } from './process/file-tree.js';

/** As `uname -r` says it. */
export const RELEASE = '7.3.4-simulated';

const tables: Readonly<Record<string, string>> = {
  // The drivers of the simulated kernel are modules; this one is built into every kernel.
  'modules.builtin': 'kernel/drivers/pci/pcie/pcieportdrv.ko\n',
  'modules.builtin.modinfo': 'pcieportdrv.license=GPL\0pcieportdrv.file=drivers/pci/pcie/pcieportdrv\0',
  'modules.alias': [
    'alias pci:v*d*sv*sd*bc01sc08i02* nvme',
    'alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci',
    '',
  ].join('\n'),
  'modules.dep': [
    'kernel/drivers/nvme/host/nvme.ko: kernel/drivers/nvme/host/nvme-core.ko',
    'kernel/drivers/vfio/pci/vfio-pci.ko: kernel/drivers/vfio/pci/vfio-pci-core.ko kernel/drivers/vfio/vfio.ko',
    '',
  ].join('\n'),
};

/** Puts them into a file tree. */
export function addModuleTables(root: Directory): void {
  const directory = root.directory(`lib/modules/${RELEASE}`);
  for (const [name, text] of Object.entries(tables)) directory.set(name, { kind: 'text', read: () => text });
}
