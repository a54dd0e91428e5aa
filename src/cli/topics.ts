/** What there is to ask for: the verbs, what each accepts, and what `--help` says of it. @module */
import type { OptionName } from './options.js';

export interface Topic {
  readonly usage: string;
  readonly text: string;
  readonly options: readonly OptionName[];
  readonly example: string;
}

const device = ['noiommu', 'force', 'timeout', 'json', 'help'] as const;

const takesDevice = `The device is taken from its driver for as long as this takes, and given back
afterwards, also when it fails or is interrupted.`;

/** By name; the empty one is the command as a whole. */
export const topics = {
  '': {
    usage: 'iommufd <command> [options]',
    text: `Drives PCI devices from user space.

Commands:
  devices                 list PCI devices, their drivers and IOMMU groups
  nvme <address> identify show an NVMe controller and its namespaces
  nvme <address> read     read logical blocks
  nvme <address> write    overwrite logical blocks

"iommufd <command> --help" tells more of each. An address is one that
"iommufd devices" shows, such as 0000:00:04.0.

Exit codes: 0 done, 1 failed, 2 wrong usage or not confirmed, 130 and 143
interrupted. IOMMUFD_DEBUG=1 adds stack traces to errors.`,
    options: ['help', 'version', 'json'],
    example: 'iommufd devices',
  },
  devices: {
    usage: 'iommufd devices [options]',
    text: `Lists PCI devices: address, kind, vendor and device id, driver, IOMMU group
("none" without IOMMU, "noiommu" when VFIO stands in for one), and the VFIO file
of those that vfio-pci has.`,
    options: ['all', 'json', 'help'],
    example: `iommufd devices --json | jq -r '.[] | select(.className == "NVMe controller").address'`,
  },
  nvme: {
    usage: 'iommufd nvme <address> identify|read|write [options]',
    text: `Drives an NVMe controller. "iommufd nvme read --help" tells more of "read".

${takesDevice}`,
    options: [...device],
    example: 'iommufd nvme 0000:00:04.0 identify',
  },
  'nvme identify': {
    usage: 'iommufd nvme <address> identify [options]',
    text: `Shows what an NVMe controller and its namespaces say of themselves.

${takesDevice}`,
    options: [...device],
    example: 'iommufd nvme 0000:00:04.0 identify',
  },
  'nvme read': {
    usage: 'iommufd nvme <address> read [options]',
    text: `Reads logical blocks, up to the end of the namespace unless --blocks or --bytes
says how many. --bytes need not be a multiple of the block size.

${takesDevice}`,
    options: ['namespace', 'lba', 'blocks', 'bytes', 'output', ...device],
    example: 'iommufd nvme 0000:00:04.0 read --bytes 1MiB --output first.img',
  },
  'nvme write': {
    usage: 'iommufd nvme <address> write [options]',
    text: `Overwrites logical blocks with the input, all of it, and makes that durable.
What was there is lost: without --yes it asks or, where there is no one to ask,
only says what it would overwrite. The input must be a multiple of the block
size unless --pad is given.

${takesDevice}`,
    options: ['namespace', 'lba', 'input', 'pad', 'yes', ...device],
    example: 'iommufd nvme 0000:00:04.0 write --input first.img --yes',
  },
} as const satisfies Readonly<Record<string, Topic>>;

export type TopicName = keyof typeof topics;
