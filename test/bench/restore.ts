// A state with a million mappings, restored: what the library adds to what the kernel takes. The machine is simulated, and
// so is the kernel, whose part is therefore no measure of Linux; next to it are the same calls made in a bare loop, which
// nothing can beat, and the same work done with an object for each mapping.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Syscalls } from '../../bindings/syscalls.js';
import { IOMMU_IOAS_MAP_FILE, iommu_ioas_map_file } from '../../bindings/uapi/iommufd.js';
import type { IoasMapping } from '../../src/iommufd/ioas.js';
import { Iommufd } from '../../src/iommufd/iommufd.js';
import { Channel } from '../../src/keepalive/handoff/channel.js';
import { handOff, takeOver } from '../../src/keepalive/handoff/handoff.js';
import type { KeepAlive } from '../../src/keepalive/keep-alive.js';
import { rebuild } from '../../src/keepalive/rebuild.js';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import type { State } from '../../src/keepalive/state/saved-state.js';
import { SimulatedHost } from '../../src/sim/host.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import type { BenchCase, Contender } from './measure.js';
import { instantKernel, timedKernel } from './restore/kernels.js';
import { attachTo, COUNT, landedMachine, millionState, newMemory, withoutDevice } from './restore/million.js';
import { captureObjects, replayObjects } from './restore/objects.js';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Nanoseconds per mapping, without the garbage of whoever was measured before. */
async function timed(job: () => unknown): Promise<number> {
  collectGarbage();
  const start = process.hrtime.bigint();
  await job();
  return Number(process.hrtime.bigint() - start) / COUNT;
}

/** A kernel that answers at once. */
const instant = (): Syscalls => instantKernel(new SimulatedHost().process());

/** The arguments of every mapping of a state in one piece of memory, as the kernel takes them. */
function preparedArguments(state: State, ioas: number, fd: number): Uint8Array[] {
  const { size } = iommu_ioas_map_file;
  const mappings = state.iommufds.flatMap(({ ioases }) => ioases.map(({ mappings }) => mappings));
  const total = mappings.reduce((sum, { length }) => sum + length, 0);
  const bytes = new Uint8Array(total * size);
  const view = new DataView(bytes.buffer);
  const all: Uint8Array[] = [];
  for (const { iova, length, offset, readable, writeable } of mappings.flatMap(table => [...table])) {
    const at = all.length * size;
    const flags = 1 | (writeable ? 2 : 0) | (readable ? 4 : 0);
    const values = { size, flags, ioas_id: ioas, fd, start: BigInt(offset), length: BigInt(length), iova };
    iommu_ioas_map_file.encode(view, values, at);
    all.push(bytes.subarray(at, at + size));
  }
  return all;
}

function issue(kernel: Syscalls, iommufd: number, prepared: readonly Uint8Array[]): void {
  for (const argument of prepared) {
    const result = kernel.ioctl(iommufd, IOMMU_IOAS_MAP_FILE.number, argument);
    if (result < 0) throw new Error(`errno ${-result}`);
  }
}

function replay(state: State): Pick<BenchCase, 'ours' | 'peers'> {
  return {
    ours: () => {
      const kernel = instant();
      const fd = newMemory(kernel);
      return timed(() => rebuild(state, { kernel, memory: () => fd }));
    },
    peers: {
      'the calls alone': () => {
        const kernel = instant();
        const iommufd = Iommufd.open(kernel);
        const prepared = preparedArguments(state, iommufd.allocIoas().id, newMemory(kernel));
        return timed(() => issue(kernel, iommufd.fd, prepared));
      },
      'an object each': () => {
        const kernel = instant();
        const fd = newMemory(kernel);
        return timed(() => replayObjects(state, kernel, fd));
      },
    },
  };
}

/** With a device, whose page table the kernel fills when it is attached. */
function wholeRestore(bytes: Uint8Array): Pick<BenchCase, 'ours' | 'peers'> {
  return {
    ours: () => {
      const { kernel } = landedMachine();
      const fd = newMemory(kernel);
      return timed(() => rebuild(decodeState(bytes), { kernel, memory: () => fd }));
    },
    peers: {
      'the calls alone': () => {
        const { kernel } = landedMachine();
        const iommufd = Iommufd.open(kernel);
        const space = iommufd.allocIoas();
        const prepared = preparedArguments(decodeState(bytes), space.id, newMemory(kernel));
        return timed(async () => {
          issue(kernel, iommufd.fd, prepared);
          await attachTo(space, kernel);
        });
      },
    },
  };
}

