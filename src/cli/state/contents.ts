/** How much of what a saved state holds, in one line. @module */
import type { State } from '../../keepalive/state/saved-state.js';
import { formatCount } from '../units.js';

/** Such as `1 device, 1 driver, 2 arenas, 1 iommufd, 1 IOAS, 0 HWPTs, 0 sessions`. */
export function contents({ arenas, iommufds, devices, drivers, sessions }: State): string {
  const ioases = iommufds.flatMap(iommufd => iommufd.ioases);
  const hwpts = ioases.reduce((sum, ioas) => sum + (ioas.hwpts?.length ?? 0), 0);
  return [
    formatCount(devices.length, 'device'),
    formatCount(drivers.length, 'driver'),
    formatCount(arenas.length, 'arena'),
    formatCount(iommufds.length, 'iommufd'),
    formatCount(ioases.length, 'IOAS', 'IOASes'),
    formatCount(hwpts, 'HWPT'),
    formatCount(sessions.length, 'session'),
  ].join(', ');
}
