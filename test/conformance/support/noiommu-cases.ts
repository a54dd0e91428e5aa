/** How the noiommu cases are declared. @module */
import type { Case, ConformanceHost } from './case.js';
import { NoiommuFixture } from './noiommu.js';

type Body<F> = (fixture: F) => void | Promise<void>;

const declare = (fixture: string, name: string, run: (host: ConformanceHost) => Promise<void>): Case => ({
  source: 'noiommu',
  fixture,
  name,
  profiles: ['noiommu'],
  run: (_t, host) => run(host),
});

/** Tests that start from nothing open. */
export function hostCases(fixture: string, tests: Readonly<Record<string, Body<ConformanceHost>>>): Case[] {
  return Object.entries(tests).map(([name, test]) =>
    declare(fixture, name, async host => {
      await test(host);
    }),
  );
}

/** Tests that start from a bound device. */
export function deviceCases(fixture: string, tests: Readonly<Record<string, Body<NoiommuFixture>>>): Case[] {
  return Object.entries(tests).map(([name, test]) =>
    declare(fixture, name, async host => {
      using opened = await NoiommuFixture.open(host);
      await test(opened);
    }),
  );
}
