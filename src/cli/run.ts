/** Runs one command from its words to its exit code. @module */
import { readPciDevice } from '../pci/devices.js';
import { type Command, parseCommand } from './arguments.js';
import { colours } from './colours.js';
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
import { note, print, quietErrorEvents } from './streams.js';
import { version } from './version.js';

/** @returns the exit code */
export async function run(args: readonly string[]): Promise<number> {
  quietErrorEvents();
  using stop = interrupts();
  let command: Command | undefined;
  try {
    command = parseCommand(args);
    return await perform(command, stop.signal);
  } catch (error) {
    return report(error, command);
  }
}

/**
 * Loads what the command needs and no more: it is to answer at once.
 *
 * @returns the exit code
 */
async function perform(command: Command, signal: AbortSignal): Promise<number> {
  switch (command.verb) {
    case 'help':
      await print(helpText(command.topic));
      break;
    case 'version':
      await print(command.json ? toJson({ version: version() }) : `${version()}\n`);
      break;
    case 'demo':
      await (await import('./demo/demo.js')).runDemo(command, signal);
      break;
    case 'devices':
      await (await import('./devices.js')).runDevices(command);
      break;
    case 'land':
      await (await import('./land.js')).runLand(command, signal);
      break;
    case 'nvme identify':
      await (await import('./nvme/identify.js')).runIdentify(command, signal);
      break;
    case 'nvme read':
      await (await import('./nvme/read.js')).runRead(command, signal);
      break;
    case 'nvme write':
      await (await import('./nvme/write.js')).runWrite(command, signal);
      break;
    case 'state show':
      await (await import('./state/show.js')).runStateShow(command, signal);
      break;
    case 'state verify':
      return (await import('./state/verify.js')).runStateVerify(command, signal);
    case 'state diff':
      return (await import('./state/diff.js')).runStateDiff(command, signal);
    case 'state export':
      await (await import('./state/export.js')).runStateExport(command, signal);
      break;
  }
  return ExitCode.Ok;
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
  if (find(error, UsageError)) return ExitCode.Usage;
  return command?.verb === 'state diff' ? ExitCode.Trouble : ExitCode.Failed;
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
