/** TEMPORARY naive builder until the mapper exists. @module */
import { type Dump, dumpTables, type RawEntry, TableFormat, type TableRoot } from './kernel-tables.js';

export type Operation =
  | {
      readonly kind: 'map';
      readonly iova: bigint;
      readonly physical: bigint;
      readonly length: number;
      readonly readable: boolean;
      readonly writeable: boolean;
    }
  | { readonly kind: 'unmap'; readonly iova: bigint; readonly length: number };

export function buildTable(root: Dump, operations: readonly Operation[]) {
  const memory: BigUint64Array[] = [];
  const alloc = (): bigint => {
    memory.push(new BigUint64Array(512));
    return BigInt(memory.length) << 12n;
  };
  const top = alloc();
  const { format, levels } = root;
  const snoop = root.entries.some(
    e => !e.table && e.value & (format === TableFormat.Amd ? 1n << 60n : 1n << 11n),
  );
  const at = (a: bigint) => memory[Number(a >> 12n) - 1]!;
  const leafOf = (pa: bigint, level: number, lg: number, r: boolean, w: boolean): bigint => {
    if (format === TableFormat.Amd) {
      let v = 1n | pa | (r ? 1n << 61n : 0n) | (w ? 1n << 62n : 0n) | (snoop ? 1n << 60n : 0n);
      if (lg !== 12 + 9 * level) v |= (7n << 9n) | (((1n << BigInt(lg - 1)) - 1n) & ~0xfffn);
      return v;
    }
    const ps = level > 0 ? 0x80n : 0n;
    if (format === TableFormat.SecondStage)
      return pa | (r ? 1n : 0n) | (w ? 2n : 0n) | (snoop ? 1n << 11n : 0n) | ps;
    return pa | 1n | 4n | 0x20n | (w ? 0x42n : 0n) | ps;
  };
  const tableOf = (pa: bigint, level: number): bigint =>
    format === TableFormat.Amd
      ? pa | 1n | (BigInt(level) << 9n) | (3n << 61n)
      : format === TableFormat.SecondStage
        ? pa | 3n
        : pa | 0x27n;
  const sizes: number[] = [];
  for (let lg = 12; lg < 12 + 9 * Math.min(levels, 5); lg++) {
    if (format === TableFormat.Amd ? lg !== 39 : [12, 21, 30].includes(lg)) sizes.unshift(lg);
  }
  for (const op of operations) {
    if (op.kind === 'unmap') {
      for (let va = op.iova; va < op.iova + BigInt(op.length); va += 4096n) {
        let table = top;
        for (let level = levels - 1; level >= 0; level--) {
          const index = Number((va >> BigInt(12 + 9 * level)) & 511n);
          const e = at(table)[index]!;
          const isTable =
            level > 0 && (format === TableFormat.Amd ? ![0n, 7n].includes((e >> 9n) & 7n) : !(e & 0x80n));
          if (!e) break;
          if (!isTable) {
            at(table)[index] = 0n;
            break;
          }
          table = e & 0x000f_ffff_ffff_f000n;
        }
      }
      continue;
    }
    let { iova: va, physical: pa } = op;
    const end = va + BigInt(op.length);
    while (va < end) {
      const lg = sizes.find(
        s => ((va | pa) & ((1n << BigInt(s)) - 1n)) === 0n && va + (1n << BigInt(s)) <= end,
      )!;
      const leafLevel = Math.floor((lg - 12) / 9);
      let table = top;
      for (let level = levels - 1; level > leafLevel; level--) {
        const index = Number((va >> BigInt(12 + 9 * level)) & 511n);
        let e = at(table)[index]!;
        if (!e) {
          e = tableOf(alloc(), level);
          at(table)[index] = e;
        }
        table = e & 0x000f_ffff_ffff_f000n;
      }
      const index = Number((va >> BigInt(12 + 9 * leafLevel)) & 511n);
      const copies = 2 ** (lg - 12 - 9 * leafLevel);
      const v = leafOf(pa, leafLevel, lg, op.readable, op.writeable);
      for (let i = 0; i < copies; i++) at(table)[index + i] = v;
      va += 1n << BigInt(lg);
      pa += 1n << BigInt(lg);
    }
  }
  const dump = dumpTables({ ...root, root: top } as TableRoot, a => new Uint8Array(at(a).buffer));
  return { entries: dump.entries as RawEntry[] };
}
export function openDump(_: Dump) {}
