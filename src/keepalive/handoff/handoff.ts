/**
 * From one process to its successor, while the device runs: descriptors and state over a {@link Channel}, in two phases.
 *
 *     predecessor                            successor
 *                      ← hello               which versions it understands
 *     freezes
 *                      offer →               version, how many descriptors follow, the manifest in a memfd
 *                      descriptors →         with their names, as many to a message as fit
 *                                            adopts, verifies, moves the accounting; touches nothing
 *                      ← verified
 *     committed: touches nothing any more
 *                      committed →           goes on
 *     closes its own
 *
 * Until `verified` has arrived the predecessor can take everything back, and does so by itself when the successor is
 * gone, refuses or is late. A successor touches nothing before `committed` has arrived. So there are never two owners; and
 * none only when the successor ends in between, with all its descriptors: the kernel then resets the devices, unless
 * somebody else, such as the descriptor store, holds them, too.
 *
 * @module
 */
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { SCM_MAX_FD } from '../../../bindings/socket-arguments.js';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { checkInteger } from '../../check.js';
import { KernelError, undo } from '../../errors.js';
import { check } from '../../ioctl.js';
import { createSealedMemfd, PageSize } from '../../memory/memfd.js';
import type { KeepAlive } from '../keep-alive.js';
import { publish } from '../keepalive-events.js';
import { FdtValue } from '../state/fdt-value.js';
import { moveAccounting } from './accounting.js';
import type { Channel } from './channel.js';
import type { ChannelMessage } from './channel-message.js';
import { HandoffError, HandoffErrorCode } from './handoff-error.js';
import { makeManifest } from './manifest.js';
import { type Adopted, adoptManifest } from './take-over.js';

/** The versions of this protocol that this library speaks. */
const VERSIONS = [1] as const;
const DEFAULT_TIMEOUT_MS = 5000;
/** How long a predecessor that runs may take to say whether it has committed. */
const ANSWER_MS = 5000;
/** How long the kernel gets to recover from what keeps a message from being received. */
const RETRY_MS = 10;
const { u32, u32s, string, strings } = FdtValue;

export interface HandOffOptions {
  /** How long all of it may take, in ms; 5000 by default. Devices are frozen for most of that time. */
  timeout?: number;
}

/** How a hand-off went. */
export interface HandOffReport {
  /** How long the drivers were frozen here, in ms. */
  readonly frozen: number;
  /** Descriptors that were handed over. */
  readonly descriptors: number;
  /** Size of the manifest, in bytes. */
  readonly manifest: number;
}

/**
 * Hands everything that is kept to the process at the other end of `channel`. On success nothing of it may be used here
 * any more: drivers end with a `HandoffError` (HANDED_OVER) for whoever waits, and commands in flight are completed to the
 * successor.
 *
 * @throws HandoffError: TIMEOUT, PEER_GONE, REFUSED, VERSION, PROTOCOL; DeviceError (BUSY) while a driver cannot be frozen or
 * something else is done with what is kept; KeepAliveError, KernelError. Everything is as before then, and goes on here.
 * But with HANDED_OVER it is the successor's, and only something of this process could not be let go of (`cause`).
 */
export async function handOff(
  kept: KeepAlive,
  channel: Channel,
  options: HandOffOptions = {},
): Promise<HandOffReport> {
  const deadline = performance.now() + checkInteger('timeout', options.timeout ?? DEFAULT_TIMEOUT_MS, 1);
  const left = (): number => Math.max(Math.ceil(deadline - performance.now()), 1);
  const hello = await expect(channel, 'hello', left());
  const offered = FdtValue.readU32s(hello.fields.get('versions') ?? new Uint8Array(0)) ?? [];
  const version = VERSIONS.find(each => offered.includes(each));
  if (version === undefined) {
    const reason = `the successor understands versions ${offered.join(', ') || 'none'}, this process ${VERSIONS.join(', ')}`;
    tell(channel, 'refused', reason);
    throw new HandoffError(HandoffErrorCode.Version, reason);
  }
  const devices = kept.devices.map(({ name }) => name);
  // The application goes on with what it was just told, so that the device has something to do meanwhile.
  await nextTurn();
  using _turn = freeze(kept, channel);
  const frozenAt = performance.now();
  let committed: Pick<HandOffReport, 'descriptors' | 'manifest'>;
  try {
    committed = await offer(kept, channel, version, left);
    publish({ kind: 'verified', devices, descriptors: committed.descriptors });
    // Where this fails the message is not on its way, and the successor goes nowhere without it.
    channel.send('committed');
  } catch (error) {
    undo(error, [
      () => tell(channel, 'aborted', String(error)),
      () => takeAccountingBack(kept),
      () => kept.thaw(),
      () => publish({ kind: 'taken-back', devices, descriptors: 0 }),
    ]);
  }
  const belongs = `${devices.join(', ') || 'what was kept'} belongs to a successor now`;
  publish({ kind: 'committed', devices, descriptors: committed.descriptors });
  try {
    kept.relinquish(new HandoffError(HandoffErrorCode.HandedOver, belongs));
  } catch (cause) {
    throw new HandoffError(HandoffErrorCode.HandedOver, `${belongs}, and not all of it was let go of here`, {
      cause,
      hint: 'End this process as soon as it has nothing else to do: what it still has goes with it',
    });
  }
  return { ...committed, frozen: performance.now() - frozenAt };
}

