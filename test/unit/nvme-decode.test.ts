// What an NVMe controller says in registers, Identify pages, completions and events, decoded from constructed bytes.
import t from 'tap';
import { decodeEvent } from '../../src/drivers/nvme/events.js';
import {
  decodeController,
  decodeNamespace,
  decodeNamespaceList,
  IDENTIFY_BYTES,
} from '../../src/drivers/nvme/identify.js';
import { decodeCapabilities, versionText } from '../../src/drivers/nvme/registers.js';
import { NvmeError } from '../../src/drivers/nvme/status.js';

t.test('controller capabilities', async t => {
  /** CAP from its fields, by bit position. */
  const capabilities = (fields: { [bit: number]: number }) => {
    const value = Object.entries(fields).reduce(
      (sum, [bit, field]) => sum | (BigInt(field) << BigInt(bit)),
      0n,
    );
    return decodeCapabilities(Number(value & 0xffff_ffffn), Number(value >> 32n));
  };
  t.same(capabilities({}), {
    maxQueueEntries: 1,
    contiguousQueues: false,
    readyTimeout: 500,
    doorbellStride: 4,
    nvmCommandSet: false,
    minPageSize: 4096,
    maxPageSize: 4096,
  });
  // MQES, CQR, TO, DSTRD, CSS, MPSMIN, MPSMAX
  t.same(capabilities({ 0: 0x7ff, 16: 1, 24: 0x14, 32: 0, 37: 1, 48: 0, 52: 4 }), {
    maxQueueEntries: 2048,
    contiguousQueues: true,
    readyTimeout: 10_000,
    doorbellStride: 4,
    nvmCommandSet: true,
    minPageSize: 4096,
    maxPageSize: 65536,
  });
  t.same(capabilities({ 0: 0xffff, 16: 1, 24: 0xff, 32: 0xf, 37: 0xff, 48: 0xf, 52: 0xf }), {
    maxQueueEntries: 65536,
    contiguousQueues: true,
    readyTimeout: 127_500,
    doorbellStride: 131_072,
    nvmCommandSet: true,
    minPageSize: 2 ** 27,
    maxPageSize: 2 ** 27,
  });
  t.match(
    capabilities({ 17: 0x7f, 36: 1, 38: 0x3f, 45: 7, 56: 0xff }),
    {
      maxQueueEntries: 1,
      contiguousQueues: false,
      doorbellStride: 4,
      nvmCommandSet: false,
    },
    'neighbouring fields do not leak in',
  );
});

t.test('versions', async t => {
  t.equal(versionText(0x0001_0400), '1.4.0');
  t.equal(versionText(0x0002_0001), '2.0.1');
  t.equal(versionText(0xffff_0304), '65535.3.4');
});

/** A page in the middle of a buffer, so that an offset that is forgotten shows. */
function page(...fields: [offset: number, bytes: readonly number[] | string][]): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(3 * IDENTIFY_BYTES), IDENTIFY_BYTES, IDENTIFY_BYTES);
  for (const [offset, value] of fields) {
    bytes.set(typeof value === 'string' ? Buffer.from(value, 'latin1') : value, offset);
  }
  return bytes;
}

t.test('Identify Controller', async t => {
  const bytes = page(
    [0, [0x36, 0x1b]],
    [4, 'SERIAL 01'.padEnd(20)],
    [24, 'A Model of Forty Characters'.padEnd(40)],
    [64, '1.0\0\0\0\0\0'],
    [72, [0xff]],
    [77, [7]],
    [78, [0x34, 0x12]],
    [80, [0x00, 0x04, 0x01, 0x00]],
    [258, [3]],
    [259, [7]],
    [516, [0x00, 0x01, 0x00, 0x00]],
    [520, [0x0c, 0x00]],
    [525, [0x07]],
  );
  t.same(decodeController(bytes, 4096), {
    vendorId: 0x1b36,
    serialNumber: 'SERIAL 01',
    modelNumber: 'A Model of Forty Characters',
    firmwareRevision: '1.0',
    controllerId: 0x1234,
    version: '1.4.0',
    maxTransfer: 2 ** 19,
    abortLimit: 4,
    asyncEventLimit: 8,
    namespaceCount: 256,
    supports: { datasetManagement: true, writeZeroes: true, volatileWriteCache: true },
  });
  t.equal(decodeController(bytes, 65536).maxTransfer, 2 ** 23, 'the limit counts in pages of the controller');
  t.same(decodeController(page(), 4096), {
    vendorId: 0,
    serialNumber: '',
    modelNumber: '',
    firmwareRevision: '',
    controllerId: 0,
    version: '0.0.0',
    maxTransfer: undefined,
    abortLimit: 1,
    asyncEventLimit: 1,
    namespaceCount: 0,
    supports: { datasetManagement: false, writeZeroes: false, volatileWriteCache: false },
  });
  t.match(decodeController(page([520, [0x04]], [525, [0x06]]), 4096).supports, {
    datasetManagement: true,
    writeZeroes: false,
    volatileWriteCache: false,
  });
  t.match(decodeController(page([520, [0x08]], [525, [0x01]]), 4096).supports, {
    datasetManagement: false,
    writeZeroes: true,
    volatileWriteCache: true,
  });
  t.equal(decodeController(page([4, '  LEADING  '.padEnd(20)]), 4096).serialNumber, '  LEADING');
});

