// DMA that an IOMMU stopped, as the kernel's log tells of it: lines of Linux 7.3 as they came out of virtual machines, and
// the simulated machine's own.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EACCES, EIO, EPIPE } from '../../bindings/uapi/errno.js';
import { claim, DmaFaultLog, openDevice, parseDmaFault } from '../../src/index.js';
import { NvmeModel } from '../../src/sim/devices/nvme/index.js';
import { SimulatedHost } from '../../src/sim/host.js';
import { KernelLog, LogLevel } from '../../src/sim/process/kernel-log.js';
import { faulty } from '../../src/testing/faults.js';

const ADDRESS = '0000:00:04.0';

t.test('lines about faults', t => {
  const cases: [text: string, device: string, address: bigint | undefined, write: boolean | undefined][] = [
    // Linux 7.3 with QEMU's intel-iommu: legacy mode, scalable mode, no page table at all
    [
      'DMAR: [DMA Read NO_PASID] Request device [0000:00:05.0] fault addr 0x1000000 [fault reason 0x06] PTE Read access is not set',
      '0000:00:05.0',
      0x100_0000n,
      false,
    ],
    [
      'DMAR: [DMA Write PASID 0x0] Request device [0000:00:05.0] fault addr 0x1000000 [fault reason 0x05] PTE Write access is not set',
      '0000:00:05.0',
      0x100_0000n,
      true,
    ],
    [
      'DMAR: [DMA Read NO_PASID] Request device [0000:00:05.0] fault addr 0x3000000 [fault reason 0x02] Present bit in context entry is clear',
      '0000:00:05.0',
      0x300_0000n,
      false,
    ],
    [
      'DMAR: [DMA Read NO_PASID] Request device [0001:b1:1f.7] fault addr 0xffffffffff000 [fault reason 0x58] SM: Error attempting to access PASID Table Entry',
      '0001:b1:1f.7',
      0xf_ffff_ffff_f000n,
      false,
    ],
    // earlier kernels
    [
      'DMAR: [DMA Write NO_PASID] Request device [b1:00.0] fault addr 0x0 [fault reason 0x05] PTE Write access is not set',
      '0000:b1:00.0',
      0n,
      true,
    ],
    // drivers/iommu/amd/iommu.c: of a device with a driver, of one without, and between two page tables
    [
      'vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0xfd00100 flags=0x0020]',
      '0000:01:00.0',
      0xfd0_0100n,
      true,
    ],
    [
      'AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:c1:00.1 domain=0x0000 address=0xfffffff8 flags=0x0000]',
      '0000:c1:00.1',
      0xffff_fff8n,
      false,
    ],
    ['AMD-Vi:   device=0000:00:04.0 domain=0x0000', '0000:00:04.0', undefined, undefined],
  ];
  for (const [text, device, address, write] of cases) {
    t.strictSame(parseDmaFault(text), { device, address, write, text }, text.slice(0, 60));
  }
  t.end();
});

t.test('lines about something else', t => {
  for (const text of [
    '',
    'DMAR: DRHD: handling fault status reg 2',
    'DMAR: Dump dmar0 table entries for IOVA 0x1000000',
    'DMAR: context entry: hi 0x0000000000000601, low 0x00000000036fd001',
    'DMAR: [INTR-REMAP] Request device [0000:00:05.0] fault index 0x10 [fault reason 0x25] Blocked a compatibility format interrupt request',
    'dmar_fault: 29 callbacks suppressed',
    'AMD-Vi: Event logged [Device not attached to domain properly]',
    'AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0xfd00100 flags=0x0020]',
    'note DMAR: [DMA Read NO_PASID] Request device [0000:00:05.0] fault addr 0x0 [fault reason 0x06] x',
    'vfio-pci 0000:00:05.0: enabling device (0000 -> 0002)',
  ]) {
    t.equal(parseDmaFault(text), undefined, text.slice(0, 60));
  }
  t.end();
});

/** A kernel with nothing but a log. */
function kernelWith(log: KernelLog, close: () => void = () => undefined): Syscalls {
  const process = new SimulatedHost().process();
  const file = log.node.open(process, 0o4000);
  if (typeof file === 'number') throw new Error('it does not open');
  return {
    open: () => 7,
    read: (_fd: number, buffer: Uint8Array) => file.read(process, buffer),
    close: () => {
      close();
      return 0;
    },
  } as unknown as Syscalls;
}

const line = (address: number): string =>
  `DMAR: [DMA Read NO_PASID] Request device [${ADDRESS}] fault addr 0x${address.toString(16)} [fault reason 0x06] x`;

