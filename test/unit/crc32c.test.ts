// CRC32C against the published vectors, and against one bit at a time.
import fc from 'fast-check';
import t from 'tap';
import { crc32c } from '../../src/keepalive/state/codec.js';
import { slowCrc32c } from '../support/flat-tree.js';

t.test('the vectors of RFC 3720 B.4', async t => {
  const ascending = Uint8Array.from({ length: 32 }, (_, index) => index);
  t.equal(crc32c(new Uint8Array(32)), 0x8a9136aa, '32 bytes of 0');
  t.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43, '32 bytes of 1');
  t.equal(crc32c(ascending), 0x46dd794e, '32 bytes ascending');
  t.equal(crc32c(ascending.toReversed()), 0x113fdb5c, '32 bytes descending');
  const pdu =
    '01c00000000000000000000000000000140000000000040000000014000000182800000000000000' + '0200000000000000';
  t.equal(crc32c(Buffer.from(pdu, 'hex')), 0xd9963a56, 'a SCSI read command');
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283, 'the check value of the catalogues');
  t.equal(crc32c(new Uint8Array(0)), 0, 'nothing');
});

t.test('agrees with one bit at a time, at any length and alignment', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(8), (bytes, from) => {
      return crc32c(bytes.subarray(from)) === slowCrc32c(bytes.subarray(from));
    }),
    { numRuns: 2000 },
  );
  // More than is taken over at a time.
  const long = Uint8Array.from({ length: 300_001 }, (_, index) => (index * 7919) >>> 3);
  t.equal(crc32c(long), slowCrc32c(long));
});
