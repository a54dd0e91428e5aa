/** Colours, where they are welcome. @module */

export interface Colours {
  bold(text: string): string;
  red(text: string): string;
}

/** What {@link colours} needs to know of a stream. */
export interface MaybeTerminal {
  readonly isTTY?: boolean;
}

const styled =
  (on: number, off: number) =>
  (text: string): string =>
    `\u001b[${on}m${text}\u001b[${off}m`;
const plain = (text: string): string => text;

/** Whether `stream` shows colours: a terminal does unless NO_COLOR is set (https://no-color.org) or it is dumb. */
function shown(stream: MaybeTerminal, env: NodeJS.ProcessEnv): boolean {
  return stream.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb';
}

export function colours(stream: MaybeTerminal, env: NodeJS.ProcessEnv = process.env): Colours {
  return shown(stream, env) ? { bold: styled(1, 22), red: styled(31, 39) } : { bold: plain, red: plain };
}
