/** Which bits of configuration space user mode sees as they are, and which it may change. @module */
import { CapabilityId, Command, Express, Header, Msi, Power, Status } from '../pci/registers.js';

/** For each byte of a capability; what comes after the last is neither virtual nor writeable. */
export interface Permissions {
  /** Bits that are kept for user mode rather than read from the device. */
  readonly virtual: Uint8Array;
  readonly writeable: Uint8Array;
}

const ALL = 0xffff_ffff;
const PME_SUPPORT = 0xf800;
const PME_STATUS_AND_ENABLE = 0x8100;

type Field = readonly [offset: number, bytes: number, virtual: number, writeable: number];

function permissions(size: number, fields: readonly Field[]): Permissions {
  const virtual = new Uint8Array(size);
  const writeable = new Uint8Array(size);
  for (const [offset, bytes, virtualBits, writeableBits] of fields) {
    for (let i = 0; i < bytes; i++) {
      virtual[offset + i] = (virtualBits >>> (8 * i)) & 0xff;
      writeable[offset + i] = (writeableBits >>> (8 * i)) & 0xff;
    }
  }
  return { virtual, writeable };
}

/** Where the next capability is: some are left out of the list. */
const NEXT: Field = [1, 1, ALL, 0];

export const headerPermissions = permissions(0x40, [
  [Header.VendorId, 4, ALL, 0],
  [Header.Command, 2, Command.IntxDisable, ALL],
  [Header.Status, 2, Status.Capabilities, 0],
  [Header.CacheLineSize, 1, 0, ALL],
  [Header.LatencyTimer, 1, 0, ALL],
  [Header.Bist, 1, 0, ALL],
  ...Array.from({ length: 6 }, (_, bar): Field => [Header.Bar0 + 4 * bar, 4, ALL, ALL]),
  [Header.Rom, 4, ALL, ALL],
  [Header.Capabilities, 1, ALL, 0],
  [Header.InterruptLine, 1, ALL, ALL],
  [Header.InterruptPin, 1, ALL, 0],
]);

export const powerPermissions = permissions(Power.Size, [
  NEXT,
  [Power.Capabilities, 2, PME_SUPPORT, 0],
  // The kernel changes the state itself, when it is written.
  [Power.Control, 4, PME_STATUS_AND_ENABLE, ~(PME_STATUS_AND_ENABLE | Power.StateMask)],
]);

export const msiPermissions = permissions(16, [
  NEXT,
  [Msi.Flags, 1, ALL, ALL],
  [Msi.AddressLow, 4, ALL, ALL],
  [Msi.AddressHigh, 4, ALL, ALL],
  [Msi.Data64, 2, ALL, ALL],
]);

export const expressPermissions = permissions(Express.Size, [
  NEXT,
  [
    Express.DeviceControl,
    2,
    Express.InitiateReset | Express.PayloadMask | Express.ReadRequestMask,
    ~Express.PhantomFunctions,
  ],
  [Express.DeviceControl2, 2, 0, ~Express.AriForwarding],
]);

/** By capability id; the others can be read as they are, but for their place in the list. */
export const capabilityPermissions: ReadonlyMap<number, Permissions> = new Map([
  [CapabilityId.Power, powerPermissions],
  [CapabilityId.Msi, msiPermissions],
  [CapabilityId.Express, expressPermissions],
]);
