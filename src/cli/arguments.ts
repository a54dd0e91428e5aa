/** Makes a command of the words on the command line. Looks at nothing else. @module */
import { parseArgs } from 'node:util';
import { type PciAddress, pciAddress } from '../pci/address.js';
import { UsageError } from './errors.js';
import { type LandAction, landAction } from './land-action.js';
import { parseCount, parseDuration, parseSize } from './numbers.js';
import { type OptionName, options } from './options.js';
import { EXPORT_FORMATS, type ExportFormat } from './state/export-format.js';
import { type Topic, type TopicName, topics } from './topics.js';

/** The device a command is about, and how to take it. */
export interface Target {
  readonly address: PciAddress;
  readonly noiommu: boolean;
  readonly force: boolean;
  /** In ms. */
  readonly timeout: number | undefined;
}

/** How much to read: up to the end when neither is given. */
export interface Length {
  readonly blocks?: number;
  readonly bytes?: number;
}

export interface HelpCommand {
  readonly verb: 'help';
  readonly topic: TopicName;
}
export interface VersionCommand {
  readonly verb: 'version';
  readonly json: boolean;
}
export interface DemoCommand {
  readonly verb: 'demo';
  readonly json: boolean;
}
export interface DevicesCommand {
  readonly verb: 'devices';
  readonly all: boolean;
  readonly json: boolean;
}
export interface LandCommand {
  readonly verb: 'land';
  /** `-` is standard input. */
  readonly file: string;
  readonly release: string | undefined;
  readonly root: string;
  readonly action: LandAction;
  readonly yes: boolean;
  readonly dryRun: boolean;
  readonly json: boolean;
}
export interface IdentifyCommand {
  readonly verb: 'nvme identify';
  readonly target: Target;
  readonly json: boolean;
}
export interface ReadCommand {
  readonly verb: 'nvme read';
  readonly target: Target;
  readonly json: boolean;
  readonly namespace: number;
  readonly lba: number;
  readonly length: Length;
  /** `-` is standard output. */
  readonly output: string;
}
export interface WriteCommand {
  readonly verb: 'nvme write';
  readonly target: Target;
  readonly json: boolean;
  readonly namespace: number;
  readonly lba: number;
  /** `-` is standard input. */
  readonly input: string;
  readonly pad: boolean;
  readonly yes: boolean;
}
export interface StateShowCommand {
  readonly verb: 'state show';
  /** `-` is standard input. */
  readonly file: string;
  readonly json: boolean;
}
export interface StateVerifyCommand {
  readonly verb: 'state verify';
  /** `-` is standard input. */
  readonly file: string;
  readonly json: boolean;
}
export interface StateDiffCommand {
  readonly verb: 'state diff';
  /** `-` is standard input. */
  readonly files: readonly [a: string, b: string];
  readonly json: boolean;
}
export interface StateExportCommand {
  readonly verb: 'state export';
  /** `-` is standard input. */
  readonly file: string;
  readonly format: ExportFormat;
  /** `-` is standard output. */
  readonly output: string;
  readonly json: boolean;
}
export type Command =
  | HelpCommand
  | VersionCommand
  | DemoCommand
  | DevicesCommand
  | LandCommand
  | IdentifyCommand
  | ReadCommand
  | WriteCommand
  | StateShowCommand
  | StateVerifyCommand
  | StateDiffCommand
  | StateExportCommand;

function parseWords(args: readonly string[]) {
  return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
}
type Words = ReturnType<typeof parseWords>;
type Values = Words['values'];

const NVME_VERBS = ['identify', 'read', 'write'] as const;
type NvmeVerb = (typeof NVME_VERBS)[number];

function isNvmeVerb(word: string | undefined): word is NvmeVerb {
  return NVME_VERBS.some(verb => verb === word);
}

const STATE_VERBS = ['show', 'verify', 'diff', 'export'] as const;
type StateVerb = (typeof STATE_VERBS)[number];

function isStateVerb(word: string | undefined): word is StateVerb {
  return STATE_VERBS.some(verb => verb === word);
}

