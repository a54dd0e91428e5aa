/** Makes what a predecessor left in its journals one's own. @module */
import { AdminOpcode } from './command.js';
import type { Request } from './command-engine.js';
import type { EventRequests } from './event-requests.js';
import { blocksOf, decodeCommand, type InheritedCommand, isRepeatable } from './inherited.js';
import { SlotState } from './journal.js';
import type { Pending, QueuePair } from './queue-pair.js';
import type { LeftCommand } from './restore-plan.js';

/** What commands need of the driver that takes them over. */
export interface Heir {
  readonly events: EventRequests;
  /** In ms. */
  readonly commandTimeout: number;
  pendingFor(
    queue: QueuePair,
    slot: number,
    request: Request,
    resolve: (result: number) => void,
    reject: (error: unknown) => void,
  ): Pending;
  /** Does something when the driver is running. */
  later(action: () => void): void;
  /** `hold` can be disposed of when the application has run. */
  release(hold: Disposable): void;
  /** New commands can be issued. */
  allEnded(): void;
}

export class Inheritance {
  readonly commands: InheritedCommand[] = [];
  /** Those that the predecessor was about to submit. */
  readonly unsubmitted: Pending[] = [];
  readonly #heir: Heir;
  #left = 0;

  constructor(heir: Heir) {
    this.#heir = heir;
  }

  /** Commands that new ones have to wait for. */
  get left(): number {
    return this.#left;
  }

  /** Takes over what was left of a queue. The device is not touched. */
  take(queue: QueuePair, left: readonly LeftCommand[]): void {
    for (const command of left) if (command.record.internal) this.#takeInternal(queue, command);
    // Nobody was to be told of those.
    queue.forgetTold();
    for (const command of left) {
      if (!command.record.internal) this.commands.push(this.#takeCommand(queue, command));
    }
  }

  #end(): void {
    if (--this.#left === 0) this.#heir.allEnded();
  }

  /** A command of the predecessor itself. */
  #takeInternal(queue: QueuePair, { slot, record, submitted }: LeftCommand): void {
    const { events, commandTimeout } = this.#heir;
    const command = decodeCommand(record.entry);
    const isEvent = queue.id === 0 && command.opcode === AdminOpcode.AsynchronousEventRequest;
    if (record.state === SlotState.InHands && submitted) {
      if (isEvent) {
        queue.adopt(events.pendingIn(slot));
        return;
      }
      // It may write to the identify buffer still.
      const request: Request = {
        command,
        transfer: undefined,
        tag: 0n,
        timeout: commandTimeout,
        signal: undefined,
        internal: true,
        reissue: false,
      };
      const ended = (): void => this.#end();
      queue.adopt(this.#heir.pendingFor(queue, slot, request, ended, ended));
      this.#left++;
    } else if (record.state === SlotState.Completed && isEvent && record.status === 0) {
      this.#heir.later(() => void events.report(record.result, slot));
    } else {
      queue.noteTold(slot);
    }
  }

  #takeCommand(queue: QueuePair, { slot, record, submitted, memory }: LeftCommand): InheritedCommand {
    const { offset, length, tag } = record;
    const command = decodeCommand(record.entry);
    const transfer = memory && { memory, offset, length };
    const hold = memory?.hold(offset, length);
    const inHands = record.state === SlotState.InHands;
    const done = new Promise<number>((resolve, reject) => {
      const request: Request = {
        command,
        transfer,
        tag,
        timeout: this.#heir.commandTimeout,
        signal: undefined,
        internal: false,
        reissue: !submitted || (queue.id !== 0 && isRepeatable(command.opcode)),
      };
      const ending = <T>(settle: (value: T) => void): ((value: T) => void) => {
        return value => {
          settle(value);
          if (hold) this.#heir.release(hold);
          if (inHands) this.#end();
        };
      };
      const pending = this.#heir.pendingFor(queue, slot, request, ending(resolve), ending(reject));
      if (inHands) {
        this.#left++;
        queue.adopt(pending);
        if (!submitted) this.unsubmitted.push(pending);
      } else {
        this.#heir.later(() => {
          pending.complete(record.status, record.result);
          queue.noteTold(slot);
        });
      }
    });
    // Whoever does not care for it does not have to.
    done.catch(() => undefined);
    return {
      opcode: command.opcode,
      namespaceId: command.namespaceId as number,
      ...blocksOf(command),
      queue: queue.id,
      tag,
      submitted,
      transfer,
      done,
    };
  }
}
