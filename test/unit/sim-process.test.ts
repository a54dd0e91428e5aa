/**
 * A simulated process against the running kernel: the calls that need no privilege and no device are made on both, and
 * must answer alike.
 */
import fc from 'fast-check';
import t from 'tap';
import { linux } from '../../bindings/linux.js';
import type { Syscalls } from '../../bindings/syscalls.js';
import { PhysicalMemory } from '../../src/sim/machine/physical-memory.js';
import { Directory } from '../../src/sim/process/file-tree.js';
import { SimulatedProcess } from '../../src/sim/process/process.js';
import { processHost } from './support/sim-process-host.js';

const RUNS = Number(process.env.RUNS) || 2000;
const SLOTS = 4;
const PAGE = 4096;

type Call =
  | { call: 'memfd'; slot: number; flags: number }
  | { call: 'eventfd'; slot: number; initial: number; flags: number }
  | { call: 'close'; slot: number }
  | { call: 'truncate'; slot: number; length: number }
  | { call: 'seal'; slot: number; command: number; seals: number }
  | { call: 'pwrite' | 'pread'; slot: number; offset: number; length: number }
  | { call: 'write' | 'read'; slot: number; length: number; value: number }
  | { call: 'map'; slot: number; length: number; protection: number; flags: number; offset: number }
  | { call: 'unmap'; mapping: number };

function machine(): SimulatedProcess {
  return new SimulatedProcess(processHost(new PhysicalMemory(), new Directory()), 1);
}

/** What each call answered. Descriptors and addresses are not shown, only that there are some. */
function perform(kernel: Syscalls, calls: readonly Call[]): string[] {
  const slots = new Array<number>(SLOTS).fill(-1);
  const mappings: { address: bigint; length: number }[] = [];
  const transcript: string[] = [];
  const opened = (slot: number, fd: number): string => {
    const before = slots[slot] as number;
    if (fd >= 0) {
      if (before >= 0) kernel.close(before);
      slots[slot] = fd;
    }
    return fd >= 0 ? 'a descriptor' : String(fd);
  };
  for (const call of calls) {
    const fd = 'slot' in call ? (slots[call.slot] as number) : -1;
    let answer = '';
    switch (call.call) {
      case 'memfd':
        answer = opened(call.slot, kernel.memfdCreate('test', call.flags));
        break;
      case 'eventfd':
        // A blocking one would wait.
        answer = opened(call.slot, kernel.eventfd(call.initial, call.flags | 0o4000));
        break;
      case 'close':
        answer = String(kernel.close(fd));
        slots[call.slot] = -1;
        break;
      case 'truncate':
        answer = String(kernel.ftruncate(fd, call.length));
        break;
      case 'seal':
        answer = String(kernel.fcntl(fd, call.command, call.seals));
        break;
      case 'pwrite':
      case 'pread': {
        const bytes = new Uint8Array(call.length).fill(call.offset & 0xff);
        answer = `${kernel[call.call](fd, bytes, call.offset)} ${bytes.slice(0, 8)}`;
        break;
      }
      case 'write':
      case 'read': {
        const bytes = new Uint8Array(call.length);
        if (call.length >= 8) new DataView(bytes.buffer).setBigInt64(0, BigInt(call.value), true);
        answer = `${kernel[call.call](fd, bytes)} ${bytes.slice(0, 8)}`;
        break;
      }
      case 'map': {
        const address = kernel.mmap(call.length, call.protection, call.flags, fd, call.offset);
        answer = address < 0n ? String(address) : 'an address';
        if (address >= 0n) mappings.push({ address, length: call.length });
        break;
      }
      case 'unmap': {
        const mapping = mappings.splice(call.mapping % Math.max(mappings.length, 1), 1)[0];
        if (mapping) answer = String(kernel.munmap(mapping.address, mapping.length));
        break;
      }
    }
    transcript.push(`${JSON.stringify(call)} → ${answer}`);
  }
  for (const { address, length } of mappings) kernel.munmap(address, length);
  for (const fd of slots) if (fd >= 0) kernel.close(fd);
  return transcript;
}

const slot = fc.nat(SLOTS - 1);
const length = fc.constantFrom(0, 1, 7, 8, 9, 100, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE);
const seals = fc.constantFrom(0, 1, 2, 4, 6, 7, 8, 0x10, 0x20, 0x3f, 0x40);
const calls = fc.array(
  fc.oneof(
    fc.record({
      call: fc.constant('memfd' as const),
      slot,
      flags: fc.constantFrom(0, 1, 2, 3, 8, 0x10, 0x18, 0x20),
    }),
    fc.record({
      call: fc.constant('eventfd' as const),
      slot,
      initial: fc.constantFrom(0, 1, 0xffff_ffff),
      flags: fc.constantFrom(0, 1, 2),
    }),
    fc.record({ call: fc.constant('close' as const), slot }),
    fc.record({ call: fc.constant('truncate' as const), slot, length }),
    fc.record({
      call: fc.constant('seal' as const),
      slot,
      command: fc.constantFrom(1033, 1034, 1099),
      seals,
    }),
    fc.record({ call: fc.constantFrom('pwrite' as const, 'pread' as const), slot, offset: length, length }),
    fc.record({
      call: fc.constantFrom('write' as const, 'read' as const),
      slot,
      length: fc.constantFrom(0, 4, 8, 9, 16),
      value: fc.constantFrom(0, 1, 7, -1, -2),
    }),
    fc.record({
      call: fc.constant('map' as const),
      slot,
      length,
      protection: fc.constantFrom(0, 1, 3),
      flags: fc.constantFrom(0, 1, 2),
      offset: fc.constantFrom(0, PAGE, 100),
    }),
    fc.record({ call: fc.constant('unmap' as const), mapping: fc.nat(3) }),
  ),
  { minLength: 1, maxLength: 40 },
);

t.test('calls that need no device answer as the running kernel does', t => {
  const seed = Number(process.env.SEED) || Date.now() & 0x7fff_ffff;
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(calls, sequence => {
      const real = perform(linux(), sequence as Call[]);
      const simulated = perform(machine(), sequence as Call[]);
      const at = real.findIndex((line, index) => line !== simulated[index]);
      if (at >= 0) throw new Error(`kernel ${real[at]}\nsimulated ${simulated[at]}`);
    }),
    { seed, numRuns: RUNS },
  );
  t.pass(`${RUNS} sequences of up to 40 calls`);
  t.end();
});
