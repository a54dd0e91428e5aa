/**
 * Drivers that die: `kill -9` at random moments of everything that a driver does, with a stand-in for systemd that has kept
 * its descriptors and starts the next one, which goes on with the running controller. Then the same in the middle of a
 * hand-off, at each step of it, on either side. What QEMU saw of it, the host looks at afterwards: `test/vm/kept-nvme.ts`.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { LANES } from '../../src/testing/lanes.js';
import { percentile } from '../../src/testing/percentile.js';
import { type NotifyKeeper, notifyKeeper } from '../support/notify-keeper.js';
import { random } from '../support/random.js';
import { guestEnv } from '../vm/topology.js';
import { Driven, driverArguments } from './support/driven.js';
import type { Answer, PredecessorStep, SuccessorStep } from './support/orders.js';
import { isNoiommu, profile } from './support/profile.js';

/** Each takes seconds, most of which Node.js needs to start: half as many will do in the second profile. */
const KILLS = isNoiommu ? 25 : 50;
/** Blocks that each lane writes before it begins again: so many that it never does, and no write hides another. */
const TURNS = 8192;

t.setTimeout(480_000);

const rng = random(Number(process.env.SEED) || undefined);
const directory = mkdtempSync('/dev/shm/crash-');
/** Here drivers note what their lanes were told, one word each: what was acknowledged, whatever becomes of them. */
const notes = join(directory, 'told');
writeFileSync(notes, new Uint8Array(4 * LANES));

/** When a driver is killed, and how many of the kills are such. */
const kinds = { working: 0.5, idle: 0.1, arenas: 0.14, starting: 0.12, recovering: 0.14 } as const;
type Kind = keyof typeof kinds;
/** Kills until the next driver runs: those that start are killed as well. */
const killsOf = (kind: Kind): number => (kind === 'starting' || kind === 'recovering' ? 2 : 1);

type Run = Extract<Answer, { did: 'run' }>;

/** The driver that has the device, and those that had it. */
class Succession {
  readonly keeper: NotifyKeeper;
  owner: Driven;
  /** Operations that had ended when the owner began, by lane. */
  began: readonly number[] = new Array<number>(LANES).fill(0);
  /** Of what was there when a driver died. */
  readonly tally = { kills: 0, inherited: 0, withInherited: 0, toldTwice: 0, resets: 0 };
  /** From one driver's death to the next one's first operations, in ms. */
  readonly gaps: number[] = [];
  /** The same but for the start of Node.js. */
  readonly recoveries: number[] = [];
  #died: number | undefined;

  constructor(keeper: NotifyKeeper) {
    this.keeper = keeper;
    this.owner = this.start();
  }

