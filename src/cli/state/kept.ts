/** What a state says that is not understood here, and passed on. @module */
import { type Kept, nodeName, type State } from '../../keepalive/state/saved-state.js';

/** Of each record, and of each of its properties and nodes that were kept, the path. */
export function keptPaths(state: State): string[] {
  const paths: string[] = [];
  const add = (path: string, kept: Kept | undefined): void => {
    for (const name of kept?.properties.keys() ?? []) paths.push(`${path}: property ${name}`);
    for (const { name } of kept?.nodes ?? []) paths.push(`${path === '/' ? '' : path}/${name}`);
  };
  add('/', state.kept);
  for (const { token, kept } of state.arenas) add(`/${nodeName.arena(token)}`, kept);
  for (const iommufd of state.iommufds) {
    const path = `/${nodeName.iommufd(iommufd.id)}`;
    add(path, iommufd.kept);
    for (const ioas of iommufd.ioases) {
      const below = `${path}/${nodeName.ioas(ioas.id)}`;
      add(below, ioas.kept);
      for (const { id, kept } of ioas.hwpts ?? []) add(`${below}/${nodeName.hwpt(id)}`, kept);
    }
  }
  for (const { address, kept } of state.devices) add(`/${nodeName.device(address)}`, kept);
  for (const { device, kept } of state.drivers) add(`/${nodeName.driver(device)}`, kept);
  // Decoded sessions are in the order that their nodes are numbered in.
  for (const [index, { kept }] of state.sessions.entries()) add(`/${nodeName.session(index)}`, kept);
  return paths;
}
