// What read and write make of their ranges and streams, without a device.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { deviceJson, devicesTable } from '../../src/cli/devices.js';
import { openInput } from '../../src/cli/input.js';
import { toJson } from '../../src/cli/json.js';
import { type Identification, identificationJson, identificationText } from '../../src/cli/nvme/identify.js';
import { chunkSize, planRead, planWrite } from '../../src/cli/nvme/plan.js';
import { pump } from '../../src/cli/nvme/pump.js';
import { summary, summaryJson } from '../../src/cli/nvme/summary.js';
import { openOutput } from '../../src/cli/output.js';
import { pciAddress } from '../../src/pci/address.js';
import type { PciDevice } from '../../src/pci/devices.js';

const disk = { id: 1, blockSize: 512, blocks: 1000 };

t.test('plans', async t => {
  t.strictSame(planRead(disk, 0, {}), { lba: 0, blocks: 1000, bytes: 512_000 });
  t.strictSame(planRead(disk, 999, {}), { lba: 999, blocks: 1, bytes: 512 });
  t.strictSame(planRead(disk, 5, { blocks: 2 }), { lba: 5, blocks: 2, bytes: 1024 });
  t.strictSame(planRead(disk, 5, { bytes: 513 }), { lba: 5, blocks: 2, bytes: 513 });
  t.throws(() => planRead(disk, 1000, {}), /block 1000 is beyond the end .* last block is 999/);
  t.throws(() => planRead(disk, 999, { blocks: 2 }), /asked for 1024 bytes, but .* only 512/);
  t.throws(() => planRead(disk, 999, { bytes: 513 }), RangeError);

  t.strictSame(planWrite(disk, 10, 1024, false), { lba: 10, blocks: 2, bytes: 1024 });
  t.strictSame(planWrite(disk, 10, 1, true), { lba: 10, blocks: 1, bytes: 1 });
  t.strictSame(planWrite(disk, 10, undefined, false), { lba: 10, blocks: 990, bytes: 990 * 512 });
  t.throws(() => planWrite(disk, 10, 1, false), /no multiple of the block size, 512\. Pass --pad/);
  t.throws(() => planWrite(disk, 0, 0, true), /empty/);
  t.throws(() => planWrite(disk, 999, 513, true), /the input has 513 bytes/);

  for (const blockSize of [512, 520, 4096, 2 ** 24]) {
    const size = chunkSize(blockSize);
    t.equal(size % blockSize, 0);
    t.ok(size > 0);
  }
});

t.test('pump', async t => {
  t.test('keeps the order and bounds the memory', async t => {
    const buffers = new Set<ArrayBufferLike>();
    const out: number[] = [];
    let next = 0;
    await pump(
      4,
      async buffer => {
        buffers.add(buffer.buffer);
        let count = 0;
        for (; count < buffer.length && next < 10; count++) buffer[count] = next++;
        return count;
      },
      async bytes => {
        await new Promise(resolve => setTimeout(resolve, 1));
        out.push(...bytes);
      },
    );
    t.strictSame(out, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    t.equal(buffers.size, 2);
  });
  t.test('a source that fails: what it gave before is still used', async t => {
    const out: number[] = [];
    let turn = 0;
    const fill = async (): Promise<number> => {
      if (turn++ === 1) throw new Error('source');
      return 1;
    };
    const drain = async (bytes: Uint8Array): Promise<void> => {
      await new Promise(resolve => setTimeout(resolve, 5));
      out.push(bytes.length);
    };
    await t.rejects(pump(1, fill, drain), /source/);
    t.strictSame(out, [1]);
  });
  t.test('a sink that fails ends it while the source still waits', async t => {
    let turn = 0;
    const fill = (): Promise<number> => (turn++ === 0 ? Promise.resolve(1) : new Promise(() => undefined));
    await t.rejects(
      pump(1, fill, async () => {
        throw new Error('sink');
      }),
      /sink/,
    );
  });
});

t.test('input', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-cli-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const { signal } = new AbortController();
  const path = join(directory, 'input');
  const content = Buffer.from(Array.from({ length: 100 }, (_, index) => index));
  writeFileSync(path, content);

  await using input = await openInput(path, signal);
  t.equal(input.size, 100);
  const buffer = new Uint8Array(64);
  t.equal(await input.fill(buffer), 64);
  t.strictSame(Buffer.from(buffer), content.subarray(0, 64));
  t.equal(await input.fill(buffer), 36);
  t.strictSame(Buffer.from(buffer.subarray(0, 36)), content.subarray(64));
  t.equal(await input.fill(buffer), 0);
  t.equal(await input.fill(buffer), 0);

  await t.rejects(openInput(join(directory, 'missing'), signal), { code: 'ENOENT' });
  await t.rejects(openInput(directory, signal), /is a directory/);
  await using unused = await openInput(path, signal);
  t.equal(unused.size, 100, 'may be closed without being read');
});

t.test('an abort ends the wait for input', async t => {
  const controller = new AbortController();
  const reason = new Error('stop');
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-cli-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'input');
  writeFileSync(path, 'x');
  await using input = await openInput(path, controller.signal);
  controller.abort(reason);
  await t.rejects(input.fill(new Uint8Array(8)), { name: 'AbortError', cause: reason });
});

