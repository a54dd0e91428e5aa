// A swap in a context that is kept alive, and whoever goes on with that: another process, another kernel, or what is started
// after this process was killed in the middle of it, on the simulated host.
import t, { type Test } from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { IOMMU_IOAS_NOIOMMU_GET_PA } from '../../bindings/uapi/iommufd.js';
import {
  AddressSpaceSwap,
  appendLanding,
  Channel,
  DmaArena,
  Hwpt,
  handOff,
  type Ioas,
  type KeepAlive,
  LiveUpdate,
  landingCommandLine,
  planLanding,
  preserve,
  resume,
  runningCommandLine,
  takeOver,
} from '../../src/index.js';
import { HandoffError, HandoffErrorCode } from '../../src/keepalive/handoff/handoff-error.js';
import { receiveInherited } from '../../src/keepalive/handoff/inheritance.js';
import { FdStore } from '../../src/keepalive/store/fd-store.js';
import { recover, StoredKeepAlive } from '../../src/keepalive/store/stored.js';
import { isSpare } from '../../src/keepalive/swap/spare.js';
import { memoryOf } from '../../src/memory/dma-memory.js';
import type { SimulatedProcess } from '../../src/sim/process/process.js';
import { ProcessEnded } from '../../src/sim/process/process-ended.js';
import { ServiceManager } from '../../src/testing/service-manager.js';
import { plainInitrd } from '../support/plain-initrd.js';
import { ADDRESS, type Driver, KeepaliveStage } from './support/keepalive-stage.js';
import { works } from './support/swap-stage.js';

t.setTimeout(300_000);

const PROFILES = ['vtd', 'noiommu'] as const;
/** How far a swap is when somebody else goes on. */
const PHASES = ['prepared', 'switched', 'back', 'dropped'] as const;
type Phase = (typeof PHASES)[number];

const SESSION = 'kept';
const IMAGE = '/boot/vmlinuz';
const INITRD = '/boot/initrd.img';

async function bringTo(phase: Phase, space: Ioas, drop: boolean): Promise<AddressSpaceSwap> {
  const swap = AddressSpaceSwap.prepare(space);
  if (phase === 'prepared') return swap;
  await swap.switch();
  if (phase === 'back') await swap.switch();
  if (phase === 'dropped') swap.drop(drop);
  return swap;
}

/** It has I/O, and memory that is made now is reached, too. */
async function goesOn(
  t: Test,
  stage: KeepaliveStage,
  driver: Driver,
  running?: Promise<void>,
): Promise<void> {
  const { lanes, controller } = driver;
  const { device } = controller;
  const ended = running ?? lanes.start(controller.inherited);
  const { told } = lanes;
  for (let turns = 0; lanes.told < told + 64 && turns < 20_000; turns++) await stage.turn();
  t.ok(lanes.told >= told + 64, 'I/O goes on');
  lanes.stop();
  await ended;
  t.equal(lanes.failure, undefined);
  t.equal(lanes.wrong, 0, 'with the right data');
  const { attached, space } = device;
  t.equal(attached instanceof Hwpt ? attached.ioas : attached, space, 'it is attached where its memory is');
  for (const arena of memoryOf(space)) t.equal(arena.space, space);
  const arena = DmaArena.create(space, 8192);
  works(t, stage.model, arena, 'new memory');
  arena[Symbol.dispose]();
}

/** Nothing of the swap is left with whoever went on. */
function isTidy(t: Test, stage: KeepaliveStage, { kept, controller }: Driver): void {
  kept.releaseUnclaimed();
  const { device } = controller;
  const [iommufd] = kept.iommufds;
  t.strictSame([...(iommufd?.ioases ?? [])], [device.space], 'one address space');
  const pages = [...memoryOf(device.space)].reduce((sum, { size }) => sum + size / 4096, 0);
  t.equal(stage.host.physical.pinnedPages, pages, 'its memory is pinned, and nothing else');
}

