/**
 * Fault injection, as of a kernel with CONFIG_FAULT_INJECTION: a process says that the n-th thing that may fail in its
 * system calls from now on does.
 *
 * What may fail here is the copying of user memory (EFAULT), and taking memory for a descriptor, for a page that is
 * pinned, for an entry of a page table, or on an account (ENOMEM). Ids and objects are not among it.
 *
 * @module
 */
import { EINVAL } from '../../../bindings/uapi/errno.js';
import type { TextNode } from './file-tree.js';

/** `/proc/thread-self/fail-nth`: how many things from now on, the one that fails included; 0 when none does. */
export const failNth: TextNode = {
  kind: 'text',
  read: process => `${process.failNth}\n`,
  write(process, text) {
    if (!/^\d+\n?$/.test(text)) return -EINVAL;
    process.failNth = Number(text);
    return 0;
  },
};
