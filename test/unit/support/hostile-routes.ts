/**
 * The ways by which a state comes back, with a hostile hand in between: what comes is not what was sent, stored or
 * preserved.
 *
 * @module
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { MAP_SHARED, PROT_READ, PROT_WRITE } from '../../../bindings/uapi/mman.js';
import { NvmeController } from '../../../src/drivers/nvme/index.js';
import { DmaArena } from '../../../src/index.js';
import { Channel } from '../../../src/keepalive/handoff/channel.js';
import { handOff, takeOver } from '../../../src/keepalive/handoff/handoff.js';
import { HandoffError, HandoffErrorCode } from '../../../src/keepalive/handoff/handoff-error.js';
import { receiveInherited } from '../../../src/keepalive/handoff/inheritance.js';
import { descriptorName, makeManifest } from '../../../src/keepalive/handoff/manifest.js';
import type { KeepAlive } from '../../../src/keepalive/keep-alive.js';
import { type IncomingSession, LiveUpdate } from '../../../src/keepalive/liveupdate/live-update.js';
import { preserve, STATE_TOKEN } from '../../../src/keepalive/liveupdate/preserve.js';
import { preservedState, resume } from '../../../src/keepalive/liveupdate/resume.js';
import { decodeState } from '../../../src/keepalive/state/decode-state.js';
import { FdtValue } from '../../../src/keepalive/state/fdt-value.js';
import type { State } from '../../../src/keepalive/state/saved-state.js';
import { FdStore } from '../../../src/keepalive/store/fd-store.js';
import { findManifest, ManifestFile } from '../../../src/keepalive/store/manifest-file.js';
import { recover, StoredKeepAlive } from '../../../src/keepalive/store/stored.js';
import { createSealedMemfd, PageSize } from '../../../src/memory/memfd.js';
import { NvmeModel } from '../../../src/sim/devices/nvme/index.js';
import type { MachineProfile } from '../../../src/sim/iommu/hardware.js';
import type { SimulatedProcess } from '../../../src/sim/process/process.js';
import { ServiceManager } from '../../../src/testing/service-manager.js';
import { ADDRESS, type Driver, holdings, KeepaliveStage } from './keepalive-stage.js';

/** Another device of the machine, with the kernel's own driver. */
export const OTHER = '0000:00:05.0';
const SESSION = 'kept';
const PAGE = 4096;
/** Of the file that manifests are in, in bytes. */
const FILE = 2 ** 17;
/** Arenas of one size, of which the application does not use the second. */
export const TWINS = ['nvme-io', 'twin'] as const;

/** What is done to what comes. */
export interface Forgery {
  /** To the state; `older` is what it was before an arena was made. */
  readonly state?: (sound: Uint8Array, older: Uint8Array) => Uint8Array;
  /** To the descriptors, by the names that the state has for them; `holder` has them. */
  readonly files?: (files: Map<string, number>, holder: SimulatedProcess, state: State) => void;
  /** To the file in the store that has the last two manifests. */
  readonly file?: (bytes: Uint8Array) => void;
  /** To what is in memory, by the names of arenas; it is put right again afterwards. */
  readonly memory?: Readonly<Record<string, (bytes: Uint8Array, state: State) => void>>;
  /** Only what is the driver's is spoilt: with its sound record it can go on on what was accepted. */
  readonly onlyDriver?: boolean;
}

/** One way by which a state comes back. */
export interface Route {
  readonly stage: KeepaliveStage;
  /** The sound state. */
  readonly state: State;
  /**
   * Brings the state back, spoilt.
   *
   * @returns what was thrown; undefined when it was accepted
   */
  attempt(forgery: Forgery): Promise<unknown>;
  /** Nothing may have changed by an attempt; what did. */
  problems(): Promise<string[]>;
  /** What is sound still comes back. @returns the driver that goes on with it */
  finish(): Promise<Driver>;
  /** Ends that driver. @returns what is left */
  end(driver: Driver): Promise<string[]>;
}

/** Ends a driver, and what {@link begin} made beside it. */
async function endDriver(stage: KeepaliveStage, driver: Driver): Promise<void> {
  for (const arena of [...driver.kept.arenas]) if (arena.name === TWINS[1]) arena[Symbol.dispose]();
  await stage.end(driver);
}

