/**
 * The token that the drivers of a physical function and of its virtual functions share:
 * tools/testing/selftests/vfio/vfio_pci_sriov_uapi_test.c.
 *
 * The physical function sits in the second hot-pluggable slot. QEMU's NVMe controller can be one:
 * `nvme-subsys,id=sub` and `nvme,bus=portEmpty,subsys=sub,serial=pf,sriov_max_vfs=1,sriov_vq_flexible=2,`
 * `sriov_vi_flexible=1,max_ioqpairs=6,msix_qsize=7`.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { EACCES } from '../../../bindings/uapi/errno.js';
import {
  VFIO_DEVICE_BIND_FLAG_TOKEN,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_FEATURE,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../../../bindings/uapi/vfio.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { equal, holds, refused, succeeds } from '../support/expect.js';
import { call } from '../support/ioctl.js';
import {
  deviceFromGroup,
  groupPath,
  Iommu,
  type IommuMode,
  iommuModes,
  openGroup,
  profilesOf,
  vfioNode,
} from '../support/vfio.js';

const O_RDWR = 2;
const PHYSICAL = '0000:02:00.0';
const SYSFS = `/sys/bus/pci/devices/${PHYSICAL}`;
const FIRST = '52ac9bff-3a88-4fbd-901a-0d767c3b6c97';
const SECOND = '88594674-90a0-47a9-aea8-9d9b352ac08a';

const variants = { same_uuid: FIRST, diff_uuid: SECOND, null_uuid: undefined } as const;

const uuidBytes = (uuid: string): Uint8Array => Buffer.from(uuid.replaceAll('-', ''), 'hex');

/** An open function, or minus the errno that it was refused with. */
class Opened implements Disposable {
  readonly kernel: Syscalls;
  /** The device's descriptor, or minus the errno. */
  readonly result: number;
  #fds: readonly number[];

  private constructor(kernel: Syscalls, result: number, fds: readonly number[]) {
    this.kernel = kernel;
    this.result = result;
    this.#fds = fds;
  }

  static async open(host: ConformanceHost, address: string, iommu: Iommu, token?: string): Promise<Opened> {
    const { kernel } = host;
    const node = await vfioNode(host, address);
    if (iommu.mode.container !== undefined) {
      const group = openGroup(kernel, groupPath(kernel, address), iommu);
      const device = deviceFromGroup(kernel, group, address, token);
      return new Opened(kernel, device, device < 0 ? [group] : [device, group]);
    }
    const device = succeeds(kernel.open(node, O_RDWR), 'open');
    const uuid = token === undefined ? undefined : uuidBytes(token);
    const { result } = call(host, device, VFIO_DEVICE_BIND_IOMMUFD, {
      iommufd: iommu.fd,
      flags: uuid === undefined ? 0 : VFIO_DEVICE_BIND_FLAG_TOKEN,
      token_uuid_ptr: uuid === undefined ? 0n : kernel.addressOf(uuid),
    });
    return new Opened(kernel, result < 0 ? result : device, [device]);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds) this.kernel.close(fd);
    this.#fds = [];
  }
}

function setToken(host: ConformanceHost, device: number, token: string): void {
  const { bytes, view } = vfio_device_feature.allocate(16);
  const flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN;
  vfio_device_feature.encode(view, { argsz: bytes.length, flags });
  bytes.set(uuidBytes(token), vfio_device_feature.size);
  equal(host.kernel.ioctl(device, VFIO_DEVICE_FEATURE.number, bytes), 0, 'setting the token');
}

/** A virtual function, until disposed. @returns its address */
async function virtualFunction(host: ConformanceHost): Promise<Disposable & { address: string }> {
  const { kernel } = host;
  await vfioNode(host, PHYSICAL);
  const write = (path: string, text: string): void => void succeeds(kernel.writeText(path, text), path);
  write('/sys/module/vfio_pci/parameters/enable_sriov', 'Y');
  write(`${SYSFS}/sriov_numvfs`, '1');
  const target = kernel.readLink(`${SYSFS}/virtfn0`);
  holds(typeof target === 'string', 'there is a virtual function');
  return {
    address: target.slice(target.lastIndexOf('/') + 1),
    [Symbol.dispose]: () => write(`${SYSFS}/sriov_numvfs`, '0'),
  };
}

/** What is done to the physical function before the virtual one is opened. @returns the token that counts */
const bodies: Readonly<Record<string, (host: ConformanceHost, physical: Opened) => string>> = {
  init_token_match: () => FIRST,
  pf_early_close: (_host, physical) => {
    physical[Symbol.dispose]();
    return FIRST;
  },
  override_token: (host, physical) => {
    setToken(host, physical.result, SECOND);
    return SECOND;
  },
};

async function openVirtual(
  host: ConformanceHost,
  mode: IommuMode,
  body: (host: ConformanceHost, physical: Opened) => string,
  token: string | undefined,
): Promise<void> {
  using virtual = await virtualFunction(host);
  using iommu = new Iommu(host.kernel, mode);
  using physical = await Opened.open(host, PHYSICAL, iommu, FIRST);
  succeeds(physical.result, 'the physical function');
  const counts = body(host, physical);
  using opened = await Opened.open(host, virtual.address, iommu, token);
  if (token === counts) succeeds(opened.result, 'the virtual function');
  else refused(opened.result, EACCES, 'the virtual function');
}

export const cases: readonly Case[] = iommuModes.flatMap(mode =>
  Object.entries(variants).flatMap(([variant, token]) =>
    Object.entries(bodies).map(
      ([name, body]): Case => ({
        source: 'vfio/vfio_pci_sriov_uapi_test.c',
        fixture: 'vfio_pci_sriov_uapi_test',
        name,
        variant: `${mode.name}_${variant}`,
        profiles: profilesOf(mode),
        unavailable: ({ kernel }) =>
          kernel.access(`${SYSFS}/sriov_numvfs`, 0) === 0 ? undefined : 'the machine has no SR-IOV device',
        run: (_t, host) => openVirtual(host, mode, body, token),
      }),
    ),
  ),
);
