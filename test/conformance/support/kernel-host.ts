/** The kernel that runs this very process. @module */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';
import { linux } from '../../../bindings/linux.js';
import type { Child } from './case.js';
import { Conversation } from './conversation.js';
import { equal } from './expect.js';
import type { RunnableHost } from './host.js';
import { PAGE } from './memory.js';

/** linux/capability.h */
const capabilityNumbers = { CAP_IPC_LOCK: 14, CAP_SYS_RAWIO: 17, CAP_SYS_RESOURCE: 24 } as const;
const CAPABILITY_VERSION_3 = 0x2008_0522;
const RLIMIT_MEMLOCK = 8;

const childProgram = fileURLToPath(new URL('./child-main.js', import.meta.url));
/** Files that the suite opens, and Node.js does not; but for the eventfds of its event loop, which are there before. */
const ours = /^\/dev\/(iommu|vfio|liveupdate)|^\/memfd:|^anon_inode:|dmabuf/;

/** What the C library offers beyond `Syscalls`: about the calling thread, which makes all system calls of a case. */
function privileges() {
  const libc = koffi.load(null);
  const capget = libc.func('int capget(void *header, void *data)');
  const capset = libc.func('int capset(void *header, const void *data)');
  const prlimit = libc.func('int prlimit64(int pid, int resource, const void *limit, void *old)');
  const header = new Uint32Array([CAPABILITY_VERSION_3, 0]);
  return {
    /** Effective, permitted and inheritable sets, twice 32 bits of each. */
    capabilities(): Uint32Array {
      const data = new Uint32Array(6);
      equal(capget(header, data), 0, 'capget');
      return data;
    },
    setCapabilities(data: Uint32Array): void {
      equal(capset(header, data), 0, 'capset');
    },
    /** Soft and hard limit, in bytes. */
    lockedMemory(): BigUint64Array {
      const limits = new BigUint64Array(2);
      equal(prlimit(0, RLIMIT_MEMLOCK, null, limits), 0, 'prlimit');
      return limits;
    },
    limitLockedMemory(limits: BigUint64Array): void {
      equal(prlimit(0, RLIMIT_MEMLOCK, limits, null), 0, 'prlimit');
    },
  };
}

/** The running kernel, in a machine of the given profile. */
export function kernelHost(profile: string): RunnableHost {
  const kernel = linux();
  const process = privileges();
  return {
    name: 'kernel',
    kernel,
    profile,
    dropCapability(capability) {
      const before = process.capabilities();
      const after = before.slice();
      after[0] = (after[0] as number) & ~(1 << capabilityNumbers[capability]);
      process.setCapabilities(after);
      return { [Symbol.dispose]: () => process.setCapabilities(before) };
    },
    limitLockedMemory(bytes) {
      const before = process.lockedMemory();
      process.limitLockedMemory(new BigUint64Array([BigInt(bytes), before[1] as bigint]));
      return { [Symbol.dispose]: () => process.limitLockedMemory(before) };
    },
    spawn: spawnChild,
    descriptors() {
      const found = new Map<number, string>();
      for (const name of readdirSync('/proc/self/fd')) {
        try {
          const target = readlinkSync(`/proc/self/fd/${name}`);
          if (ours.test(target)) found.set(Number(name), target);
        } catch {
          // The descriptor of the directory itself.
        }
      }
      return found;
    },
    pinnedPages() {
      const kilobytes = /^VmPin:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0;
      return (Number(kilobytes) * 1024) / PAGE;
    },
    [Symbol.dispose]() {},
  };
}

function spawnChild(task: string, descriptors: readonly number[], argument?: unknown): Child {
  const child = spawn(process.execPath, [childProgram, task, String(descriptors.length)], {
    // They arrive as 4, 5, …
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', ...descriptors],
    // Not JSON: values may be bigints.
    serialization: 'advanced',
  });
  const heard = new Conversation(`task ${task}`);
  const ended = new Promise<void>(resolve => {
    child.once('exit', (code, signal) => {
      heard.end(
        code === 0 ? undefined : new Error(`task ${task} ended with ${signal ?? `exit code ${code}`}`),
      );
      resolve();
    });
  });
  child.on('message', value => heard.say(value));
  child.send({ argument });
  return {
    heard: () => heard.next(),
    tell(value) {
      child.send({ value });
    },
    async end() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
