/**
 * The conformance suite's shape: cases that run alike on the simulated host and on a real kernel.
 *
 * @module
 */
import type { Test } from 'tap';
import type { Syscalls } from '../../../bindings/syscalls.js';

/** What a case may ask of whoever runs it, beyond system calls. */
export interface ConformanceHost {
  readonly name: 'kernel' | 'simulator';
  /** The calls of the process that the case runs in. */
  readonly kernel: Syscalls;
  /** The machine: `vtd`, `noiommu`, `legacy` …, see test/vm/profiles.ts. */
  readonly profile: string;
  /** Takes a capability out of the effective set, until disposed. */
  dropCapability(capability: 'CAP_IPC_LOCK' | 'CAP_SYS_RESOURCE' | 'CAP_SYS_RAWIO'): Disposable;
  /** Sets the soft limit RLIMIT_MEMLOCK, in bytes, until disposed. */
  limitLockedMemory(bytes: number): Disposable;
  /**
   * Runs `task`, a name in test/conformance/support/child-tasks.ts, in another process that has the same open files
   * as `descriptors`, under numbers of its own.
   */
  spawn(task: string, descriptors: readonly number[], argument?: unknown): Child;
}

/** Another process. */
export interface Child {
  /** The next value that the task says. */
  heard(): Promise<unknown>;
  /** Says something to the task. */
  tell(value: unknown): void;
  /** Ends it, whatever it is doing, and resolves when it has ended. */
  end(): Promise<void>;
}

/** What a task in another process gets. */
export interface ChildContext {
  readonly kernel: Syscalls;
  readonly descriptors: readonly number[];
  readonly argument: unknown;
  say(value: unknown): void;
  heard(): Promise<unknown>;
}

/** One row of the table of conformance. */
export interface Case {
  /** Where the behaviour is written down: `iommu/iommufd.c` (a kernel selftest), `errno` (the table), `noiommu`. */
  readonly source: string;
  /** `iommufd_ioas` */
  readonly fixture: string;
  /** The selftest's own name: `area_auto_iova`. */
  readonly name: string;
  /** `mock_domain`; absent where there is one only. */
  readonly variant?: string;
  /** Machines that it needs, by profile; any unless told. */
  readonly profiles?: readonly string[];
  /** Why it cannot run, on either. A case that has it has no `run`. */
  readonly notApplicable?: string;
  /** Why it cannot run on this machine, which lacks something beyond the profile; asked before it runs. */
  readonly unavailable?: (host: ConformanceHost) => string | undefined;
  readonly run?: (t: Test, host: ConformanceHost) => void | Promise<void>;
  /**
   * The second half of a case in two: what is true in the next kernel. `run` leaves open what the kexec is to carry
   * over; whoever runs the suite makes the kexec between the two, one for all cases that have a second half.
   */
  readonly afterKexec?: (t: Test, host: ConformanceHost) => void | Promise<void>;
}
