/**
 * Before a kexec: everything that is kept comes to rest and goes into a live-update session, whose memory the next kernel
 * finds in place.
 *
 * In the order that the kernel demands: no driver has anything in flight; the kernel is kept from resetting the devices;
 * memory, and devices and contexts where the kernel can, are preserved; the state that tells of all of it comes last.
 *
 * @module
 */
import { checkInteger } from '../../check.js';
import { DeviceError, DeviceErrorCode, runAll, undo } from '../../errors.js';
import { check } from '../../ioctl.js';
import { createSealedMemfd, PageSize } from '../../memory/memfd.js';
import { pciAddress } from '../../pci/address.js';
import { type SuspendedResets, suspendResets } from '../../pci/reset-method.js';
import type { KeepAlive } from '../keep-alive.js';
import { publish } from '../keepalive-events.js';
import type { LandingTarget } from '../landing/next-kernel.js';
import { planLanding } from '../landing/plan.js';
import { assertLanding } from '../landing/verify.js';
import type { State } from '../state/saved-state.js';
import { kexec, type LoadKernelOptions, loadKernel } from './kexec.js';
import { LiveUpdate, type OutgoingSession } from './live-update.js';
import { keepAliveByGroup } from './openhcl.js';

/** The token of the state in a session. Those of arenas are never it. */
export const STATE_TOKEN = 1n;
/** Tokens of descriptors that kernels to come may preserve; those of arenas are random, and even less than this unlikely. */
const FIRST_OTHER_TOKEN = 0x1000_0000_0000_0000n;

export interface PreserveOptions {
  /** By which the next kernel's process finds it: 1 to 63 bytes of UTF-8. */
  session: string;
  /** How long drivers may take to come to rest, in ms; 5000 by default. */
  timeout?: number;
  /**
   * Go on although commands are still in flight after that time. They are then issued anew, or reported, when the
   * controller is brought up again after the kexec. False by default.
   */
  force?: boolean;
}

/** What keeps a device itself, beside its memory, over a kexec. */
export const DeviceKeeper = {
  /** The kernel preserves its file (`LIVEUPDATE_SESSION_PRESERVE_FD`). Linux 7.3 does not. */
  LiveUpdate: 'live-update',
  /** The kernel of OpenHCL was told to leave it alone (`VFIO_GROUP_SET_KEEP_ALIVE`). */
  Openhcl: 'openhcl',
  /** Nobody: the kernel is kept from resetting it, and the device goes on by itself. */
  Itself: 'itself',
} as const;
export type DeviceKeeper = (typeof DeviceKeeper)[keyof typeof DeviceKeeper];

/** How the next kernel is started. */
export interface BootOptions extends Omit<LoadKernelOptions, 'kernel'> {
  /** Which kernel that is, where it is another than the running one; see `planLanding`. */
  target?: LandingTarget;
}

/** What is preserved, until the kexec or until it is called off. */
export class Preserved implements Disposable {
  readonly kept: KeepAlive;
  readonly session: OutgoingSession;
  readonly state: State;
  /** Who keeps each device, by PCI address. */
  readonly keepers: ReadonlyMap<string, DeviceKeeper>;
  readonly #resets: readonly SuspendedResets[];
  readonly #turn: Disposable;
  #over = false;

  /** @internal Use {@link preserve}. */
  constructor(
    kept: KeepAlive,
    session: OutgoingSession,
    state: State,
    keepers: ReadonlyMap<string, DeviceKeeper>,
    resets: readonly SuspendedResets[],
    turn: Disposable,
  ) {
    this.kept = kept;
    this.session = session;
    this.state = state;
    this.keepers = keepers;
    this.#resets = resets;
    this.#turn = turn;
  }

  /**
   * Starts the next kernel, at once; does not return.
   *
   * @throws LandingError when it cannot be guaranteed that the devices land with VFIO and only there; KernelError. Nothing
   * has changed then: try again, or call it off.
   */
  kexec(options: BootOptions): never {
    const { target, ...load } = options;
    const { kernel } = this.kept;
    const { initrd, commandLine } = options;
    const plan = planLanding(this.state, { kernel, ...(target && { target }) });
    assertLanding(plan, { commandLine, ...(initrd !== undefined && { initrd }) }, kernel);
    loadKernel({ ...load, kernel });
    return kexec(kernel);
  }