/** @throws UsageError */
export function parseCommand(args: readonly string[]): Command {
  const { values, positionals } = split(args);
  const [command, ...words] = positionals;
  if (values.help) return { verb: 'help', topic: helpTopic(positionals) };
  switch (command) {
    case undefined:
      if (values.version) return { verb: 'version', json: values.json ?? false };
      throw new UsageError('no command given', '');
    case 'demo':
      accept('demo', values);
      noMore('demo', words);
      return { verb: 'demo', json: values.json ?? false };
    case 'devices':
      return devices(values, words);
    case 'land':
      return withTopic('land', () => land(values, words));
    case 'nvme':
      return nvme(values, words);
    case 'state':
      return state(values, words);
    default:
      throw new UsageError(`there is no command "${command}"`, '');
  }
}

function split(args: readonly string[]): Words {
  try {
    return parseWords(args);
  } catch (error) {
    throw new UsageError(plainly((error as Error).message), guessTopic(args));
  }
}

/** What parseArgs says, without its advice on words that begin with a dash, which no command takes. */
function plainly(message: string): string {
  const [, names] = /^Option '([^'<]*?)(?: <value>)?' argument (?:is ambiguous|missing)/.exec(message) ?? [];
  if (names !== undefined) return `option ${names} needs a value`;
  const [sentence = ''] = message.split(/\.(?:\s|$)|\n/);
  return sentence.charAt(0).toLowerCase() + sentence.slice(1);
}

/** The topic of a command line that does not parse. */
function guessTopic(args: readonly string[]): TopicName {
  const words = args.filter(word => !word.startsWith('-'));
  return words[0] === 'nvme' || words[0] === 'state' || isPlain(words[0]) ? helpTopic(words) : '';
}

/** A command of one word. */
function isPlain(word: string | undefined): word is 'demo' | 'devices' | 'land' {
  return word === 'demo' || word === 'devices' || word === 'land';
}

/** An address may be among the words, or be missing. */
function helpTopic([command, ...words]: readonly string[]): TopicName {
  if (command === undefined) return '';
  if (isPlain(command)) return command;
  if (command === 'state') {
    const [verb] = words;
    return isStateVerb(verb) ? `state ${verb}` : 'state';
  }
  if (command !== 'nvme') throw new UsageError(`there is no command "${command}"`, '');
  const verb = words.find(isNvmeVerb);
  return verb === undefined ? 'nvme' : `nvme ${verb}`;
}

function devices(values: Values, words: readonly string[]): DevicesCommand {
  accept('devices', values);
  noMore('devices', words);
  return { verb: 'devices', all: values.all ?? false, json: values.json ?? false };
}

function land(values: Values, [state, ...rest]: readonly string[]): LandCommand {
  accept('land', values);
  noMore('land', rest);
  const file = stateFile('the file with the saved state', state);
  const { release, root = '/', yes = false, 'dry-run': dryRun = false, json = false } = values;
  const action = landAction(values);
  if (json && action.kind === 'add' && action.output === '-') {
    throw new RangeError(
      '--json needs --output FILE: standard output cannot carry both the image and the JSON',
    );
  }
  return { verb: 'land', file, release, root: fileName('--root', root), action, yes, dryRun, json };
}

function nvme(values: Values, [address, verb, ...rest]: readonly string[]): Command {
  if (address === undefined) throw new UsageError('the address of the controller is missing', 'nvme');
  const target: Target = {
    address: withTopic('nvme', () => pciAddress(address)),
    noiommu: values.noiommu ?? false,
    force: values.force ?? false,
    timeout: optional(values.timeout, text => withTopic('nvme', () => parseDuration('--timeout', text))),
  };
  if (verb === undefined) {
    throw new UsageError(`say what to do with ${target.address}: ${NVME_VERBS.join(', ')}`, 'nvme');
  }
  if (!isNvmeVerb(verb)) throw new UsageError(`there is no command "nvme ${verb}"`, 'nvme');
  const topic = `nvme ${verb}` as const;
  accept(topic, values);
  noMore(topic, rest);
  return withTopic(topic, () => {
    switch (verb) {
      case 'identify':
        return { verb: 'nvme identify', target, json: values.json ?? false };
      case 'read':
        return read(target, values);
      case 'write':
        return write(target, values);
    }
  });
}

