/** One mode of the demonstration: bring an NVMe controller up, do verified I/O, let a device go wild. @module */
import { NvmeController } from '../../drivers/nvme/index.js';
import { DmaArena } from '../../memory/dma-memory.js';
import { openDevice } from '../../open-device.js';
import { claim } from '../../pci/claim.js';
import { EduModel } from '../../sim/devices/edu.js';
import { NvmeModel } from '../../sim/devices/nvme/index.js';
import { SimulatedHost } from '../../sim/host.js';
import { formatRate, formatSize } from '../units.js';
import { deviceView } from './device-view.js';
import { describeRelease } from './release.js';
import { letGoWild, type WildWrite } from './wild-write.js';
import { verifiedIo } from './workload.js';

export interface ModeReport {
  readonly mode: Mode;
  readonly controller: { readonly model: string; readonly serial: string; readonly version: string };
  readonly namespaces: readonly {
    readonly id: number;
    readonly blockSize: number;
    readonly sha256: string;
  }[];
  /** Read and write commands that the controller counted. */
  readonly ios: number;
  readonly bytesWritten: number;
  readonly bytesVerified: number;
  readonly bytesWrong: number;
  /** DMAs that the IOMMU stopped. */
  readonly faultsCaught: number;
  readonly wildWrite: WildWrite;
  /** What was left behind when everything was released; nothing, if all is well. */
  readonly leaked: readonly string[];
  readonly seconds: number;
}

/** How a mode tells what it does. */
export interface Narrator {
  step(name: string, text: string): void;
  picture(lines: readonly string[]): void;
  /** @param done of `total` bytes */
  progress(done: number, total: number): void;
  /** Characters that a line of a picture may have. */
  readonly width: number;
}

const NVME = '0000:00:04.0';
const EDU = '0000:00:05.0';
/** Written to each namespace, and read back. */
const BYTES = 24 * 2 ** 20;

/** The modes that are shown, and what each is called. */
export const modes = {
  vtd: 'Behind an IOMMU (Intel VT-d): a device reaches what is mapped for it',
  noiommu: 'Without IOMMU: a device reaches all of memory, at physical addresses',
} as const;
export type Mode = keyof typeof modes;

/** @throws whatever the library throws; the simulated host goes with it */
export async function runMode(profile: Mode, narrator: Narrator, signal: AbortSignal): Promise<ModeReport> {
  const started = performance.now();
  const noiommu = profile === 'noiommu';
  using host = new SimulatedHost({
    profile,
    devices: [
      {
        address: NVME,
        function: new NvmeModel({
          serial: 'simulated-1',
          namespaces: [
            { id: 1, blockSize: 512, size: 64 * 2 ** 20 },
            { id: 2, blockSize: 4096, size: 64 * 2 ** 20 },
          ],
        }),
      },
      { address: EDU, function: new EduModel() },
    ],
  });
  const kernel = host.process();
  const report = await drive();
  const leaked = host.leftovers();
  narrator.step('release', describeRelease(leaked, 'both devices are back with their drivers'));
  return { ...report, leaked, seconds: (performance.now() - started) / 1000 };

  async function drive(): Promise<Omit<ModeReport, 'leaked' | 'seconds'>> {
    using claimed = await claim(NVME, { kernel });
    narrator.step('claim', `${NVME} goes from ${claimed.previousDriver} to vfio-pci: ${claimed.node.path}`);
    using device = openDevice(claimed, { noiommu });
    await using controller = await NvmeController.open(device, { ioQueues: 2 });
    const { modelNumber: model, serialNumber: serial } = controller.identity;
    narrator.step(
      'controller',
      `${model}, NVMe ${controller.version}: ${controller.namespaces.length} namespaces, ${controller.queueDepth} commands in flight`,
    );

    const namespaces: ModeReport['namespaces'][number][] = [];
    let bytesWritten = 0;
    let bytesVerified = 0;
    let transfers = 0;
    const io = performance.now();
    const total = 2 * BYTES * controller.namespaces.length;
    for (const [index, namespace] of controller.namespaces.entries()) {
      const result = await verifiedIo(namespace, BYTES, {
        seed: namespace.id,
        signal,
        onProgress: done => narrator.progress(2 * BYTES * index + done, total),
      });
      bytesWritten += result.bytesWritten;
      bytesVerified += result.bytesVerified;
      transfers += result.transfers;
      namespaces.push({ id: namespace.id, blockSize: namespace.blockSize, sha256: result.sha256 });
    }
    const seconds = (performance.now() - io) / 1000;
    const ios = await countCommands(controller);
    const wrong = bytesWritten - bytesVerified;
    narrator.step(
      'verified I/O',
      `${formatSize(bytesWritten)} written in ${transfers / 2} pieces and read back, ${ios} commands, ${formatRate(2 * bytesWritten, seconds)}: ${wrong === 0 ? 'identical' : `${wrong} bytes DIFFER`}`,
    );

    using arena = DmaArena.create(device.space, 2 ** 20, { name: 'data' });
    arena.allocate(4096).bytes.fill(0x55);
    const before = host.iommu.faultCount;
    using edu = await claim(EDU, { kernel });
    const wildWrite = await letGoWild(host, edu, noiommu);
    narrator.step('wild write', wildWrite.text);
    narrator.picture(deviceView(host, NVME, wildWrite.address, narrator.width));

    return {
      mode: profile,
      controller: { model, serial, version: controller.version },
      namespaces,
      ios,
      bytesWritten,
      bytesVerified,
      bytesWrong: wrong,
      faultsCaught: host.iommu.faultCount - before,
      wildWrite,
    };
  }
}

/** SMART log: host read and write commands, 128 bits each (Base Specification, figure "SMART / Health Information"). */
const SMART_LOG = 2;
const HOST_READ_COMMANDS = 64;
const HOST_WRITE_COMMANDS = 80;

async function countCommands(controller: NvmeController): Promise<number> {
  const log = await controller.getLogPage(SMART_LOG, 512);
  const view = new DataView(log.buffer, log.byteOffset);
  return Number(view.getBigUint64(HOST_READ_COMMANDS, true) + view.getBigUint64(HOST_WRITE_COMMANDS, true));
}
