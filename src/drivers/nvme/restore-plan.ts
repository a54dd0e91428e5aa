/**
 * What is to be done to go on where a predecessor ended: its record and its journals, checked. Nothing is changed here, and
 * the device is not touched.
 *
 * @module
 */
import { hex } from '../../hex.js';
import type { DriverRecord } from '../../keepalive/keepable-driver.js';
import { nodeName } from '../../keepalive/state/saved-state.js';
import { StateError, StateErrorCode } from '../../keepalive/state/state-error.js';
import type { AddressSpace } from '../../memory/address-space.js';
import { DmaArena } from '../../memory/dma-memory.js';
import type { PciAddress } from '../../pci/address.js';
import type { Device } from '../../vfio/device.js';
import { AdminOpcode } from './command.js';
import { decodeCommand } from './inherited.js';
import { Journal, positionModulus, type SlotRecord, SlotState } from './journal.js';
import { slotMask } from './queue-pair.js';
import { checkPlaces, type DecodedRecord, decodeRecord, transferOf } from './record.js';

/** A command of which the predecessor did not note that its end was told. */
export interface LeftCommand {
  readonly slot: number;
  readonly record: SlotRecord;
  /** The controller knows of it. */
  readonly submitted: boolean;
  /** What it transfers to or from. */
  readonly memory: DmaArena | undefined;
}

export interface RestorePlan {
  /** Of the record in the state. */
  readonly path: string;
  readonly record: DecodedRecord;
  readonly admin: DmaArena;
  readonly io: DmaArena;
  readonly bounce: DmaArena | undefined;
  /** The predecessor was not in the middle of a reset: what the journals say of positions is true. */
  readonly inUse: boolean;
  /** By the id of the queue. */
  readonly left: ReadonlyMap<number, readonly LeftCommand[]>;
}

/** Arenas by their tokens. */
export type ArenaOf = (token: bigint) => DmaArena | undefined;

/**
 * @param saved `undefined` where there is none
 * @throws StateError; TypeError for an arena in another address space than the device's
 */
export function planRestore(device: Device, saved: DriverRecord | undefined, memory: ArenaOf): RestorePlan {
  const path = `/${nodeName.driver(device.name as PciAddress)}/state`;
  if (saved === undefined) {
    throw new StateError(
      StateErrorCode.Invalid,
      { path },
      'there is no record of a driver',
      'Its driver wrote none, or has gone on already; start cold: NvmeController.open',
    );
  }
  const record = decodeRecord(saved, path);
  const arena = (property: string, token: bigint): DmaArena => {
    const found = memory(token);
    if (found === undefined) {
      throw new StateError(
        StateErrorCode.Invalid,
        { path, property },
        `there is no arena with token ${token}`,
      );
    }
    if (!(found instanceof DmaArena) || found.space !== device.space) {
      throw new TypeError('memory must give arenas in the address space of the device');
    }
    if (found.token !== token)
      throw new TypeError('memory must give the arena with the token it is asked for');
    return found;
  };
  const admin = arena('admin-arena', record.adminArena);
  const io = arena('io-arena', record.ioArena);
  const bounce = record.bounceArena === undefined ? undefined : arena('bounce-arena', record.bounceArena);
  checkPlaces(record, path, token => (token === record.adminArena ? admin : io).size);
  const journals = record.queues.map(queue => {
    const arena = queue.id === 0 ? admin : io;
    const bytes = new Uint8Array(arena.buffer, queue.layout.journal, Journal.size(queue.entries - 1));
    return { queue, arena, journal: new Journal(bytes) };
  });
  const inUse = (journals[0] as (typeof journals)[number]).journal.generation % 2 === 1;
  for (const { queue, arena, journal } of journals) {
    const { token, address } = journal.place;
    // New memory in the place of what was lost, of a controller that is to be initialised again.
    if (!inUse && journal.isBlank) continue;
    if (token === arena.token && address === arena.deviceAddress(queue.layout.submission)) continue;
    throw new StateError(
      StateErrorCode.Damaged,
      { path: `${path}/queue-${queue.id}`, property: 'journal' },
      `it is of another queue, or of other memory: of arena ${hex(token)}, with the queue at ${hex(address)}`,
    );
  }
  const left = new Map(
    journals.map(({ queue, journal }) => {
      const limits = { inUse, maxTransfer: transferOf(record, queue), memory, space: device.space };
      return [queue.id, readJournal(journal, queue.entries, limits, `${path}/queue-${queue.id}`)];
    }),
  );
  return { path, record, admin, io, bounce, inUse, left };
}

