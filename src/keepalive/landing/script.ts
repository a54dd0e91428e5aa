/**
 * The script that makes devices land with VFIO: it runs in the initial root file system of the next kernel, before any
 * module is loaded, and tells each device in sysfs that only vfio-pci may have it.
 *
 * It is run by whatever shell is there (dash, busybox, bash), and uses nothing but what is built into one. What it is
 * made of is untrusted: only addresses that were checked and numbers that are printed here get into it.
 *
 * @module
 */
import { checkInteger } from '../../check.js';
import { pciAddress } from '../../pci/address.js';
import type { PciIdentity } from '../../pci/identity.js';
import { PCI_DEVICES } from '../../pci/sysfs.js';

/** What the name of a script that runs it must begin with to be the first. */
const FIRST = '00-';
const NAME = 'iommufd-land';

/** A file to be put on the root file system that initrd images are made from. */
export interface LandingFile {
  /** From the root, with a slash in front. */
  readonly path: string;
  /** Permission bits. */
  readonly mode: number;
  readonly text: string;
}

/** Where the script finds what it changes and tells what it did. */
export interface ScriptPlaces {
  readonly devices: string;
  readonly drivers: string;
  readonly log: string;
}

const places: ScriptPlaces = {
  devices: PCI_DEVICES,
  drivers: '/sys/bus/pci/drivers',
  log: '/dev/kmsg',
};

/** As sysfs prints it. */
function attribute(title: string, value: number, digits: number): string {
  checkInteger(title, value, 0, 16 ** digits - 1);
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

/** The words of one device: address, vendor, device, subsystem vendor, subsystem device, class. */
function words(device: PciIdentity): string {
  return [
    pciAddress(device.address),
    attribute('vendorId', device.vendorId, 4),
    attribute('deviceId', device.deviceId, 4),
    attribute('subsystemVendorId', device.subsystemVendorId, 4),
    attribute('subsystemDeviceId', device.subsystemDeviceId, 4),
    attribute('classCode', device.classCode, 6),
  ].join(' ');
}

/**
 * What is run. It runs in a subshell: some sources it rather than starting it.
 *
 * @param at for tests: other places than those of the kernel
 * @throws TypeError, RangeError for a device that cannot be
 */
export function landingBody(devices: readonly PciIdentity[], at: ScriptPlaces = places): string {
  return `# Made by "iommufd land". These devices go to vfio-pci and to no other driver, and
# are not reset. A device that is not what it was is left alone, as are all others.
(
set +eu

say() {
  if [ -e ${at.log} ]; then echo "<$1>${NAME}: $2" >>${at.log}; fi
}

get() {
  value=
  { read -r value <"$device/$1"; } 2>/dev/null
}

is() {
  get "$1"
  [ "$value" = "$2" ]
}

put() {
  { echo "$2" >"$device/$1"; } 2>/dev/null
  if is "$1" "$2"; then return 0; fi
  say 3 "$address: $1 cannot be set to '$2'"
  return 1
}

land() {
  address=$1
  device=${at.devices}/$1
  if ! [ -e "$device" ]; then
    say 3 "$address: there is no device"
  elif ! { is vendor "$2" && is device "$3" && is subsystem_vendor "$4" && is subsystem_device "$5" && is class "$6"; }; then
    say 3 "$address: left alone, it is not the device that was saved"
  elif [ -e "$device/driver" ] && ! [ -e "${at.drivers}/vfio-pci/$1" ]; then
    say 3 "$address: left alone, another driver has it already"
  else
    failed=
    put driver_override vfio-pci || failed=1
    if [ -e "$device/reset_method" ]; then put reset_method '' || failed=1; fi
    # Without power it would forget everything.
    if [ -e "$device/d3cold_allowed" ]; then put d3cold_allowed 0 || failed=1; fi
    if [ -z "$failed" ]; then say 6 "$address: for vfio-pci only"; fi
  fi
}

${devices.map(device => `land ${words(device)}\n`).join('')}:
)
`;
}

/** How an initrd image runs scripts. */
export const ImageKind = { InitramfsTools: 'initramfs-tools', Dracut: 'dracut' } as const;
export type ImageKind = (typeof ImageKind)[keyof typeof ImageKind];

/** Where the script is in an image, relative to its root, and what the file says. */
export interface ScriptInImage {
  readonly path: string;
  readonly text: string;
}

/** In images of initramfs-tools: the directory of scripts, and the list that says in which order they run. */
export const INIT_TOP = 'scripts/init-top';
export const INIT_TOP_ORDER = `${INIT_TOP}/ORDER`;
/** In images of dracut: the directory of hooks, which may be a link. */
export const PRE_UDEV = 'lib/dracut/hooks/pre-udev';

const initramfsToolsScript = `${FIRST}${NAME}`;
const dracutHook = `${NAME}.sh`;

/** The script as it is in an image of a kind. */
export function scriptInImage(kind: ImageKind, body: string): ScriptInImage {
  switch (kind) {
    case ImageKind.InitramfsTools:
      return {
        path: `${INIT_TOP}/${initramfsToolsScript}`,
        text: `#!/bin/sh
case $1 in
prereqs)
  echo
  exit 0
  ;;
esac

${body}`,
      };
    case ImageKind.Dracut:
      return { path: `${PRE_UDEV}/${FIRST}${dracutHook}`, text: `#!/bin/sh\n${body}` };
  }
}

/** What has to be installed so that images get the script when they are made. */
export function filesToInstall(kind: ImageKind, body: string): LandingFile[] {
  const { text } = scriptInImage(kind, body);
  switch (kind) {
    case ImageKind.InitramfsTools:
      return [{ path: `/etc/initramfs-tools/${INIT_TOP}/${initramfsToolsScript}`, mode: 0o755, text }];
    case ImageKind.Dracut: {
      const module = `/usr/lib/dracut/modules.d/90${NAME}`;
      const setup = `#!/bin/bash
# Made by "iommufd land".

check() {
    return 0
}

depends() {
    return 0
}

install() {
    inst_hook pre-udev ${FIRST.slice(0, 2)} "$moddir/${dracutHook}"
}
`;
      return [
        { path: `${module}/module-setup.sh`, mode: 0o755, text: setup },
        { path: `${module}/${dracutHook}`, mode: 0o755, text },
      ];
    }
  }
}
