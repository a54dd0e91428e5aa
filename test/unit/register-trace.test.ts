// QEMU's trace of what was written to the registers of NVMe controllers, taken apart.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { LANES_MARK, readRegisterTrace } from '../vm/register-trace.js';

const A = 0xfe50_0000;
const B = 0xfe60_0000;
const SIZE = 0x4000;
const regions: Readonly<Record<number, string>> = { [A]: '0x55d1a0', [B]: '0x55d1b0' };

const write = (bar: number, offset: number, value: number, region = regions[bar]): string =>
  `memory_region_ops_write cpu 1 mr ${region} addr 0x${(bar + offset).toString(16)} value 0x${value.toString(16)} size 4 name 'nvme'`;
const mark = (name: string): string =>
  `handle_qmp_command mon 0x55 req: {"execute": "human-monitor-command", "arguments": {"command-line": "help iommufd-mark:${name}"}, "id": 7}`;
const flush = (nsid: number, opcode = 0): string =>
  `pci_nvme_io_cmd cid 12 nsid 0x${nsid} sqid 1 opc 0x${opcode} opname 'NVME_NVM_CMD_FLUSH'`;

const CC = 0x14;
const AQA = 0x24;
const tail = (queue: number): number => 0x1000 + queue * 8;
const head = (queue: number): number => tail(queue) + 4;

const read = (t: Test, lines: readonly string[]) => {
  const file = join(t.testdir(), 'trace.log');
  writeFileSync(file, `${lines.join('\n')}\n`);
  return readRegisterTrace(file, [
    { bar: A, size: SIZE, ioEntries: 64 },
    { bar: B, size: SIZE },
  ]);
};

t.test('what was asked of which controller, from mark to mark', async t => {
  const sections = await read(t, [
    write(A, CC, 0),
    write(A, AQA, 0x1f_001f),
    write(A, CC, 0x46_0001),
    write(A, tail(0), 3),
    'pci_nvme_admin_cmd cid 0 sqid 0 opc 0x6 opname',
    mark('brought-up'),
    write(B, AQA, 0x1f_001f),
    write(B, CC, 0x46_0001),
    write(B, tail(0), 30),
    write(B, tail(0), 2),
    write(A, tail(1), 60),
    write(A, head(1), 60),
    write(A, tail(1), 60),
    write(A, tail(1), 4),
    write(B, tail(1), 5),
    "memory_region_ops_write cpu 0 mr 0x77 addr 0xfe500014 value 0x0 size 4 name 'edu-mmio'",
    "memory_region_ops_write cpu -1 mr 0x77 addr 0xfe000000 value 0x0 size 4 name 'nvme'",
    mark('end'),
    write(A, 0x30, 0),
    write(A, tail(0), 0),
    'pci_nvme_pci_reset PCI Function Level Reset',
    write(A, CC, 0),
    write(A, CC, 0x46_0001),
    write(A, tail(0), 1),
  ]);
  const none = { configuration: [], otherRegisters: [], adminCommands: 0, ioCommands: 0, doorbells: 0 };
  t.strictSame(sections, [
    {
      mark: 'power-on',
      controllers: [
        { ...none, configuration: [0, 0x46_0001], otherRegisters: [AQA], adminCommands: 3, doorbells: 1 },
        none,
      ],
      adminCommandsExecuted: 1,
      functionResets: 0,
    },
    {
      mark: 'brought-up',
      controllers: [
        { ...none, ioCommands: 68, doorbells: 4 },
        // 30, and round the ring of 32 to 2. Its I/O commands are not counted.
        { ...none, configuration: [0x46_0001], otherRegisters: [AQA], adminCommands: 34, doorbells: 3 },
      ],
      adminCommandsExecuted: 0,
      functionResets: 0,
    },
    {
      mark: 'end',
      controllers: [
        {
          ...none,
          configuration: [0, 0x46_0001],
          otherRegisters: [0x30],
          // From 3 round to 0, and 1 after it was disabled.
          adminCommands: 30,
          doorbells: 2,
        },
        none,
      ],
      adminCommandsExecuted: 0,
      functionResets: 1,
    },
  ]);
});

t.test('a flush of the namespace that nobody else uses is a mark', async t => {
  const sections = await read(t, [flush(1), flush(2, 1), flush(2), flush(2)]);
  t.strictSame(
    sections.map(({ mark }) => mark),
    ['power-on', LANES_MARK, LANES_MARK],
  );
});

t.test('registers that are moved about', async t => {
  await t.rejects(read(t, [write(A, CC, 0), write(A, CC, 0, '0x66')]), /not where they were/);
  await t.rejects(read(t, [write(A, CC, 0), write(B, CC, 0, regions[A])]), /not where they were/);
});
