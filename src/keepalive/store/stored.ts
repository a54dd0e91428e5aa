/**
 * What is kept, with the service manager: descriptors and a manifest in its descriptor store, up to date with every
 * change. A driver that dies, however, is started again and finds its device running and its commands in flight.
 *
 * Of every change the new descriptors are stored first, then the manifest changes, then what is no longer used is removed:
 * whatever the manifest speaks of is there, at every moment.
 *
 * @module
 */
import type { Syscalls } from '../../../bindings/syscalls.js';
import { undo } from '../../errors.js';
import type { Device } from '../../vfio/device.js';
import { moveAccounting } from '../handoff/accounting.js';
import { makeManifest } from '../handoff/manifest.js';
import { adoptManifest } from '../handoff/take-over.js';
import type { InheritedStore, KeepAlive } from '../keep-alive.js';
import { publish } from '../keepalive-events.js';
import { isSpare } from '../swap/spare.js';
import type { FdStore } from './fd-store.js';
import { type FoundManifest, findManifest, lastSequence, ManifestFile } from './manifest-file.js';
import type { Owned, StoreNames } from './store-place.js';
import { unmapStrays } from './strays.js';

const MANIFEST = 'manifest.';

/** What a descriptor in the store is, by the names of the manifest. */
interface Stored {
  readonly name: string;
  readonly owner: object;
}

/** What is kept, in the descriptor store. Disposing of it removes all of it there: an orderly end. */
export class StoredKeepAlive implements Disposable {
  readonly kept: KeepAlive;
  readonly #store: FdStore;
  /** All that is there but manifests, by the names it has there: what the manifest speaks of, and perhaps more. */
  readonly #stored = new Map<string, Stored>();
  /** What is there, and nothing speaks of: it is to be removed. */
  readonly #unwanted = new Set<string>();
  #file: ManifestFile | undefined;
  #fileName: string;
  /** What names of the store end with, so that none is used a second time. */
  #serial: number;
  readonly #observing: readonly Disposable[];
  #over = false;

