// What a process takes over from others, mutated: manifests, the file that they are in, messages, the records and journals
// of the NVMe driver, and initrd images. Each is accepted, or refused with the error that it has for that.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import type { Syscalls } from '../../bindings/syscalls.js';
import { Journal } from '../../src/drivers/nvme/journal.js';
import { planRestore } from '../../src/drivers/nvme/restore-plan.js';
import { decodeMessage, encodeMessage } from '../../src/keepalive/handoff/channel-message.js';
import { HandoffError, HandoffErrorCode } from '../../src/keepalive/handoff/handoff-error.js';
import { makeManifest, readManifest, statePath } from '../../src/keepalive/handoff/manifest.js';
import type { DriverRecord } from '../../src/keepalive/keepable-driver.js';
import { directory, file, link, packCpio, program } from '../../src/keepalive/landing/cpio.js';
import { LandingImageError } from '../../src/keepalive/landing/image-error.js';
import { imageKind } from '../../src/keepalive/landing/initrd.js';
import { InitrdImage } from '../../src/keepalive/landing/initrd-image.js';
import { arenaMapping } from '../../src/keepalive/places.js';
import type { FdtNode } from '../../src/keepalive/state/fdt.js';
import { FdtValue } from '../../src/keepalive/state/fdt-value.js';
import { StateError } from '../../src/keepalive/state/state-error.js';
import { findManifest } from '../../src/keepalive/store/manifest-file.js';
import { plainInit } from '../support/plain-initrd.js';
import type { Random } from '../support/random.js';
import { type Driver, KeepaliveStage } from '../unit/support/keepalive-stage.js';
import { layoutOf, mutate, pick, repair } from './flat-tree-mutations.js';
import type { FuzzTarget } from './fuzz.js';

type Properties = ReadonlyMap<string, Uint8Array>;

/** Something that is there in another form each time. */
type Check = (random: Random) => void;