function state(values: Values, [verb, ...files]: readonly string[]): Command {
  if (verb === undefined) {
    throw new UsageError(`say what to do with a saved state: ${STATE_VERBS.join(', ')}`, 'state');
  }
  if (!isStateVerb(verb)) throw new UsageError(`there is no command "state ${verb}"`, 'state');
  const topic = `state ${verb}` as const;
  accept(topic, values);
  noMore(topic, files.slice(verb === 'diff' ? 2 : 1));
  const json = values.json ?? false;
  return withTopic(topic, () => {
    const file = stateFile('the file', files[0]);
    switch (verb) {
      case 'show':
        return { verb: 'state show', file, json };
      case 'verify':
        return { verb: 'state verify', file, json };
      case 'diff': {
        const other = stateFile('the second file', files[1]);
        if (file === '-' && other === '-')
          throw new RangeError('only one of the files can be standard input');
        return { verb: 'state diff', files: [file, other], json };
      }
      case 'export':
        return exportCommand(file, values);
    }
  });
}

function stateFile(title: string, name: string | undefined): string {
  if (name === undefined) throw new RangeError(`${title} is missing`);
  return fileName(title, name);
}

function exportCommand(file: string, values: Values): StateExportCommand {
  const { format: text = 'dts', json = false } = values;
  const format = EXPORT_FORMATS.find(each => each === text);
  if (format === undefined) {
    throw new RangeError(`--format must be one of ${EXPORT_FORMATS.join(', ')}, got "${text}"`);
  }
  return { verb: 'state export', file, format, output: outputFile(values), json };
}

function place(values: Values): { namespace: number; lba: number; json: boolean } {
  return {
    namespace: optional(values.namespace, text => parseCount('--namespace', text, 1)) ?? 1,
    lba: optional(values.lba, text => parseCount('--lba', text)) ?? 0,
    json: values.json ?? false,
  };
}

function read(target: Target, values: Values): ReadCommand {
  const blocks = optional(values.blocks, text => parseCount('--blocks', text, 1));
  const bytes = optional(values.bytes, text => parseSize('--bytes', text));
  if (blocks !== undefined && bytes !== undefined) {
    throw new RangeError('--blocks and --bytes say the same thing; give one of them');
  }
  const output = outputFile(values);
  const length = { ...(blocks !== undefined && { blocks }), ...(bytes !== undefined && { bytes }) };
  return { verb: 'nvme read', target, ...place(values), length, output };
}

function write(target: Target, values: Values): WriteCommand {
  const input = fileName('--input', values.input);
  const { pad = false, yes = false } = values;
  return { verb: 'nvme write', target, ...place(values), input, pad, yes };
}

/** Where data goes: not where the result as JSON goes. */
function outputFile(values: Values): string {
  const output = fileName('--output', values.output);
  if (values.json && output === '-') {
    throw new RangeError(
      '--json needs --output FILE: standard output cannot carry both the data and the JSON',
    );
  }
  return output;
}

function fileName(title: string, name = '-'): string {
  if (name === '') throw new RangeError(`${title} must name a file`);
  return name;
}

function optional<T>(text: string | undefined, parse: (text: string) => T): T | undefined {
  return text === undefined ? undefined : parse(text);
}

/** Refuses options that exist but mean nothing here. */
function accept(name: TopicName, values: Values): void {
  const topic: Topic = topics[name];
  for (const option of Object.keys(values) as OptionName[]) {
    if (!topic.options.includes(option)) throw new UsageError(`"${name}" has no option --${option}`, name);
  }
}

function noMore(name: TopicName, words: readonly string[]): void {
  if (words[0] !== undefined) throw new UsageError(`"${words[0]}" is one word too many`, name);
}

/** A value out of range is wrong usage. */
function withTopic<T>(topic: TopicName, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message, topic) : error;
  }
}
