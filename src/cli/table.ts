/** Lays out text in columns. @module */

const GAP = '  ';

/**
 * Lines of columns, each as wide as its widest cell. No line ends in spaces.
 *
 * @param heading applied to the first line, such as {@link Colours.bold}
 */
export function table(
  rows: readonly (readonly string[])[],
  heading: (text: string) => string = text => text,
): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    }
  }
  return rows
    .map(row =>
      row
        .map((cell, column) => cell.padEnd(widths[column] as number))
        .join(GAP)
        .trimEnd(),
    )
    .map((line, index) => `${index === 0 ? heading(line) : line}\n`)
    .join('');
}

/** `name  value` lines, indented, the values aligned. */
export function fields(entries: readonly (readonly [name: string, value: string])[]): string {
  return table(entries.map(([name, value]) => [`  ${name}`, value]));
}
