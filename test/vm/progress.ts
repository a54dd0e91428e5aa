// Progress of the long steps, on stderr: stdout belongs to TAP.

const tty = process.stderr.isTTY === true;
const lineEveryMs = 15_000;

export const elapsed = (sinceMs: number): string => {
  const seconds = Math.round((Date.now() - sinceMs) / 1000);
  const minutes = Math.floor(seconds / 60);
  return minutes === 0 ? `${seconds}s` : `${minutes}m${String(seconds % 60).padStart(2, '0')}s`;
};

export const note = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

export type Report = (text: string) => void;

/** Runs one named step; `report` shows where it is: in place on a terminal, now and then elsewhere. */
export const step = async <T>(name: string, run: (report: Report) => Promise<T>): Promise<T> => {
  const start = Date.now();
  let last = start;
  const report: Report = text => {
    const now = Date.now();
    if (tty) {
      if (now - last < 200) return;
      process.stderr.write(`\r\x1b[K  ${name}: ${text}, ${elapsed(start)}`);
    } else {
      if (now - last < lineEveryMs) return;
      note(`  ${name}: ${text}, ${elapsed(start)}`);
    }
    last = now;
  };
  if (tty) process.stderr.write(`  ${name}`);
  try {
    const result = await run(report);
    note(`${tty ? '\r\x1b[K' : ''}  ${name}: done in ${elapsed(start)}`);
    return result;
  } catch (error) {
    note(`${tty ? '\r\x1b[K' : ''}  ${name}: failed after ${elapsed(start)}`);
    throw error;
  }
};