/**
 * @returns what ends the turn; the drivers stay frozen
 * @throws DeviceError (BUSY): nothing is frozen then, and the other side is told
 */
function freeze(kept: KeepAlive, channel: Channel): Disposable {
  try {
    const turn = kept.takeTurn('a hand-off');
    try {
      kept.freeze();
      return turn;
    } catch (error) {
      undo(error, [() => turn[Symbol.dispose]()]);
    }
  } catch (error) {
    undo(error, [() => tell(channel, 'aborted', String(error))]);
  }
}

async function offer(
  kept: KeepAlive,
  channel: Channel,
  version: number,
  left: () => number,
): Promise<Pick<HandOffReport, 'descriptors' | 'manifest'>> {
  const { bytes, descriptors } = makeManifest(kept, kept.storeNames?.());
  const size = Math.ceil(bytes.length / PageSize.Small) * PageSize.Small;
  const fd = createSealedMemfd(kept.kernel, 'iommufd-manifest', size, PageSize.Small);
  try {
    check(kept.kernel.pwrite(fd, bytes, 0), 'pwrite', { path: 'memfd' });
    const fields = new Map([
      ['version', u32(version)],
      ['descriptors', u32(descriptors.size)],
      ['manifest-bytes', u32(bytes.length)],
      ['timeout', u32(Math.ceil(left()))],
    ]);
    channel.send('offer', fields, [fd]);
  } finally {
    kept.kernel.close(fd);
  }
  const all = [...descriptors];
  for (let start = 0; start < all.length; start += SCM_MAX_FD) {
    const part = all.slice(start, start + SCM_MAX_FD);
    const names = strings(part.map(([name]) => name));
    channel.send(
      'descriptors',
      new Map([['names', names]]),
      part.map(([, { fd }]) => fd),
    );
  }
  publish({ kind: 'offered', devices: kept.devices.map(({ name }) => name), descriptors: all.length });
  await expect(channel, 'verified', left());
  return { descriptors: all.length, manifest: bytes.length };
}

/** Best effort: the reason for it is thrown in any case. */
function tell(channel: Channel, kind: 'refused' | 'aborted', reason: string): void {
  try {
    channel.send(kind, new Map([['reason', string(reason.replaceAll('\0', ' '))]]));
  } catch {
    // Whoever is gone learns by that.
  }
}

/** The successor may have moved it. */
function takeAccountingBack(kept: KeepAlive): void {
  for (const iommufd of kept.iommufds) moveAccounting(iommufd);
}

/** The next message, which must be of that kind. */
async function expect(channel: Channel, kind: string, timeout: number): Promise<ChannelMessage> {
  const message = await channel.receive(timeout);
  if (message.kind === kind) return message;
  message[Symbol.dispose]();
  const reason =
    FdtValue.readString(message.fields.get('reason') ?? new Uint8Array(0)) ?? 'no reason was given';
  if (message.kind === 'refused' || message.kind === 'aborted') {
    throw new HandoffError(HandoffErrorCode.Refused, `the other side says no: ${reason}`);
  }
  throw new HandoffError(HandoffErrorCode.Protocol, `${kind} was to come, and ${message.kind} came`);
}

export interface TakeOverOptions {
  /** How long all of it may take, in ms; 5000 by default. */
  timeout?: number;
  /**
   * Called when everything is in place and nothing is touched yet: what it throws refuses the hand-off, and the
   * predecessor goes on. Drivers check here that they can go on with their records. It must not touch a device.
   */
  verify?: (kept: KeepAlive) => void | Promise<void>;
}

/**
 * Takes over what the process at the other end of `channel` hands on.
 *
 * @returns what is kept from now on, with this process as its only owner; the drivers are to be restored from their records
 * @throws HandoffError: TIMEOUT, PEER_GONE, REFUSED, VERSION, PROTOCOL; StateError, KeepAliveError, KernelError, and what
 * `verify` throws. This process owns nothing then, and has touched nothing.
 */
