// Golden files: every version of every record as it was first written. They are still read, and still written byte for
// byte. For how to add one see test/support/golden-states.ts.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { decodeState } from '../../src/keepalive/state/decode-state.js';
import { encodeState } from '../../src/keepalive/state/encode-state.js';
import { exportRfc, importRfc } from '../../src/keepalive/state/rfc.js';
import { RecordType } from '../../src/keepalive/state/saved-state.js';
import { type FlatNode, readFlatTree } from '../support/flat-tree.js';
import { FROM_DTC, goldenFile, goldenRfc, goldenStates } from '../support/golden-states.js';
import { plain } from '../support/random-state.js';

const read = (name: string): Uint8Array => new Uint8Array(readFileSync(goldenFile(name)));

for (const [name, state] of Object.entries(goldenStates)) {
  t.test(name, async t => {
    const bytes = read(name);
    t.strictSame(plain(decodeState(bytes)), plain(state), 'reads as what it was');
    t.strictSame(encodeState(state), bytes, 'is written as it was');
    t.strictSame(encodeState(decodeState(bytes)), bytes, 'and so after it was read');
  });
}

t.test('one that went through dtc', async t => {
  t.strictSame(encodeState(decodeState(read(FROM_DTC))), read('everything'));
});

t.test('every record type has its golden file', async t => {
  const seen = new Set<string>();
  const visit = (node: FlatNode): void => {
    for (const [name, value] of node.properties) {
      if (name === 'compatible') seen.add(Buffer.from(value).toString('latin1').replace('\0', ''));
    }
    node.children.forEach(visit);
  };
  for (const name of Object.keys(goldenStates)) visit(readFlatTree(read(name)).root);
  for (const type of Object.values(RecordType)) t.ok(seen.has(type), type);
});

t.test("the kernel RFC's layout", async t => {
  const bytes = read('rfc');
  t.strictSame(exportRfc(goldenRfc), bytes);
  const { iommufds } = importRfc(bytes);
  t.strictSame(
    iommufds.map(({ id, ioases }) => ({
      id,
      ioases: ioases.map(ioas => ({ ...ioas, mappings: [...ioas.mappings] })),
    })),
    goldenRfc.iommufds.map(({ id, ioases }) => ({
      id,
      ioases: ioases.map(ioas => ({ ...ioas, mappings: [...ioas.mappings] })),
    })),
  );
  t.strictSame(exportRfc({ iommufds }), bytes);
});
