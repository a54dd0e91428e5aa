/** A machine whose state has a million mappings, and that state. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import type { Iova } from '../../../src/address.js';
import type { Ioas } from '../../../src/iommufd/ioas.js';
import { KeepAlive } from '../../../src/keepalive/keep-alive.js';
import { MappingTable } from '../../../src/keepalive/state/mapping-table.js';
import type { SavedIoas, State } from '../../../src/keepalive/state/saved-state.js';
import { DmaArena } from '../../../src/memory/dma-memory.js';
import { createSealedMemfd, PageSize } from '../../../src/memory/memfd.js';
import { openDevice } from '../../../src/open-device.js';
import { claim } from '../../../src/pci/claim.js';
import { EduModel } from '../../../src/sim/devices/edu.js';
import { SimulatedHost } from '../../../src/sim/host.js';
import type { SimulatedProcess } from '../../../src/sim/process/process.js';
import { random } from '../../support/random.js';

export const COUNT = 1_000_000;
const PAGE = 4096;
/** Few pages, mapped over and over: what they hold does not matter, and the figures are not of the memory itself. */
export const ARENA_SIZE = 2 ** 20;
const ADDRESS = '0000:00:05.0';

/** A machine just started, its device in the hands of vfio-pci, as after a kexec with a landing. */
export function landedMachine(): { host: SimulatedHost; kernel: SimulatedProcess } {
  const host = new SimulatedHost({ devices: [{ address: ADDRESS, function: new EduModel() }] });
  host.kexec({ overrides: { [ADDRESS]: 'vfio-pci' } });
  return { host, kernel: host.process() };
}

/** Pages of the arena, each in a place of its own: nine of ten right behind the one before. */
function manyMappings(own: SavedIoas['mappings']): MappingTable {
  const { below } = random(20_261_126);
  const [first] = own;
  if (first === undefined) throw new Error('the arena is not mapped');
  const table = new MappingTable(COUNT);
  table.push(first);
  let iova = 2n ** 32n;
  for (let index = 1; index < COUNT; index++) {
    const offset = below(ARENA_SIZE / PAGE) * PAGE;
    table.push({ iova: iova as Iova, length: PAGE, arena: first.arena, offset, writeable: below(50) > 0 });
    iova += BigInt(PAGE * (below(10) > 0 ? 1 : 2 + below(8)));
  }
  return table;
}

/** The state of a driver with one device, one arena, and a million mappings of its pages. */
export async function millionState(): Promise<State> {
  const { host, kernel } = landedMachine();
  using _host = host;
  using claimed = await claim(ADDRESS, { kernel });
  using device = openDevice(claimed);
  using _arena = DmaArena.create(device.space, ARENA_SIZE, { name: 'guest', iova: 0x10_0000n as Iova });
  using kept = KeepAlive.of(device);
  const state = kept.capture();
  return {
    ...state,
    iommufds: state.iommufds.map(iommufd => ({
      ...iommufd,
      ioases: iommufd.ioases.map(ioas => ({ ...ioas, mappings: manyMappings(ioas.mappings) })),
    })),
  };
}

/** The same without its device: what is left has nothing to do with the machine. */
export function withoutDevice(state: State): State {
  return { ...state, devices: [] };
}

/** Memory for the arena. */
export function newMemory(kernel: Syscalls): number {
  return createSealedMemfd(kernel, 'guest', ARENA_SIZE, PageSize.Small);
}

/** Opens the device, and attaches it to an address space. */
export async function attachTo(space: Ioas, kernel: Syscalls): Promise<void> {
  openDevice(await claim(ADDRESS, { kernel }), { space });
}
