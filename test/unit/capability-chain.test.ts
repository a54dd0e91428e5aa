// The chains of capabilities behind VFIO's info structs: any bytes at all must end.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { vfio_info_cap_header } from '../../bindings/uapi/vfio.js';
import { capabilityChain } from '../../src/vfio/capability-chain.js';

const HEADER = vfio_info_cap_header.size;

function memory(
  length: number,
  ...headers: [offset: number, id: number, version: number, next: number][]
): DataView {
  const view = new DataView(new ArrayBuffer(length));
  for (const [offset, id, version, next] of headers) {
    vfio_info_cap_header.encode(view, { id, version, next }, offset);
  }
  return view;
}

t.test('a chain in any order', async t => {
  const view = memory(128, [32, 1, 1, 100], [100, 2, 3, 64], [64, 0xffff, 0xffff, 0]);
  t.same(
    [...capabilityChain(view, 32)],
    [
      { id: 1, version: 1, offset: 32 },
      { id: 2, version: 3, offset: 100 },
      { id: 0xffff, version: 0xffff, offset: 64 },
    ],
  );
  t.same([...capabilityChain(view, 0)], [], 'none');
  t.same([...capabilityChain(view, 121)], [], 'the header must be in the memory');
  t.equal([...capabilityChain(view, 120)].length, 1);
});

t.test('whatever the bytes, it ends, stays inside, and visits nothing twice', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: 200 }), fc.nat(220), (noise, first) => {
      // Small offsets, so that the chains lead somewhere.
      for (let i = 5; i < noise.length; i += 4) noise.fill(0, i, i + 3);
      const view = new DataView(noise.buffer, noise.byteOffset, noise.byteLength);
      const offsets = [...capabilityChain(view, first)].map(entry => entry.offset);
      assert.equal(new Set(offsets).size, offsets.length);
      for (const offset of offsets) assert.ok(offset > 0 && offset + HEADER <= noise.length);
      // Nothing was left out: each leads to the one after it.
      for (const [i, offset] of offsets.entries()) {
        const next = view.getUint32(offset + 4, true);
        if (i + 1 < offsets.length) assert.equal(next, offsets[i + 1]);
        else assert.ok(next === 0 || next + HEADER > noise.length || offsets.includes(next));
      }
    }),
    { numRuns: 5000 },
  );
  t.pass();
});
