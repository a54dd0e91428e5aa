/** @module */

/**
 * A call was made by a process that is no more: it exited, or the kernel under it was replaced. On Linux nobody is left
 * to see this; `reboot` throws it where it would not return.
 */
export class ProcessEnded extends Error {
  override readonly name = 'ProcessEnded';
  readonly pid: number;

  constructor(pid: number) {
    super(`process ${pid} has ended`);
    this.pid = pid;
  }
}
