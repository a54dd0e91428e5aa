/** Where on the bus BARs are put: as the firmware of QEMU's q35 machine does for the devices of our test machines. @module */
import type { FunctionBar } from '../devices/pci-function.js';

/** Small BARs from here upward, large ones downward. */
const MIDDLE = 0xfe50_0000n;
const IO_BASE = 0xc000n;
/** From this size on a BAR is large, in bytes. */
const LARGE = 2n ** 20n;
/** What a port can have behind it, in bytes. */
const WINDOW = 2n ** 21n;
const PORT_BAR = 0x1000n;

interface Window {
  readonly start: bigint;
  next: bigint;
}

function alignUp(value: bigint, alignment: bigint): bigint {
  return ((value + alignment - 1n) / alignment) * alignment;
}

export class AddressAllocator {
  #up = MIDDLE;
  #down = MIDDLE;
  #io = IO_BASE;
  readonly #windows = new Map<string, Window>();

  /** The BAR of a port, behind which a window is set aside. */
  forPort(address: string): bigint {
    this.#down = ((this.#down - WINDOW) / WINDOW) * WINDOW;
    this.#windows.set(address, { start: this.#down, next: this.#down });
    return this.#small(PORT_BAR);
  }

  /** Addresses for BARs, by index, in the window of a port if there is one. */
  take(bars: readonly FunctionBar[], port: string | undefined): Map<number, bigint> {
    const window = port === undefined ? undefined : this.#windows.get(port);
    if (window !== undefined) window.next = window.start;
    return new Map(bars.map(bar => [bar.index, this.#place(bar, window)]));
  }

  #place({ kind, size }: FunctionBar, window: Window | undefined): bigint {
    const length = BigInt(size);
    if (kind === 'io') {
      const at = alignUp(this.#io, length);
      this.#io = at + length;
      return at;
    }
    if (window !== undefined) {
      const at = alignUp(window.next, length);
      window.next = at + length;
      return at;
    }
    if (length < LARGE) return this.#small(length);
    this.#down = ((this.#down - length) / length) * length;
    return this.#down;
  }

  #small(length: bigint): bigint {
    const at = alignUp(this.#up, length);
    this.#up = at + length;
    return at;
  }
}
