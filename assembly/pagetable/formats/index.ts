/**
 * The one list of formats. A format is an unmanaged class without fields: `changetype<F>(0)` is an instance, every
 * method is inlined, and so each operation is compiled once per format with the format's constants in it. It says:
 *
 *  - `minTop`, `maxTop`: levels of the root, 0 the level that maps 4 KiB; `grows`: a new root may be put on top
 *  - `addressBits`: of physical addresses; `sizes`: bit n says that there are leaves of 2^n bytes
 *  - `replicated`: leaves may be larger than an entry's span and are then repeated in every slot that they cover
 *  - `allowedFlags`: what a mapping may ask for; `options`: what a table may ask for
 *  - `kind(level, entry)`: EMPTY, TABLE, LEAF, BAD; the others may then be asked of an entry of that kind
 *  - what `kind` says, in as few instructions as possible: `isEmpty(entry)`, which no level changes; above level 0
 *    `isTable(level, entry)`; at level 0 `isPage(entry)`, which is LEAF
 *  - TABLE: `child(entry)`; `inherit(inherited, entry)`, which passes on what limits all below; `inheritAll` limits
 *    nothing
 *  - LEAF: `sizeLog2(level, entry)`, `physical(entry, sizeLog2)`, `flags(entry, inherited)`, `isDirty`, `clean`,
 *    `attributes(level, entry)`: all that is neither address nor size, which makes the same leaf in another size
 *  - to write: `encode(flags, options)` gives attributes, `leaf(level, sizeLog2, physical, attributes)`,
 *    `table(level, physical)`
 *  - `reserved(level, kind, entry)`: the bits that must be zero and are not; `marks`: bits that hardware sets
 *  - `tracksDirty(options)`
 */
import { AmdV1 } from './amdv1';
import { ArmStage1 } from './arm-stage1';
import { ArmStage2 } from './arm-stage2';
import { VtdSecondStage } from './vtdss';
import { X86FirstStage } from './x86';
import { bind } from '../operations';

/** Makes the operations those of one format. False where there is no such format. */
export function bindFormat(format: i32): bool {
  switch (format) {
    case 0: bind<AmdV1>(); return true;
    case 1: bind<VtdSecondStage>(); return true;
    case 2: bind<X86FirstStage>(); return true;
    case 3: bind<ArmStage1>(); return true;
    case 4: bind<ArmStage2>(); return true;
    default: return false;
  }
}
