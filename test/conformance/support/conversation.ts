/** One direction of what two processes say to each other: values in order, until an end. @module */

export class Conversation {
  readonly #title: string;
  readonly #values: unknown[] = [];
  #waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void } | undefined;
  #end: Error | undefined;

  /** @param title who speaks, for messages */
  constructor(title: string) {
    this.#title = title;
  }

  say(value: unknown): void {
    if (this.#waiting === undefined) this.#values.push(value);
    else this.#waiting.resolve(value);
    this.#waiting = undefined;
  }

  /** Nothing more comes; `error` says why, unless it is the natural end. */
  end(error?: Error): void {
    this.#end ??= error ?? new Error(`${this.#title} has nothing more to say`);
    this.#waiting?.reject(this.#end);
    this.#waiting = undefined;
  }

  /** The next value; rejects when there will be none. One caller at a time. */
  next(): Promise<unknown> {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift());
    if (this.#end !== undefined) return Promise.reject(this.#end);
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }
}
