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
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT EINVAL':
    'The page table does not suit this device: make one for it (Device.allocHwpt)',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT ENODEV':
    'The page table was made for devices behind another IOMMU, or behind none: use an Ioas of its own for each kind',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT ENOMEM':
    'The locked-memory limit is too low for what is mapped: raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK',
  'VFIO_DEVICE_ATTACH_IOMMUFD_PT ENOENT':
    'There is no such address space or page table in this iommufd: it was destroyed, or belongs to another context',
  'VFIO_DEVICE_SET_IRQS EINVAL': 'The device has no such vectors, or another kind of interrupt is enabled',
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
  'IOMMU_IOAS_CHANGE_PROCESS EINVAL':
    'Something in the context is mapped that is no memfd, and cannot go from one process to another: memory of a process, ' +
    'or a BAR. Unmap it; use a DmaArena for memory',
  'IOMMU_IOAS_CHANGE_PROCESS ENOMEM':
    'The locked-memory limit of this process is too low for what was mapped before: raise RLIMIT_MEMLOCK or give ' +
    'CAP_IPC_LOCK. It stays on the account that it is on',
  'IOMMU_IOAS_CHANGE_PROCESS EBUSY': 'Something is being mapped at this moment; try again',
  'IOMMU_IOAS_IOVA_RANGES ENOENT':
    'There is no such address space in this iommufd: it was destroyed, or belongs to another context',
  'IOMMU_IOAS_NOIOMMU_GET_PA ENOENT': 'Nothing is mapped at this IOVA',
  'IOMMU_HWPT_ALLOC ENOMEM':
    'The locked-memory limit is too low for what is mapped: raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK',
  'IOMMU_HWPT_ALLOC EOPNOTSUPP': 'The IOMMU, or having none, does not support a page table with these flags',
  'IOMMU_HWPT_ALLOC EINVAL': 'The address space is of another iommufd, or does not suit the device',
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
  'LIVEUPDATE_IOCTL_CREATE_SESSION EEXIST':
    'A session of that name is open, perhaps in another process: close it, or take another name',
  'LIVEUPDATE_IOCTL_RETRIEVE_SESSION ENOENT':
    'The kernel before this one left no session of that name, or it is finished. A session is kept only if it is open ' +
    'at the moment of the kexec, and the kexec was loaded with kexec_file_load; start cold',
  'LIVEUPDATE_IOCTL_RETRIEVE_SESSION EINVAL':
    'The session was retrieved already and is open, perhaps in another process: get its descriptor from there',
  'LIVEUPDATE_SESSION_PRESERVE_FD ENOENT':
    'This kernel cannot preserve a file of this kind. Linux 7.3 preserves memfds alone, and those without huge pages',
  'LIVEUPDATE_SESSION_PRESERVE_FD EEXIST': 'Something is preserved under this token in this session already',
  'LIVEUPDATE_SESSION_PRESERVE_FD EBUSY':
    'The file is in a session already: in this or another one, or in one of the kernel before that is not finished',
  'LIVEUPDATE_SESSION_PRESERVE_FD EOPNOTSUPP':
    'The memfd has a seal that this kernel cannot carry over; the seals of DmaArena are carried over',
  'LIVEUPDATE_SESSION_PRESERVE_FD EFBIG': 'The memfd has more pages than can be preserved; use several',
  'LIVEUPDATE_SESSION_PRESERVE_FD EINVAL':
    'The session came from the kernel before this one: make a new one for the next',
  'LIVEUPDATE_SESSION_PRESERVE_FD ENOMEM':
    'Not enough memory, or the pages cannot be moved to where they are kept; close what is not needed and try again',
  'LIVEUPDATE_SESSION_RETRIEVE_FD ENOENT':
    'Nothing was preserved under this token, or the session is finished; start cold',
  'LIVEUPDATE_SESSION_RETRIEVE_FD EINVAL': 'The file cannot be restored, now or later; start cold',
  'LIVEUPDATE_SESSION_RETRIEVE_FD EOPNOTSUPP':
    'The kernel before this one kept something of the file that this one does not know; start cold',
  'LIVEUPDATE_SESSION_RETRIEVE_FD EIO': 'The file cannot be restored, now or later; start cold',
  'LIVEUPDATE_SESSION_RETRIEVE_FD ENOMEM': 'The file cannot be restored, now or later; start cold',
  'LIVEUPDATE_SESSION_FINISH EBUSY':
    'Something in it must be retrieved and opened first, such as a device; then try again',
  'kexec_file_load EPERM':
    'This needs CAP_SYS_BOOT (run as root), and is refused where kernel.kexec_load_disabled is 1 or the kernel is ' +
    'locked down and the image is not signed',
  'kexec_file_load ENOEXEC':
    'This is no kernel that can be started this way: it takes a 64-bit, relocatable bzImage (arm64: Image)',
  'kexec_file_load EADDRNOTAVAIL':
    'The image and its initrd do not fit the memory that this kernel keeps for them: boot it with a larger ' +
    'kho_scratch=, or make the initrd smaller',
  'kexec_file_load EBUSY': 'Another kexec is being loaded or carried out; try again',
  'kexec_file_load EINVAL':
    'The command line is too long for the image, or the image is damaged; the kernel log (dmesg) says which',
  'kexec_file_load ENOMEM': 'Not enough memory for the image and its initrd',
  'kexec_file_load EFBIG': 'The image or its initrd is too large',
  'kexec_file_load ENOSYS': 'This kernel has no kexec_file_load (CONFIG_KEXEC_FILE)',
  'kexec_file_load EKEYREJECTED': 'The image must have a signature that this kernel trusts',
  'kexec_file_load ENODATA': 'The image must have a signature, and has none',
  'kexec_file_load ENOKEY': 'The image must have a signature that this kernel trusts',
  'reboot EINVAL': 'No kernel is loaded, or this kernel has no kexec; see loadKernel()',
  'reboot EPERM': 'This needs CAP_SYS_BOOT (run as root)',
  'reboot EBUSY': 'Another kexec is being loaded or carried out; try again',
  'bind EADDRINUSE':
    'There is something at this path: end the process that listens there, or remove what is no socket',
  'bind ENOENT': 'The directory of the socket does not exist',
  'bind EACCES': 'This user cannot make a socket in that directory',
  'connect EACCES': 'The socket is of another user: run as that user, or as root',
  'connect EPROTOTYPE': 'This is a socket of another kind; nobody listens there with ChannelListener',
  'sendmsg EAGAIN': 'The receiver leaves its messages unread; see whether it runs and is not busy',
  'sendmsg EPIPE': 'The receiver is gone; see why it ended, then try again',
  'sendmsg ETOOMANYREFS':
    'More descriptors are on their way in messages than this user may have open (RLIMIT_NOFILE); raise the limit',
  'fcntl EINVAL': 'The file is no memfd, or another kind of file than was expected',
  'fcntl EPERM': 'The memfd has a seal against this',
  'epoll_ctl ENOSPC':
    'This user watches as many files as it may (fs.epoll.max_user_watches); raise the limit',
  'epoll_ctl EPERM': 'The file is of a kind that cannot be waited for',
  'memfd_create EINVAL': 'Huge pages of that size are not available on this machine',
  'mmap ENOMEM': 'Not enough memory (for huge pages: not enough reserved in /proc/sys/vm/nr_hugepages)',
};

