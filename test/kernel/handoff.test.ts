/**
 * Hand-offs between processes while an NVMe controller does verified I/O at queue depth 32: to and fro between two that
 * live on, and to some that were just started. What QEMU saw of it, the host looks at afterwards: `test/vm/kept-nvme.ts`.
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Channel, inheritance } from 'iommufd';
import t from 'tap';
import { LANES } from '../../src/testing/lanes.js';
import { percentile } from '../../src/testing/percentile.js';
import { random } from '../support/random.js';
import { guestEnv } from '../vm/topology.js';
import { Driven, driverArguments } from './support/driven.js';
import type { Peer, Tenure } from './support/orders.js';
import { profile } from './support/profile.js';

/** In all. */
const HANDOFFS = 100;
/** Blocks that each lane writes before it begins again. */
const TURNS = 64;

interface HandOffFigures {
  /** Between the last operation that ended in the predecessor and the first in the successor, in ms. */
  readonly gap: number;
  /** How long the predecessor's driver was frozen, in ms. */
  readonly frozen: number;
  readonly inFlight: number;
  /** To a process that did it for the first time. */
  readonly fresh: boolean;
}

t.setTimeout(450_000);

const rng = random(Number(process.env.SEED) || undefined);

/** A process with channel ends, by name. The ends are closed here. */
function begin(channels: Readonly<Record<string, Channel>> = {}): Driven {
  const ends = Object.entries(channels);
  const { stdio, env } = inheritance(new Map(ends.map(([name, { fd }]) => [name, [fd]])));
  const child = spawn(process.execPath, driverArguments(TURNS), {
    env,
    stdio: ['pipe', 'pipe', 'inherit', ...stdio],
  });
  for (const [, channel] of ends) channel[Symbol.dispose]();
  return new Driven(child);
}

t.test(`hand-offs under load, ${profile}`, async t => {
  t.comment(`seed ${rng.seed}`);
  const peers = Channel.pair();
  const forFresh = Channel.pair();
  const a = begin({ peer: peers[0], fresh: forFresh[0] });
  const b = begin({ peer: peers[1] });
  let owner = a;
  let began = (await a.ask({ do: 'start' })).told;
  t.equal(
    began.reduce((sum, told) => sum + told, 0),
    0,
    'the controller was brought up',
  );
  const figures: HandOffFigures[] = [];
  let toldHere = 0;
  let toldTwice = 0;
  let resets = 0;
  const note = (tenure: Tenure): void => {
    toldHere += tenure.toldHere;
    toldTwice += tenure.toldTwice;
    resets += tenure.resets;
  };

  /** Waits until every lane goes on, and some random time. */
  const work = async (): Promise<void> => {
    const { told } = await owner.ask({ do: 'progress' });
    const stuck = told.filter((count, lane) => count <= (began[lane] as number));
    if (stuck.length > 0) t.fail(`${stuck.length} lanes do not go on`);
    await sleep(rng.below(60));
  };

  const handOn = async (successor: Driven, from: Peer, to: Peer, fresh = false): Promise<void> => {
    owner.tell({ do: 'hand-on', peer: from });
    successor.tell({ do: 'take', peer: to });
    const left = await owner.hears('hand-on');
    const taken = await successor.hears('run');
    owner = successor;
    if (taken.outcome !== 'kept-running') t.equal(taken.outcome, 'kept-running');
    const forgotten = left.told.filter((told, lane) => told > (taken.told[lane] as number));
    if (forgotten.length > 0) t.fail(`${forgotten.length} lanes are told less than they were`);
    began = taken.told;
    note(left);
    await work();
    const { firstTold } = await owner.ask({ do: 'progress' });
    const { frozen } = left;
    figures.push({ gap: firstTold - left.lastTold, frozen, inFlight: taken.inherited, fresh });
  };

  const connect = (): [Peer, Peer] => {
    const path = join(tmpdir(), `handoff-${figures.length}`);
    return [{ listen: path }, { connect: path }];
  };
  const peer: Peer = { inherited: 'peer' };
  const fresh: Peer = { inherited: 'fresh' };

  await work();
  // A process that is started with the end of a channel.
  const c = begin({ fresh: forFresh[1] });
  await handOn(c, fresh, fresh, true);
  // Others that connect to a path.
  const d = begin();
  await handOn(d, ...connect(), true);
  const e = begin();
  await handOn(e, ...connect(), true);
  await handOn(a, ...connect());
  while (figures.length < HANDOFFS) await handOn(owner === a ? b : a, peer, peer, figures.length === 4);

  const end = await owner.ask({ do: 'stop' });
  note(end);
  t.equal(end.wrong, 0, 'all data was read back as it was written');
  const told = end.told.reduce((sum, count) => sum + count, 0);
  t.equal(toldHere, told, 'every operation was told to a process');
  t.equal(toldTwice, 0, 'and only once');
  t.equal(resets, 0, 'no reset');
  const stuck = end.told.filter((count, lane) => count <= (began[lane] as number));
  t.equal(stuck.length, 0, 'every lane goes on to the end');
  t.equal(end.told.length, LANES);
  for (const process of [a, b, c, d, e]) t.equal(await process.leave(), '0');

  const of = (wanted: boolean, figure: 'gap' | 'frozen' | 'inFlight') => {
    const values = figures.filter(each => each.fresh === wanted).map(each => each[figure]);
    return { p50: percentile(values, 50), p90: percentile(values, 90), max: percentile(values, 100) };
  };
  const report = {
    count: figures.length,
    told: end.told,
    turns: TURNS,
    gapMs: of(false, 'gap'),
    frozenMs: of(false, 'frozen'),
    inFlight: of(false, 'inFlight'),
    gapMsFresh: of(true, 'gap'),
    frozenMsFresh: of(true, 'frozen'),
  };
  t.comment(JSON.stringify(report));
  const results = process.env[guestEnv.results];
  if (results) writeFileSync(join(results, 'kept-nvme.json'), JSON.stringify({ ...report, figures }));
});
