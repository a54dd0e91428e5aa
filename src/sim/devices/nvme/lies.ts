/**
 * A device that lies: what a simulated NVMe controller gets wrong, and when. Decided by a script or, repeatably, by
 * chance.
 *
 * @module
 */
import { type Random, random } from '../../random.js';
import type { Request } from './request.js';

export type Lie =
  /** The command is done, and its completion comes later. */
  | { readonly kind: 'late'; readonly milliseconds: number }
  /** It is completed two times. */
  | { readonly kind: 'twice' }
  /** It is done and never completed. */
  | { readonly kind: 'never' }
  /** The completion bears the identifier of no command: the right one, with bit 14 inverted. */
  | { readonly kind: 'wrong-id' }
  /** The completion is written as if it were an old one. */
  | { readonly kind: 'wrong-phase' }
  /** The completion is written to another completion queue, if there is one. */
  | { readonly kind: 'wrong-queue' }
  /** It fails with this status, and is not done. */
  | { readonly kind: 'status'; readonly sct: number; readonly sc: number; readonly dnr?: boolean }
  /** CSTS.CFS is set, and the controller does nothing more until it is reset. */
  | { readonly kind: 'fatal' }
  /** The controller resets itself: CC.EN and CSTS.RDY are 0, and its queues forgotten. */
  | { readonly kind: 'reset-in-flight' }
  /** Registers read as all ones and nothing is done: for so long, or until the function is reset. */
  | { readonly kind: 'register-all-ones'; readonly milliseconds?: number };

/** Which commands a lie can be about; all unless told. */
export interface LieTarget {
  readonly opcode?: number;
  /** Admin commands, those for namespaces, or those of one queue. */
  readonly queue?: 'admin' | 'io' | number;
}

/** A lie about the `nth` command, from 1, that fits, and about as many after it as `times` says; both 1 unless told. */
export interface ScriptedLie extends LieTarget {
  readonly lie: Lie;
  readonly nth?: number;
  readonly times?: number;
}

/** One of `lies` about one in so many of the commands that fit. The same seed makes the same choices. */
export interface RandomLies extends LieTarget {
  readonly lies: readonly Lie[];
  readonly seed: number;
  readonly oneIn: number;
}

export class Lies {
  readonly #script: { readonly entry: ScriptedLie; seen: number }[];
  readonly #chance: { readonly plan: RandomLies; readonly random: Random } | undefined;
  #commands = 0;
  /** Every lie that was told, in order: which command it was about, and what it was. */
  readonly told: string[] = [];

  constructor(plan: readonly ScriptedLie[] | RandomLies) {
    if ('lies' in plan) {
      this.#script = [];
      this.#chance = { plan, random: random(plan.seed) };
    } else {
      this.#script = plan.map(entry => ({ entry, seen: 0 }));
    }
  }

  /** What to get wrong about a command. @internal */
  about(request: Request): Lie | undefined {
    this.#commands++;
    const lie = this.#scripted(request) ?? this.#random(request);
    if (lie !== undefined) {
      const opcode = `0x${request.opcode.toString(16).padStart(2, '0')}`;
      const queue = request.queue.id === 0 ? 'the admin queue' : `queue ${request.queue.id}`;
      const command = `command ${this.#commands}, opcode ${opcode}, id ${request.id} on ${queue}`;
      this.told.push(`${command}: ${describe(lie)}`);
    }
    return lie;
  }

  #scripted(request: Request): Lie | undefined {
    let found: Lie | undefined;
    for (const state of this.#script) {
      if (!fits(state.entry, request)) continue;
      state.seen++;
      const { lie, nth = 1, times = 1 } = state.entry;
      if (state.seen >= nth && state.seen < nth + times) found ??= lie;
    }
    return found;
  }

  #random(request: Request): Lie | undefined {
    if (this.#chance === undefined) return undefined;
    const { plan, random: source } = this.#chance;
    if (!fits(plan, request) || !source.chance(plan.oneIn)) return undefined;
    return plan.lies[source.below(plan.lies.length)];
  }
}

function fits(target: LieTarget, request: Request): boolean {
  if (target.opcode !== undefined && target.opcode !== request.opcode) return false;
  const { queue } = target;
  if (queue === undefined) return true;
  if (queue === 'admin') return request.queue.id === 0;
  if (queue === 'io') return request.queue.id !== 0;
  return request.queue.id === queue;
}

function describe(lie: Lie): string {
  const { kind, ...details } = lie;
  const list = Object.entries(details).map(([name, value]) => `${name} ${value}`);
  return list.length === 0 ? kind : `${kind} (${list.join(', ')})`;
}
