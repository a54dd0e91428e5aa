/**
 * The driver of the tests of hand-offs, crashes and live updates: it drives an NVMe controller with verified data at queue depth 32, and
 * keeps it alive, in the descriptor store, too, where there is one. Lines of JSON on standard input say what it is to do,
 * lines on standard output what came of it: see `orders.ts`.
 *
 * Arguments: PCI address; `true` to accept a device without IOMMU; how many blocks each lane writes before it begins again;
 * a file in which it notes how far each lane is, in 32-bit words, for whoever has to know when it is dead.
 */
import { subscribe } from 'node:diagnostics_channel';
import { openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { useKernel } from '../../../bindings/kernel.js';
import { F_DUPFD_CLOEXEC } from '../../../bindings/uapi/fcntl.js';
import { NvmeController } from '../../../src/drivers/nvme/controller.js';
import { Channel } from '../../../src/keepalive/handoff/channel.js';
import { ChannelListener } from '../../../src/keepalive/handoff/channel-listener.js';
import { handOff, takeOver } from '../../../src/keepalive/handoff/handoff.js';
import { receiveInherited } from '../../../src/keepalive/handoff/inheritance.js';
import { KeepAlive } from '../../../src/keepalive/keep-alive.js';
import { KEEPALIVE_CHANNEL, type KeepAliveEvent } from '../../../src/keepalive/keepalive-events.js';
import { preserve } from '../../../src/keepalive/liveupdate/preserve.js';
import { FdStore } from '../../../src/keepalive/store/fd-store.js';
import { recover, StoredKeepAlive } from '../../../src/keepalive/store/stored.js';
import { DmaArena } from '../../../src/memory/dma-memory.js';
import { openDevice } from '../../../src/open-device.js';
import { claim } from '../../../src/pci/claim.js';
import { LANES, LANES_ARENA, Lanes } from '../../../src/testing/lanes.js';
import {
  goOver,
  lanePieces,
  movedPages,
  physicalPages,
  restore,
  session,
  takeUp,
  verifyBlocks,
} from './kexec-driver.js';
import { mark } from './mark.js';
import { die, mortal } from './mortal.js';
import type { Answer, Leaving, Order, Peer, SuccessorStep, Tenure } from './orders.js';

/** Emulated machines are slow, and these tests are not about deadlines. */
const TIMEOUT_MS = 60_000;
/** Nobody does I/O there: flushes of it mark in QEMU's trace where the lanes begin and end. */
const MARKED_NAMESPACE = 2;
/** Of arenas that are made to be left behind. */
const SPARE_ARENA = 'spare';

const [address = '', noiommu, turns, notes] = process.argv.slice(2);
const mortality = mortal();
useKernel(mortality.kernel);
const inherited = receiveInherited();
const noted = notes === undefined ? undefined : openSync(notes, 'r+');
const note = new Uint32Array(1);

function readNotes(): readonly number[] {
  if (noted === undefined) return [];
  const all = new Uint32Array(LANES);
  readSync(noted, all, 0, all.byteLength, 0);
  return [...all];
}

const now = (): number => Number(process.hrtime.bigint()) / 1e6;

interface Running {
  readonly kept: KeepAlive;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
  done: Promise<void>;
  readonly times: { first: number; last: number };
  /** Lanes that were not told of anything here yet. */
  readonly silent: Set<number>;
  /** Called when there are no such lanes any more. */
  onProgress: () => void;
}

let running: Running | undefined;
/** Before the successor has it: afterwards the memory is not there any more. */
let last: Tenure | undefined;

function say(answer: Answer): void {
  writeSync(1, `${JSON.stringify(answer)}\n`);
}

function run(kept: KeepAlive, controller: NvmeController, lanes: Lanes): void {
  const told = lanes.toldByLane;
  const silent = new Set(Array.from({ length: LANES }, (_, lane) => lane));
  const times = { first: 0, last: 0 };
  const here: Running = {
    ...{ kept, controller, lanes, times, silent },
    done: Promise.resolve(),
    onProgress: () => undefined,
  };
  running = here;
  say({
    did: 'run',
    outcome: controller.outcome,
    told,
    noted: readNotes(),
    inherited: controller.inherited.filter(({ tag }) => tag !== 0n).length,
    uptime: process.uptime() * 1000,
    moments: mortality.moments,
  });
  here.done = lanes.start(controller.inherited, (lane, count) => {
    times.last = now();
    times.first ||= times.last;
    if (noted !== undefined) {
      note[0] = count;
      writeSync(noted, note, 0, 4, lane * 4);
    }
    if (silent.delete(lane) && silent.size === 0) here.onProgress();
  });
}

function tenure({ controller, lanes, times }: Running): Tenure {
  return {
    told: lanes.toldByLane,
    toldHere: lanes.counts.told,
    toldTwice: lanes.counts.toldTwice,
    wrong: lanes.wrong,
    firstTold: times.first,
    lastTold: times.last,
    resets: controller.resets,
  };
}

async function bringUp(kept: KeepAlive): Promise<NvmeController> {
  const controller = await NvmeController.open(kept.device(address));
  kept.add(controller);
  return controller;
}

async function start(): Promise<void> {
  const device = openDevice(await claim(address), { noiommu: noiommu === 'true' });
  const kept = KeepAlive.of(device);
  const store = FdStore.fromEnvironment();
  if (store) StoredKeepAlive.keep(kept, store);
  await begin(kept, await bringUp(kept));
}

/** From here on QEMU sees no admin command. */
async function begin(kept: KeepAlive, controller: NvmeController): Promise<void> {
  const lanes = Lanes.create(kept.device(address).space, controller.namespace(1), Number(turns));
  // The requests for events, which are the last that a bring-up asks for, are in the controller's hands by then.
  await sleep(100);
  await controller.namespace(MARKED_NAMESPACE).flush();
  run(kept, controller, lanes);
}

async function goOn(kept: KeepAlive): Promise<void> {
  const record = kept.record(address);
  // A process that died while it brought the controller up.
  if (record === undefined) return begin(kept, await bringUp(kept));
  const memory = (token: bigint): DmaArena | undefined => kept.arena(token);
  const controller = await NvmeController.restore(kept.device(address), record, { memory });
  kept.add(controller);
  for (const spare of kept.arenas) if (spare.name === SPARE_ARENA) spare[Symbol.dispose]();
  const arena = kept.arenas.find(({ name }) => name === LANES_ARENA);
  if (arena === undefined) return begin(kept, controller);
  run(kept, controller, Lanes.adopt(arena, controller.namespace(1), Number(turns)));
}

async function channelOf(peer: Peer): Promise<Channel> {
  if ('listen' in peer) {
    using listener = ChannelListener.listen(peer.listen);
    return await listener.accept(TIMEOUT_MS);
  }
  if ('connect' in peer) return Channel.connect(peer.connect, { timeout: TIMEOUT_MS });
  const [fd] = inherited.get(peer.inherited) ?? [];
  if (fd === undefined) throw new Error(`no channel ${peer.inherited} was inherited`);
  // One of its own, so that what was inherited is there for the next time.
  return Channel.adopt(mortality.kernel.fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

subscribe(KEEPALIVE_CHANNEL, event => {
  if ((event as KeepAliveEvent).kind === 'verified' && running) last = tenure(running);
});

async function handOn(current: Running, peer: Peer): Promise<void> {
  using channel = await channelOf(peer);
  const { frozen, descriptors } = await handOff(current.kept, channel, { timeout: TIMEOUT_MS });
  running = undefined;
  await current.done;
  if (current.lanes.failure !== undefined) throw current.lanes.failure;
  say({ did: 'hand-on', frozen, descriptors, ...(last as Tenure) });
}

async function take(peer: Peer, step: SuccessorStep | undefined): Promise<void> {
  using channel = await channelOf(peer);
  // The second moment of a call is when it is made.
  if (step === 'greeted') mortality.dieAt(2, 'sendMessage');
  if (step === 'said-verified') mortality.dieAt(4, 'sendMessage');
  const kept = await takeOver(channel, {
    timeout: TIMEOUT_MS,
    verify: offered => {
      NvmeController.verify(offered.device(address), offered.record(address), {
        memory: token => offered.arena(token),
      });
      if (step === 'verifying') die();
    },
  });
  const store = FdStore.fromEnvironment();
  if (store) StoredKeepAlive.keep(kept, store);
  await goOn(kept);
}

async function recoverStored(): Promise<void> {
  const store = FdStore.fromEnvironment();
  if (store === undefined) throw new Error('there is no service manager');
  const recovered = recover(store, inherited);
  if (recovered === undefined) say({ did: 'find-nothing' });
  else await goOn(recovered.kept);
}

/** Until the end of this process. */
async function makeArenas({ kept }: Running): Promise<never> {
  const { space } = kept.device(address);
  for (;;) {
    using _gone = DmaArena.create(space, 65_536, { name: SPARE_ARENA });
    DmaArena.create(space, 4096, { name: SPARE_ARENA });
    await turn();
  }
}

async function progress(current: Running): Promise<void> {
  const { lanes, silent } = current;
  const all = new Promise<void>(resolve => {
    current.onProgress = resolve;
  });
  const deadline = now() + TIMEOUT_MS;
  while (silent.size > 0 && lanes.failure === undefined && now() < deadline) {
    await Promise.race([all, sleep(100, undefined, { ref: false })]);
  }
  if (lanes.failure !== undefined) throw lanes.failure;
  if (silent.size > 0)
    throw new Error(`lanes ${[...silent].join(', ')} were told of nothing in ${TIMEOUT_MS} ms`);
  say({ did: 'progress', ...tenure(current) });
}

async function pause({ lanes, done }: Running): Promise<void> {
  lanes.stop();
  await done;
  if (lanes.failure !== undefined) throw lanes.failure;
}

async function stop(current: Running): Promise<void> {
  const { kept, controller } = current;
  await pause(current);
  await controller.namespace(MARKED_NAMESPACE).flush();
  const end = tenure(current);
  running = undefined;
  await controller.close();
  kept[Symbol.dispose]();
  say({ did: 'stop', ...end });
}

async function update({ kept, lanes, ...current }: Running, name: string, file: string): Promise<never> {
  const preserved = await preserve(kept, { ...session, timeout: TIMEOUT_MS });
  try {
    if (lanes.failure !== undefined) throw lanes.failure;
    const frames = [...physicalPages(kept)];
    const leaving: Leaving = { ...tenure({ kept, lanes, ...current }), frames };
    writeFileSync(file, JSON.stringify(leaving));
    await mark(name);
    return goOver(preserved);
  } catch (error) {
    preserved[Symbol.dispose]();
    throw error;
  }
}

async function resumeFrom(file: string): Promise<void> {
  const before = JSON.parse(readFileSync(file, 'utf8')) as Leaving;
  const { session, kept } = await takeUp();
  const driver = await restore(kept, address);
  const [outcome] = kept.outcomes;
  if (outcome === undefined) throw new Error('nothing is said of what became of the device');
  const pages = physicalPages(kept);
  const { controller, lanes } = driver;
  const pieces = lanePieces(lanes.expected(), controller.namespace(1).blockSize);
  const { reads, bytes } = await verifyBlocks(controller, pieces);
  session.finish();
  say({
    did: 'resume',
    ...{ outcome: outcome.outcome, reason: outcome.reason, bytesVerified: bytes, reads },
    pages: [...pages.values()].reduce((sum, { length }) => sum + length, 0),
    pagesMoved: movedPages(new Map(before.frames), pages),
  });
  run(kept, controller, lanes);
}

async function obey(order: Order): Promise<void> {
  if (order.do === 'start') return start();
  if (order.do === 'resume') return resumeFrom(order.file);
  if (order.do === 'recover') {
    if (order.dieAt !== undefined) mortality.dieAt(order.dieAt);
    return recoverStored();
  }
  if (order.do === 'take') {
    const { dieAt } = order;
    subscribe(KEEPALIVE_CHANNEL, event => {
      if ((event as KeepAliveEvent).kind === dieAt) die();
    });
    return take(order.peer, dieAt);
  }
  const current = running;
  if (current === undefined) throw new Error('this process has no device');
  switch (order.do) {
    case 'hand-on': {
      const { dieAt } = order;
      subscribe(KEEPALIVE_CHANNEL, event => {
        if ((event as KeepAliveEvent).kind === dieAt) die();
      });
      return handOn(current, order.peer);
    }
    case 'progress':
      return progress(current);
    case 'arenas':
      mortality.dieAt(order.dieAt);
      return makeArenas(current);
    case 'pause':
      await pause(current);
      return say({ did: 'pause', ...tenure(current) });
    case 'stop':
      return stop(current);
    case 'update':
      return update(current, order.mark, order.file);
  }
}

async function main(): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      await obey(JSON.parse(line) as Order);
    } catch (error) {
      const { code, message } = error as Error & { code?: string };
      say({ did: 'fail', code: code ?? 'none', message, owner: running !== undefined });
    }
  }
}

void main();
