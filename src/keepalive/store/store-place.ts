/** Where what is kept is in the descriptor store of the service manager. @module */

/** How things are in the descriptor store of the service manager. */
export interface StorePlace {
  /** Under which name the manifest is there. */
  readonly fileName: string;
  /** The highest number that a name ends with. */
  readonly serial: number;
}

/** What of a store goes into a manifest. */
export interface StoreNames {
  /** The name that a descriptor is kept under. */
  storedAs(name: string, descriptor: Owned): string;
  /** For a successor in another process; the manifest in the store itself does without. */
  readonly place?: StorePlace & { readonly file: Owned };
}

/** A descriptor, and the object whose it is: another object under the same name is another file. */
export interface Owned {
  readonly fd: number;
  readonly owner: object;
}
