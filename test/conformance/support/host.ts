/** What the runner needs of a host, beyond what a case does. @module */
import type { ConformanceHost } from './case.js';

export interface RunnableHost extends ConformanceHost, Disposable {
  /** Descriptors that are open now and matter to the suite, by number, and what they refer to. */
  descriptors(): ReadonlyMap<number, string>;
  /** Pages that are pinned for a device now, as far as the host can tell. */
  pinnedPages(): number;
}
