/** What the records of a saved state say about one another. @module */
import type { SavedIoas, State } from './saved-state.js';

/** Finds what records of a state say about one another that cannot be: calls `refuse` with the first such. */
export function checkReferences(
  state: State<unknown>,
  arenasOf: (ioas: SavedIoas<never>) => readonly bigint[],
  refuse: (record: object, property: string, reason: string) => never,
): void {
  const { arenas, iommufds, devices, sessions, drivers } = state;
  unique(
    arenas,
    arena => arena.token,
    (arena, value) => refuse(arena, 'token', `a second arena has token ${value}`),
  );
  unique(
    iommufds,
    ({ id }) => id,
    (item, value) => refuse(item, 'id', `a second iommufd has id ${value}`),
  );
  const tokens = new Set(arenas.map(arena => arena.token));
  for (const { ioases } of iommufds) {
    unique(
      ioases,
      ({ id }) => id,
      (item, value) => refuse(item, 'id', `a second IOAS has id ${value}`),
    );
    for (const ioas of ioases) {
      let end = -1n;
      for (const { first, last } of ioas.allowed) {
        if (first > last || first <= end) {
          refuse(ioas, 'allowed-iovas', 'ranges must not be empty, and be ascending and disjoint');
        }
        end = last;
      }
      for (const token of arenasOf(ioas as SavedIoas<never>)) {
        if (!tokens.has(token)) refuse(ioas, 'mapping-arenas', `there is no arena with token ${token}`);
      }
      unique(
        ioas.hwpts ?? [],
        hwpt => hwpt.id,
        (item, value) => refuse(item, 'id', `a second HWPT of the IOAS has id ${value}`),
      );
    }
  }
  unique(
    devices,
    device => device.address,
    (item, value) => refuse(item, 'address', `a second device is ${value}`),
  );
  const spaces = new Set<string>();
  const hwpts = new Set<string>();
  // A device that is not attached may be in any iommufd; but its HWPTs can be in one alone.
  const iommufdOf = new Map(devices.map(device => [device.address, device.addressSpace?.iommufd]));
  for (const { id, ioases } of iommufds) {
    for (const ioas of ioases) {
      spaces.add(`${id}/${ioas.id}`);
      for (const hwpt of ioas.hwpts ?? []) {
        hwpts.add(`${id}/${ioas.id}/${hwpt.id}`);
        if (!iommufdOf.has(hwpt.device)) refuse(hwpt, 'device', `there is no device ${hwpt.device}`);
        const own = iommufdOf.get(hwpt.device) ?? id;
        if (own !== id) refuse(hwpt, 'device', `${hwpt.device} is in iommufd ${own}, and this HWPT in ${id}`);
        iommufdOf.set(hwpt.device, id);
      }
    }
  }
  for (const arena of arenas) {
    const { place } = arena;
    if (place && !spaces.has(`${place.iommufd}/${place.ioas}`)) {
      refuse(arena, 'place', `there is no IOAS ${place.ioas} in an iommufd ${place.iommufd}`);
    }
  }
  for (const device of devices) {
    if (!device.addressSpace) continue;
    const { iommufd, ioas, hwpt } = device.addressSpace;
    if (!spaces.has(`${iommufd}/${ioas}`)) {
      refuse(device, 'address-space', `there is no IOAS ${ioas} in an iommufd ${iommufd}`);
    }
    if (hwpt !== undefined && !hwpts.has(`${iommufd}/${ioas}/${hwpt}`)) {
      refuse(device, 'address-space-hwpt', `there is no HWPT ${hwpt} in IOAS ${ioas} of iommufd ${iommufd}`);
    }
  }
  unique(
    drivers,
    driver => driver.device,
    (item, value) => refuse(item, 'device', `a second driver drives ${value}`),
  );
  for (const driver of drivers) {
    if (!iommufdOf.has(driver.device)) refuse(driver, 'device', `there is no device ${driver.device}`);
  }
  unique(
    sessions,
    session => session.name,
    (item, value) => refuse(item, 'label', `a second session is named ${value}`),
  );
  for (const session of sessions) {
    unique(
      [...session.tokens],
      ([, token]) => token,
      ([purpose, value]) =>
        refuse(session, 'tokens', `token ${value} is there twice, again for ${JSON.stringify(purpose)}`),
    );
  }
}

function unique<T, K>(items: readonly T[], keyOf: (item: T) => K, twice: (item: T, key: K) => void): void {
  const seen = new Set<K>();
  for (const item of items) {
    const key = keyOf(item);
    if (seen.has(key)) twice(item, key);
    seen.add(key);
  }
}