function leftovers({ host }: KeepaliveStage): string[] {
  return host.leftovers().filter(left => left !== `${ADDRESS} is with vfio-pci`);
}

/** A memfd that is what the size says, in everything but perhaps its seals. */
export function memfdOf(kernel: Syscalls, size: number, isSealed = true): number {
  if (isSealed) return createSealedMemfd(kernel, 'forged', size, PageSize.Small);
  const fd = kernel.memfdCreate('forged', 3);
  kernel.ftruncate(fd, size);
  return fd;
}

/** Spoils memory. @returns what puts it right again */
function spoil(
  { memory }: Forgery,
  files: ReadonlyMap<string, number>,
  kernel: SimulatedProcess,
  state: State,
): () => void {
  const undoing: (() => void)[] = [];
  for (const { token, name, size } of state.arenas) {
    const edit = memory?.[name];
    const fd = files.get(descriptorName.arena(token));
    if (edit === undefined || fd === undefined) continue;
    const address = kernel.mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const bytes = new Uint8Array(kernel.view(address, size));
    const before = bytes.slice();
    edit(bytes, state);
    undoing.push(() => {
      bytes.set(before);
      kernel.munmap(address, size);
    });
  }
  return () => {
    for (const step of undoing) step();
  };
}

/** How far the device is, and everything that decides on it. */
function snapshot(stage: KeepaliveStage): string[] {
  const { model, host } = stage;
  const kernel = host.process();
  const fd = kernel.open(`/sys/bus/pci/devices/${ADDRESS}/config`, 0);
  const command = new Uint8Array(2);
  kernel.pread(fd, command, 4);
  kernel.exit();
  return [
    `${model.trace.adminCommands.length} admin commands`,
    `${model.trace.registerWrites.filter(({ offset }) => offset < 0x1000).length} registers written`,
    `${model.resets} resets`,
    `command register ${command.join(' ')}`,
    stage.sysfs(),
  ];
}

function changes(before: readonly string[], after: readonly string[]): string[] {
  return before.flatMap((was, index) => (was === after[index] ? [] : [`${was} before, and ${after[index]}`]));
}

/** A driver that has begun. */
interface Begun {
  readonly stage: KeepaliveStage;
  readonly first: Driver;
  readonly process: SimulatedProcess;
  /** The state before the second of the {@link TWINS} was made. */
  readonly older: Uint8Array;
}

async function begin(
  profile: MachineProfile,
  stage = new KeepaliveStage(profile),
  kernelOf = (kernel: Syscalls): Syscalls => kernel,
): Promise<Begun> {
  stage.host.plug({ address: OTHER, function: new NvmeModel({ serial: 'b' }) });
  const { process, kernel } = stage.process('predecessor');
  const first = await stage.start(kernelOf(kernel));
  const { space } = first.controller.device;
  const twin = first.kept.arenas.find(({ name }) => name === TWINS[0]) as DmaArena;
  const older = makeManifest(first.kept).bytes;
  DmaArena.create(space, twin.size, { name: TWINS[1] });
  return { stage, first, process, older };
}

/** A message of a hand-off on its way. */
interface Passing {
  readonly kind: string;
  readonly fields: ReadonlyMap<string, Uint8Array>;
  readonly fds: readonly number[];
}

/** Passes messages on, until one of the two ends is gone. */
async function pass(
  wire: SimulatedProcess,
  from: Channel,
  to: Channel,
  forge: (message: Passing) => Passing,
): Promise<void> {
  try {
    for (;;) {
      const message = await from.receive(5000);
      const { kind, fields } = message;
      const sound = { kind, fields, fds: message.take() };
      const sent = forge(sound);
      to.send(kind, sent.fields, sent.fds);
      for (const fd of new Set([...sound.fds, ...sent.fds])) wire.close(fd);
    }
  } catch {
    // The other end is to know.
    to[Symbol.dispose]();
  }
}

/** To a successor that is there already. */
export class HandOffRoute implements Route {
  readonly stage: KeepaliveStage;
  readonly state: State;
  readonly #first: Driver;
  readonly #process: SimulatedProcess;
  readonly #older: Uint8Array;
  readonly #running: Promise<void>;
  #before: string[] = [];
  #found: string[] = [];