t.test('named pipes', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-cli-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'fifo');
  execFileSync('mkfifo', [path]);

  t.test('from writer to reader', async t => {
    const { signal } = new AbortController();
    await using input = await openInput(path, signal);
    t.equal(input.size, undefined);
    const sent = Buffer.alloc(300_000, 'abc');
    // The reader opens at its first read, which the writer waits for.
    const opening = openOutput(path, signal);
    const buffer = new Uint8Array(sent.length + 1);
    const filling = input.fill(buffer);
    {
      await using output = await opening;
      await output.write(sent);
    }
    t.equal(await filling, sent.length);
    t.ok(sent.equals(buffer.subarray(0, sent.length)));
    t.equal(await input.fill(buffer), 0);
  });
  t.test('an abort ends the wait for a writer', async t => {
    const controller = new AbortController();
    await using input = await openInput(path, controller.signal);
    const filling = input.fill(new Uint8Array(8));
    setTimeout(() => controller.abort(), 20);
    await t.rejects(filling, { name: 'AbortError' });
  });
  t.test('an abort ends the wait for a reader', async t => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    await t.rejects(openOutput(path, controller.signal), { name: 'AbortError' });
  });
  t.test('an abort ends the wait for a slow reader', async t => {
    const controller = new AbortController();
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    t.teardown(() => closeSync(reader));
    await using output = await openOutput(path, controller.signal);
    setTimeout(() => controller.abort(new Error('stop')), 20);
    await t.rejects(output.write(new Uint8Array(1 << 20)), /stop/);
  });
});

t.test('an output file is replaced', async t => {
  const directory = mkdtempSync(join(tmpdir(), 'iommufd-cli-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'output');
  writeFileSync(path, 'something longer');
  {
    await using output = await openOutput(path, new AbortController().signal);
    await output.write(Buffer.from('ab'));
    await output.write(Buffer.from('cd'));
  }
  t.equal(readFileSync(path, 'utf8'), 'abcd');
});

t.test('summaries', async t => {
  const result = { namespace: 1, lba: 8, blocks: 2048, bytes: 2 ** 20, seconds: 0.5 };
  t.equal(summary('to x', result), '1 MiB (1048576 bytes) to x in 0.5 s, 2 MiB/s');
  t.strictSame(JSON.parse(toJson(summaryJson('0000:00:04.0', result))), {
    address: '0000:00:04.0',
    namespace: 1,
    lba: '8',
    blocks: '2048',
    bytes: '1048576',
    seconds: 0.5,
    bytesPerSecond: 2097152,
  });
});

const identification: Identification = {
  address: '0000:00:04.0',
  noiommu: true,
  driver: 'nvme',
  controller: {
    vendorId: 0x36,
    serialNumber: 'S1',
    modelNumber: 'Model',
    firmwareRevision: '1.0',
    controllerId: 0,
    version: '1.4.0',
    maxTransfer: undefined,
    abortLimit: 4,
    asyncEventLimit: 4,
    namespaceCount: 1,
    supports: { datasetManagement: false, writeZeroes: true, volatileWriteCache: true },
  },
  namespaces: [
    {
      id: 1,
      blockSize: 4096,
      blocks: 2n ** 60n,
      capacity: 2n ** 60n,
      utilisation: 0n,
      metadataSize: 8,
      nguid: undefined,
      eui64: '0123456789abcdef',
    },
  ],
};

t.test('identify', async t => {
  const text = identificationText(identification);
  t.match(text, /^0000:00:04\.0 {2}Model\n/);
  t.match(text, /serial number +S1\n/);
  t.match(text, /largest transfer +no limit\n/);
  t.match(text, /confined by +nothing/);
  t.match(text, /^1 .* 4 KiB \+ 8 B metadata .* eui64 0123456789abcdef$/m);
  t.match(identificationText({ ...identification, namespaces: [] }), /no active namespaces/);
  t.match(JSON.parse(toJson(identificationJson(identification))), {
    controller: { vendorId: '0x0036', maxTransfer: null },
    namespaces: [{ id: 1, blocks: '1152921504606846976', bytes: String(2n ** 72n), nguid: null }],
  });
});

t.test('devices', async t => {
  const device: PciDevice = {
    address: pciAddress('00:04.0'),
    vendorId: 0x1b36,
    deviceId: 0x10,
    subsystemVendorId: 0,
    subsystemDeviceId: 0,
    classCode: 0x010802,
    revision: 2,
    driver: undefined,
    iommuGroup: undefined,
    noiommu: false,
    numaNode: undefined,
    bars: [],
    vfio: undefined,
  };
  const path = '/dev/vfio/devices/noiommu-vfio0';
  const rows = devicesTable([
    device,
    { ...device, driver: 'nvme', iommuGroup: 0 },
    { ...device, driver: 'vfio-pci', noiommu: true, vfio: { kind: 'cdev', path, noiommu: true } },
  ])
    .trim()
    .split('\n')
    .map(line => line.split(/ {2,}/));
  t.strictSame(rows, [
    ['ADDRESS', 'CLASS', 'ID', 'DRIVER', 'GROUP', 'VFIO'],
    ['0000:00:04.0', 'NVMe controller', '1b36:0010', '-', 'none', '-'],
    ['0000:00:04.0', 'NVMe controller', '1b36:0010', 'nvme', '0', '-'],
    ['0000:00:04.0', 'NVMe controller', '1b36:0010', 'vfio-pci', 'noiommu', path],
  ]);
  t.match(JSON.parse(toJson(deviceJson(device))), {
    address: '0000:00:04.0',
    classCode: '0x010802',
    vendorId: '0x1b36',
    driver: null,
    iommuGroup: null,
    vfio: null,
  });
});