t.test('Identify Namespace', async t => {
  const bytes = page(
    [0, [0, 0, 0, 0, 1, 0, 0, 0]],
    [8, [0, 0, 0, 0, 0, 1, 0, 0]],
    [16, [7, 0, 0, 0, 0, 0, 0, 0]],
    [25, [2]],
    [26, [0x12]],
    [104, Array.from({ length: 16 }, (_, i) => i + 1)],
    [120, [0xfe, 0xdc, 0, 0, 0, 0, 0, 1]],
    [128, [0, 0, 9, 0]],
    [132, [8, 0, 9, 0]],
    [136, [64, 0, 12, 1]],
  );
  t.same(decodeNamespace(bytes, 5), {
    id: 5,
    blockSize: 4096,
    blocks: 2n ** 32n,
    capacity: 2n ** 40n,
    utilisation: 7n,
    metadataSize: 64,
    nguid: '0102030405060708090a0b0c0d0e0f10',
    eui64: 'fedc000000000001',
  });
  t.match(decodeNamespace(page([128, [0, 0, 9, 0]]), 1), {
    blockSize: 512,
    metadataSize: 0,
    nguid: undefined,
    eui64: undefined,
  });
  // With more than 16 formats the index goes on in bits 6:5.
  const many = page(
    [25, [40]],
    [26, [0x10 | (2 << 5) | 3]],
    [128 + 4 * 3, [0, 0, 9, 0]],
    [128 + 4 * 35, [0, 0, 12, 0]],
  );
  t.equal(decodeNamespace(many, 1).blockSize, 4096, 'format 35');
});

t.test('the list of namespaces', async t => {
  t.same(decodeNamespaceList(page()), []);
  t.same(
    decodeNamespaceList(page([0, [1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0, 0, 0, 0, 9, 0, 0, 0]])),
    [1, 0xffff_fffe],
  );
  const full = page([0, Array.from({ length: IDENTIFY_BYTES }, (_, i) => (i % 4 === 0 ? 1 : 0))]);
  t.equal(decodeNamespaceList(full).length, 1024);
});

t.test('events', async t => {
  t.same(decodeEvent(0), { type: 0, info: 0, logPage: 0 });
  t.same(decodeEvent(0xff04_01fa), { type: 2, info: 1, logPage: 4 });
  t.same(decodeEvent(0xffff_ffff), { type: 7, info: 0xff, logPage: 0xff });
});

t.test('statuses', async t => {
  const error = (sct: number, sc: number, extra = 0, queue = 1) =>
    new NvmeError((sct << 8) | sc | extra, { opcode: 2 }, '0000:00:04.0', queue);
  t.match(error(2, 0x81, 0x4000), {
    name: 'NvmeError',
    sct: 2,
    sc: 0x81,
    dnr: true,
    command: { opcode: 2 },
    message: '0000:00:04.0: I/O command 0x02: Unrecovered Read Error (media 0x81, do not retry)',
  });
  t.match(error(0, 2, 0, 0), {
    dnr: false,
    message: '0000:00:04.0: admin command 0x02: Invalid Field in Command (generic 0x02)',
  });
  t.match(
    error(0, 0, 0x3800),
    { sct: 0, sc: 0, dnr: false },
    'neither More nor the retry delay is part of it',
  );
  t.match(error(7, 0xc0), { sct: 7, message: /unknown status \(vendor 0xc0\)/ });
  t.match(error(3, 0x70), { sct: 3, message: /unknown status \(path 0x70\)/ });
  // Base Specification 2.0, figures 94 to 97.
  for (const [sct, sc, name] of [
    [0, 0x01, 'Invalid Command Opcode'],
    [0, 0x04, 'Data Transfer Error'],
    [0, 0x07, 'Command Abort Requested'],
    [0, 0x08, 'Command Aborted due to SQ Deletion'],
    [0, 0x0b, 'Invalid Namespace or Format'],
    [0, 0x13, 'PRP Offset Invalid'],
    [0, 0x15, 'Operation Denied'],
    [0, 0x16, 'SGL Offset Invalid'],
    [0, 0x1b, 'Command Aborted due to Preempt and Abort'],
    [0, 0x1c, 'Sanitize Failed'],
    [0, 0x1d, 'Sanitize In Progress'],
    [0, 0x20, 'Namespace is Write Protected'],
    [0, 0x21, 'Command Interrupted'],
    [0, 0x22, 'Transient Transport Error'],
    [0, 0x80, 'LBA Out of Range'],
    [0, 0x84, 'Format In Progress'],
    [1, 0x00, 'Completion Queue Invalid'],
    [1, 0x02, 'Invalid Queue Size'],
    [1, 0x05, 'Asynchronous Event Request Limit Exceeded'],
    [1, 0x08, 'Invalid Interrupt Vector'],
    [1, 0x0c, 'Invalid Queue Deletion'],
    [1, 0x0f, 'Feature Not Namespace Specific'],
    [1, 0x82, 'Attempted Write to Read Only Range'],
    [2, 0x80, 'Write Fault'],
    [2, 0x82, 'End-to-end Guard Check Error'],
    [2, 0x85, 'Compare Failure'],
    [2, 0x87, 'Deallocated or Unwritten Logical Block'],
  ] as const) {
    const { message } = error(sct, sc);
    t.ok(message.includes(`: ${name} (`), `${sct}/0x${sc.toString(16)}: ${message}`);
  }
});
