/**
 * Live update on a real kernel, block by block: what is refused, and what a kexec carries over. This program runs once in
 * each of two kernels; what it says in the first nobody hears, unless it fails.
 */
import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import {
  defaultKernel,
  KernelError,
  kexec,
  LiveUpdate,
  liveUpdateSupport,
  loadKernel,
  PageSize,
  requireLiveUpdate,
  runningCommandLine,
  unloadKernel,
} from 'iommufd';
import t from 'tap';
import { F_GET_SEALS, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK } from '../../bindings/uapi/fcntl.js';
import { MFD_CLOEXEC, MFD_HUGETLB } from '../../bindings/uapi/memfd.js';
import { createSealedMemfd } from '../../src/memory/memfd.js';
import { guestEnv } from '../vm/topology.js';

const kernel = defaultKernel();
const image = process.env[guestEnv.bzImage] ?? '';
const initrd = process.env[guestEnv.initrd] ?? '';
const TEXT = 'from the kernel before';
const MAX_TOKEN = 2n ** 64n - 1n;

function memfd(text: string): number {
  const fd = createSealedMemfd(kernel, 'kept', 8192, PageSize.Small);
  writeSync(fd, text, 4000);
  return fd;
}

function textOf(fd: number): string {
  const bytes = Buffer.alloc(TEXT.length);
  readSync(fd, bytes, 0, bytes.length, 4000);
  return bytes.toString();
}

/** That a call is refused with this errno, and with a hint. */
function refused(code: string, call: () => unknown): void {
  assert.throws(call, (error: unknown) => {
    assert.ok(error instanceof KernelError, String(error));
    assert.equal(error.code, code, error.message);
    assert.notEqual(error.hint, undefined, error.message);
    return true;
  });
}

function first(): never {
  const commandLine = runningCommandLine();
  assert.deepEqual(liveUpdateSupport(), { available: true, reason: undefined });
  requireLiveUpdate(commandLine, commandLine);

  refused('EINVAL', () => kexec());
  refused('ENOEXEC', () => loadKernel({ image: process.execPath, initrd, commandLine }));
  refused('EINVAL', () => loadKernel({ image, initrd, commandLine: 'x'.repeat(8192) }));
  unloadKernel();
  loadKernel({ image, commandLine });
  unloadKernel();
  refused('EINVAL', () => kexec());

  using liveUpdate = LiveUpdate.open();
  refused('EBUSY', () => LiveUpdate.open());
  const state = memfd(TEXT);
  {
    using aborted = liveUpdate.createSession('blocks');
    refused('EEXIST', () => liveUpdate.createSession('blocks'));
    aborted.preserve(state, 1n, 'the state');
  }
  const session = liveUpdate.createSession('blocks');
  session.preserve(state, 1n, 'the state');
  refused('EBUSY', () => session.preserve(state, 2n, 'the state'));
  const other = memfd('another text from before');
  refused('EEXIST', () => session.preserve(other, 1n, 'another'));
  const huge = kernel.memfdCreate('huge', MFD_CLOEXEC + MFD_HUGETLB);
  refused('ENOENT', () => session.preserve(huge, 2n, 'huge pages'));
  assert.equal(session.tryPreserve(kernel.open('/dev/iommu', 2), 2n, 'an iommufd'), false);
  assert.equal(session.tryPreserve(other, MAX_TOKEN, 'another'), true);
  kernel.close(other);

  loadKernel({ image, initrd, commandLine });
  kexec();
}

async function second(): Promise<void> {
  using liveUpdate = LiveUpdate.open();
  refused('ENOENT', () => liveUpdate.retrieveSession('other'));
  const session = liveUpdate.retrieveSession('blocks');
  refused('EINVAL', () => liveUpdate.retrieveSession('blocks'));
  const state = session.retrieve(1n);
  t.equal(textOf(state), TEXT);
  t.equal(kernel.fcntl(state, F_GET_SEALS, 0), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW);
  const again = session.retrieve(1n);
  writeSync(again, 'FROM', 4000);
  t.equal(textOf(state), TEXT.replace('from', 'FROM'), 'the same file');
  refused('ENOENT', () => session.retrieve(2n));
  t.equal(textOf(session.retrieve(MAX_TOKEN)), 'another text from before'.slice(0, TEXT.length));
  t.same([...session.retrieved], [1n, MAX_TOKEN]);

  using next = liveUpdate.createSession('blocks');
  refused('EBUSY', () => next.preserve(state, 1n, 'the state'));
  session.finish();
  next.preserve(state, 1n, 'the state');
  t.equal(textOf(state), TEXT.replace('from', 'FROM'), 'what was retrieved stays');
  refused('ENOENT', () => liveUpdate.retrieveSession('blocks'));
}

if (process.env[guestEnv.boot] === '1') first();
await second();
