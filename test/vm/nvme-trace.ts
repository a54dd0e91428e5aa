// What QEMU saw of its NVMe controllers: its trace, between two markers that the guest has set in it.
//
// A marker is a flush of a namespace that sees no other commands, so that it is in the trace itself, in order with all
// that the controllers did, whatever clocks say.

/** The trace events that are read here, for `VmOptions.trace`. */
export const nvmeTraceEvents = [
  'pci_nvme_admin_cmd',
  'pci_nvme_io_cmd',
  // All writes to registers, doorbells included; and what QEMU says of those that configure.
  'pci_nvme_mmio_write',
  'pci_nvme_mmio_cfg',
  'pci_nvme_mmio_start_success',
  'pci_nvme_mmio_stopped',
  'pci_nvme_mmio_shutdown_*',
  'pci_nvme_pci_reset',
  // What it refuses, and what a driver must not do.
  'pci_nvme_err_*',
  'pci_nvme_ub_*',
  'pci_cfg_write',
] as const;

/** The first doorbell; below are registers that configure. */
const DOORBELLS = 0x1000;
const MARKED_NAMESPACE = 2;
const FLUSH = 0;

/** What happened between two markers. Lines are as QEMU wrote them. */
export interface NvmeWindow {
  /** I/O commands that controllers began to execute, by namespace. */
  readonly ioCommands: ReadonlyMap<number, number>;
  readonly adminCommands: readonly string[];
  /** Writes to registers that are no doorbells, and changes of state that came of them. */
  readonly configuration: readonly string[];
  /** Writes to the PCI configuration space of NVMe controllers. */
  readonly pciConfiguration: readonly string[];
  /** Resets of a function, by whatever way. */
  readonly resets: readonly string[];
  /** Commands that were refused, and accesses that are not allowed. */
  readonly complaints: readonly string[];
}

interface Counting {
  readonly ioCommands: Map<number, number>;
  readonly adminCommands: string[];
  readonly configuration: string[];
  readonly pciConfiguration: string[];
  readonly resets: string[];
  readonly complaints: string[];
}

/** What happened before the first marker, between each two, and after the last: one more than there are markers. */
export const nvmeWindows = (trace: string): NvmeWindow[] => {
  const empty = (): Counting => ({
    ioCommands: new Map(),
    ...{ adminCommands: [], configuration: [], pciConfiguration: [], resets: [], complaints: [] },
  });
  let window = empty();
  const windows = [window];
  for (const line of trace.split('\n')) {
    if (isMarker(line)) {
      window = empty();
      windows.push(window);
    } else {
      count(line, window);
    }
  }
  return windows;
};

/** Fields of `pci_nvme_io_cmd`: `cid 4096 nsid 0x2 sqid 1 opc 0x0 opname 'NVME_NVM_CMD_FLUSH'`. */
const ioCommand = (line: string): { namespace: number; opcode: number } | undefined => {
  const match = /^pci_nvme_io_cmd cid \d+ nsid (0x[\da-f]+) sqid \d+ opc (0x[\da-f]+) /.exec(line);
  return match === null ? undefined : { namespace: Number(match[1]), opcode: Number(match[2]) };
};

const isMarker = (line: string): boolean => {
  const command = ioCommand(line);
  return command?.namespace === MARKED_NAMESPACE && command.opcode === FLUSH;
};

const count = (line: string, window: Counting): void => {
  const [name = '', ...words] = line.split(' ');
  const strange = (): never => {
    throw new Error(`QEMU's trace has a line that is not understood: ${line}`);
  };
  switch (name) {
    case '':
      return;
    case 'pci_nvme_io_cmd': {
      const { namespace } = ioCommand(line) ?? strange();
      window.ioCommands.set(namespace, (window.ioCommands.get(namespace) ?? 0) + 1);
      return;
    }
    case 'pci_nvme_admin_cmd':
      window.adminCommands.push(line);
      return;
    case 'pci_nvme_mmio_write': {
      // `addr 0x14 data 0x460001 size 4`
      const offset = Number(words[1] ?? strange());
      if (Number.isNaN(offset)) strange();
      if (offset < DOORBELLS) window.configuration.push(line);
      return;
    }
    case 'pci_nvme_pci_reset':
      window.resets.push(line);
      return;
    case 'pci_cfg_write':
      if (words[0] === 'nvme') window.pciConfiguration.push(line);
      return;
  }
  if (name.startsWith('pci_nvme_mmio_')) window.configuration.push(line);
  else if (/^pci_nvme_(err|ub)_/.test(name)) window.complaints.push(line);
  else strange();
};