/** What codes mean where nothing more is known: those alone that mean the same wherever they come from. */
const codeHints: Readonly<Record<string, string>> = {
  ENOMEM: 'Not enough memory; close what is not needed, and try again',
  EMFILE: 'This process has as many descriptors as it may: close some, or raise RLIMIT_NOFILE (ulimit -n)',
  ENFILE: 'There are as many open files on this machine as there may be: close some, or raise fs.file-max',
  EIO: 'The device or the kernel failed, and the kernel log (dmesg) may say why',
  ENOSPC: 'There is no room for it: free memory, or what is in the file system',
};

const pathHints: readonly { pattern: RegExp; code: string; hint: string }[] = [
  {
    pattern: /^\/dev\/iommu$/,
    code: 'ENOENT',
    hint: 'This kernel has no iommufd (CONFIG_IOMMUFD, Linux 6.2 or later), or its module is not loaded',
  },
  { pattern: /^\/dev\/iommu$/, code: 'EACCES', hint: 'Run as root, or give this user access to /dev/iommu' },
  {
    pattern: /^\/dev\/liveupdate$/,
    code: 'ENOENT',
    hint: 'This kernel has no live update (CONFIG_LIVEUPDATE, Linux 7.3 or later), or was booted without liveupdate=on',
  },
  {
    pattern: /^\/dev\/liveupdate$/,
    code: 'EBUSY',
    hint: 'One process at a time can have it open; close it there first',
  },
  {
    pattern: /^\/dev\/liveupdate$/,
    code: 'EIO',
    hint:
      'What the kernel before this one left cannot be read, and stays where it is; a reboot resets the devices and ' +
      'frees the memory',
  },
  { pattern: /^\/dev\/liveupdate$/, code: 'EACCES', hint: 'Run as root' },
  {
    pattern: /^\/dev\/kmsg$/,
    code: 'EPERM',
    hint: 'Reading the kernel log needs CAP_SYSLOG (run as root) where kernel.dmesg_restrict is 1',
  },
  { pattern: /^\/dev\/kmsg$/, code: 'EACCES', hint: 'This user may not read the kernel log: run as root' },
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
  return hints[`${operation} ${code}`] ?? codeHints[code];
}
