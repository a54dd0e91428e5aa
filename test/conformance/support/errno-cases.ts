/** How the rows of the errno table are declared: what the kernel answers where something is wrong. @module */
import type { Test } from 'tap';
import type { Case, ConformanceHost } from './case.js';
import { translatedProfiles } from './vfio.js';
import { ViommuFixture } from './viommu.js';

/** Machines that have iommufd. */
export const iommufdProfiles: readonly string[] = [...translatedProfiles, 'noiommu'];

/** A row without `body` cannot be run, for the reason given in its place; `unavailable` is that of {@link Case}. */
export type Row<Body> = readonly [
  number: number,
  title: string,
  body: Body | string,
  unavailable?: NonNullable<Case['unavailable']>,
];

/** Rows whose body is given the host alone. */
export function hostRows(
  rows: readonly Row<(host: ConformanceHost, t: Test) => void | Promise<void>>[],
  profiles: readonly string[] | undefined,
): Case[] {
  return rows.map(([number, title, body, unavailable]) => ({
    source: 'errno',
    fixture: 'errno',
    name: `${number} ${title}`,
    ...(profiles !== undefined && { profiles }),
    ...(unavailable !== undefined && { unavailable }),
    ...(typeof body === 'string'
      ? { notApplicable: body }
      : {
          run: async (t, host) => {
            await body(host, t);
          },
        }),
  }));
}

/** Rows about an iommufd, with mock devices behind it: the same on every machine. */
export function iommufdRows(
  rows: readonly Row<(iommu: ViommuFixture, t: Test) => void | Promise<void>>[],
): Case[] {
  return hostRows(
    rows.map(([number, title, body, ...rest]) => [
      number,
      title,
      typeof body === 'string'
        ? body
        : async (host, t) => {
            using iommu = new ViommuFixture(host);
            await body(iommu, t);
          },
      ...rest,
    ]),
    iommufdProfiles,
  );
}