  /** Calls it off: nothing is preserved any longer, devices may be reset again, and drivers go on. Idempotent. */
  [Symbol.dispose](): void {
    if (this.#over) return;
    this.#over = true;
    runAll([
      () => this.session[Symbol.dispose](),
      ...this.#resets.map(resets => () => resets.restore()),
      () => this.kept.resetMethods.clear(),
      () => this.kept.thaw(),
      () => this.#turn[Symbol.dispose](),
    ]);
  }
}

/**
 * Preserves everything that is kept, for the next kernel.
 *
 * @throws KeepAliveError (CANNOT_BE_KEPT); DeviceError (BUSY) when a driver does not come to rest; KernelError: ENOENT
 * without live update, EEXIST when there is such a session, and as `OutgoingSession.preserve`. Everything is as before then,
 * and goes on.
 */
export async function preserve(kept: KeepAlive, options: PreserveOptions): Promise<Preserved> {
  const timeout = checkInteger('timeout', options.timeout ?? 5000);
  const { kernel } = kept;
  // Before anything comes to a halt: whether it can be kept at all.
  kept.serialise();
  const turn = kept.takeTurn('a live update');
  let session: OutgoingSession;
  try {
    session = createSession(kept, options.session);
  } catch (error) {
    undo(error, [() => turn[Symbol.dispose]()]);
  }
  const resets: SuspendedResets[] = [];
  try {
    const late = await kept.settle(timeout);
    if (late.length > 0 && !options.force) {
      throw new DeviceError(
        DeviceErrorCode.Busy,
        late.map(({ name }) => name).join(', '),
        `commands were still in flight after ${timeout} ms`,
        'Try again with a longer timeout; with force they are issued anew, or reported, after the kexec',
      );
    }
    for (const { name } of kept.devices) {
      const suspended = suspendResets(name, { kernel });
      resets.push(suspended);
      kept.resetMethods.set(name, suspended.previous);
    }
    const keepers = preserveOthers(kept, session);
    for (const arena of kept.arenas) session.preserve(arena.fd, arena.token, `arena ${arena.name}`);
    const purposes = [
      ['state', STATE_TOKEN] as const,
      ...kept.arenas.map(({ token }) => [`arena ${token.toString(16)}`, token] as const),
    ];
    const sessions = [{ name: session.name, tokens: new Map(purposes) }];
    const bytes = kept.serialise(sessions);
    const size = Math.ceil(bytes.length / PageSize.Small) * PageSize.Small;
    const fd = createSealedMemfd(kernel, 'iommufd-state', size, PageSize.Small);
    try {
      check(kernel.pwrite(fd, bytes, 0), 'pwrite', { path: 'memfd' });
      session.preserve(fd, STATE_TOKEN, 'state');
    } finally {
      kernel.close(fd);
    }
    publish({
      kind: 'preserved',
      session: session.name,
      arenas: kept.arenas.length,
      keepers: [...keepers.values()],
    });
    return new Preserved(kept, session, kept.capture(sessions), keepers, resets, turn);
  } catch (error) {
    undo(error, [
      () => session[Symbol.dispose](),
      ...resets.map(suspended => () => suspended.restore()),
      () => kept.resetMethods.clear(),
      () => kept.thaw(),
      () => turn[Symbol.dispose](),
    ]);
  }
}

function createSession({ kernel }: KeepAlive, name: string): OutgoingSession {
  const liveUpdate = LiveUpdate.open(kernel);
  let session: OutgoingSession | undefined;
  try {
    session = liveUpdate.createSession(name);
    liveUpdate[Symbol.dispose]();
    return session;
  } catch (error) {
    undo(error, [() => session?.[Symbol.dispose](), () => liveUpdate[Symbol.dispose]()]);
  }
}

/**
 * Devices first: a context may have to know which of its devices are kept. Linux 7.3 preserves neither, and says so by
 * ENOENT.
 */
function preserveOthers(kept: KeepAlive, session: OutgoingSession): Map<string, DeviceKeeper> {
  let token = FIRST_OTHER_TOKEN;
  const keepers = new Map<string, DeviceKeeper>();
  for (const { name, fd } of kept.devices) {
    if (session.tryPreserve(fd, token++, `device ${name}`)) keepers.set(name, DeviceKeeper.LiveUpdate);
    else if (keepAliveByGroup(kept.kernel, pciAddress(name))) keepers.set(name, DeviceKeeper.Openhcl);
    else keepers.set(name, DeviceKeeper.Itself);
  }
  for (const iommufd of kept.iommufds) session.tryPreserve(iommufd.fd, token++, 'iommufd');
  return keepers;
}