interface Limits {
  readonly inUse: boolean;
  readonly maxTransfer: number;
  readonly memory: ArenaOf;
  readonly space: AddressSpace;
}

/**
 * The commands in a journal, oldest first. The journal itself is not changed.
 *
 * @param path of the queue in the saved state
 * @throws StateError when it says what cannot be
 */
export function readJournal(
  journal: Journal,
  entries: number,
  { inUse, maxTransfer, memory, space }: Limits,
  path: string,
): LeftCommand[] {
  const damaged = (reason: string): never => {
    throw new StateError(StateErrorCode.Damaged, { path, property: 'journal' }, reason);
  };
  const modulus = positionModulus(entries);
  const distance = (from: number, to: number): number => (to - from + modulus) % modulus;
  const { tail, rung, head, acknowledged } = journal.header;
  if (inUse) {
    if ([tail, rung, head, acknowledged].some(position => position >= modulus)) {
      damaged(`positions are less than ${modulus}`);
    }
    if (distance(rung, tail) > 1) damaged('the doorbell is more than one entry behind');
    if (distance(head, tail) > entries - 1) damaged('more commands are outstanding than there are slots');
    if (distance(acknowledged, head) > entries) damaged('more completions are not acknowledged than entries');
  }
  const mask = slotMask(entries);
  const left: LeftCommand[] = [];
  let unsubmitted = 0;
  for (let slot = 0; slot < entries - 1; slot++) {
    if (journal.isFree(slot)) continue;
    const record = journal.record(slot);
    const { state, position, token, offset, length, entry } = record;
    const wrong = (reason: string): never => damaged(`slot ${slot}: ${reason}`);
    if (state !== SlotState.InHands && state !== SlotState.Completed) wrong(`it is in no state ${state}`);
    if ((journal.commandId(slot) & mask) !== slot) wrong('its command has an identifier of another slot');
    if (inUse && position >= modulus) wrong(`its position must be less than ${modulus}`);
    const submitted = !inUse || state === SlotState.Completed || position !== tail;
    if (!submitted && ++unsubmitted > 1) wrong('it is the second that was about to be submitted');
    let arena = token === 0n ? undefined : memory(token);
    if (arena === undefined || arena.space !== space || offset + length > arena.size) {
      // The application may have let go of the memory of a command that ended.
      if (token !== 0n && state === SlotState.InHands) {
        wrong(`there is no memory at ${offset} to ${offset + length} of an arena with token ${token}`);
      }
      arena = undefined;
    }
    if (state === SlotState.InHands) {
      if (token === 0n && (entry[6] !== 0 || entry[7] !== 0)) wrong('it transfers, and not to an arena');
      if (token !== 0n && (offset % 4 !== 0 || length === 0 || length > maxTransfer)) {
        wrong(`it cannot transfer ${length} bytes at ${offset}`);
      }
    }
    left.push({ slot, record, submitted, memory: arena });
  }
  return left.sort((a, b) => distance(b.record.position, tail) - distance(a.record.position, tail));
}

/** Whether the controller had anything to do but report events. */
export function hasInFlight(left: RestorePlan['left']): boolean {
  for (const [queue, commands] of left) {
    for (const { record, submitted } of commands) {
      const isEvent =
        queue === 0 && decodeCommand(record.entry).opcode === AdminOpcode.AsynchronousEventRequest;
      if (record.state === SlotState.InHands && submitted && !isEvent) return true;
    }
  }
  return false;
}
