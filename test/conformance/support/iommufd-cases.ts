/** How the cases of iommu/iommufd.c are declared. @module */
import type { Test } from 'tap';
import type { Case, ConformanceHost } from './case.js';

/** Mock devices are alike on every machine with a kernel that has them; one is enough. */
export const mockMachine = ['noiommu'] as const;

/** Tests of one fixture by name: each is given what `setup` makes, which is disposed after it. */
export function fixtureCases<F extends Disposable>(
  fixture: string,
  setup: (host: ConformanceHost) => F,
  tests: Readonly<Record<string, (fixture: F, t: Test) => void | Promise<void>>>,
  variant?: string,
): Case[] {
  return Object.entries(tests).map(([name, test]) => ({
    source: 'iommu/iommufd.c',
    fixture,
    name,
    ...(variant !== undefined && { variant }),
    profiles: mockMachine,
    async run(t, host) {
      using made = setup(host);
      await test(made, t);
    },
  }));
}
