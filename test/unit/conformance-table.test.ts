// The table of conformance: what passes, fails and differs is told apart, with variants folded into one row.
import t from 'tap';
import type { CaseResult, Outcome, RunResults } from '../conformance/support/result.js';
import { report } from '../conformance/table.js';

const result = (name: string, outcome: Outcome, more: Partial<CaseResult> = {}): CaseResult => ({
  source: 'iommu/iommufd.c',
  fixture: 'ioas',
  name,
  variant: undefined,
  profile: 'vtd',
  outcome,
  reason: outcome === 'pass' ? undefined : `why ${name}`,
  ...more,
});

const kernel = (...results: CaseResult[]): RunResults => ({ host: 'kernel', results });
const simulator = (...results: CaseResult[]): RunResults => ({ host: 'simulator', results });
const rowOf = (table: string, name: string): string =>
  table.split('\n').find(line => line.startsWith(`| ioas.${name} `)) ?? '';

t.test('alike on both', async t => {
  const variants = ['one', 'two'].map(variant => result('map', 'pass', { variant }));
  const same = [...variants, result('copy', 'pass'), result('fork', 'skip')];
  const { table, complaints } = report([kernel(...same), simulator(...same)]);
  t.strictSame(complaints, []);
  t.equal(rowOf(table, 'map'), '| ioas.map | pass (2 variants) | pass (2 variants) |');
  t.equal(rowOf(table, 'copy'), '| ioas.copy | pass | pass |');
  t.equal(rowOf(table, 'fork'), '| ioas.fork | does not apply: why fork | does not apply: why fork |');
  t.match(table, '3 tests');
  t.match(table, '- kernel: 3 passed, 0 failed, 1 do not apply; on vtd');
});

t.test('the worst machine counts', async t => {
  const onBoth = [result('map', 'fail', { profile: 'amd' }), result('map', 'pass')];
  const { table, complaints } = report([
    kernel(result('map', 'pass', { profile: 'amd' })),
    kernel(result('map', 'pass')),
    simulator(...onBoth),
  ]);
  t.equal(complaints.length, 1);
  t.equal(rowOf(table, 'map'), '| ioas.map | pass | **fail** (why map) |');
  t.match(table, 'on amd, vtd');
});

t.test('what is wrong is told', async t => {
  const complaintsOf = (a: CaseResult[], b: CaseResult[]): string[] =>
    report([kernel(...a), simulator(...b)]).complaints;
  const pass = [result('map', 'pass', { variant: 'one' })];
  t.equal(complaintsOf(pass, [])[0], 'iommu/iommufd.c: ioas.map\n  kernel: pass\n  simulator: not run');
  t.equal(complaintsOf([], pass).length, 1, 'only on the simulator');
  t.equal(complaintsOf(pass, [result('map', 'pass', { variant: 'two' })]).length, 1, 'another variant');
  t.equal(complaintsOf(pass, [result('map', 'skip', { variant: 'one' })]).length, 1, 'left out');
  const fail = [result('map', 'fail', { variant: 'one' })];
  t.equal(complaintsOf(fail, fail).length, 1, 'failing on both is no conformance');
});
