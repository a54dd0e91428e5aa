/** Commands for namespaces that wait to be executed, in order, and as fast as each namespace takes them. @module */
import type { NvmeNamespaceModel } from './namespace.js';
import type { Request } from './request.js';

export class Work {
  #due: Request[] = [];
  /** For namespaces that have a limit, and have reached it. */
  readonly #heldBack = new Map<NvmeNamespaceModel, Request[]>();

  get pending(): boolean {
    return this.#due.length > 0;
  }

  add(request: Request): void {
    request.waiting = true;
    this.#due.push(request);
  }

  /** The next one to be executed. */
  take(): Request | undefined {
    return this.#due.shift();
  }

  /**
   * Keeps a command back if the namespace does not take it yet.
   *
   * @param wake is called with the milliseconds after which to {@link resume}
   * @returns false when the namespace takes it
   */
  holdBack(request: Request, namespace: NvmeNamespaceModel, wake: (milliseconds: number) => void): boolean {
    const others = this.#heldBack.get(namespace);
    if (others !== undefined) {
      others.push(request);
      return true;
    }
    const wait = namespace.admit();
    if (wait === 0) return false;
    this.#heldBack.set(namespace, [request]);
    wake(wait);
    return true;
  }

  /** What was kept back for a namespace is due again. */
  resume(namespace: NvmeNamespaceModel): void {
    this.#due = [...(this.#heldBack.get(namespace) ?? []), ...this.#due];
    this.#heldBack.delete(namespace);
  }

  remove(unwanted: (request: Request) => boolean): void {
    this.#due = this.#due.filter(request => !unwanted(request));
    for (const [namespace, requests] of this.#heldBack) {
      const others = requests.filter(request => !unwanted(request));
      this.#heldBack.set(namespace, others);
    }
  }

  clear(): void {
    this.#due = [];
    this.#heldBack.clear();
  }
}
