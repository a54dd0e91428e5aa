/**
 * Random sequences of system calls on a real kernel and on the simulated host: what comes out must be the same, call by
 * call. `SEED` makes others; `node dist/test/conformance/differential/compare.js` does more of them, and shrinks what
 * differs.
 */
import t from 'tap';
import { recorded } from '../conformance/differential/cases.js';
import { compare } from '../conformance/differential/compare.js';
import { report } from '../conformance/differential/difference.js';
import type { DomainName } from '../conformance/differential/domains.js';
import { compareOverKexec } from '../conformance/differential/kexec.js';
import { kernelTranscripts } from '../conformance/differential/on-kernel.js';
import { machinesAtOnce } from './kernel-tier.js';
import type { ProfileName } from './profiles.js';

t.setTimeout(0);

/** Always the same, so that a run fails for what was changed since, and for nothing else. */
const seed = Number(process.env.SEED) || 77;
/** 50 calls each. */
const runs: readonly { domain: DomainName; profile: ProfileName; count: number }[] = [
  { domain: 'iommufd', profile: 'noiommu', count: 1500 },
  { domain: 'liveupdate', profile: 'noiommu', count: 300 },
  { domain: 'noiommu', profile: 'noiommu', count: 300 },
  { domain: 'vfio', profile: 'vtd', count: 200 },
  { domain: 'vfio', profile: 'noiommu', count: 100 },
];

t.jobs = machinesAtOnce;
const side = { timeout: 0, buffered: true };

for (const { domain, profile, count } of runs) {
  void t.test(`${count} sequences of ${domain}, ${profile}`, side, async t => {
    t.comment(`seed ${seed}`);
    const differences = await compare({ domain, profile, seed, count, start: 0 });
    for (const each of differences.slice(0, 3)) t.comment(report(each));
    t.equal(differences.length, 0, 'no difference');
  });
}

void t.test('sequences that were recorded', side, async t => {
  for (const domain of new Set(recorded.map(each => each.domain as DomainName))) {
    for (const profile of new Set(recorded.map(each => each.profile))) {
      const mine = recorded.filter(each => each.domain === domain && each.profile === profile);
      const seen = await kernelTranscripts(domain, profile, mine);
      for (const [i, each] of mine.entries()) t.strictSame(seen[i], each.seen, each.name);
    }
  }
});

void t.test('150 sequences over a kexec', side, async t => {
  t.comment(`seed ${seed}`);
  const differences = await compareOverKexec(seed, 150);
  for (const each of differences.slice(0, 3)) t.comment(report(each));
  t.equal(differences.length, 0, 'no difference');
});
