/** An NVMe driver that goes on over kexecs, in one process per kernel. @module */
import { readFileSync, writeFileSync } from 'node:fs';
import { NvmeController } from '../../../src/drivers/nvme/controller.js';
import { KeepAlive } from '../../../src/keepalive/keep-alive.js';
import { appendLanding } from '../../../src/keepalive/landing/initrd.js';
import { planLanding } from '../../../src/keepalive/landing/plan.js';
import { landingCommandLine } from '../../../src/keepalive/landing/verify.js';
import { runningCommandLine } from '../../../src/keepalive/liveupdate/command-line.js';
import { type IncomingSession, LiveUpdate } from '../../../src/keepalive/liveupdate/live-update.js';
import type { Preserved } from '../../../src/keepalive/liveupdate/preserve.js';
import { preservedState, resume } from '../../../src/keepalive/liveupdate/resume.js';
import type { State } from '../../../src/keepalive/state/saved-state.js';
import type { DmaArena } from '../../../src/memory/dma-memory.js';
import { openDevice } from '../../../src/open-device.js';
import { claim } from '../../../src/pci/claim.js';
import { LANES_ARENA, Lanes } from '../../../src/testing/lanes.js';
import { random } from '../../support/random.js';
import { guestEnv } from '../../vm/topology.js';
import { physicalRuns } from './physical.js';
import { isNoiommu } from './profile.js';

const SESSION = 'kept';
/** The kernel that runs, for once more, and an initial root file system without landing. */
export const image = process.env[guestEnv.bzImage] ?? '';
export const initrd = process.env[guestEnv.initrd] ?? '';
/** On a file system in memory. */
const LANDING = '/run/landing.cpio';
const PAGE = 4096;

/** Data that is written once, behind the blocks of the lanes. */
const FIXED_LBA = 16_384;
const CHUNK = 65_536;
const fixed = new Uint8Array(16 * CHUNK);
random(11).fill(fixed);

export interface KexecDriver {
  readonly kept: KeepAlive;
  readonly controller: NvmeController;
  readonly lanes: Lanes;
}

/** Claims the controller, brings it up, and writes the fixed data. */
export async function bringUp(address: string): Promise<KexecDriver> {
  const device = openDevice(await claim(address), { noiommu: isNoiommu });
  const kept = KeepAlive.of(device);
  const controller = await NvmeController.open(device);
  kept.add(controller);
  const namespace = controller.namespace(1);
  await namespace.write(FIXED_LBA, fixed);
  return { kept, controller, lanes: Lanes.create(device.space, namespace) };
}

/** What the kernel before has left, up to the driver. */
export async function takeUp(): Promise<{ session: IncomingSession; state: State; kept: KeepAlive }> {
  using liveUpdate = LiveUpdate.open();
  const session = liveUpdate.retrieveSession(SESSION);
  return { session, state: preservedState(session), kept: await resume(session) };
}

export async function restore(kept: KeepAlive, address: string): Promise<KexecDriver> {
  const memory = (token: bigint): DmaArena | undefined => kept.arena(token);
  const controller = await NvmeController.restore(kept.device(address), kept.record(address), { memory });
  kept.add(controller);
  const arena = kept.arenas.find(({ name }) => name === LANES_ARENA);
  if (arena === undefined) throw new Error('the memory of the lanes is not there');
  return { kept, controller, lanes: Lanes.adopt(arena, controller.namespace(1)) };
}

/** Starts the kernel once more, with a landing; does not return. */
export function goOver(preserved: Preserved): never {
  const plan = planLanding(preserved.state);
  writeFileSync(LANDING, appendLanding(readFileSync(initrd), plan));
  const commandLine = landingCommandLine(plan, runningCommandLine());
  return preserved.kexec({ image, initrd: LANDING, commandLine });
}

/** The name of the session, for `preserve`. */
export const session = { session: SESSION } as const;

/** What is on a disk from a block on. */
interface Piece {
  readonly lba: number;
  readonly pattern: Uint8Array;
}

/** The blocks of lanes, on a namespace with blocks of `blockSize` bytes. */
export function lanePieces(expected: ReturnType<Lanes['expected']>, blockSize: number): Piece[] {
  return expected.map(({ lba, pattern }) => ({ lba: (lba * PAGE) / blockSize, pattern }));
}

/**
 * Reads pieces of the first namespace, and compares.
 *
 * @returns the reads that it took, and the bytes that were as they must be
 * @throws Error for the first that were not
 */
export async function verifyBlocks(
  controller: NvmeController,
  pieces: readonly Piece[],
): Promise<{ reads: number; bytes: number }> {
  const namespace = controller.namespace(1);
  let bytes = 0;
  for (const { lba, pattern } of pieces) {
    const found = await namespace.readBlocks(lba, pattern.length / namespace.blockSize);
    if (Buffer.compare(found, pattern) !== 0) throw new Error(`other data from block ${lba} on`);
    bytes += pattern.length;
  }
  return { reads: pieces.length, bytes };
}

/** Reads what was written before this kernel, and compares; as {@link verifyBlocks}. */
export function verifyData({
  controller,
  lanes,
}: Pick<KexecDriver, 'controller'> & { readonly lanes: Pick<Lanes, 'expected'> }): Promise<{
  reads: number;
  bytes: number;
}> {
  const { blockSize } = controller.namespace(1);
  const chunks = Array.from({ length: fixed.length / CHUNK }, (_, index) => ({
    lba: FIXED_LBA + (index * CHUNK) / blockSize,
    pattern: fixed.subarray(index * CHUNK, (index + 1) * CHUNK),
  }));
  return verifyBlocks(controller, [...chunks, ...lanePieces(lanes.expected(), blockSize)]);
}

/** Where each page of each arena is physically, as the kernel's page tables of this process have it; by token. */
export function physicalPages(kept: KeepAlive): Map<string, number[]> {
  return new Map(
    kept.arenas.map(({ token, buffer }) => {
      const bytes = new Uint8Array(buffer);
      // A page is in the page table once it was looked at.
      for (let at = 0; at < bytes.length; at += PAGE) Atomics.load(bytes, at);
      const frames = physicalRuns(bytes).flatMap(({ physical, length }) =>
        Array.from({ length: length / PAGE }, (_, page) => Number(physical) / PAGE + page),
      );
      return [String(token), frames] as const;
    }),
  );
}

/** How many pages are not where they were, or are not there at all. */
export function movedPages(
  before: ReadonlyMap<string, readonly number[]>,
  now: ReadonlyMap<string, readonly number[]>,
): number {
  let moved = 0;
  for (const [token, frames] of before) {
    moved += frames.filter((frame, page) => now.get(token)?.[page] !== frame).length;
  }
  return moved;
}