  private constructor(kept: KeepAlive, store: FdStore, before?: InheritedStore) {
    this.kept = kept;
    this.#store = store;
    this.#fileName = before?.fileName ?? '';
    this.#serial = before?.serial ?? 0;
    if (before) this.#rediscover(before);
    this.#observing = [
      kept.observe(() => this.checkpoint()),
      kept.onEnd(how => {
        if (how === 'closed') this[Symbol.dispose]();
        else this.leave();
      }),
    ];
    kept.storeNames = () => this.#names();
  }

  /** Finds the objects of this process for what a predecessor had stored. Takes its manifest over, also when it throws. */
  #rediscover({ fd, aliases }: InheritedStore): void {
    const { kernel } = this.kept;
    try {
      for (const [name, { owner }] of makeManifest(this.kept).descriptors) {
        const alias = aliases.get(name);
        if (alias !== undefined) this.#stored.set(alias, { name, owner });
      }
      this.#file = ManifestFile.adopt(kernel, fd);
    } catch (error) {
      kernel.close(fd);
      throw error;
    }
  }

  /** Finds the name by which something is in the store. */
  #known(): (name: string, owner: object) => string | undefined {
    const aliases = new Map<string, [alias: string, owner: object][]>();
    for (const [alias, { name, owner }] of this.#stored) {
      aliases.set(name, [...(aliases.get(name) ?? []), [alias, owner]]);
    }
    return (name, owner) => aliases.get(name)?.find(([, other]) => other === owner)?.[0];
  }

  /** For a successor, who is to go on with the store. */
  #names(): StoreNames {
    const file = this.#file as ManifestFile;
    const known = this.#known();
    return {
      storedAs: (name, { owner }) => known(name, owner) ?? name,
      place: {
        fileName: this.#fileName,
        serial: this.#serial,
        file: { fd: file.fd, owner: file },
      },
    };
  }

  /**
   * Stores everything that is kept now, and whatever changes from now on: before a call returns that makes memory, opens a
   * device or enables interrupts, it is in the store. Mappings made with `Ioas.mapFile` are written down with the next
   * such change, or {@link checkpoint}. What a predecessor has stored and handed over stays where it is.
   *
   * @throws KernelError, HandoffError of the store; as `KeepAlive.capture`. Nothing is stored then, or what the predecessor
   * had stored, and perhaps more.
   */
  static keep(kept: KeepAlive, store: FdStore): StoredKeepAlive {
    const inherited = kept.takeInheritedStore();
    const stored = new StoredKeepAlive(kept, store, inherited);
    try {
      stored.checkpoint();
    } catch (error) {
      undo(error, [() => (inherited ? stored.leave() : stored[Symbol.dispose]())]);
    }
    return stored;
  }

  /** Writes down what changed. @throws as {@link keep}; the store has what it had before then, and perhaps more. */
  checkpoint(): void {
    const known = this.#known();
    const used = new Set<string>();
    const fresh: [alias: string, stored: Stored & Owned][] = [];
    const storedAs = (name: string, { fd, owner }: Owned): string => {
      let alias = known(name, owner);
      if (alias === undefined) {
        alias = `${name}.${++this.#serial}`;
        fresh.push([alias, { name, fd, owner }]);
      }
      used.add(alias);
      return alias;
    };
    const { bytes } = makeManifest(this.kept, { storedAs });
    for (const [alias, { name, fd, owner }] of fresh) {
      this.#store.storeSync(alias, fd);
      this.#stored.set(alias, { name, owner });
    }
    this.#writeManifest(bytes);
    for (const alias of this.#stored.keys()) {
      if (used.has(alias)) continue;
      this.#stored.delete(alias);
      this.#unwanted.add(alias);
    }
    const removed = this.#removeUnwanted();
    publish({ kind: 'stored', names: fresh.map(([alias]) => alias), removed });
  }

  /** @returns what was removed */
  #removeUnwanted(): string[] {
    const aliases = [...this.#unwanted];
    for (const alias of aliases) {
      this.#store.removeSync(alias);
      this.#unwanted.delete(alias);
    }
    return aliases;
  }

  /** Whichever file is in the store last, and has a manifest as a whole, is what a successor finds. */
  #writeManifest(bytes: Uint8Array): void {
    const file = this.#file;
    if (file?.hasRoomFor(bytes.length)) {
      file.write(bytes);
      return;
    }
    const larger = ManifestFile.create(this.kept.kernel, bytes.length, file?.sequence ?? 0n);
    const name = `${MANIFEST}${++this.#serial}`;
    try {
      // It is in the store before it says anything: what says something is the latest from that moment on.
      this.#store.storeSync(name, larger.fd);
      this.#unwanted.add(name);
      larger.write(bytes);
    } catch (error) {
      undo(error, [() => larger[Symbol.dispose]()]);
    }
    this.#unwanted.delete(name);
    if (file) this.#unwanted.add(this.#fileName);
    this.#file = larger;
    this.#fileName = name;
    file?.[Symbol.dispose]();
  }

  /** Leaves everything in the store for whoever comes next, and follows no further change: after a hand-off, for example. */
  leave(): void {
    if (this.#over) return;
    this.#over = true;
    for (const observing of this.#observing) observing[Symbol.dispose]();
    this.kept.storeNames = undefined;
    this.#file?.[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    if (this.#over) return;
    // The manifest first, and nothing after what fails: what it speaks of must be there.
    const file = this.#fileName === '' ? [] : [this.#fileName];
    const names = [...file, ...this.#stored.keys(), ...this.#unwanted];
    this.leave();
    for (const name of names) this.#store.removeSync(name);
  }
}

/** What a process that ended had in the store. */
export interface Recovered {
  readonly kept: KeepAlive;
  readonly stored: StoredKeepAlive;
}

/**
 * Takes over what a process that is gone left in the descriptor store. Its devices run on; drivers are to be restored from
 * their records. What it had begun and not written down, such as the mapping of memory it had just made, is undone.
 *
 * @param inherited what `receiveInherited` returned; taken over, also when this throws: what does not belong to it is
 * closed and removed from the store
 * @returns undefined when nothing is there: the first start, or the process had not stored everything yet, which is removed
 * @throws StateError, KeepAliveError, KernelError. The store has everything still.
 */
export function recover(
  store: FdStore,
  inherited: ReadonlyMap<string, readonly number[]>,
): Recovered | undefined {
  const { kernel } = store;
  const files = new Map<string, number>();
  for (const [name, fds] of inherited) {
    for (const fd of fds) {
      // A name is given once: the others are the same file.
      if (files.has(name)) kernel.close(fd);
      else files.set(name, fd);
    }
  }
  const close = (name: string): void => {
    const fd = files.get(name);
    if (files.delete(name) && fd !== undefined) kernel.close(fd);
  };
  try {
    const found = newestManifest(kernel, files);
    if (found === undefined) {
      // A process that ended before it had stored everything: nobody can make anything of it.
      for (const name of [...files.keys()]) {
        close(name);
        store.removeSync(name);
      }
      return undefined;
    }
    const { manifest, bytes, fileName } = found;
    const descriptors = new Map<string, number>();
    for (const [name, alias] of manifest.storedAs) {
      const fd = files.get(alias);
      if (fd !== undefined) descriptors.set(name, fd);
      files.delete(alias);
    }
    const fd = files.get(fileName) as number;
    const adopted = adoptManifest(kernel, bytes, descriptors);
    const { kept } = adopted;
    try {
      const serial = Math.max(...[...inherited.keys()].map(name => Number(/\.(\d+)$/.exec(name)?.[1] ?? 0)));
      files.delete(fileName);
      kept.inheritedStore = { fd, fileName, serial, aliases: manifest.storedAs };
      adopted.prepare();
      adopted.activate();
      for (const iommufd of kept.iommufds) moveAccounting(iommufd);
      let strayBytes = 0n;
      for (const iommufd of kept.iommufds)
        for (const ioas of iommufd.ioases) {
          // What that maps may be all that still pins what a device can reach.
          if (!isSpare(ioas)) strayBytes += unmapStrays(ioas);
        }
      const stored = StoredKeepAlive.keep(kept, store);
      for (const name of [...files.keys()]) {
        close(name);
        store.removeSync(name);
      }
      for (const device of kept.devices) attachAgain(device);
      publish({ kind: 'recovered', devices: kept.devices.map(({ name }) => name), strayBytes });
      return { kept, stored };
    } catch (error) {
      undo(error, [() => adopted.abandon(error instanceof Error ? error : new Error(String(error)))]);
    }
  } catch (error) {
    undo(
      error,
      [...files.keys()].map(name => () => close(name)),
    );
  }
}

/**
 * A predecessor may have ended between attaching a device to something else, as a swap does, and writing that down. Where
 * it is attached to this already nothing happens, and where there is nothing else it is not even tried.
 */
function attachAgain(device: Device): void {
  const { attached, iommufd } = device;
  const places = [...(iommufd?.ioases ?? [])].flatMap(ioas => [ioas, ...ioas.hwpts]);
  if (attached && places.length > 1) device.attach(attached);
}

/** The manifest that was written last, to whichever file. */
function newestManifest(
  kernel: Syscalls,
  files: ReadonlyMap<string, number>,
): (FoundManifest & { readonly fileName: string }) | undefined {
  let newest: { fileName: string; fd: number; sequence: bigint } | undefined;
  for (const [fileName, fd] of files) {
    if (!fileName.startsWith(MANIFEST)) continue;
    const sequence = lastSequence(kernel, fd);
    if (sequence > (newest?.sequence ?? 0n)) newest = { fileName, fd, sequence };
  }
  const found = newest && findManifest(kernel, newest.fd);
  return newest && found && { ...found, fileName: newest.fileName };
}
