/** `iommufd state show`: what a saved state says, for people. @module */
import { hex } from '../../hex.js';
import { RlimitMode } from '../../iommufd/iommufd.js';
import type { SavedArena, State } from '../../keepalive/state/saved-state.js';
import type { StateShowCommand } from '../arguments.js';
import { colours } from '../colours.js';
import { toJson } from '../json.js';
import { printable } from '../printable.js';
import { print } from '../streams.js';
import { table } from '../table.js';
import { formatAddress, formatCount, formatSize } from '../units.js';
import { contents } from './contents.js';
import { deviceText } from './device-text.js';
import { readState, titleOf } from './file.js';
import { keptPaths } from './kept.js';
import { arenaTitles, spaceText } from './space-text.js';
import { stateJson } from './state-json.js';

const DEFAULT_WIDTH = 80;
const ARENA_HEADING = ['ARENA', 'TOKEN', 'SIZE', 'PAGE SIZE', 'EXTENTS', 'PLACE'];
const SESSION_HEADING = ['SESSION', 'PURPOSE', 'TOKEN'];
/** Paths of what is only passed on. */
const MOST_KEPT = 20;

function placeText(place: SavedArena['place']): string {
  if (!place) return '-';
  return `iommufd ${place.iommufd}, IOAS ${place.ioas}, ${formatAddress(place.iova)}`;
}

function arenasText({ arenas }: State, bold: (text: string) => string): string {
  const rows = arenas.map(({ token, name, size, pageSize, extents, place }) => [
    printable(name) || '(no name)',
    hex(token),
    formatSize(size),
    formatSize(pageSize),
    extents ? String(extents.length) : '-',
    placeText(place),
  ]);
  return table([ARENA_HEADING, ...rows], bold);
}

function sessionsText({ sessions }: State, bold: (text: string) => string): string {
  const rows = sessions.flatMap(({ name, tokens }) =>
    tokens.size === 0
      ? [[printable(name), '(nothing)', '']]
      : Array.from(tokens, ([purpose, token]) => [printable(name), printable(purpose), hex(token)]),
  );
  return table([SESSION_HEADING, ...rows], bold);
}

/** An iommufd that has something to say, or nothing in it to say it. */
function* iommufdLines({ iommufds }: State): Generator<string> {
  for (const { id, ioases, rlimitMode } of iommufds) {
    if (rlimitMode === RlimitMode.Process) yield `iommufd ${id} charges pinned memory to the process\n`;
    if (ioases.length === 0) yield `iommufd ${id} has no IOAS\n`;
  }
}

function keptText(paths: readonly string[]): string {
  const more = paths.length - MOST_KEPT;
  const shown = [...paths.slice(0, MOST_KEPT), ...(more > 0 ? [`and ${more} more`] : [])];
  const what = formatCount(paths.length, 'thing');
  return `${what} not understood here, and passed on:\n${shown.map(path => `  ${path}\n`).join('')}`;
}

/**
 * The whole of it, as text.
 *
 * @param width of a line, in characters
 */
export function stateText(
  state: State,
  width: number,
  bold: (text: string) => string = text => text,
): string {
  const titles = arenaTitles(state.arenas);
  const driverOf = new Map(state.drivers.map(driver => [driver.device, driver]));
  const kept = keptPaths(state);
  const sections = [
    ...state.devices.map(device => deviceText(device, driverOf.get(device.address), bold)),
    ...(state.arenas.length > 0 ? [arenasText(state, bold)] : []),
    ...state.iommufds.flatMap(({ id, ioases }) =>
      ioases.map(ioas => spaceText(id, ioas, titles, width, bold)),
    ),
    [...iommufdLines(state)].join(''),
    ...(state.sessions.length > 0 ? [sessionsText(state, bold)] : []),
    ...(kept.length > 0 ? [keptText(kept)] : []),
  ];
  return sections.filter(section => section !== '').join('\n');
}

export async function runStateShow({ file, json }: StateShowCommand, signal: AbortSignal): Promise<void> {
  const state = await readState(file, signal);
  if (json) return print(toJson(stateJson(state, 'summary')));
  const text = stateText(state, process.stdout.columns ?? DEFAULT_WIDTH, colours(process.stdout).bold);
  await print(`${titleOf(file)}: ${contents(state)}\n\n${text}`);
}
