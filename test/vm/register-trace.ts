// What was asked of an NVMe controller, by QEMU's trace of every write to a device's registers: unlike the events of its
// NVMe model, these say which device it was (a region, and an absolute address).
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';

/** What has to be traced. `pci_nvme_pci_reset` is a reset of the function, which no register write of it asks for. */
export const registerTrace = [
  'memory_region_ops_write',
  'handle_qmp_command',
  'pci_nvme_admin_cmd',
  'pci_nvme_pci_reset',
] as const;

/** The same, with the marks of the driver program of test/kernel/support/kept-driver.ts: see {@link LANES_MARK}. */
export const lanesTrace = [...registerTrace, 'pci_nvme_io_cmd'] as const;

/**
 * The mark where the lanes begin and where they end: a flush of a namespace that sees no other commands, and that only one
 * of the controllers has. It was submitted in the section before.
 */
export const LANES_MARK = 'lanes';

/** What was asked of one controller. */
export interface Activity {
  /** Values written to CC, the configuration. */
  readonly configuration: number[];
  /** Writes to registers that are neither CC nor doorbells, by offset. */
  readonly otherRegisters: number[];
  /** Commands that were submitted to the admin queue: how far its tail doorbell went. */
  adminCommands: number;
  /** The same of the I/O queues. */
  ioCommands: number;
  /** Writes to doorbells. */
  doorbells: number;
}

/** The trace from one mark of the guest's to the next; see test/kernel/support/mark.ts. */
export interface Section {
  /** The mark that it begins with; the first begins with the machine. */
  readonly mark: string;
  /** In the order of the controllers that were asked for. */
  readonly controllers: readonly Activity[];
  /** Admin commands that QEMU's NVMe model executed, in whichever controller. */
  adminCommandsExecuted: number;
  /** Resets of an NVMe function, whichever. */
  functionResets: number;
}

/** A controller in the trace. */
export interface TracedController {
  /** Where the guest has BAR 0. */
  readonly bar: number;
  /** In bytes. */
  readonly size: number;
  /** Of each I/O queue, where its I/O commands are to be counted: doorbells say a position, which goes round. */
  readonly ioEntries?: number;
}

/** Before each mark, in the monitor command that carries it. */
export const MARK = 'iommufd-mark:';

const Register = { CC: 0x14, AQA: 0x24, DOORBELLS: 0x1000 } as const;
const ENABLE = 1;
/** Bytes from one doorbell to the next, as QEMU's controllers have them. */
const STRIDE = 4;

const write =
  /^memory_region_ops_write cpu -?\d+ mr (0x[0-9a-f]+) addr 0x([0-9a-f]+) value 0x([0-9a-f]+) size \d+ name 'nvme'$/;
const flush = /^pci_nvme_io_cmd cid \d+ nsid 0x2 sqid \d+ opc 0x0 /;
const mark = new RegExp(`^handle_qmp_command .*${MARK}([\\w-]+)`);

/** Positions of the queues of one controller. */
class Queues {
  readonly #ioEntries: number | undefined;
  readonly #tails = new Map<number, number>();
  #adminEntries = 0;
  region: string | undefined;

  constructor(ioEntries: number | undefined) {
    this.#ioEntries = ioEntries;
  }

  note(activity: Activity, offset: number, value: number): void {
    if (offset >= Register.DOORBELLS) {
      activity.doorbells++;
      const index = (offset - Register.DOORBELLS) / STRIDE;
      // Odd ones are of completion queues.
      if (index % 2 === 0) this.#submit(activity, index / 2, value);
      return;
    }
    if (offset === Register.CC) {
      activity.configuration.push(value);
      if ((value & ENABLE) === 0) this.#tails.clear();
    } else activity.otherRegisters.push(offset);
    if (offset === Register.AQA) this.#adminEntries = (value & 0xfff) + 1;
  }

  #submit(activity: Activity, queue: number, tail: number): void {
    const entries = queue === 0 ? this.#adminEntries : this.#ioEntries;
    if (entries === undefined) return;
    const count = (tail - (this.#tails.get(queue) ?? 0) + entries) % entries;
    this.#tails.set(queue, tail);
    if (queue === 0) activity.adminCommands += count;
    else activity.ioCommands += count;
  }
}

const nothing = (): Activity => ({
  configuration: [],
  otherRegisters: [],
  adminCommands: 0,
  ioCommands: 0,
  doorbells: 0,
});

/**
 * Reads a trace of {@link registerTrace}.
 *
 * @throws Error when the registers of a controller turn out to be two regions, or two controllers one: the guest moved them
 */
export async function readRegisterTrace(
  path: string,
  controllers: readonly TracedController[],
): Promise<Section[]> {
  const queues = controllers.map(({ ioEntries }) => new Queues(ioEntries));
  const begin = (name: string): Section => ({
    mark: name,
    controllers: controllers.map(nothing),
    adminCommandsExecuted: 0,
    functionResets: 0,
  });
  const sections = [begin('power-on')];
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const section = sections.at(-1) as Section;
    const [, region, at, text] = write.exec(line) ?? [];
    if (region !== undefined) {
      const address = Number.parseInt(at as string, 16);
      const index = controllers.findIndex(({ bar, size }) => address >= bar && address < bar + size);
      const queue = queues[index];
      if (queue === undefined) continue;
      if (queues.some(each => (each === queue) !== (each.region === region) && each.region !== undefined)) {
        throw new Error(`${line}: the registers of the controllers are not where they were`);
      }
      queue.region = region;
      const offset = address - (controllers[index] as TracedController).bar;
      queue.note(section.controllers[index] as Activity, offset, Number.parseInt(text as string, 16));
    } else if (line.startsWith('pci_nvme_admin_cmd ')) section.adminCommandsExecuted++;
    else if (line.startsWith('pci_nvme_pci_reset')) section.functionResets++;
    else {
      const name = flush.test(line) ? LANES_MARK : mark.exec(line)?.[1];
      if (name !== undefined) sections.push(begin(name));
    }
  }
  return sections;
}
