/**
 * What an errno means for a given operation, and what to do about it: one table, so that every error that the
 * kernel leaves unexplained is explained the same way everywhere.
 *
 * @module
 */

const hints: Readonly<Record<string, string>> = {
  'VFIO_DEVICE_BIND_IOMMUFD EPERM':
    'Either interrupt remapping is off (check the BIOS and intel_iommu/amd_iommu parameters; as a last resort ' +
    'iommufd.allow_unsafe_interrupts=1), or another owner holds a device of the same IOMMU group',
  'VFIO_DEVICE_BIND_IOMMUFD EBUSY':
    'The IOMMU group of this device is open through the legacy /dev/vfio/<group>',
  'VFIO_DEVICE_BIND_IOMMUFD EINVAL':
    'The device is already bound through this or another open file, or its DMA is not cache-coherent',
  'VFIO_DEVICE_BIND_IOMMUFD EACCES': 'This virtual function needs the VF token of its physical function',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EADDRINUSE':
    'The address space maps or allows a range that this device reserves; see Ioas.iovaRanges()',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EBUSY': 'A reset of the device is under way; try again',
  'VFIO_DEVICE_RESET EINVAL': 'The device has no reset method that affects it alone; see DeviceInfo.canReset',
  'VFIO_DEVICE_RESET EAGAIN': 'Another reset is under way; try again',
  'IOMMU_IOAS_MAP EEXIST':
    'Part of the range is already mapped; unmap it first, or let allocateIova choose the IOVA of every mapping',
  'IOMMU_IOAS_MAP_FILE EEXIST':
    'Part of the range is already mapped; unmap it first, or let allocateIova choose the IOVA of every mapping',
  'IOMMU_IOAS_COPY EEXIST': 'Part of the range is already mapped in the destination',
  'IOMMU_IOAS_COPY ENOENT': 'The source range is not, or not wholly, mapped',
  'IOMMU_IOAS_COPY EPERM': 'A read-only mapping cannot be copied as writable',
  'IOMMU_IOAS_MAP EINVAL':
    'IOVA, length and address must be multiples of the alignment that Ioas.iovaRanges() reports, and the range ' +
    'must not be reserved',
  'IOMMU_IOAS_MAP_FILE EINVAL':
    'IOVA, length and offset must be multiples of the alignment that Ioas.iovaRanges() reports, the range must ' +
    'not be reserved, and the file must be a memfd that is long enough',
  'IOMMU_IOAS_MAP ENOMEM': 'The locked-memory limit is too low: raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK',
  'IOMMU_IOAS_MAP_FILE ENOMEM':
    'The locked-memory limit is too low: raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK; or the huge pages were reserved ' +
    'while the kernel ran and lie where nothing can be pinned (CMA, kexec handover): reserve them at boot (hugepages=)',
  'IOMMU_IOAS_MAP EFAULT':
    'The memory is not mapped in this process, or is a BAR (BARs cannot be mapped this way)',
  'IOMMU_IOAS_UNMAP ENOENT':
    'Nothing is mapped there, or the range cuts through a mapping: only whole mappings go',
  'IOMMU_DESTROY EBUSY': 'Something still uses the object: detach devices and destroy page tables first',
  'IOMMU_DESTROY ENOENT': 'No such object: it was destroyed already, or never existed in this iommufd',
  'IOMMU_IOAS_NOIOMMU_GET_PA EPERM': 'Physical addresses need CAP_SYS_RAWIO (run as root)',
  'IOMMU_IOAS_NOIOMMU_GET_PA EOPNOTSUPP': 'No noiommu device is attached to this address space',
  'IOMMU_IOAS_NOIOMMU_GET_PA ENOTTY': 'This kernel has no iommufd noiommu mode; Linux 7.3 or later is needed',
  'VFIO_SET_IOMMU EPERM':
    'Interrupt remapping is off, or the group is in use by another owner; as a last resort ' +
    'vfio_iommu_type1.allow_unsafe_interrupts=1',
  'VFIO_GROUP_SET_CONTAINER EINVAL': 'The group is already in a container',
  'VFIO_IOMMU_MAP_DMA EEXIST':
    'Part of the range is already mapped; unmap it first, or let allocateIova choose the IOVA of every mapping',
  'VFIO_IOMMU_MAP_DMA ENOMEM':
    'The locked-memory limit is too low: raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK',
  'memfd_create EINVAL': 'Huge pages of that size are not available on this machine',
  'mmap ENOMEM': 'Not enough memory (for huge pages: not enough reserved in /proc/sys/vm/nr_hugepages)',
};

const pathHints: readonly { pattern: RegExp; code: string; hint: string }[] = [
  {
    pattern: /^\/dev\/iommu$/,
    code: 'ENOENT',
    hint: 'This kernel has no iommufd (CONFIG_IOMMUFD, Linux 6.2 or later), or its module is not loaded',
  },
  { pattern: /^\/dev\/iommu$/, code: 'EACCES', hint: 'Run as root, or give this user access to /dev/iommu' },
  {
    pattern: /^\/dev\/vfio\/devices\/noiommu-/,
    code: 'EPERM',
    hint: 'A device without IOMMU can be opened with CAP_SYS_RAWIO only (run as root)',
  },
  {
    pattern: /^\/dev\/vfio\//,
    code: 'EBUSY',
    hint: 'Another process has it open; close it there first',
  },
  {
    pattern: /^\/dev\/vfio\//,
    code: 'EACCES',
    hint: 'Run as root, or give this user access to the VFIO node',
  },
  {
    pattern: /^\/dev\/vfio\/vfio$/,
    code: 'ENOENT',
    hint: 'VFIO is not available: load the module vfio-pci, or use a kernel with CONFIG_VFIO',
  },
  {
    pattern: /^\/sys\/bus\/pci\/drivers\/vfio-pci/,
    code: 'ENOENT',
    hint: 'The vfio-pci driver is not there: modprobe vfio-pci, or use a kernel with CONFIG_VFIO_PCI',
  },
  {
    pattern: /^\/sys\/bus\/pci\/devices\/[^/]+$/,
    code: 'ENOENT',
    hint: 'There is no PCI device at this address; "iommufd devices" lists those there are',
  },
  { pattern: /^\/sys\/bus\/pci\//, code: 'EACCES', hint: 'Changing the driver of a PCI device needs root' },
  { pattern: /^\/sys\/bus\/pci\//, code: 'EPERM', hint: 'Changing the driver of a PCI device needs root' },
];

/** The hint for `operation` (an ioctl request or a system call) failing with `code`, if one is known. */
export function hintFor(operation: string, code: string, path?: string): string | undefined {
  if (path !== undefined) {
    const found = pathHints.find(entry => entry.code === code && entry.pattern.test(path));
    if (found) return found.hint;
  }
  return hints[`${operation} ${code}`];
}