/** @returns undefined where it was refused, by an error of one of these kinds */
function attempt<T>(
  operation: () => T,
  ...kinds: readonly (abstract new (
    ...args: never[]
  ) => Error)[]
): T | undefined {
  // Most of an error is its stack.
  const { stackTraceLimit } = Error;
  Error.stackTraceLimit = 0;
  try {
    return operation();
  } catch (error) {
    if (kinds.some(kind => error instanceof kind)) return undefined;
    throw error;
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Spoils one of several trees. */
function spoiler(seeds: readonly Uint8Array[]): (random: Random) => Uint8Array {
  const layouts = seeds.map(layoutOf);
  return random => {
    const index = random.below(seeds.length);
    let bytes: Uint8Array = Uint8Array.from(seeds[index] as Uint8Array);
    const layout = layouts[index] as ReturnType<typeof layoutOf>;
    for (let count = 1 + random.below(3); count > 0; count--) bytes = mutate(random, bytes, layout, seeds);
    if (random.below(8) > 0) repair(bytes);
    return bytes;
  };
}

function checkManifest(bytes: Uint8Array): void {
  const manifest = attempt(() => readManifest(bytes), StateError);
  if (manifest === undefined) return;
  const { state, kernelIds, devices } = manifest;
  for (const { id: iommufd, ioases } of state.iommufds) {
    for (const { id: ioas, hwpts = [] } of ioases) {
      assert(kernelIds.has(statePath.ioas({ iommufd, ioas })));
      for (const { id } of hwpts) assert(kernelIds.has(statePath.hwpt({ iommufd, ioas }, id)));
    }
  }
  for (const { address } of state.devices) {
    assert(kernelIds.has(statePath.device(address)));
    assert(devices.has(address));
  }
  for (const arena of state.arenas) {
    const found = attempt(() => arenaMapping(arena, state.iommufds), StateError);
    assert(found === undefined || found.mapping.length === arena.size);
  }
}

/** A file of the store, which is read as if it were a memfd. */
function checkManifestFile(manifest: Uint8Array, other: Uint8Array, random: Random): void {
  const half = 2 ** 16;
  const file = new Uint8Array(2 * half);
  const view = new DataView(file.buffer);
  const first = 1 + random.below(1000);
  for (const [index, bytes] of [manifest, other].entries()) {
    const sequence = first + index;
    const at = (sequence % 2) * half;
    file.set(bytes.subarray(0, half - 16), at + 16);
    view.setBigUint64(at, BigInt(sequence), true);
    view.setBigUint64(at + 8, BigInt(bytes.length), true);
  }
  if (random.below(2) === 0) {
    const at = half * random.below(2) + 8 * random.below(2);
    const values = [0n, 1n, 2n, BigInt(half - 16), BigInt(half - 15), 2n ** 53n, 2n ** 64n - 1n];
    view.setBigUint64(at, pick(random, values), true);
  }
  const end = random.below(8) === 0 ? random.below(file.length) : file.length;
  const kernel = {
    pread: (_: number, buffer: Uint8Array, offset: number) => {
      const part = file.subarray(Math.min(offset, end), Math.min(offset + buffer.length, end));
      buffer.set(part);
      return part.length;
    },
  };
  attempt(() => findManifest(kernel as unknown as Syscalls, 3), StateError);
}

function messages(): Uint8Array[] {
  const { u32, u32s, string, strings } = FdtValue;
  const names = strings(['iommufd-0', 'device-0000-00-04.0', 'arena-1', 'interrupt-0000-00-04.0-2-0']);
  return [
    encodeMessage('hello', new Map([['versions', u32s([1])]])),
    encodeMessage(
      'offer',
      new Map([
        ['version', u32(1)],
        ['descriptors', u32(9)],
        ['manifest-bytes', u32(4000)],
        ['timeout', u32(5000)],
      ]),
    ),
    encodeMessage('descriptors', new Map([['names', names]])),
    encodeMessage('refused', new Map([['reason', string('it is of another device')]])),
    encodeMessage('verified', new Map()),
  ];
}

function checkMessage(bytes: Uint8Array): void {
  const message = attempt(() => decodeMessage(bytes), HandoffError);
  if (message === undefined) return;
  const again = decodeMessage(encodeMessage(message.kind, message.fields));
  assert.deepEqual(again, {
    kind: message.kind,
    fields: new Map([...message.fields].sort(([a], [b]) => (a < b ? -1 : 1))),
  });
}

const numbers = [
  0n,
  1n,
  2n,
  3n,
  64n,
  65n,
  4095n,
  4096n,
  4097n,
  65535n,
  65536n,
  65537n,
  2n ** 31n,
  2n ** 32n,
  2n ** 53n,
  2n ** 64n - 4096n,
  2n ** 64n - 1n,
];

/** Spoils some properties. */
function mutateProperties(random: Random, properties: Properties): Properties {
  const changed = new Map(properties);
  const name = pick(random, [...changed.keys()]);
  const value = changed.get(name) as Uint8Array;
  switch (random.below(6)) {
    case 0:
      changed.delete(name);
      break;
    case 1:
      changed.set(name, value.subarray(0, random.below(value.length + 1)));
      break;
    case 2:
      changed.set(name, changed.get(pick(random, [...changed.keys()])) as Uint8Array);
      break;
    case 3: {
      const other = value.slice();
      if (other.length > 0) other[random.below(other.length)] = random.below(256);
      changed.set(name, other);
      break;
    }
    case 4:
      changed.set(pick(random, ['more', 'entries', 'journal', 'bounce-arena']), value);
      break;
    default: {
      const number = random.below(2) ? pick(random, numbers) : BigInt(random.below(64)) * 4096n;
      changed.set(
        name,
        value.length === 4 ? FdtValue.u32(Number(number & 0xffff_ffffn)) : FdtValue.u64(number),
      );
    }
  }
  return changed;
}

function mutateRecord(random: Random, record: DriverRecord): DriverRecord {
  const { compatible, properties, children } = record;
  const at = random.below(children.length);
  const child = children[at] as FdtNode;
  const replace = (...nodes: readonly FdtNode[]): DriverRecord => ({
    ...record,
    children: [...children.slice(0, at), ...nodes, ...children.slice(at + 1)],
  });
  switch (random.below(8)) {
    case 0:
      return replace();
    case 1:
      return replace(child, {
        ...child,
        name: pick(random, ['queue-1', 'queue-2', 'namespace-2', 'namespace-0', 'more']),
      });
    case 2:
      return replace({ ...child, children: [child] });
    case 3:
      return random.below(8) ? record : { ...record, compatible: pick(random, ['', 'nvme-v2', compatible]) };
    case 4:
    case 5:
      return { ...record, properties: mutateProperties(random, properties) };
    default:
      return child.properties.size === 0
        ? record
        : replace({ ...child, properties: mutateProperties(random, child.properties) });
  }
}

/** A driver that is frozen with commands in flight, and what a successor makes of what it left. */
class Left {
  readonly #driver: Driver;
  readonly #record: DriverRecord;
  /** The journals of its queues, and what they are. */
  readonly #journals: readonly (readonly [words: Uint32Array, sound: Uint32Array])[];

  constructor(driver: Driver) {
    this.#driver = driver;
    driver.kept.freeze();
    this.#record = driver.controller.record();
    this.#journals = this.#record.children
      .filter(({ name }) => name.startsWith('queue-'))
      .map(({ name, properties }) => {
        const arena = FdtValue.readU64(
          this.#record.properties.get(name === 'queue-0' ? 'admin-arena' : 'io-arena') as Uint8Array,
        ) as bigint;
        const { buffer } = driver.kept.arena(arena) as { buffer: ArrayBuffer };
        const at = Number(FdtValue.readU64(properties.get('journal') as Uint8Array));
        const entries = FdtValue.readU32(properties.get('entries') as Uint8Array) as number;
        const words = new Uint32Array(buffer, at, Journal.size(entries - 1) / 4);
        return [words, words.slice()];
      });
  }

  checkRecord(random: Random): void {
    let record = this.#record;
    for (let count = 1 + random.below(3); count > 0; count--) record = mutateRecord(random, record);
    this.#plan(record);
  }

  checkJournals(random: Random): void {
    for (let count = 1 + random.below(4); count > 0; count--) {
      const [words] = pick(random, this.#journals);
      // The header has a word as often as all records.
      const at = random.below(2) ? random.below(10) : 32 * random.below(words.length / 32) + random.below(32);
      words[at] = random.below(3) ? Number(pick(random, numbers) & 0xffff_ffffn) : random.below(2 ** 32);
    }
    try {
      this.#plan(this.#record);
    } finally {
      for (const [words, sound] of this.#journals) words.set(sound);
    }
  }

  #plan(record: DriverRecord): void {
    const { controller, kept } = this.#driver;
    const plan = attempt(
      () => planRestore(controller.device, record, token => kept.arena(token)),
      StateError,
    );
    for (const commands of plan?.left.values() ?? []) {
      for (const {
        memory,
        record: { offset, length },
      } of commands) {
        assert(memory === undefined || offset + length <= memory.size);
      }
    }
  }
}

function images(): Buffer[] {
  const plain = packCpio([
    plainInit,
    directory('scripts'),
    directory('scripts/init-top'),
    program('scripts/init-top/iommufd', Buffer.from('#!/bin/sh\n')),
    file('scripts/init-top/ORDER', Buffer.from('/scripts/init-top/iommufd "$@"\n')),
  ]);
  const linked = packCpio([
    directory('usr'),
    link('bin', 'usr/bin'),
    link('lib', '/usr/lib'),
    link('usr/lib', '../lib64'),
    link('lib64', 'lib'),
    program('bin/dracut-pre-udev', Buffer.from('#!/bin/sh\n')),
    file('etc/modules-load.d/a.conf', Buffer.from('nvme\n')),
  ]);
  return [plain, linked, gzipSync(plain), Buffer.concat([linked, Buffer.alloc(8), gzipSync(plain)])];
}

/** What is compressed otherwise is given to a program, which takes thousands of times as long. */
const PROGRAMS = [
  Buffer.of(0x28, 0xb5, 0x2f, 0xfd),
  Buffer.of(0xfd, 0x37, 0x7a, 0x58),
  Buffer.of(2, 0x21, 0x4c, 0x18),
];

function checkImage(seeds: readonly Buffer[], random: Random): void {
  let bytes = Buffer.from(pick(random, seeds));
  for (let count = 1 + random.below(4); count > 0; count--) {
    const at = random.below(bytes.length);
    switch (random.below(6)) {
      case 0:
        bytes = bytes.subarray(0, at + 1);
        break;
      case 1: {
        const other = pick(random, seeds);
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(random.below(other.length))]);
        break;
      }
      case 2: {
        // A number of a header.
        const header = bytes.indexOf('070701', at);
        const value = pick(random, [
          '00000000',
          '00000001',
          'ffffffff',
          '0000000x',
          '7fffffff',
          '0000a1ff',
          '00000100',
        ]);
        if (header >= 0)
          bytes.write(
            value,
            Math.min(header + 6 + 8 * random.below(13), Math.max(bytes.length - 8, 0)),
            'latin1',
          );
        break;
      }
      case 3: {
        const text = pick(random, ['..', '/', '.', 'bin', 'lib', '\0', '070701', 'TRAILER!!!']);
        bytes.write(text, at, 'latin1');
        break;
      }
      default:
        bytes[at] = random.below(256);
    }
  }
  if (PROGRAMS.some(magic => bytes.includes(magic))) return;
  const image = attempt(() => new InitrdImage(bytes), LandingImageError);
  if (image === undefined) return;
  attempt(() => {
    imageKind(image);
    for (const path of ['init', 'bin/dracut-pre-udev', 'lib/modules', '/usr/../lib', '']) {
      assert(!image.resolve(path).startsWith('/'));
      image.text(path);
      image.names(path);
    }
  }, LandingImageError);
}

async function checks(): Promise<Check[]> {
  const drivers = [];
  for (const profile of ['vtd', 'noiommu'] as const) {
    const stage = new KeepaliveStage(profile);
    const driver = await stage.start(stage.process('predecessor').kernel);
    void driver.lanes.start();
    await stage.hold(driver.lanes);
    drivers.push({ stage, driver });
  }
  const storedAs = (name: string): string => `${name}.7`;
  const manifests = drivers.flatMap(({ driver: { kept } }) => [
    makeManifest(kept).bytes,
    makeManifest(kept, { storedAs }).bytes,
    makeManifest(kept, {
      storedAs,
      place: { fileName: 'manifest.8', serial: 9, file: { fd: 3, owner: kept } },
    }).bytes,
  ]);
  const left = drivers.map(({ driver }) => new Left(driver));
  // What it left stays; nothing waits for anything any more.
  for (const { stage, driver } of drivers) {
    driver.controller.relinquish(new HandoffError(HandoffErrorCode.HandedOver, 'gone'));
    stage.model.reset();
  }
  const manifest = spoiler(manifests);
  const message = spoiler(messages());
  const seeds = images();
  // Those that take longest less often.
  const weighed: readonly (readonly [number, Check])[] = [
    [2, random => checkManifest(manifest(random))],
    [1, random => checkManifestFile(pick(random, manifests), manifest(random), random)],
    [3, random => checkMessage(message(random))],
    [3, random => pick(random, left).checkRecord(random)],
    [2, random => pick(random, left).checkJournals(random)],
    [4, random => checkImage(seeds, random)],
  ];
  return weighed.flatMap(([times, check]) => Array<Check>(times).fill(check));
}

export async function target(): Promise<FuzzTarget> {
  const all = await checks();
  return random => pick(random, all)(random);
}