t.test('following the log', t => {
  const log = new KernelLog();
  log.write(LogLevel.Error, line(0x1000));
  let closed = 0;
  const faults = DmaFaultLog.open(kernelWith(log, () => closed++));
  t.strictSame(faults.read().faults, [], 'what was there is skipped');
  log.write(LogLevel.Info, 'something else');
  log.write(LogLevel.Error, line(0x2000));
  log.write(LogLevel.Error, `${line(0x3000)}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:04.0`);
  const { faults: found } = faults.read();
  t.strictSame(
    found.map(({ address }) => address),
    [0x2000n, 0x3000n],
  );
  t.equal(found[1]?.text, line(0x3000), 'without the properties');
  t.strictSame(faults.read().faults, [], 'each is told once');
  // Of facility 1, user: a process wrote it.
  log.write(((1 << 3) | LogLevel.Error) as LogLevel, line(0x4000));
  t.strictSame(faults.read().faults, [], 'what a process wrote is no fault');
  faults[Symbol.dispose]();
  faults[Symbol.dispose]();
  t.equal(closed, 1);
  t.end();
});

t.test('whether that was all', t => {
  const complete = (...lines: readonly string[]): boolean => {
    const log = new KernelLog();
    const faults = DmaFaultLog.open(kernelWith(log));
    for (const text of lines) log.write(LogLevel.Error, text);
    return faults.read().complete;
  };
  t.equal(complete(), true);
  t.equal(complete('DMAR: DRHD: handling fault status reg 2', line(0x1000)), true);
  t.equal(complete(line(0x1000), line(0x2000)), true);
  t.equal(complete(line(0x1000), line(0x2000), line(0x3000)), false, 'the limit may be used up');
  t.equal(complete('dmar_fault: 29 callbacks suppressed'), false);
  t.equal(complete('amd_iommu_report_page_fault: 1 callbacks suppressed'), false);
  t.equal(complete('net_ratelimit: 3 callbacks suppressed'), true, 'of something else');
  t.equal(complete('DMAR: DRHD: handling fault status reg 3'), false, 'there was no register left');
  const log = new KernelLog();
  const faults = DmaFaultLog.open(kernelWith(log));
  for (let index = 0; index < 3; index++) log.write(LogLevel.Error, line(0x1000));
  faults.read();
  t.equal(faults.read().complete, false, 'nor for a while after that');
  for (let index = 0; index < 1001; index++) log.write(LogLevel.Info, 'chatter');
  log.write(LogLevel.Error, line(0x5000));
  const rest = DmaFaultLog.open(kernelWith(log));
  t.equal(rest.read().complete, true);
  for (let index = 0; index < 1001; index++) log.write(LogLevel.Info, 'chatter');
  log.write(LogLevel.Error, line(0x6000));
  const lost = rest.read();
  t.equal(lost.complete, false, 'records were overwritten');
  t.match(lost.faults, [{ address: 0x6000n }]);
  t.end();
});

t.test('a log that cannot be read', t => {
  const kernel = new SimulatedHost().process();
  t.throws(() => DmaFaultLog.open(faulty(kernel, [{ call: 'open', file: 'kmsg', errno: EACCES }])), {
    name: 'KernelError',
    code: 'EACCES',
    path: '/dev/kmsg',
    hint: /kernel log/,
  });
  const broken = faulty(kernel, [{ call: 'read', file: 'kmsg', errno: EIO }]);
  t.throws(() => DmaFaultLog.open(broken), { name: 'KernelError', code: 'EIO' });
  t.strictSame([...kernel.openFiles], [], 'nothing stays open');
  using log = DmaFaultLog.open(faulty(kernel, [{ call: 'read', file: 'kmsg', nth: 1, errno: EPIPE }]));
  t.equal(log.read().complete, true, 'what was lost before is none of its business');
  t.end();
});

for (const profile of ['vtd', 'vtd-scalable', 'vtd-first-stage', 'amd'] as const) {
  t.test(`the simulated machine tells of its faults, ${profile}`, async t => {
    const model = new NvmeModel();
    const host = new SimulatedHost({ profile, devices: [{ address: ADDRESS, function: model }] });
    const kernel = host.process();
    using claimed = await claim(ADDRESS, { kernel });
    using device = openDevice(claimed);
    device.config.busMaster = true;
    const { port } = model;
    using log = DmaFaultLog.open(kernel);
    t.equal(port.read(0x10_0123n, new Uint8Array(8)), false, 'nothing is mapped there');
    t.equal(port.write(0x20_0000n, new Uint8Array(8)), false);
    const { faults, complete } = log.read();
    t.equal(complete, true);
    t.match(faults, [
      { device: ADDRESS, write: false, address: profile === 'amd' ? 0x10_0123n : 0x10_0000n },
      { device: ADDRESS, write: true, address: 0x20_0000n },
    ]);
    for (let index = 0; index < 50; index++) port.read(0x30_0000n, new Uint8Array(8));
    const many = log.read();
    t.equal(many.complete, false, 'it limits the lines');
    t.ok(many.faults.length >= 1 && many.faults.length <= 8, `${many.faults.length} of 50`);
    t.equal(host.iommu.faultCount, 52);
  });
}