  /** A driver with everything that is kept. */
  start(): Driven {
    const [command, ...args] = [process.execPath, ...driverArguments(TURNS, notes)];
    return new Driven(this.keeper.start(command, args, { stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  /** A driver with nothing. */
  startSuccessor(): Driven {
    const env = { ...process.env, NOTIFY_SOCKET: this.keeper.address };
    const args = driverArguments(TURNS, notes);
    return new Driven(spawn(process.execPath, args, { env, stdio: ['pipe', 'pipe', 'inherit'] }));
  }

  /** Waits until the owner is dead. */
  async noteDeath(t: Test): Promise<void> {
    for (;;) {
      const answer = await this.owner.answer();
      if (answer === undefined) break;
      if (answer.did !== 'fail') continue;
      t.fail(answer.message);
      await this.owner.kill();
    }
    const signal = await this.owner.ended;
    if (signal !== 'SIGKILL') t.equal(signal, 'SIGKILL', 'it did not end by itself');
    this.#died = performance.now();
    this.tally.kills++;
  }

  /** A new owner that runs: compares what it found with what was acknowledged. */
  noteRun(t: Test, owner: Driven, run: Run): void {
    this.owner = owner;
    this.began = run.told;
    if (run.outcome !== 'kept-running') t.equal(run.outcome, 'kept-running');
    const forgotten = run.noted.filter((count, lane) => count > (run.told[lane] as number));
    if (forgotten.length > 0) t.fail(`${forgotten.length} lanes have forgotten what was acknowledged`);
    this.tally.inherited += run.inherited;
    if (run.inherited > 0) this.tally.withInherited++;
  }

  /** The next one goes on with what is in the store. @param dieAt it dies itself, at this moment */
  async recover(t: Test): Promise<Run> {
    const next = this.start();
    const run = await next.ask({ do: 'recover' });
    this.noteRun(t, next, run);
    if (this.#died !== undefined) this.recoveries.push(run.uptime);
    return run;
  }

  /** Waits until every lane goes on. */
  async progress(t: Test): Promise<void> {
    const { told, firstTold, toldTwice, resets } = await this.owner.ask({ do: 'progress' });
    const stuck = told.filter((count, lane) => count <= (this.began[lane] as number));
    if (stuck.length > 0) t.fail(`${stuck.length} lanes do not go on`);
    if (this.#died !== undefined) this.gaps.push(firstTold - this.#died);
    this.#died = undefined;
    this.tally.toldTwice += toldTwice;
    this.tally.resets += resets;
  }
}

const keeper = notifyKeeper({ limit: 256 });
const succession = new Succession(keeper);
t.teardown(() => succession.owner.kill());

/** As many of each kind as there are to be, in random order. */
function plan(): Kind[] {
  const rounds = (Object.keys(kinds) as Kind[]).flatMap(kind => {
    return new Array<Kind>(Math.ceil((KILLS * kinds[kind]) / killsOf(kind))).fill(kind);
  });
  return rng.shuffle(rounds);
}

t.test(`killed at random moments, ${profile}`, async t => {
  t.comment(`seed ${rng.seed}, ${KILLS} kills`);
  const begun = performance.now();
  succession.owner.tell({ do: 'recover' });
  await succession.owner.hears('find-nothing');
  const first = await succession.owner.ask({ do: 'start' });
  let { moments } = first;
  let startTime = first.uptime;
  for (const kind of plan()) {
    switch (kind) {
      case 'working':
        if (rng.below(2) === 0) await succession.progress(t);
        await sleep(rng.below(150));
        await succession.owner.kill();
        break;
      case 'idle':
        await succession.progress(t);
        await succession.owner.ask({ do: 'pause' });
        await succession.owner.kill();
        break;
      case 'arenas':
        // So many calls make a dozen arenas.
        succession.owner.tell({ do: 'arenas', dieAt: 1 + rng.below(400) });
        break;
      case 'starting':
      case 'recovering':
        // Twice: first the owner, then the one that follows, before it is one.
        await succession.owner.kill();
        await succession.noteDeath(t);
        succession.owner = succession.start();
        if (kind === 'recovering') {
          succession.owner.tell({ do: 'recover', dieAt: 1 + rng.below(moments) });
        } else {
          succession.owner.tell({ do: 'recover' });
          await sleep(rng.below(Math.round(startTime)));
          await succession.owner.kill();
        }
        break;
    }
    await succession.noteDeath(t);
    const run = await succession.recover(t);
    ({ moments, uptime: startTime } = run);
    const { kills } = succession.tally;
    t.comment(`${kills}: ${kind}, ${run.inherited} commands left, ${Math.round(run.uptime)} ms`);
  }
  await succession.progress(t);
  t.ok(succession.tally.kills >= KILLS, `${succession.tally.kills} kills`);
  t.ok(succession.tally.withInherited > KILLS / 4, 'many had commands in flight');
  t.comment(`${Math.round((performance.now() - begun) / 1000)} s, ${JSON.stringify(succession.tally)}`);
});

/** Who dies at which step of a hand-off. */
const steps: readonly ({ predecessor: PredecessorStep } | { successor: SuccessorStep })[] = [
  { predecessor: 'frozen' },
  { predecessor: 'offered' },
  { predecessor: 'verified' },
  { predecessor: 'committed' },
  { successor: 'greeted' },
  { successor: 'verifying' },
  { successor: 'said-verified' },
  { successor: 'taken-over' },
];

for (const step of steps) {
  const who =
    'predecessor' in step ? `the predecessor: ${step.predecessor}` : `the successor: ${step.successor}`;
  t.test(`killed in the middle of a hand-off, ${who}`, async t => {
    const { owner } = succession;
    const path = join(directory, 'channel');
    const successor = succession.startSuccessor();
    owner.tell({
      do: 'hand-on',
      peer: { listen: path },
      ...('predecessor' in step && { dieAt: step.predecessor }),
    });
    successor.tell({
      do: 'take',
      peer: { connect: path },
      ...('successor' in step && { dieAt: step.successor }),
    });
    const [left, taken] = await Promise.all([owner.answer(), successor.answer()]);
    const owners = [left, taken].filter(
      answer => answer?.did === 'run' || (answer?.did === 'fail' && answer.owner),
    );
    t.ok(owners.length <= 1, 'one owner or none');
    if ('predecessor' in step) {
      await succession.noteDeath(t);
      t.equal(left, undefined, 'the predecessor died');
      if (taken?.did === 'run') {
        t.equal(step.predecessor, 'committed', 'the successor goes on only when it was told to');
        succession.noteRun(t, successor, taken);
      } else {
        t.match(taken, { did: 'fail', code: 'PEER_GONE', owner: false });
        t.not(step.predecessor, 'committed');
        t.equal(await successor.leave(), '0');
      }
    } else {
      t.equal(taken, undefined, 'the successor died');
      t.equal(await successor.ended, 'SIGKILL');
      if (left?.did === 'fail') {
        t.match(left, { code: 'PEER_GONE', owner: true }, 'the predecessor takes it back');
        t.not(step.successor, 'taken-over');
      } else {
        t.equal(left?.did, 'hand-on', 'the predecessor has let go');
        t.match(step.successor, /said-verified|taken-over/);
        t.equal(await owner.leave(), '0');
      }
    }
    t.comment(owners.length === 0 ? 'none has it: the store has everything' : 'one goes on');
    if (owners.length === 0) await succession.recover(t);
    await succession.progress(t);
  });
}

t.test('an orderly end', async t => {
  const end = await succession.owner.ask({ do: 'stop' });
  t.equal(await succession.owner.leave(), '0');
  t.equal(end.wrong, 0, 'all data was read back as it was written');
  t.equal(succession.tally.resets, 0, 'no reset');
  t.ok(Math.max(...end.told) < 2 * TURNS, 'no write has hidden another');
  await keeper.until(() => keeper.stored.length === 0);
  t.pass('the store is empty');
  keeper[Symbol.dispose]();
  const of = (values: readonly number[]) => ({
    p50: percentile(values, 50),
    p90: percentile(values, 90),
    max: percentile(values, 100),
  });
  const report = {
    ...succession.tally,
    told: end.told,
    turns: TURNS,
    gapMs: of(succession.gaps),
    recoverMs: of(succession.recoveries),
  };
  t.comment(JSON.stringify(report));
  const results = process.env[guestEnv.results];
  if (results) writeFileSync(join(results, 'kept-nvme.json'), JSON.stringify(report));
});
