/** Runs one command from its words to its exit code. @module */
import { readPciDevice } from '../pci/devices.js';
import { type Command, parseCommand } from './arguments.js';
import { colours } from './colours.js';
import { runDevices } from './devices.js';
import {
  BrokenPipe,
  describe,
  ExitCode,
  find,
  flatten,
  Incomplete,
  Interrupted,
  UsageError,
} from './errors.js';
import { helpText } from './help.js';
import { interrupts } from './interrupt.js';
import { toJson } from './json.js';
import { runIdentify } from './nvme/identify.js';
import { runRead } from './nvme/read.js';
import { runWrite } from './nvme/write.js';
import { note, print, quietErrorEvents } from './streams.js';
import { version } from './version.js';

/** @returns the exit code */
export async function run(args: readonly string[]): Promise<number> {
  quietErrorEvents();
  using stop = interrupts();
  let command: Command | undefined;
  try {
    command = parseCommand(args);
    await perform(command, stop.signal);
    return ExitCode.Ok;
  } catch (error) {
    return report(error, command);
  }
}

function perform(command: Command, signal: AbortSignal): Promise<void> {
  switch (command.verb) {
    case 'help':
      return print(helpText(command.topic));
    case 'version':
      return print(command.json ? toJson({ version: version() }) : `${version()}\n`);
    case 'devices':
      return runDevices(command);
    case 'nvme identify':
      return runIdentify(command, signal);
    case 'nvme read':
      return runRead(command, signal);
    case 'nvme write':
      return runWrite(command, signal);
  }
}

/** Tells what went wrong. @returns the exit code */
function report(error: unknown, command: Command | undefined): number {
  const errors = flatten(error);
  // That someone called it off is told once, below; what failed besides, while cleaning up, is told in any case.
  const failures = errors.filter(each => !find(each, Interrupted) && !find(each, BrokenPipe));
  for (const failure of failures) complain(failure);
  const interrupted = find(error, Interrupted);
  if (interrupted) {
    const progress = find(error, Incomplete);
    note(`iommufd: ${interrupted.message}${progress ? `; ${progress.message}` : ''}${whereabouts(command)}`);
    return interrupted.exitCode;
  }
  if (failures.length === 0) return ExitCode.Ok;
  return find(error, UsageError) ? ExitCode.Usage : ExitCode.Failed;
}

function complain(error: unknown): void {
  const { red } = colours(process.stderr);
  note(`${red('iommufd:')} ${describe(error)}${seeHelp(error)}`);
  if (process.env.IOMMUFD_DEBUG === '1') console.error(error);
}

function seeHelp(error: unknown): string {
  if (!(error instanceof UsageError) || error.topic === undefined) return '';
  return `. See "${['iommufd', error.topic, '--help'].filter(Boolean).join(' ')}"`;
}

/** Whoever interrupts wants to know whether the device is back where it was. */
function whereabouts(command: Command | undefined): string {
  if (!command || !('target' in command)) return '';
  const { address } = command.target;
  try {
    return `; ${address} is with ${readPciDevice(address).driver ?? 'no driver'}`;
  } catch {
    return '';
  }
}