  private constructor({ stage, first, process, older }: Begun, running: Promise<void>) {
    this.stage = stage;
    this.#first = first;
    this.#process = process;
    this.#older = older;
    this.#running = running;
    this.state = decodeState(makeManifest(first.kept).bytes);
  }

  static async make(profile: MachineProfile): Promise<Route> {
    const begun = await begin(profile);
    return new HandOffRoute(begun, begun.first.lanes.start());
  }

  async attempt(forgery: Forgery): Promise<unknown> {
    const { stage } = this;
    const { lanes, kept } = this.#first;
    await stage.hold(lanes);
    this.#before = snapshot(stage);
    this.#found = [];
    const { length: touches } = stage.witness.touches;
    const next = stage.process('successor');
    const wire = stage.host.process();
    const [mine, near] = connect(this.#process, wire, this.#process);
    const [theirs, far] = connect(next.process, wire, next.kernel);
    let restore = (): void => undefined;
    const forge = (message: Passing): Passing => {
      if (message.kind === 'offer') return this.#forgeOffer(message, forgery, wire);
      if (message.kind !== 'descriptors') return message;
      const names = FdtValue.readStrings(message.fields.get('names') as Uint8Array) as string[];
      const files = new Map(names.map((name, index) => [name, message.fds[index] as number]));
      restore = spoil(forgery, files, wire, this.state);
      forgery.files?.(files, wire, this.state);
      const fields = new Map([['names', FdtValue.strings([...files.keys()])]]);
      return { ...message, fields, fds: [...files.values()] };
    };
    const answer = (message: Passing): Passing => {
      if (message.kind === 'refused') restore();
      return message;
    };
    const relayed = [pass(wire, near, far, forge), pass(wire, far, near, answer)];
    const verify = (offered: KeepAlive): void =>
      NvmeController.verify(offered.device(ADDRESS), offered.record(ADDRESS)!, {
        memory: token => offered.arena(token),
      });
    const [given, taken] = await Promise.allSettled([
      handOff(kept, mine, { timeout: 30_000 }),
      takeOver(theirs, { timeout: 30_000, verify }),
    ]);
    mine[Symbol.dispose]();
    theirs[Symbol.dispose]();
    await Promise.all(relayed);
    wire.exit();
    if (taken.status === 'fulfilled') return undefined;
    if (given.status === 'fulfilled') this.#found.push('the predecessor gave away what nobody took');
    else if (!(given.reason instanceof HandoffError && given.reason.code === HandoffErrorCode.Refused)) {
      this.#found.push(`the predecessor was told ${given.reason}`);
    }
    this.#found.push(...touched(stage, touches, 'successor'), ...held(next.process));
    next.process.exit();
    return taken.reason;
  }

  #forgeOffer(message: Passing, { state, files }: Forgery, wire: SimulatedProcess): Passing {
    const number = (name: string): number =>
      FdtValue.readU32(message.fields.get(name) as Uint8Array) as number;
    const bytes = new Uint8Array(number('manifest-bytes'));
    wire.pread(message.fds[0] as number, bytes, 0);
    const forged = state?.(bytes, this.#older) ?? bytes;
    const fd = memfdOf(wire, Math.ceil(forged.length / PAGE) * PAGE || PAGE);
    wire.pwrite(fd, forged, 0);
    // As many as there will be.
    const names = new Map([...makeManifest(this.#first.kept).descriptors.keys()].map(name => [name, -1]));
    const { size } = names;
    files?.(names, wire, this.state);
    const fields = new Map(message.fields)
      .set('manifest-bytes', FdtValue.u32(forged.length))
      .set('descriptors', FdtValue.u32(number('descriptors') + names.size - size));
    return { ...message, fields, fds: [fd] };
  }

  async problems(): Promise<string[]> {
    const { stage } = this;
    const { lanes, kept } = this.#first;
    const problems = [...this.#found, ...changes(this.#before, snapshot(stage))];
    if (kept.frozen) problems.push('the predecessor stays frozen');
    stage.release();
    const { told } = lanes;
    for (let turns = 0; lanes.told < told + 8 && turns < 5000; turns++) await turn();
    if (lanes.told < told + 8) problems.push('the predecessor does not go on');
    return problems;
  }

  async finish(): Promise<Driver> {
    const { lanes } = this.#first;
    lanes.stop();
    await this.#running;
    return this.#first;
  }

  async end(driver: Driver): Promise<string[]> {
    await endDriver(this.stage, driver);
    return leftovers(this.stage);
  }
}

/** Two ends of a connection, each in a process of its own. */
function connect(a: SimulatedProcess, b: SimulatedProcess, kernelOfA: Syscalls): [Channel, Channel] {
  const [one, other] = Channel.pair(a);
  const ends: [Channel, Channel] = [
    Channel.adopt(a.share(one.fd, a), kernelOfA),
    Channel.adopt(a.share(other.fd, b), b),
  ];
  one[Symbol.dispose]();
  other[Symbol.dispose]();
  return ends;
}

const storeOf = (keeper: ServiceManager, kernel: Syscalls): FdStore =>
  FdStore.fromEnvironment({ NOTIFY_SOCKET: keeper.address }, kernel) as FdStore;

/** To the next run of a service that was killed. */
export class StoreRoute implements Route {
  readonly stage: KeepaliveStage;
  readonly state: State;
  readonly #keeper: ServiceManager;
  readonly #older: Uint8Array;
  #before: string[] = [];
  #found: string[] = [];
  #runs = 0;

  private constructor(stage: KeepaliveStage, state: State, keeper: ServiceManager, older: Uint8Array) {
    this.stage = stage;
    this.state = state;
    this.#keeper = keeper;
    this.#older = older;
  }

  static async make(profile: MachineProfile): Promise<Route> {
    const stage = new KeepaliveStage(profile);
    const keeper = new ServiceManager(stage.host);
    const { first, process, older } = await begin(profile, stage, kernel => keeper.listenTo(kernel));
    // Once more, so that there is a manifest before the last one.
    StoredKeepAlive.keep(first.kept, storeOf(keeper, first.kept.kernel)).checkpoint();
    const running = first.lanes.start();
    await stage.hold(first.lanes);
    const state = decodeState(makeManifest(first.kept).bytes);
    process.exit();
    first.controller.relinquish(new HandoffError(HandoffErrorCode.HandedOver, 'killed'));
    await running;
    return new StoreRoute(stage, state, keeper, older);
  }

  #start(): { process: SimulatedProcess; kernel: Syscalls; inherited: Map<string, number[]> } {
    const { process, kernel } = this.stage.process(`successor ${++this.#runs}`);
    const env = this.#keeper.give(process);
    return { process, kernel: this.#keeper.listenTo(kernel), inherited: receiveInherited(env, kernel) };
  }

  async attempt(forgery: Forgery): Promise<unknown> {
    const { stage } = this;
    this.#found = [];
    this.#before = this.#everything();
    const { process, kernel, inherited } = this.#start();
    const restore = this.#forge(forgery, inherited, process);
    const { length: touches } = stage.witness.touches;
    let kept: KeepAlive | undefined;
    let error: unknown;
    try {
      kept = recover(storeOf(this.#keeper, kernel), inherited)?.kept;
      if (kept === undefined) this.#found.push('nothing was found');
      else await stage.goOn(kept);
    } catch (thrown) {
      error = thrown;
    }
    restore();
    if (error !== undefined) {
      this.#found.push(
        ...touched(stage, touches, `successor ${this.#runs}`),
        ...(kept ? unquarantined(kept) : held(process)),
      );
    }
    process.exit();
    return error;
  }

  /** Spoils what was given to a process. @returns what puts right again what others have, too */
  #forge(forgery: Forgery, inherited: Map<string, number[]>, process: SimulatedProcess): () => void {
    const fileName = [...inherited.keys()].find(name => name.startsWith('manifest.')) as string;
    const [file] = inherited.get(fileName) as [number];
    const { manifest, bytes } = findManifest(process, file)!;
    const given = new Map(
      [...manifest.storedAs].map(([name, alias]) => [name, inherited.get(alias)?.[0] as number]),
    );
    // What is mapped for it is not the successor's.
    const hand = this.stage.host.process();
    const restore = spoil(
      forgery,
      new Map([...given].map(([name, fd]) => [name, process.share(fd, hand)])),
      hand,
      this.state,
    );
    const files = new Map(given);
    forgery.files?.(files, process, this.state);
    for (const [name, fd] of given) {
      inherited.delete(manifest.storedAs.get(name) as string);
      if (![...files.values()].includes(fd)) process.close(fd);
    }
    for (const [name, fd] of files) {
      // One with another name than it had is stored under that.
      const [was] = given.has(name)
        ? [name]
        : ([...given].find(([, each]) => each === fd) as [string, number]);
      inherited.set((manifest.storedAs.get(was) as string).replace(was, name), [fd]);
    }
    if (forgery.state) {
      const forged = forgery.state(bytes, this.#older);
      const other = ManifestFile.create(process, forged.length, 0n);
      other.write(forged);
      process.close(file);
      inherited.set(fileName, [other.fd]);
    }
    if (forgery.file) {
      const forged = new Uint8Array(FILE);
      process.pread(file, forged, 0);
      forgery.file(forged);
      const other = memfdOf(process, FILE);
      process.pwrite(other, forged, 0);
      process.close(file);
      inherited.set(fileName, [other]);
    }
    return () => {
      restore();
      hand.exit();
    };
  }

  #everything(): string[] {
    const names = this.#keeper.stored.map(({ name }) => name).sort();
    return [...snapshot(this.stage), `${names} in the store`];
  }

  async problems(): Promise<string[]> {
    return [...this.#found, ...changes(this.#before, this.#everything())];
  }

  async finish(): Promise<Driver> {
    const { kernel, inherited } = this.#start();
    const driver = await this.stage.goOn(recover(storeOf(this.#keeper, kernel), inherited)!.kept);
    this.stage.release();
    return driver;
  }

  async end(driver: Driver): Promise<string[]> {
    await endDriver(this.stage, driver);
    const stored = this.#keeper.stored.map(({ name }) => `${name} in the store`);
    this.#keeper.process.exit();
    return [...leftovers(this.stage), ...stored];
  }
}

/** What a kernel found that another one left. */
interface Landed {
  readonly stage: KeepaliveStage;
  readonly process: SimulatedProcess;
  readonly kernel: Syscalls;
  readonly session: IncomingSession;
  readonly older: Uint8Array;
}

async function land(profile: MachineProfile): Promise<Landed> {
  const { stage, first, older } = await begin(profile);
  void first.lanes.start();
  for (let turns = 0; turns < 10; turns++) await turn();
  await preserve(first.kept, { session: SESSION });
  stage.host.kexec({ overrides: { [ADDRESS]: 'vfio-pci' }, withoutReset: [ADDRESS] });
  const { process, kernel } = stage.process('next');
  const liveUpdate = LiveUpdate.open(kernel);
  const session = liveUpdate.retrieveSession(SESSION);
  liveUpdate[Symbol.dispose]();
  return { stage, process, kernel, session, older };
}

/** To the next kernel. */
export class LiveUpdateRoute implements Route {
  #landed: Landed;
  readonly #profile: MachineProfile;
  #before: string[] = [];
  #found: string[] = [];
  /** A device was attached here, so that another attempt needs another machine. */
  #used = false;

  private constructor(profile: MachineProfile, landed: Landed) {
    this.#profile = profile;
    this.#landed = landed;
  }

  static async make(profile: MachineProfile): Promise<Route> {
    return new LiveUpdateRoute(profile, await land(profile));
  }

  get stage(): KeepaliveStage {
    return this.#landed.stage;
  }

  get state(): State {
    const { session, process } = this.#landed;
    return preservedState(session, process);
  }

  #everything(): string[] {
    const { stage } = this;
    return [...snapshot(stage), `${stage.host.physical.usedPages} pages in use`];
  }

  async attempt(forgery: Forgery): Promise<unknown> {
    if (this.#used) {
      this.stage.host[Symbol.dispose]();
      this.#landed = await land(this.#profile);
      this.#used = false;
    }
    const { stage, process, kernel } = this.#landed;
    const { state } = this;
    this.#found = [];
    this.#before = this.#everything();
    const before = holdings(process).length;
    const { session, restore } = this.#forge(forgery, state);
    const { touches } = stage.witness;
    const { length: first } = touches;
    let attached = first;
    let kept: KeepAlive | undefined;
    let error: unknown;
    try {
      kept = await resume(session, { kernel });
      attached = touches.length;
      await stage.goOn(kept);
    } catch (thrown) {
      error = thrown;
    }
    restore();
    if (error === undefined) return undefined;
    this.#found.push(...touched(stage, attached, 'next'));
    if (kept === undefined) {
      const now = holdings(process);
      if (now.length !== before) this.#found.push(`it holds ${now}`);
      return error;
    }
    // The driver found it out. Its device is attached by then, cannot reach memory, and its memory is nobody else's.
    this.#used = true;
    this.#found.push(...unquarantined(kept));
    if (kept.device(ADDRESS).config.busMaster) this.#found.push('the device can reach memory');
    if (forgery.onlyDriver) {
      const sound = state.drivers.find(({ device }) => device === ADDRESS);
      const memory = (token: bigint) => (kept as KeepAlive).arena(token);
      const controller = await NvmeController.restore(kept.device(ADDRESS), sound, { memory });
      if (controller.outcome !== 'kept-running') {
        this.#found.push(`with the sound record it is ${controller.outcome}`);
      }
      await controller.close();
    }
    kept[Symbol.dispose]();
    return error;
  }

  /** The session, with something else in it. @returns what puts memory right again, too */
  #forge(forgery: Forgery, state: State): { session: IncomingSession; restore: () => void } {
    const { process, session, older, stage } = this.#landed;
    const hand = stage.host.process();
    const retrieve = (token: bigint): number => {
      const fd = session.retrieve(token);
      const shared = process.share(fd, hand);
      process.close(fd);
      return shared;
    };
    const files = new Map(state.arenas.map(({ token }) => [descriptorName.arena(token), retrieve(token)]));
    const restore = spoil(forgery, files, hand, state);
    forgery.files?.(files, hand, state);
    const bytes = contents(hand, retrieve(STATE_TOKEN));
    const forged = forgery.state?.(bytes, older) ?? bytes;
    const fd = memfdOf(hand, Math.ceil(forged.length / PAGE) * PAGE || PAGE);
    hand.pwrite(fd, forged, 0);
    files.set('state', fd);
    const given = (token: bigint): number => {
      const file = files.get(token === STATE_TOKEN ? 'state' : descriptorName.arena(token));
      // As the kernel answers for a token that is not there.
      return file === undefined ? session.retrieve(0xdeadn) : hand.share(file, process);
    };
    const forgedSession = new Proxy(session, {
      get: (target, property) => (property === 'retrieve' ? given : Reflect.get(target, property, target)),
    });
    return {
      session: forgedSession,
      restore: () => {
        restore();
        hand.exit();
      },
    };
  }

  problems(): Promise<string[]> {
    return Promise.resolve([
      ...this.#found,
      ...(this.#used ? [] : changes(this.#before, this.#everything())),
    ]);
  }

  async finish(): Promise<Driver> {
    if (this.#used) this.#landed = await land(this.#profile);
    const { stage, session, kernel } = this.#landed;
    const driver = await stage.goOn(await resume(session, { kernel }));
    session.finish();
    return driver;
  }

  async end(driver: Driver): Promise<string[]> {
    await endDriver(this.stage, driver);
    return leftovers(this.stage);
  }
}

function contents(kernel: SimulatedProcess, fd: number): Uint8Array {
  const bytes = new Uint8Array(2 ** 16);
  kernel.pread(fd, bytes, 0);
  // The file has whole pages.
  return bytes.slice(0, new DataView(bytes.buffer).getUint32(4));
}

/** What a process did to the device from a moment on. */
function touched({ witness }: KeepaliveStage, from: number, by: string): string[] {
  return witness.by(by, from).map(({ process, what }) => `${process} touched the device: ${what}`);
}

function held(process: SimulatedProcess): string[] {
  const found = holdings(process);
  return found.length > 0 ? [`the successor holds ${found}`] : [];
}

/** Memory that a device may still write to, and that somebody could be given. */
function unquarantined({ arenas, unclaimed }: KeepAlive): string[] {
  const free = new Map(unclaimed.map(({ arena, ranges }) => [arena, ranges]));
  return arenas
    .filter(arena => free.get(arena)?.reduce((sum, { length }) => sum + length, 0) !== arena.size)
    .map(({ name }) => `arena ${name} is not in quarantine`);
}
