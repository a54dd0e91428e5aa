/** Puts areas into domains, and takes them out. @module */
import { ENOMEM } from '../../../bindings/uapi/errno.js';
import { type PagingDomain, Protection } from '../iommu/domain.js';
import { PAGE } from '../machine/physical-memory.js';
import type { Area } from './area.js';

const PAGE_BYTES = BigInt(PAGE);

/** Maps all of the area, whose pages are held. @returns 0, or minus the errno, with nothing mapped */
export function mapArea(area: Area, domain: PagingDomain, largePages: boolean): number {
  const { pages } = area;
  if (pages.revoked) return 0;
  const protection = pages.isDmaBuf ? area.protection & ~Protection.Cache : area.protection;
  let done = area.first;
  for (const run of pages.runs(area.firstPage, area.lastPage)) {
    const end = area.endOf(run.lastPage);
    let address = run.address + (run.firstPage === area.firstPage ? area.pageOffset : 0n);
    while (done < end) {
      const length = largePages ? end - done : PAGE_BYTES;
      const result = pages.process.shouldFail() ? -ENOMEM : domain.map(done, address, length, protection);
      if (result < 0) {
        if (done > area.first) domain.unmap(area.first, done - area.first);
        return result;
      }
      done += length;
      address += length;
    }
  }
  return 0;
}

/** Unmaps all of the area. */
function unmapArea(area: Area, domain: PagingDomain): void {
  if (!area.pages.revoked) domain.unmap(area.first, area.length);
}

function show(area: Area, domain: PagingDomain): void {
  if (area.pages.isDmaBuf) area.pages.shown.add({ area, domain });
}

function hide(area: Area, domain: PagingDomain): void {
  for (const shown of area.pages.shown) {
    if (shown.area === area && shown.domain === domain) area.pages.shown.delete(shown);
  }
}

/** Maps a new area in all the domains. @returns 0, or minus the errno, with nothing changed */
export function fillDomains(area: Area, domains: readonly PagingDomain[], largePages: boolean): number {
  const [storage] = domains;
  if (storage === undefined) return 0;
  const { pages, firstPage, lastPage } = area;
  if (!pages.revoked) {
    let result = pages.hold(firstPage, lastPage);
    if (result < 0) return result;
    const filled: PagingDomain[] = [];
    for (const domain of domains) {
      result = mapArea(area, domain, largePages);
      if (result < 0) break;
      filled.push(domain);
    }
    if (result >= 0) result = pages.settle();
    if (result < 0) {
      for (const domain of filled) unmapArea(area, domain);
      pages.unhold(firstPage, lastPage);
      return result;
    }
  }
  for (const domain of domains) show(area, domain);
  area.storageDomain = storage;
  return 0;
}

/** Unmaps an area from all its domains, and lets go of its pages. */
export function unfillDomains(area: Area, domains: readonly PagingDomain[]): void {
  if (area.storageDomain === undefined) return;
  for (const domain of domains) {
    unmapArea(area, domain);
    hide(area, domain);
  }
  area.storageDomain = undefined;
  area.pages.drop(area.firstPage, area.lastPage);
}

/** Maps an area in one more domain. @returns 0, or minus the errno, with nothing changed */
export function fillDomain(area: Area, domain: PagingDomain, largePages: boolean): number {
  if (area.storageDomain === undefined) return fillDomains(area, [domain], largePages);
  const result = mapArea(area, domain, largePages);
  if (result >= 0) show(area, domain);
  return result;
}

/**
 * Unmaps an area from a domain that has gone from the address space.
 *
 * @param remaining a domain that stays; without one the pages are let go of
 */
export function unfillDomain(area: Area, domain: PagingDomain, remaining: PagingDomain | undefined): void {
  if (remaining === undefined) {
    unfillDomains(area, [domain]);
    return;
  }
  if (area.storageDomain === domain) area.storageDomain = remaining;
  unmapArea(area, domain);
  hide(area, domain);
}
