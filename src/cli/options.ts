/** Every option of the command. An option means the same wherever it is accepted. @module */

/** As `node:util` parseArgs wants them, with what `--help` shows. */
export const options = {
  all: { type: 'boolean', short: 'a', argument: '', text: 'show bridges, too' },
  namespace: { type: 'string', short: 'n', argument: 'ID', text: 'namespace (default 1)' },
  lba: { type: 'string', argument: 'BLOCK', text: 'first logical block (default 0)' },
  blocks: { type: 'string', argument: 'N', text: 'number of logical blocks' },
  bytes: { type: 'string', argument: 'SIZE', text: 'number of bytes, such as 4096, 0x1000, 4KiB or 1MiB' },
  output: { type: 'string', short: 'o', argument: 'FILE', text: 'where to (default -, standard output)' },
  input: { type: 'string', short: 'i', argument: 'FILE', text: 'where from (default -, standard input)' },
  root: { type: 'string', argument: 'DIR', text: 'root of the file system it boots from (default /)' },
  release: {
    type: 'string',
    argument: 'RELEASE',
    text: 'the next kernel, as uname -r will say (default this\none)',
  },
  'initramfs-tools': { type: 'boolean', argument: '', text: 'install the script for initramfs-tools' },
  dracut: { type: 'boolean', argument: '', text: 'install the script for dracut' },
  initrd: { type: 'string', argument: 'FILE', text: 'initrd image to add the script to, or to verify' },
  verify: { type: 'boolean', argument: '', text: 'verify what will be booted' },
  'command-line': { type: 'string', argument: 'TEXT', text: 'kernel command line that will be booted' },
  'dry-run': { type: 'boolean', argument: '', text: 'say what would be written, and write nothing' },
  format: { type: 'string', short: 'f', argument: 'FORMAT', text: 'dts, json or rfc (default dts)' },
  pad: { type: 'boolean', argument: '', text: 'fill the last block up with zeroes' },
  yes: { type: 'boolean', short: 'y', argument: '', text: 'write without asking' },
  noiommu: { type: 'boolean', argument: '', text: 'accept a device that no IOMMU confines' },
  force: { type: 'boolean', argument: '', text: 'take the device although file systems on it are mounted' },
  timeout: {
    type: 'string',
    argument: 'TIME',
    text: 'longest wait for the VFIO node (default 5s) and for\neach command (default 30s): 10, 500ms, 2m',
  },
  json: { type: 'boolean', argument: '', text: 'print the result as JSON' },
  help: { type: 'boolean', short: 'h', argument: '', text: 'show this' },
  version: { type: 'boolean', argument: '', text: 'show the version' },
} as const;

export type OptionName = keyof typeof options;
