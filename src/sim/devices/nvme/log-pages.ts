/** Get Log Page (Base Specification 2.0, 5.16). @module */
import type { Controller } from './controller.js';
import { EventType, TEMPERATURE_BIT } from './events.js';
import { TEMPERATURE } from './features.js';
import { text } from './identify.js';
import { AdminOpcode, BROADCAST, CommandSets, DNR, IoOpcode, STRUCTURE_BYTES, Status } from './protocol.js';
import type { Request } from './request.js';

const Page = { ERROR: 0x01, SMART: 0x02, FIRMWARE: 0x03, CHANGED_NAMESPACES: 0x04, EFFECTS: 0x05 } as const;

/** Do not clear the event that the page belongs to. */
const RETAIN_EVENT = 1 << 15;
/** Command effects: it is supported, it changes data, changes namespaces' contents or capabilities. */
const Effect = { SUPPORTED: 1, DATA: 1 << 1, CAPABILITIES: 1 << 3 } as const;

const ADMIN_EFFECTS: readonly (readonly [number, number])[] = [
  ...Object.values(AdminOpcode)
    .filter(opcode => opcode !== AdminOpcode.NAMESPACE_ATTACHMENT && opcode !== AdminOpcode.FORMAT)
    .map(opcode => [opcode, Effect.SUPPORTED] as const),
  [AdminOpcode.NAMESPACE_ATTACHMENT, Effect.SUPPORTED | Effect.CAPABILITIES],
  [AdminOpcode.FORMAT, Effect.SUPPORTED | Effect.DATA],
];
const CHANGES_DATA: readonly number[] = [
  IoOpcode.FLUSH,
  IoOpcode.WRITE,
  IoOpcode.WRITE_ZEROES,
  IoOpcode.DATASET_MANAGEMENT,
  IoOpcode.COPY,
];

/** @returns a status */
export function getLogPage(controller: Controller, request: Request): number {
  const page = request.dword(10) & 0xff;
  const dwords = (request.dword(11) & 0xffff) * 2 ** 16 + (request.dword(10) >>> 16) + 1;
  const offset = request.dword(13) * 2 ** 32 + request.dword(12);
  if (offset % 4 !== 0) return Status.INVALID_FIELD | DNR;
  const tooLong = controller.checkLength(dwords * 4);
  if (tooLong) return tooLong;
  const content = read(controller, request, page);
  if (content === undefined) return Status.INVALID_FIELD | DNR;
  if (offset >= content.bytes.length) return Status.INVALID_FIELD | DNR;
  if (content.namespaceMissing) return Status.INVALID_NAMESPACE | DNR;
  if (content.event !== undefined && !(request.dword(10) & RETAIN_EVENT))
    controller.events.clear(content.event);
  const length = Math.min(dwords * 4, content.bytes.length - offset);
  controller.pointer(request, length).write(content.bytes.subarray(offset, offset + length));
  return Status.SUCCESS;
}

interface Content {
  readonly bytes: Uint8Array;
  /** The type of event that reading the page clears. */
  readonly event?: number;
  readonly namespaceMissing?: boolean;
}

function read(controller: Controller, request: Request, page: number): Content | undefined {
  switch (page) {
    case Page.ERROR:
      return { bytes: new Uint8Array(64), event: EventType.ERROR };
    case Page.SMART:
      return smart(controller, request.namespaceId);
    case Page.FIRMWARE: {
      const bytes = new Uint8Array(512);
      bytes[0] = 1; // slot 1 is active
      text(bytes, 8, 8, '1.0');
      return { bytes };
    }
    case Page.CHANGED_NAMESPACES:
      return { bytes: new Uint8Array(STRUCTURE_BYTES), event: EventType.NOTICE };
    case Page.EFFECTS:
      return { bytes: effects(controller, request.dword(14) >>> 24) };
    default:
      return undefined;
  }
}

function smart(controller: Controller, nsid: number): Content {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  const namespaces = controller.namespaces.filter(({ id }) => nsid === BROADCAST || id === nsid);
  bytes[0] = controller.features.tooHot ? TEMPERATURE_BIT : 0;
  view.setUint16(1, TEMPERATURE, true);
  const sum = (count: (counters: (typeof namespaces)[0]['counters']) => number): number =>
    namespaces.reduce((total, { counters }) => total + count(counters), 0);
  // In thousands of 512 bytes.
  const units = (count: number): bigint => BigInt(Math.ceil(Math.floor(count / 512) / 1000));
  view.setBigUint64(32, units(sum(({ bytesRead }) => bytesRead)), true);
  view.setBigUint64(48, units(sum(({ bytesWritten }) => bytesWritten)), true);
  view.setBigUint64(64, BigInt(sum(({ reads }) => reads)), true);
  view.setBigUint64(80, BigInt(sum(({ writes }) => writes)), true);
  const hours = (performance.now() - controller.startedAt) / 3_600_000;
  view.setBigUint64(128, BigInt(Math.floor(hours)), true);
  return { bytes, event: EventType.SMART, namespaceMissing: nsid !== BROADCAST && namespaces.length === 0 };
}

function effects(controller: Controller, commandSet: number): Uint8Array {
  const bytes = new Uint8Array(STRUCTURE_BYTES);
  const view = new DataView(bytes.buffer);
  for (const [opcode, effect] of ADMIN_EFFECTS) view.setUint32(opcode * 4, effect, true);
  const nvm =
    controller.commandSets === CommandSets.NVM ||
    (controller.commandSets === CommandSets.ALL && commandSet === 0);
  if (!nvm) return bytes;
  for (const opcode of Object.values(IoOpcode)) {
    const effect = Effect.SUPPORTED | (CHANGES_DATA.includes(opcode) ? Effect.DATA : 0);
    view.setUint32(1024 + opcode * 4, effect, true);
  }
  return bytes;
}
