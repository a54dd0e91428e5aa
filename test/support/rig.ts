/** The devices of the test VMs (test/vm/topology.ts), simulated. @module */
import { EduModel } from '../../src/sim/devices/edu.js';
import { NvmeModel, NvmeNamespaceModel } from '../../src/sim/devices/nvme/index.js';
import type { SimulatedDevice } from '../../src/sim/host.js';
import { address, type DiskName, nvmeA, nvmeB } from '../vm/topology.js';

/** In bytes, as in the test VMs. */
const DISK_SIZE = 128 * 2 ** 20;

export interface Rig {
  readonly devices: readonly SimulatedDevice[];
  readonly nvmeB: NvmeModel;
  /** What the disks hold. */
  readonly disks: Readonly<Record<DiskName, NvmeNamespaceModel>>;
}

/** @param image where a disk is kept; in memory unless told */
export function makeRig(image?: (name: DiskName) => string): Rig {
  const disk = (id: number, blockSize: number, name: DiskName): NvmeNamespaceModel => {
    const file = image?.(name);
    return new NvmeNamespaceModel({ id, blockSize, size: DISK_SIZE, ...(file !== undefined && { file }) });
  };
  const disks = {
    a1: disk(1, 512, 'a1'),
    a2: disk(2, 4096, 'a2'),
    b1: disk(1, 512, 'b1'),
  };
  const controllerB = new NvmeModel({
    serial: nvmeB.serial,
    namespaces: [disks.b1],
    cmbSize: nvmeB.cmbMebibytes * 2 ** 20,
  });
  return {
    devices: [
      {
        address: nvmeA.address,
        // 2^10 pages a command, twice what one page of a PRP list describes.
        function: new NvmeModel({ serial: nvmeA.serial, namespaces: [disks.a1, disks.a2], mdts: 10 }),
      },
      { address: address.edu, function: new EduModel({ transferTime: 1 }) },
      { address: nvmeB.address, function: controllerB, port: address.nvmeBPort },
    ],
    nvmeB: controllerB,
    disks,
  };
}
