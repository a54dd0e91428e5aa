/** The kernel command line (Documentation/admin-guide/kernel-parameters.rst), taken apart as the kernel does. @module */

/** A parameter; without `=` it has no value. */
export interface Parameter {
  /** With `_` for `-`, which are the same in names. */
  readonly name: string;
  readonly value: string | undefined;
  /** As it was written. */
  readonly text: string;
}

/** Words end at spaces outside double quotes (lib/cmdline.c, next_arg). */
const WORD = /(?:[^\s"]|"[^"]*(?:"|$))+/g;

const unquoted = (text: string): string => text.replace(/^"|"$/g, '');

/** Takes apart what is for the kernel, and what is for init: the word `--` and all that follows. */
export function splitCommandLine(line: string): { kernel: string; init: string } {
  for (const { 0: word, index } of line.matchAll(WORD)) {
    if (word === '--') return { kernel: line.slice(0, index), init: line.slice(index) };
  }
  return { kernel: line, init: '' };
}

/** Parameters for the kernel. */
export function parseCommandLine(line: string): Parameter[] {
  const words: readonly string[] = splitCommandLine(line).kernel.match(WORD) ?? [];
  return words.map(text => {
    const word = unquoted(text);
    const at = word.indexOf('=');
    const name = (at < 0 ? word : word.slice(0, at)).replaceAll('-', '_');
    return { name, value: at < 0 ? undefined : unquoted(word.slice(at + 1)), text };
  });
}

/** The values of every mention of a parameter, in order. */
export function valuesOf(parameters: readonly Parameter[], name: string): (string | undefined)[] {
  return parameters.filter(each => each.name === name).map(({ value }) => value);
}

/** Items of a parameter that is a list and may be there several times, each adding to it. */
export function itemsOf(parameters: readonly Parameter[], name: string): string[] {
  return valuesOf(parameters, name).flatMap(value => (value ?? '').split(',').filter(item => item !== ''));
}

/**
 * What is said of a parameter that is on or off. Given twice, the last counts; what is neither on nor off is ignored.
 *
 * @returns undefined when it is not there, or has no such value
 */
export function isOn(parameters: readonly Parameter[], name: string): boolean | undefined {
  // A parameter of a module is on without a value; others have none then.
  const bare = name.includes('.') ? '1' : '';
  return valuesOf(parameters, name).reduce<boolean | undefined>(
    (before, value) => truth(value ?? bare) ?? before,
    undefined,
  );
}

/** As `kstrtobool` of the kernel has it: it looks at the first letter, and after an `o` at the second. */
function truth(value: string): boolean | undefined {
  if (/^(?:[eyt1]|on)/i.test(value)) return true;
  return /^(?:[dnf0]|of)/i.test(value) ? false : undefined;
}
