/** Commands that a predecessor gave the controller, and whose end the application of that time did not see. @module */
import type { DmaArena } from '../../memory/dma-memory.js';
import { type Command, ENTRY_DWORDS, NvmOpcode } from './command.js';

const DWORD = 2 ** 32;

/** A command of the predecessor's application. */
export interface InheritedCommand {
  readonly opcode: number;
  readonly namespaceId: number;
  /** Of reads and writes: the first logical block. */
  readonly lba: number | undefined;
  /** Of reads and writes: the number of logical blocks. */
  readonly blocks: number | undefined;
  /** 0 is the admin queue. */
  readonly queue: number;
  /** `CommandOptions.tag` of the predecessor; 0 where none was given. */
  readonly tag: bigint;
  /** The controller knew of it before; otherwise it was submitted by this driver. */
  readonly submitted: boolean;
  /** What it transfers, where it transfers anything. */
  readonly transfer:
    | {
        /** It keeps this part of it until a turn of the event loop after `done` is settled. */
        readonly memory: DmaArena;
        /** In bytes. */
        readonly offset: number;
        /** In bytes. */
        readonly length: number;
      }
    | undefined;
  /**
   * Dword 0 of its completion. Rejects as a command of one's own does; with a DeviceError (FATAL) when the controller was
   * reset and the command is none that can be issued again.
   */
  readonly done: Promise<number>;
}

/** Opcodes of I/O commands that may be executed a second time, with nothing issued in between. */
const repeatable: ReadonlySet<number> = new Set([
  NvmOpcode.Flush,
  NvmOpcode.Write,
  NvmOpcode.Read,
  NvmOpcode.WriteZeroes,
  NvmOpcode.DatasetManagement,
]);

/** Whether an I/O command can be issued again when nobody knows if it was executed. */
export function isRepeatable(opcode: number): boolean {
  return repeatable.has(opcode);
}

/** The blocks that a read or a write of the NVM command set is about. */
export function blocksOf(command: Command): { lba: number | undefined; blocks: number | undefined } {
  const { opcode, cdw10 = 0, cdw11 = 0, cdw12 = 0 } = command;
  if (opcode !== NvmOpcode.Read && opcode !== NvmOpcode.Write) return { lba: undefined, blocks: undefined };
  return { lba: cdw11 * DWORD + cdw10, blocks: (cdw12 & 0xffff) + 1 };
}

/** A command from its submission queue entry. */
export function decodeCommand(entry: Uint32Array): Command {
  const [cdw0, nsid] = entry as unknown as [number, number];
  const [cdw10, cdw11, cdw12, cdw13] = entry.subarray(10, ENTRY_DWORDS) as unknown as number[];
  return {
    opcode: cdw0 & 0xff,
    namespaceId: nsid,
    cdw10: cdw10 as number,
    cdw11: cdw11 as number,
    cdw12: cdw12 as number,
    cdw13: cdw13 as number,
  };
}
