/** The WASM core: compiled once per process, instantiated once per user. @module */
import { readFileSync } from 'node:fs';
import { instantiateSync } from '@assemblyscript/loader';

let module: WebAssembly.Module | undefined;

/**
 * A fresh instance of the core over its own memory of `pages` 64 KiB pages, which may grow. `Exports` names the
 * functions that the caller uses.
 */
export function instantiate<Exports extends Record<string, unknown>>(pages: number): Exports {
  module ??= new WebAssembly.Module(readFileSync(new URL('../assembly/core.wasm', import.meta.url)));
  const memory = new WebAssembly.Memory({ initial: pages });
  return instantiateSync<Exports>(module, { env: { memory } }).exports;
}
