// Sequences of calls on the simulated host: those that once told it from the kernel, and that chance alone decides
// nothing. The kernel tier has the comparison itself.
import t from 'tap';
import { recorded } from '../conformance/differential/cases.js';
import { difference, report } from '../conformance/differential/difference.js';
import { type DomainName, domains, sequence } from '../conformance/differential/domains.js';
import { Simulator } from '../conformance/differential/on-simulator.js';

t.test('what the kernel said', t => {
  for (const each of recorded) {
    const found = difference(each, each.seen, new Simulator(each.profile).run(each));
    t.equal(found && report(found), undefined, each.name);
  }
  t.end();
});

for (const [domain, { profiles }] of Object.entries(domains)) {
  t.test(`${domain}: the same twice, whatever ran before`, t => {
    const [profile] = profiles;
    const one = new Simulator(profile);
    for (let index = 0; index < 40; index++) {
      const each = sequence(domain as DomainName, 11, index);
      const lines = one.run(each);
      t.not(lines[0], 'threw', lines.join('\n'));
      t.strictSame(new Simulator(profile).run(each), lines, each.name);
    }
    t.end();
  });
}
