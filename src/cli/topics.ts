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

const takesFile = 'A file is one that holds a saved state, or - for standard input.';

/** By name; the empty one is the command as a whole. */
export const topics = {
  '': {
    usage: 'iommufd <command> [options]',
    text: `Drives PCI devices from user space, and tells what saved states of drivers say.

Commands:
  demo                    show what this library does, on a simulated host
  land <file>             see to it that devices land with VFIO after a kexec
  devices                 list PCI devices, their drivers and IOMMU groups
  nvme <address> identify show an NVMe controller and its namespaces
  nvme <address> read     read logical blocks
  nvme <address> write    overwrite logical blocks
  state show <file>       show what a saved state says
  state verify <file>     check a saved state
  state diff <a> <b>      compare two saved states
  state export <file>     write a saved state in a form that others read

"iommufd <command> --help" tells more of each. An address is one that
"iommufd devices" shows, such as 0000:00:04.0.

Exit codes: 0 done, 1 failed, 2 wrong usage or not confirmed, 130 and 143
interrupted. IOMMUFD_DEBUG=1 adds stack traces to errors.`,
    options: ['help', 'version', 'json'],
    example: 'iommufd devices',
  },
  demo: {
    usage: 'iommufd demo [options]',
    text: `Shows what this library does, on a simulated host: no device is touched, and
neither root nor a special kernel is needed. An NVMe controller is brought up
behind an IOMMU and without one; what is written is read back and compared; the
address space is drawn; a device writes where it must not. Then the controller
goes on while its driver is replaced: handed from process to process, killed and
found in the descriptor store, and with another kernel started under it. Exit
code 1 when anything differs from what it must be.`,
    options: ['json', 'help'],
    example: 'iommufd demo --json',
  },
  devices: {
    usage: 'iommufd devices [options]',
    text: `Lists PCI devices: address, kind, vendor and device id, driver, IOMMU group
("none" without IOMMU, "noiommu" when VFIO stands in for one), and the VFIO file
of those that vfio-pci has.`,
    options: ['all', 'json', 'help'],
    example: `iommufd devices --json | jq -r '.[] | select(.className == "NVMe controller").address'`,
  },
  land: {
    usage: 'iommufd land <file> [options]',
    text: `Tells what the next kernel needs so that the devices of a saved state land with
vfio-pci and with no other driver, and no other device is affected: parameters
of its command line, and a script in its initrd. Exit code 1 when that cannot be
guaranteed, with what stands in the way and what to do. Needs root.

  --initramfs-tools, --dracut
        installs the script; images made from then on have it
  --initrd IN --output OUT
        adds the script to an image that is there already
  --verify --command-line TEXT [--initrd FILE]
        verifies what will be booted

${takesFile}`,
    options: [
      'initramfs-tools',
      'dracut',
      'initrd',
      'output',
      'verify',
      'command-line',
      'release',
      'root',
      'yes',
      'dry-run',
      'json',
      'help',
    ],
    example: 'iommufd land kept.state --initrd /boot/initrd.img --output /run/initrd.img',
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
  state: {
    usage: 'iommufd state show|verify|diff|export <file> [options]',
    text: `Tells what is in a file with a saved state: what a driver left so that its device
can go on under its successor. "iommufd state diff --help" tells more of "diff".

${takesFile}`,
    options: ['json', 'help'],
    example: 'iommufd state show kept.state',
  },
  'state show': {
    usage: 'iommufd state show <file> [options]',
    text: `Shows the devices of a saved state, what is known of them, and where they are
attached; the arenas of DMA memory; a picture of each address space; and the
live-update sessions. --json has the same without pictures.

${takesFile}`,
    options: ['json', 'help'],
    example: 'iommufd state show kept.state',
  },
  'state verify': {
    usage: 'iommufd state verify <file> [options]',
    text: `Checks all of a saved state: checksums, every record and every mapping, and what
they say about one another. Where it is not good, tells where, what is wrong and
what to do.

${takesFile}

Exit codes: 0 good, 1 not good, or it cannot be read.`,
    options: ['json', 'help'],
    example: 'iommufd state verify kept.state && echo good',
  },
  'state diff': {
    usage: 'iommufd state diff <a> <b> [options]',
    text: `Compares two saved states, record by record: arenas by their tokens, devices by
their addresses, the rest by id or name. The order of records says nothing, nor
does it where one mapping ends and the next goes on in the same arena.

${takesFile}

Exit codes: 0 they say the same, 1 they differ, 2 they cannot be compared.`,
    options: ['json', 'help'],
    example: 'iommufd state diff before.state after.state',
  },
  'state export': {
    usage: 'iommufd state export <file> [options]',
    text: `Writes a saved state in another form:
  dts   device-tree source text of the whole tree, for people and for dtc; also of
        a state that is not good, as long as it is a device tree
  json  all of it, with every mapping
  rfc   its mappings alone, in the layout of the kernel's 2024 RFC "iommufd:
        persisted iommufds", which cannot carry more

${takesFile}`,
    options: ['format', 'output', 'json', 'help'],
    example: 'iommufd state export kept.state --format json | jq .devices',
  },
} as const satisfies Readonly<Record<string, Topic>>;

export type TopicName = keyof typeof topics;
