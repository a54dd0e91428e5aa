/** What the driver program of the tests of hand-offs, crashes and live updates is told, and what it answers. Types only. @module */

/** Where the channel of a hand-off comes from. */
export type Peer =
  /** The process was started with it, under this name. */
  | { readonly inherited: string }
  /** The other side connects to this path. */
  | { readonly listen: string }
  | { readonly connect: string };

/** Moments of a hand-off at which a process can be told to end, as by `kill -9`. */
export type PredecessorStep = 'frozen' | 'offered' | 'verified' | 'committed';
export type SuccessorStep = 'greeted' | 'verifying' | 'said-verified' | 'taken-over';

export type Order =
  /** Brings the controller up and runs the lanes. */
  | { readonly do: 'start' }
  /** Goes on with what is in the descriptor store. @param dieAt at this moment: see `Answer.moments` */
  | { readonly do: 'recover'; readonly dieAt?: number }
  | { readonly do: 'take'; readonly peer: Peer; readonly dieAt?: SuccessorStep }
  | { readonly do: 'hand-on'; readonly peer: Peer; readonly dieAt?: PredecessorStep }
  /** Answers when every lane has been told of an operation since it runs here. */
  | { readonly do: 'progress' }
  /** Makes and disposes of arenas until it ends. @param dieAt at this moment, from now on */
  | { readonly do: 'arenas'; readonly dieAt: number }
  /** Ends all lanes, with nothing in flight. */
  | { readonly do: 'pause' }
  /** Ends all lanes, and shuts everything down. */
  | { readonly do: 'stop' }
  /** Starts the next kernel with all that is kept. Before, it sets `mark` in QEMU's trace and puts a {@link Leaving} into `file`. */
  | { readonly do: 'update'; readonly mark: string; readonly file: string }
  /** Goes on with what the kernel before left, and looks whether it is what `file` says. */
  | { readonly do: 'resume'; readonly file: string };

/** What is known when one kernel makes way for the next. */
export interface Leaving extends Tenure {
  /** Where each page of each arena is physically; see `physicalPages`. */
  readonly frames: readonly (readonly [string, readonly number[]])[];
}

/** How far the lanes are. Times are CLOCK_MONOTONIC in ms, which all processes share. */
export interface Tenure {
  /** Operations that ended, by lane, in all processes so far. */
  readonly told: readonly number[];
  /** Operations that ended in this process. */
  readonly toldHere: number;
  /** Commands that were reported to this process although their lanes had been told. */
  readonly toldTwice: number;
  readonly wrong: number;
  /** When the first and the last operation ended here. */
  readonly firstTold: number;
  readonly lastTold: number;
  readonly resets: number;
}

export type Answer =
  | {
      readonly did: 'run';
      readonly outcome: string;
      /** By lane, before any was told here. */
      readonly told: readonly number[];
      /** The same, as it was noted outside of the memory that is kept; empty without such notes. */
      readonly noted: readonly number[];
      /** Commands of the lanes that the predecessor had in flight, or was not known to have been told of. */
      readonly inherited: number;
      /** How long this process has run, in ms. */
      readonly uptime: number;
      /** System calls so far, twice: before each and after each is a moment. */
      readonly moments: number;
    }
  /** Before it runs the lanes. */
  | {
      readonly did: 'resume';
      /** What became of the device. */
      readonly outcome: string;
      readonly reason: string | undefined;
      /** Of what was written before the kexec, read back and found to be so. */
      readonly bytesVerified: number;
      readonly reads: number;
      readonly pages: number;
      readonly pagesMoved: number;
    }
  /** There is nothing in the store. */
  | { readonly did: 'find-nothing' }
  | ({ readonly did: 'hand-on'; readonly frozen: number; readonly descriptors: number } & Tenure)
  | ({ readonly did: 'progress' | 'pause' | 'stop' } & Tenure)
  /** It went wrong. @param owner whether this process has the device still, and goes on */
  | { readonly did: 'fail'; readonly code: string; readonly message: string; readonly owner: boolean };