function stateOf(t: Test, kept: KeepAlive): void {
  const { iommufds, devices, arenas } = kept.capture();
  const [ioas] = iommufds.flatMap(({ ioases }) => ioases);
  t.equal(iommufds.flatMap(({ ioases }) => ioases).length, 1, 'a state tells of the current one only');
  t.equal(ioas?.mappings.length, arenas.length);
  for (const { addressSpace } of devices) t.match(addressSpace, { ioas: ioas?.id });
  for (const { place } of arenas) t.equal(place?.ioas, ioas?.id);
}

for (const profile of PROFILES) {
  for (const phase of PHASES) {
    t.test(`handed over when it is ${phase}, ${profile}`, async t => {
      const stage = new KeepaliveStage(profile);
      const old = stage.process('predecessor');
      const first = await stage.start(old.kernel);
      const running = first.lanes.start();
      const swap = await bringTo(phase, first.controller.device.space as Ioas, profile === 'noiommu');
      stateOf(t, first.kept);
      const gone = swap.spare;
      const [ours, theirs] = Channel.pair(old.kernel);
      const { process, kernel } = stage.process('successor');
      const end = Channel.adopt(stage.pass(theirs.fd, process), kernel);
      const [, kept] = await Promise.all([handOff(first.kept, ours), takeOver(end)]);
      await running;
      // What the predecessor still has of it is of no use, and does no harm.
      if (gone !== undefined) t.equal(gone.alive, false);
      await t.rejects(swap.switch(), RangeError);
      swap.drop();
      t.equal(swap.spare, undefined);
      for (const channel of [ours, theirs, end]) channel[Symbol.dispose]();
      old.process.exit();

      const driver = await stage.goOn(kept);
      t.equal(driver.controller.outcome, 'kept-running');
      const [iommufd] = kept.iommufds;
      t.equal([...(iommufd?.ioases ?? [])].filter(isSpare).length, phase === 'dropped' ? 0 : 1);
      stateOf(t, kept);
      await goesOn(t, stage, driver);
      isTidy(t, stage, driver);
      const again = driver.lanes.start();
      const next = await bringTo('switched', driver.controller.device.space as Ioas, true);
      next.drop(true);
      await goesOn(t, stage, driver, again);
      t.equal(stage.model.resets, 1, 'no reset since it was opened');
      await stage.end(driver);
      t.strictSame(stage.host.leftovers(), [], 'nothing is left');
    });

    t.test(`over a kexec when it is ${phase}, ${profile}`, async t => {
      const stage = new KeepaliveStage(profile);
      const { host } = stage;
      const first = await stage.start(host.process());
      const running = first.lanes.start();
      const before = await bringTo(phase, first.controller.device.space as Ioas, profile === 'noiommu');
      t.equal(before.current, first.controller.device.space);
      const resets = stage.model.resets;
      first.lanes.stop();
      await running;
      const { kernel } = first.kept;
      const preserved = await preserve(first.kept, { session: SESSION });
      t.equal(preserved.state.iommufds[0]?.ioases.length, 1);
      const plan = planLanding(preserved.state, { kernel });
      host.install(INITRD, appendLanding(plainInitrd, plan).toString('latin1'));
      host.landing = { overrides: { [ADDRESS]: 'vfio-pci' }, withoutReset: [ADDRESS] };
      const commandLine = landingCommandLine(plan, runningCommandLine(kernel));
      t.throws(() => preserved.kexec({ image: IMAGE, initrd: INITRD, commandLine }), {
        name: 'ProcessEnded',
      });
      const after = host.process();
      using liveUpdate = LiveUpdate.open(after);
      const session = liveUpdate.retrieveSession(SESSION);
      const kept = await resume(session, { kernel: after });
      const driver = await stage.goOn(kept);
      t.equal(driver.controller.outcome, 'kept-running');
      session.finish();
      await goesOn(t, stage, driver);
      isTidy(t, stage, driver);
      t.equal(stage.model.resets, resets, 'no reset');
      await stage.end(driver);
      liveUpdate[Symbol.dispose]();
      t.strictSame(
        host.leftovers().filter(left => left !== `${ADDRESS} is with vfio-pci`),
        [],
        'nothing is left',
      );
    });
  }

  t.test(`killed before and after each of its system calls, ${profile}`, async t => {
    let moments = 0;
    for (let left = 1; ; left++) {
      const stage = new KeepaliveStage(profile);
      const keeper = new ServiceManager(stage.host);
      const old = stage.process('old');
      const mortal = new Mortal(old.process, keeper.listenTo(old.kernel));
      const first = await stage.start(mortal.kernel);
      StoredKeepAlive.keep(first.kept, storeOf(keeper, mortal.kernel));
      const { device } = first.controller;
      const running = first.lanes.start();
      await stage.turn();
      // The JavaScript of a process that is killed ends with it.
      mortal.onKilled = () => {
        first.controller.relinquish(new HandoffError(HandoffErrorCode.HandedOver, 'killed'));
      };
      mortal.left = left;
      let error: unknown;
      try {
        const swap = AddressSpaceSwap.prepare(device.space as Ioas);
        await swap.switch();
        await swap.switch();
        swap.drop(true);
      } catch (caught) {
        error = caught;
      }
      mortal.left = Number.POSITIVE_INFINITY;
      const isDead = old.process.ended;
      if (!isDead && error !== undefined) throw error;
      old.process.exit();
      mortal.onKilled();
      await running;
      const { resets } = stage.model;

      const { process, kernel } = stage.process('successor');
      const listened = keeper.listenTo(kernel);
      const inherited = receiveInherited(keeper.give(process), kernel);
      const recovered = recover(storeOf(keeper, listened), inherited);
      if (recovered === undefined) {
        t.fail(`${mortal.last}: nothing is in the store`);
        return;
      }
      const driver = await stage.goOn(recovered.kept);
      t.equal(driver.controller.outcome, 'kept-running', `killed at ${mortal.last}`);
      stateOf(t, recovered.kept);
      await goesOn(t, stage, driver);
      recovered.kept.releaseUnclaimed();
      t.notOk([...(recovered.kept.iommufds[0]?.ioases ?? [])].some(isSpare), 'the other one is gone');
      const pages = recovered.kept.arenas.reduce((sum, { size }) => sum + size / 4096, 0);
      t.equal(stage.host.physical.pinnedPages, pages, `killed at ${mortal.last}: memory is pinned once`);
      t.equal(stage.model.resets, resets, 'no reset');
      t.equal(stage.host.iommu.faultCount, 0, 'no fault');
      await stage.end(driver);
      for (const arena of [...recovered.kept.arenas]) arena[Symbol.dispose]();
      t.strictSame(keeper.stored, [], 'the store is empty');
      keeper.process.exit();
      t.strictSame(stage.host.leftovers(), [], 'nothing is left');
      stage.host[Symbol.dispose]();
      if (!isDead) break;
      moments++;
    }
    t.comment(`${moments} moments`);
    t.ok(moments > 30);
  });
}