/** The part of the kernel's calls, and the whole of the same run. */
function kernelPart(bytes: Uint8Array): Pick<BenchCase, 'ours' | 'peers'> {
  let whole = 0;
  return {
    ours: async () => {
      const { kernel, spent } = timedKernel(landedMachine().kernel);
      const fd = newMemory(kernel);
      whole = await timed(() => rebuild(decodeState(bytes), { kernel, memory: () => fd }));
      return spent() / COUNT;
    },
    peers: { 'all of that restore': () => whole },
  };
}

/** Made when it is first needed. */
function lazy<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

function captured(state: State): Pick<BenchCase, 'ours' | 'peers'> {
  const kept = lazy(() => {
    const kernel = instant();
    return rebuild(state, { kernel, memory: () => newMemory(kernel) });
  });
  const noted = lazy((): Map<bigint, IoasMapping> => {
    const kernel = instant();
    return replayObjects(state, kernel, newMemory(kernel));
  });
  const [arena] = state.arenas;
  return {
    ours: async () => {
      const keepAlive = await kept();
      return timed(() => keepAlive.capture());
    },
    peers: {
      'an object each': () => {
        const objects = noted();
        return timed(() => captureObjects(objects, arena?.token ?? 0n));
      },
    },
  };
}

/** Milliseconds for which the devices stand still, from one simulated process to the next and on. */
function handOver(bytes: Uint8Array): Contender {
  let current: Promise<{ host: SimulatedHost; process: SimulatedProcess; kept: KeepAlive }> | undefined;
  const start = async () => {
    const { host, kernel } = landedMachine();
    const fd = newMemory(kernel);
    const state = withoutDevice(decodeState(bytes));
    return { host, process: kernel, kept: await rebuild(state, { kernel, memory: () => fd }) };
  };
  return async () => {
    current ??= start();
    const { host, process, kept } = await current;
    const successor = host.process();
    const [ours, inherited] = Channel.pair(process);
    const file = process.file(inherited.fd);
    if (file === undefined) throw new Error('there is no other end');
    const theirs = Channel.adopt(successor.install(file.get()), successor);
    inherited[Symbol.dispose]();
    collectGarbage();
    const timeout = 600_000;
    const [{ frozen }, taken] = await Promise.all([
      handOff(kept, ours, { timeout }),
      takeOver(theirs, { timeout }),
    ]);
    for (const channel of [ours, theirs]) channel[Symbol.dispose]();
    current = Promise.resolve({ host, process: successor, kept: taken });
    return frozen;
  };
}

/** Bytes per mapping, of a process of its own. */
function memory(file: string, what: 'retained' | 'peak'): Pick<BenchCase, 'ours' | 'peers'> {
  const program = fileURLToPath(new URL('./restore/memory.js', import.meta.url));
  const child = (how: 'ours' | 'objects') => () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, how, what, file], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`memory of a restore: ${stderr}`);
    return Number(stdout);
  };
  return { ours: child('ours'), peers: { 'an object each': child('objects') } };
}

export async function cases(): Promise<BenchCase[]> {
  const state = await millionState();
  const bytes = encodeState(state);
  const alone = withoutDevice(state);
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-bench-'));
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }));
  const file = join(directory, 'million.state');
  writeFileSync(file, encodeState(alone));
  const unit = 'ns per mapping';
  return [
    { name: 'decode', unit, ours: () => timed(() => decodeState(bytes)), peers: {} },
    { name: 'replay, on a kernel that answers at once', unit, ...replay(alone) },
    { name: 'all of a restore', unit, rounds: 2, ...wholeRestore(bytes) },
    { name: 'kernel calls of a restore', unit, rounds: 1, ...kernelPart(bytes) },
    { name: 'capture', unit, ...captured(alone) },
    { name: 'hand-off, devices stand still', unit: 'ms', rounds: 3, ours: handOver(bytes), peers: {} },
    { name: 'memory afterwards', unit: 'bytes per mapping', rounds: 1, ...memory(file, 'retained') },
    { name: 'most memory meanwhile (RSS)', unit: 'bytes per mapping', rounds: 1, ...memory(file, 'peak') },
  ];
}
