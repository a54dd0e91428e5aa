/** The ways to reset a function, and which of them are used: `reset_method` in sysfs (drivers/pci/pci-sysfs.c). @module */
import { EINVAL } from '../../../bindings/uapi/errno.js';

/** A way to reset a function, under its name in `reset_method`. */
export type ResetMethod = 'flr' | 'bus';

/** How many names can be written at once. */
const LIMIT = 7;

export class ResetMethods {
  /** What the function can do, the preferred one first. */
  readonly supported: readonly ResetMethod[];
  #used: readonly ResetMethod[];

  constructor(supported: readonly ResetMethod[]) {
    this.supported = supported;
    this.#used = supported;
  }

  /** Whether the function is ever reset alone. */
  get any(): boolean {
    return this.#used.length > 0;
  }

  /** From now on the function is not reset any more. */
  disable(): void {
    this.#used = [];
  }

  /** The text of the attribute: empty when there are none. */
  show(): string {
    return this.any ? `${this.#used.join(' ')}\n` : '';
  }

  /** Takes what was written. @returns 0, or minus EINVAL: nothing has changed then */
  store(text: string): number {
    const line = text.endsWith('\n') ? text.slice(0, -1) : text;
    if (line === 'default') {
      this.#used = this.supported;
      return 0;
    }
    const names = line.split(' ').filter(name => name !== '');
    const methods = names.map(name => this.supported.find(method => method === name.trim()));
    if (!methods.every(method => method !== undefined) || methods.length > LIMIT) return -EINVAL;
    this.#used = methods;
    return 0;
  }
}
