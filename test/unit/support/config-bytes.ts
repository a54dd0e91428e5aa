/** Configuration space made of capabilities, as the text that {@link FakeSysfs} makes files of. @module */

export interface ConfigOptions {
  /** Power management control and status; no capability unless given. */
  powerControl?: number;
  /** Device Serial Number; no capability unless given. */
  serial?: bigint;
  /** In bytes; 4096 unless given. */
  size?: number;
}

/** One character for each byte. */
export function configText({ powerControl, serial, size = 4096 }: ConfigOptions = {}): string {
  const bytes = Buffer.alloc(size);
  bytes.writeUInt16LE(0x1b36, 0);
  if (powerControl !== undefined) {
    bytes.writeUInt16LE(0x10, 0x06);
    bytes.writeUInt8(0x40, 0x34);
    bytes.set([0x05, 0x60], 0x40);
    bytes.set([0x01, 0x00, 0x03, 0x00], 0x60);
    bytes.writeUInt16LE(powerControl, 0x64);
  }
  if (serial !== undefined) {
    // Behind another capability, Advanced Error Reporting.
    bytes.writeUInt32LE(0x1482_0001, 0x100);
    bytes.writeUInt32LE(0x0001_0003, 0x148);
    bytes.writeBigUInt64LE(serial, 0x14c);
  }
  return bytes.toString('latin1');
}
