/** An initrd image that would run scripts, as those of initramfs-tools do, and has none. @module */
import { packCpio, program } from '../../src/keepalive/landing/cpio.js';

export const plainInit = program('init', Buffer.from('#!/bin/sh\nrun_scripts /scripts/init-top\n'));
export const plainInitrd = packCpio([plainInit]);
