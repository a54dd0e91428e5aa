/**
 * Makes TABLE.md out of results of the suite: `node dist/test/conformance/table.js kernel.json … simulator.json`. Ends with
 * exit code 1 when something failed, or went otherwise on the simulator than on the kernel.
 *
 * @module
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isMain, projectRoot } from '../vm/project.js';
import type { CaseResult, Outcome, RunResults } from './support/result.js';

const hosts = ['kernel', 'simulator'] as const;
type Host = RunResults['host'];

/** A variant of a test on one host: what came out on all machines. */
interface Cell {
  outcome: Outcome;
  reason: string | undefined;
  readonly machines: Set<string>;
}

/** A test with all its variants. */
interface Row {
  readonly source: string;
  readonly title: string;
  readonly cells: Readonly<Record<Host, Map<string, Cell>>>;
}

/** From best to worst: the worst machine counts. */
const severity: readonly Outcome[] = ['skip', 'pass', 'fail'];

function add(cells: Map<string, Cell>, { variant = '', outcome, reason, profile }: CaseResult): void {
  const cell = cells.get(variant);
  if (cell === undefined) {
    cells.set(variant, { outcome, reason, machines: new Set([profile]) });
    return;
  }
  cell.machines.add(profile);
  if (severity.indexOf(outcome) > severity.indexOf(cell.outcome)) {
    cell.outcome = outcome;
    cell.reason = reason;
  }
}

/** One row for each test, in the order in which they first ran. */
function rowsOf(runs: readonly RunResults[]): Row[] {
  const rows = new Map<string, Row>();
  for (const { host, results } of runs) {
    for (const result of results) {
      const title = `${result.fixture}.${result.name}`;
      const key = `${result.source}: ${title}`;
      let row = rows.get(key);
      if (row === undefined) {
        row = { source: result.source, title, cells: { kernel: new Map(), simulator: new Map() } };
        rows.set(key, row);
      }
      add(row.cells[host], result);
    }
  }
  return [...rows.values()];
}

const plural = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** Variants with the same reason together: `one, other: reason`. */
function byReason(cells: readonly (readonly [variant: string, Cell])[]): string[] {
  const variants = new Map<string, string[]>();
  for (const [variant, { reason = 'no reason' }] of cells) {
    variants.set(reason, [...(variants.get(reason) ?? []), variant]);
  }
  return [...variants].map(([reason, names]) => {
    const named = names.filter(name => name !== '').join(', ');
    return named === '' ? reason : `${named}: ${reason}`;
  });
}

/** What one host makes of a test, in words. */
function summary(cells: ReadonlyMap<string, Cell>): string {
  const all = [...cells];
  if (all.length === 0) return 'not run';
  const of = (wanted: Outcome) => all.filter(([, { outcome }]) => outcome === wanted);
  const passed = of('pass').length;
  const parts: string[] = [];
  if (passed > 0) parts.push(all.length === 1 ? 'pass' : `pass (${plural(passed, 'variant')})`);
  for (const each of byReason(of('fail'))) parts.push(`**fail** (${each})`);
  const skipped = of('skip');
  if (skipped.length === all.length) return `does not apply: ${skipped[0]?.[1].reason}`;
  for (const each of byReason(skipped)) parts.push(`does not apply (${each})`);
  return parts.join('; ');
}

/** Whether a variant came out otherwise on the simulator than on the kernel, or ran on one of them only. */
function differ({ cells: { kernel, simulator } }: Row): boolean {
  const variants = new Set([...kernel.keys(), ...simulator.keys()]);
  return [...variants].some(variant => kernel.get(variant)?.outcome !== simulator.get(variant)?.outcome);
}

function failed(cells: ReadonlyMap<string, Cell>): boolean {
  return [...cells.values()].some(({ outcome }) => outcome === 'fail');
}

function totals(rows: readonly Row[], host: Host): string {
  const count = (wanted: Outcome): number =>
    rows.reduce(
      (sum, { cells }) => sum + [...cells[host].values()].filter(cell => cell.outcome === wanted).length,
      0,
    );
  const machines = new Set(
    rows.flatMap(({ cells }) => [...cells[host].values()].flatMap(cell => [...cell.machines])),
  );
  const counts = `${count('pass')} passed, ${count('fail')} failed, ${count('skip')} do not apply`;
  return `- ${host}: ${counts}; on ${[...machines].sort().join(', ') || 'no machine'}`;
}

const escaped = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ');

/** The table as Markdown. */
function table(rows: readonly Row[]): string {
  const lines = [
    '# Conformance',
    '',
    'The same cases on the real kernel and on the simulated host. Made by `test/conformance/table.ts`; do not edit.',
    '',
    `${plural(rows.length, 'test')}, with their variants:`,
    '',
    ...hosts.map(host => totals(rows, host)),
    '',
  ];
  for (const source of new Set(rows.map(row => row.source))) {
    lines.push(`## ${source}`, '', '| Test | Kernel | Simulator |', '| --- | --- | --- |');
    for (const { title, cells } of rows.filter(row => row.source === source)) {
      lines.push(`| ${title} | ${hosts.map(host => escaped(summary(cells[host]))).join(' | ')} |`);
    }
    lines.push('');
  }
  return lines.join('\n');
}

/** The table of all runs, and a complaint for each test that failed or came out otherwise on the simulator. */
export function report(runs: readonly RunResults[]): { table: string; complaints: string[] } {
  const rows = rowsOf(runs);
  const bad = rows.filter(row => differ(row) || hosts.some(host => failed(row.cells[host])));
  const complaints = bad.map(({ source, title, cells }) => {
    const both = hosts.map(host => `  ${host}: ${summary(cells[host])}`);
    return [`${source}: ${title}`, ...both].join('\n');
  });
  return { table: table(rows), complaints };
}

function main(files: readonly string[]): number {
  if (files.length === 0) {
    process.stderr.write('usage: node dist/test/conformance/table.js kernel.json … simulator.json\n');
    return 2;
  }
  const runs = files.map(file => JSON.parse(readFileSync(file, 'utf8')) as RunResults);
  const { table, complaints } = report(runs);
  writeFileSync(join(projectRoot, 'test/conformance/TABLE.md'), table);
  for (const complaint of complaints) process.stderr.write(`${complaint}\n`);
  return complaints.length > 0 ? 1 : 0;
}

if (isMain(import.meta.url)) process.exitCode = main(process.argv.slice(2));
