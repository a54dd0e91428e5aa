/** What the demonstration in a virtual machine and the host have in common: how much is shown, and what is told of it. @module */
import type { Answer, Tenure } from '../support/orders.js';

/** In all. */
export const HANDOFFS = 20;
/** After the first kernel. */
export const KEXECS = 2;
/** Blocks that each lane writes before it begins again. */
export const TURNS = 16;

/** A line that is said while it happens. */
export type Message =
  /** A step that is done. */
  | { readonly step: string; readonly text: string }
  /** Where a step is. */
  | { readonly doing: string };

/** Of the first kernel. */
export interface HandOffResult {
  readonly count: number;
  /** Between the last operation that ended in one process and the first in the next, in ms. */
  readonly gapMs: { readonly p50: number; readonly max: number };
  /** Lanes that did not go on, and operations that were told and forgotten. */
  readonly lost: number;
  /** Operations that were told twice. */
  readonly toldTwice: number;
  /** By drivers. */
  readonly resets: number;
  /** Outcomes in the processes that it was handed to, each once. */
  readonly outcomes: readonly string[];
}

/** Of each other kernel. */
export type UpdateResult = Extract<Answer, { readonly did: 'resume' }>;

/** At the end. */
export interface EndResult extends Tenure {
  /** Where the registers of the controller are. */
  readonly registers: { readonly bar: number; readonly size: number };
}

/** Names of the files with results. Kernels are counted from 1. */
export const resultFile = {
  handOff: 'handoff.json',
  leaving: (kernel: number): string => `leaving-${kernel}.json`,
  update: (kernel: number): string => `update-${kernel}.json`,
  end: 'end.json',
} as const;

/** In QEMU's trace, when a kernel makes way for the next. */
export const updateMark = (kernel: number): string => `update-${kernel}`;
