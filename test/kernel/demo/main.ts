/**
 * What `npm run demo:kernel` shows, inside the virtual machine: hand-offs between processes, then live updates, of a
 * controller that goes on. It runs once in each kernel, and says on standard output, in lines of JSON, what it does; what
 * came of it is in files for the host (test/vm/demo.ts).
 */
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { percentile } from '../../../src/testing/percentile.js';
import { address, guestEnv } from '../../vm/topology.js';
import { Driven, driverArguments } from '../support/driven.js';
import { kernelDisk, ownership, registersOf } from '../support/kernel-disk.js';
import type { Answer, Tenure } from '../support/orders.js';
import {
  type EndResult,
  HANDOFFS,
  type HandOffResult,
  KEXECS,
  type Message,
  resultFile,
  TURNS,
  updateMark,
} from './results.js';

/** Processes that take turns. */
const PROCESSES = 3;
/** Between two hand-offs, once every lane goes on. */
const BETWEEN_MS = 50;
/** In each kernel. */
const WORK_MS = 500;

const boot = Number(process.env[guestEnv.boot]);
const results = process.env[guestEnv.results] ?? tmpdir();
const { nvmeA, nvmeB } = address;

function say(message: Message): void {
  console.log(JSON.stringify(message));
}

function store(name: string, result: object): void {
  writeFileSync(join(results, name), JSON.stringify(result));
}

function begin(): Driven {
  return new Driven(spawn(process.execPath, driverArguments(TURNS), { stdio: ['pipe', 'pipe', 'inherit'] }));
}

/** Of the other controller, whoever drives this one. */
async function sayOther(): Promise<void> {
  const disk = await kernelDisk(nvmeB);
  say({
    step: 'beside it',
    text: `${nvmeB} is with the kernel's driver ${ownership(nvmeB).driver}: ${disk}`,
  });
}

async function handOffs(): Promise<Driven> {
  say({ doing: `starting ${PROCESSES} processes` });
  const processes = Array.from({ length: PROCESSES }, begin) as [Driven, ...Driven[]];
  let owner: Driven = processes[0];
  let began = (await owner.ask({ do: 'start' })).told;
  const { bar } = registersOf(nvmeA);
  say({
    step: 'controller',
    text: `${nvmeA} is up, at 0x${bar.toString(16)}, with ${began.length} commands in flight`,
  });
  await sayOther();
  const gaps: number[] = [];
  const frozen: number[] = [];
  const outcomes = new Set<string>();
  const sum = { lost: 0, toldTwice: 0, resets: 0, inFlight: 0 };
  /** Lanes that are not ahead of where they were. */
  const stuck = ({ told }: Tenure): number =>
    told.filter((count, lane) => count <= (began[lane] as number)).length;

  sum.lost += stuck(await owner.ask({ do: 'progress' }));
  for (let count = 1; count <= HANDOFFS; count++) {
    await sleep(BETWEEN_MS);
    say({ doing: `hand-off ${count} of ${HANDOFFS}` });
    const successor = processes[count % PROCESSES] as Driven;
    const path = join(tmpdir(), `handoff-${count}`);
    owner.tell({ do: 'hand-on', peer: { listen: path } });
    successor.tell({ do: 'take', peer: { connect: path } });
    const left = await owner.hears('hand-on');
    const taken: Extract<Answer, { did: 'run' }> = await successor.hears('run');
    owner = successor;
    began = taken.told;
    const tenure = await owner.ask({ do: 'progress' });
    gaps.push(tenure.firstTold - left.lastTold);
    frozen.push(left.frozen);
    outcomes.add(taken.outcome);
    sum.lost += stuck(tenure) + left.told.filter((told, lane) => told > (began[lane] as number)).length;
    sum.toldTwice += left.toldTwice;
    sum.resets += left.resets;
    sum.inFlight += taken.inherited;
  }
  const gapMs = { p50: percentile(gaps, 50), max: percentile(gaps, 100) };
  const { lost, toldTwice, resets, inFlight } = sum;
  const result: HandOffResult = {
    count: gaps.length,
    gapMs,
    lost,
    toldTwice,
    resets,
    outcomes: [...outcomes],
  };
  store(resultFile.handOff, result);
  say({
    step: 'hand-offs',
    text:
      `${gaps.length} between ${PROCESSES} processes, each with ${Math.round(inFlight / gaps.length)} commands in flight; ` +
      `nothing completes for ${gapMs.p50.toFixed(1)} ms (median), ${gapMs.max.toFixed(1)} ms at most`,
  });
  return owner;
}

async function resume(): Promise<Driven> {
  const driver = begin();
  const result = await driver.ask({ do: 'resume', file: join(results, resultFile.leaving(boot - 1)) });
  await driver.hears('run');
  store(resultFile.update(boot), result);
  const { outcome, reason, bytesVerified, pages, pagesMoved } = result;
  say({
    step: `kernel ${boot}`,
    text:
      `${outcome}${reason === undefined ? '' : ` (${reason})`}; ` +
      `${bytesVerified} bytes of the kernel before read back through the same queues; ${pages} pages, ${pagesMoved} moved`,
  });
  await sayOther();
  await driver.ask({ do: 'progress' });
  await sleep(WORK_MS);
  return driver;
}

async function update(driver: Driven): Promise<never> {
  say({ doing: `live update ${boot} of ${KEXECS}` });
  driver.tell({
    do: 'update',
    mark: updateMark(boot),
    file: join(results, resultFile.leaving(boot)),
  });
  // Only if it fails does it say anything.
  const answer = await driver.answer();
  throw new Error(`no live update: ${JSON.stringify(answer) ?? (await driver.ended)}`);
}

say({ step: `kernel ${boot}`, text: `Linux ${release()} runs` });
const driver = boot === 1 ? await handOffs() : await resume();
if (boot <= KEXECS) await update(driver);
const end = await driver.ask({ do: 'stop' });
const result: EndResult = { ...end, registers: registersOf(nvmeA) };
store(resultFile.end, result);
await driver.leave();
