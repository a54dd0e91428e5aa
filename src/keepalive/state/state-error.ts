/** What is wrong with a saved state. @module */

/** Why a saved state cannot be used. */
export const StateErrorCode = {
  /** It is not what was written: cut off, changed, or something else altogether. */
  Damaged: 'DAMAGED',
  /** It is intact, and says something that this version of the library does not understand and must. */
  Unsupported: 'UNSUPPORTED',
  /** It is intact, and contradicts itself. */
  Invalid: 'INVALID',
} as const;
export type StateErrorCode = (typeof StateErrorCode)[keyof typeof StateErrorCode];

/** Where in a saved state a {@link StateError} was found. */
export interface StatePlace {
  /** The node, such as `'/iommufd-0/ioas-1'`. */
  path?: string | undefined;
  /** The property of that node. */
  property?: string | undefined;
  /** In bytes from the start of the state. */
  offset?: number | undefined;
}

const stateHints: Readonly<Record<StateErrorCode, string>> = {
  DAMAGED: 'Use another copy of it, or start cold: reset the devices and map their memory anew',
  UNSUPPORTED: 'Restore with the version that wrote it or a later one, or start cold',
  INVALID: 'What wrote it is at fault; start cold: reset the devices and map their memory anew',
};

/** A saved state, or a flattened device tree, that cannot be used. Nothing of it was taken over. */
export class StateError extends Error {
  override readonly name = 'StateError';
  readonly code: StateErrorCode;
  readonly path: string | undefined;
  readonly property: string | undefined;
  readonly offset: number | undefined;
  /** What is wrong, without where and what to do. */
  readonly reason: string;
  /** What to do about it. */
  readonly hint: string;

  constructor(code: StateErrorCode, place: StatePlace, reason: string, hint = stateHints[code]) {
    const { path, property, offset } = place;
    const where = [
      path,
      property && `property ${property}`,
      offset === undefined ? undefined : `byte ${offset}`,
    ].filter(part => part !== undefined);
    super(`saved state${where.length > 0 ? ` (${where.join(', ')})` : ''}: ${reason}. ${hint}`);
    this.code = code;
    this.path = path;
    this.property = property;
    this.offset = offset;
    this.reason = reason;
    this.hint = hint;
  }
}