export async function takeOver(channel: Channel, options: TakeOverOptions = {}): Promise<KeepAlive> {
  const { kernel } = channel;
  const deadline = performance.now() + checkInteger('timeout', options.timeout ?? DEFAULT_TIMEOUT_MS, 1);
  const left = (): number => Math.max(Math.ceil(deadline - performance.now()), 1);
  channel.send('hello', new Map([['versions', u32s(VERSIONS)]]));
  const { manifest, descriptors } = await receiveOffer(kernel, channel, left);
  let adopted: Adopted | undefined;
  try {
    adopted = adoptManifest(kernel, manifest, descriptors);
    await options.verify?.(adopted.kept);
    for (const iommufd of adopted.kept.iommufds) moveAccounting(iommufd);
    adopted.prepare();
    channel.send('verified');
    // Longer than the predecessor waits: it says in any case what became of it.
    await committedBy(channel, left() + ANSWER_MS);
  } catch (error) {
    const reason = error instanceof Error ? error : new Error(String(error));
    undo(error, [() => adopted?.abandon(reason), () => tell(channel, 'refused', reason.message)]);
  }
  adopted.activate();
  const { kept } = adopted;
  publish({
    kind: 'taken-over',
    devices: kept.devices.map(({ name }) => name),
    descriptors: descriptors.size,
  });
  return kept;
}

/**
 * Waits for the predecessor's word. Once it is said everything is this process's: so nothing but the time, the end of the
 * predecessor or another word of it ends the wait.
 */
async function committedBy(channel: Channel, timeout: number): Promise<void> {
  const deadline = performance.now() + timeout;
  const left = (): number => Math.max(Math.ceil(deadline - performance.now()), 0);
  for (;;) {
    try {
      await expect(channel, 'committed', left());
      return;
    } catch (error) {
      if (error instanceof KernelError && left() > 0) {
        await sleep(RETRY_MS);
        continue;
      }
      if (!(error instanceof HandoffError) || error.code === HandoffErrorCode.Refused) throw error;
      throw new HandoffError(error.code, 'the predecessor did not say whether it has committed', {
        cause: error,
        hint:
          'If it runs and does not go on by itself, nobody has the devices: the kernel has stopped and reset them when ' +
          'the last descriptor was closed. Start cold then',
      });
    }
  }
}

async function receiveOffer(
  kernel: Syscalls,
  channel: Channel,
  left: () => number,
): Promise<{ manifest: Uint8Array; descriptors: ReadonlyMap<string, number> }> {
  const message = await expect(channel, 'offer', left());
  const { fields } = message;
  const fds = message.take();
  const descriptors = new Map<string, number>();
  const stray: number[] = [...fds];
  try {
    const number = (name: string): number =>
      FdtValue.readU32(fields.get(name) ?? new Uint8Array(0)) ?? protocol(`the offer says no ${name}`);
    const version = number('version');
    if (!VERSIONS.some(each => each === version)) {
      throw new HandoffError(HandoffErrorCode.Version, `the predecessor speaks version ${version}`);
    }
    const count = number('descriptors');
    const [file] = fds;
    if (file === undefined || fds.length !== 1) protocol(`the offer has ${fds.length} descriptors, not 1`);
    const manifest = readAll(kernel, file, number('manifest-bytes'));
    while (descriptors.size < count) {
      const message = await expect(channel, 'descriptors', left());
      const taken = message.take();
      stray.push(...taken);
      const names = FdtValue.readStrings(message.fields.get('names') ?? new Uint8Array(0)) ?? [];
      if (names.length === 0 || names.length !== taken.length) {
        protocol(`${names.length} names came with ${taken.length} descriptors`);
      }
      for (const [index, name] of names.entries()) {
        if (descriptors.has(name)) protocol(`two descriptors are named ${name}`);
        descriptors.set(name, taken[index] as number);
      }
    }
    kernel.close(file);
    return { manifest, descriptors };
  } catch (error) {
    undo(error, [
      ...stray.map(fd => () => void kernel.close(fd)),
      () => tell(channel, 'refused', String(error)),
    ]);
  }
}

function protocol(reason: string): never {
  throw new HandoffError(HandoffErrorCode.Protocol, reason);
}

/** Larger than any manifest of a million mappings. */
const MAX_MANIFEST = 2 ** 30;

function readAll(kernel: Syscalls, fd: number, size: number): Uint8Array {
  if (size === 0 || size > MAX_MANIFEST) protocol(`a manifest of ${size} bytes was offered`);
  const bytes = new Uint8Array(size);
  for (let done = 0; done < size; ) {
    const count = check(kernel.pread(fd, bytes.subarray(done), done), 'pread', { path: 'memfd' });
    if (count === 0) protocol(`the manifest ends after ${done} of ${size} bytes`);
    done += count;
  }
  return bytes;
}
