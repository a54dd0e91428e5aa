// Kernel configuration fragments, and whether the kernel took them.
import { readFileSync } from 'node:fs';
import { rigFile } from './project.js';

export const flavours = ['iommufd', 'legacy'] as const;
/** `iommufd`: everything. `legacy`: VFIO groups and type1 containers, no iommufd in the kernel. */
export type Flavour = (typeof flavours)[number];

const fragments: Record<Flavour, readonly string[]> = {
  iommufd: ['kernel.config'],
  legacy: ['kernel.config', 'kernel.legacy.config'],
};

export type Configuration = ReadonlyMap<string, string>;

const parse = (text: string): Map<string, string> => {
  const symbols = new Map<string, string>();
  for (const line of text.split('\n')) {
    const set = /^(CONFIG_\w+)=(.*)$/.exec(line);
    if (set?.[1] !== undefined && set[2] !== undefined) symbols.set(set[1], set[2]);
    const unset = /^# (CONFIG_\w+) is not set$/.exec(line);
    if (unset?.[1] !== undefined) symbols.set(unset[1], 'n');
  }
  return symbols;
};

/** What the flavour asks for, later fragments overriding earlier ones. */
export const requested = (flavour: Flavour): Configuration => {
  const symbols = new Map<string, string>();
  for (const name of fragments[flavour]) {
    for (const [symbol, value] of parse(readFileSync(rigFile(name), 'utf8'))) symbols.set(symbol, value);
  }
  return symbols;
};

export const format = (configuration: Configuration): string =>
  [...configuration].map(([symbol, value]) => `${symbol}=${value}\n`).join('');

/** Requests that Kconfig dropped or changed, as `CONFIG_X: asked y, got n`. */
export const unmet = (asked: Configuration, config: string): string[] => {
  const got = parse(config);
  return [...asked].flatMap(([symbol, value]) => {
    const actual = got.get(symbol) ?? 'n';
    return actual === value ? [] : [`${symbol}: asked ${value}, got ${actual}`];
  });
};
