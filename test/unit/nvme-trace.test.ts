// Reading QEMU's trace of its NVMe controllers.
import t from 'tap';
import { nvmeWindows } from '../vm/nvme-trace.js';

const marker = "pci_nvme_io_cmd cid 4096 nsid 0x2 sqid 1 opc 0x0 opname 'NVME_NVM_CMD_FLUSH'";
const write = "pci_nvme_io_cmd cid 7 nsid 0x1 sqid 1 opc 0x1 opname 'NVME_NVM_CMD_WRITE'";
const identify = "pci_nvme_admin_cmd cid 12 sqid 0 opc 0x6 opname 'NVME_ADM_CMD_IDENTIFY'";

t.test('what is in which window', async t => {
  const windows = nvmeWindows(
    [
      'pci_nvme_mmio_write addr 0x14 data 0x460001 size 4',
      'pci_nvme_mmio_cfg wrote MMIO, config controller config=0x460001',
      identify,
      marker,
      write,
      "pci_nvme_io_cmd cid 8 nsid 0x2 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'",
      "pci_nvme_io_cmd cid 9 nsid 0x1 sqid 1 opc 0x0 opname 'NVME_NVM_CMD_FLUSH'",
      'pci_nvme_mmio_write addr 0x1008 data 0x1 size 4',
      'pci_cfg_write ahci 00:1f.2 @0x4 <- 0x7',
      marker,
      'pci_nvme_mmio_shutdown_set shutdown bit set',
      'pci_nvme_pci_reset PCI Function Level Reset',
      'pci_cfg_write nvme 00:04.0 @0x4 <- 0x103',
      'pci_nvme_ub_mmiowr_invalid invalid MMIO write, offset=0x9, data=0x0',
      'pci_nvme_err_invalid_opc invalid opcode 0xff',
      '',
    ].join('\n'),
  );
  t.equal(windows.length, 3);
  const [before, between, after] = windows;
  t.equal(before?.configuration.length, 2);
  t.strictSame(before?.adminCommands, [identify]);
  t.same(
    between,
    {
      ioCommands: new Map([
        [1, 2],
        [2, 1],
      ]),
      adminCommands: [],
      configuration: [],
      pciConfiguration: [],
      resets: [],
      complaints: [],
    },
    'doorbells and other devices configure no controller',
  );
  t.equal(after?.configuration.length, 1);
  t.equal(after?.resets.length, 1);
  t.equal(after?.pciConfiguration.length, 1);
  t.equal(after?.complaints.length, 2);
});

t.test('without markers there is one window', async t => {
  t.equal(nvmeWindows('').length, 1);
  t.equal(nvmeWindows(`${write}\n`)[0]?.ioCommands.get(1), 1);
});

t.test('lines that are not understood are not passed over', async t => {
  const lines = [
    'pci_nvme_read cid 7 nsid 1 nlb 1 count 512 lba 0x0',
    'pci_nvme_mmio_write nowhere',
    'pci_nvme_mmio_write addr somewhere data 0x1 size 4',
    'pci_nvme_io_cmd of another form',
    `1234@5678.9:${write}`,
  ];
  for (const line of lines) t.throws(() => nvmeWindows(line), /not understood/, line);
});