const storeOf = (keeper: ServiceManager, kernel: Syscalls): FdStore =>
  FdStore.fromEnvironment({ NOTIFY_SOCKET: keeper.address }, kernel) as FdStore;

/**
 * A process that is killed at a moment: there is one before each system call, and one after it, but for those of I/O and
 * questions for physical addresses, which come as often as they like.
 */
class Mortal {
  left = Number.POSITIVE_INFINITY;
  /** The call at which that was. */
  last = 'no call';
  onKilled = (): void => undefined;
  readonly kernel: Syscalls;

  constructor(process: SimulatedProcess, kernel: Syscalls) {
    const moment = (name: string): void => {
      if (--this.left !== 0) return;
      this.last = name;
      process.exit();
      this.onKilled();
      throw new ProcessEnded(process.pid);
    };
    const isIo = (name: string, [fd, request]: readonly unknown[]): boolean =>
      ['view', 'addressOf'].includes(name) ||
      request === IOMMU_IOAS_NOIOMMU_GET_PA.number ||
      (['read', 'pread', 'pwrite'].includes(name) &&
        /eventfd|^\/dev\/vfio/.test(process.file(fd as number)?.name ?? ''));
    this.kernel = new Proxy(kernel, {
      get: (target, name: string) => {
        const value = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): unknown => {
          if (isIo(name, args)) return value.apply(target, args);
          moment(`the beginning of ${name}`);
          const result = value.apply(target, args);
          moment(`the end of ${name}`);
          return result;
        };
      },
    });
  }
}
