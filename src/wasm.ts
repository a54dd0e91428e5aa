/** The WASM core: compiled once per process, instantiated once per user. @module */
import { readFileSync } from 'node:fs';
import { instantiateSync } from '@assemblyscript/loader';

/** `IOMMUFD_CORE=debug` takes the build with assertions, which tests run on and which is not published. */
const file = process.env.IOMMUFD_CORE === 'debug' ? 'core.debug.wasm' : 'core.wasm';

let module: WebAssembly.Module | undefined;

/**
 * A fresh instance of the core over its own memory of `pages` 64 KiB pages, which may grow. `Exports` names the
 * functions that the caller uses.
 */
export function instantiate<Exports extends Record<string, unknown>>(
  pages: number,
): { exports: Exports; memory: WebAssembly.Memory } {
  module ??= new WebAssembly.Module(readFileSync(new URL(`../assembly/${file}`, import.meta.url)));
  const memory = new WebAssembly.Memory({ initial: pages });
  return { exports: instantiateSync<Exports>(module, { env: { memory } }).exports, memory };
}
