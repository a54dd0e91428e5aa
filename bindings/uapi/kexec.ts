/** `kexec_file_load(2)` and `reboot(2)` (linux/kexec.h, linux/reboot.h). @module */

/** Forgets the kernel that was loaded. */
export const KEXEC_FILE_UNLOAD = 0x0000_0001;
/** There is no initrd. */
export const KEXEC_FILE_NO_INITRAMFS = 0x0000_0004;

/** Starts the kernel that was loaded. */
export const LINUX_REBOOT_CMD_KEXEC = 0x4558_4543;
