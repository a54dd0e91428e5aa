// Interrupts of the simulated machine's devices, through VFIO.
import t from 'tap';
import * as vfio from '../../bindings/uapi/vfio.js';
import { InterruptKind } from '../../src/vfio/interrupts.js';
import { address } from './support/sim-pci-machine.js';
import { CONFIG, counted, issue, NONBLOCK, opened } from './support/sim-vfio-calls.js';

const TRIGGER = vfio.VFIO_IRQ_SET_ACTION_TRIGGER;
const EVENTFD = vfio.VFIO_IRQ_SET_DATA_EVENTFD | TRIGGER;
const NONE = vfio.VFIO_IRQ_SET_DATA_NONE | TRIGGER;
const INTX = vfio.VFIO_PCI_INTX_IRQ_INDEX;
const MSI = vfio.VFIO_PCI_MSI_IRQ_INDEX;
const MSIX = vfio.VFIO_PCI_MSIX_IRQ_INDEX;
const REQ = vfio.VFIO_PCI_REQ_IRQ_INDEX;

t.test('MSI-X', async t => {
  const { kernel, fd, irqs, nvmeA, writeConfig, readConfig } = await opened(address.nvmeA);
  const event = kernel.eventfd(0, NONBLOCK);
  const other = kernel.eventfd(0, NONBLOCK);
  t.equal(irqs(NONE, MSIX, 0, 1), -22, 'not enabled');
  t.equal(irqs(EVENTFD, MSIX, 0, 1, [event]), 0);
  t.equal(nvmeA.port.interruptMode, 'msix');
  t.equal(readConfig(0x42, 2), 0x8040);
  nvmeA.port.message(0);
  t.equal(counted(kernel, event), 0, 'a message is a write like any other');
  writeConfig(4, 2, 6);
  nvmeA.port.message(0);
  nvmeA.port.message(0);
  t.equal(counted(kernel, event), 2);
  t.equal(irqs(NONE, MSIX, 0, 1), 0);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_BOOL | TRIGGER, MSIX, 0, 1, [1]), 0);
  t.equal(counted(kernel, event), 2, 'by hand');

  t.equal(irqs(EVENTFD, MSIX, 1, 1, [other]), 0, 'one more while it is enabled');
  t.equal(irqs(EVENTFD, MSIX, 0x41, 1, [event]), -22);
  t.equal(irqs(EVENTFD, MSIX, 0x40, 1, [event]), 0);
  t.equal(irqs(EVENTFD, MSIX, 0, 1, [-1]), 0);
  nvmeA.port.message(0);
  const pending = new Uint8Array(8);
  kernel.pread(fd, pending, 0x3000);
  t.equal(pending[0], 1, 'it waits, masked');
  t.equal(irqs(EVENTFD, MSIX, 0, 1, [event]), 0);
  t.equal(counted(kernel, event), 1, 'and comes when it is unmasked');
  t.equal(irqs(EVENTFD, MSIX, 0, 2, [event, 999]), -9);
  nvmeA.port.message(1);
  t.equal(counted(kernel, other), 0, 'the whole block is off');
  t.equal(irqs(EVENTFD, INTX, 0, 1, [event]), -22, 'one kind at a time');
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_ACTION_MASK, MSIX, 0, 1), -25);
  t.equal(irqs(EVENTFD, MSIX, 0, 66, Array(66).fill(-1)), -22);
  t.equal(irqs(NONE, MSIX, 0, 0), 0);
  t.equal(irqs(NONE, MSIX, 0, 0), -22, 'it is off');
  t.equal(nvmeA.port.interruptMode, 'intx');
  t.equal(irqs(EVENTFD, MSIX, 0, 1, [999]), -9);
  t.equal(readConfig(0x42, 2), 0x40, 'and stays off');
});

t.test('INTx', async t => {
  const { kernel, fd, irqs, edu, readConfig, writeConfig } = await opened(address.edu);
  const UNMASK = vfio.VFIO_IRQ_SET_ACTION_UNMASK;
  const event = kernel.eventfd(0, NONBLOCK);
  t.equal(irqs(NONE, INTX, 0, 1), -22);
  t.equal(irqs(EVENTFD, INTX, 0, 1, [event]), 0);
  edu.port.pin(true);
  t.equal(counted(kernel, event), 1);
  t.equal(readConfig(6, 2) & 8, 8);
  edu.port.pin(false);
  edu.port.pin(true);
  t.equal(counted(kernel, event), 0, 'it is masked');
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_NONE | UNMASK, INTX, 0, 1), 0);
  t.equal(counted(kernel, event), 1, 'the pin is still asserted');
  edu.port.pin(false);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_BOOL | UNMASK, INTX, 0, 1, [1]), 0);
  t.equal(counted(kernel, event), 0);
  edu.port.pin(true);
  t.equal(counted(kernel, event), 1);

  const unmask = kernel.eventfd(0, NONBLOCK);
  edu.port.pin(false);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_EVENTFD | UNMASK, INTX, 0, 1, [unmask]), 0);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_EVENTFD | UNMASK, INTX, 0, 1, [unmask]), -16);
  kernel.write(unmask, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  t.equal(counted(kernel, unmask), 0, 'the kernel has taken it');
  edu.port.pin(true);
  t.equal(counted(kernel, event), 1, 'and unmasked');
  edu.port.pin(false);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_EVENTFD | UNMASK, INTX, 0, 1, [-1]), 0);
  kernel.write(unmask, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_EVENTFD | UNMASK, INTX, 0, 1, [unmask]), 0);
  t.equal(counted(kernel, unmask), 1, 'what it had counted is not taken');
  edu.port.pin(true);
  t.equal(counted(kernel, event), 1, 'but has unmasked');
  edu.port.pin(false);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_EVENTFD | vfio.VFIO_IRQ_SET_ACTION_MASK, INTX, 0, 1, [unmask]), -25);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_NONE | UNMASK, INTX, 0, 1), 0);

  writeConfig(4, 2, 0x402);
  edu.port.pin(true);
  t.equal(irqs(NONE, INTX, 0, 1), 0);
  t.equal(counted(kernel, event), 0, 'the user has disabled it');
  writeConfig(4, 2, 2);
  t.equal(counted(kernel, event), 1);
  t.equal(irqs(NONE, INTX, 0, 0), 0);
  t.equal(irqs(NONE, INTX, 0, 0), -22);
  kernel.close(fd);
});

t.test('MSI of a conventional device', async t => {
  const { kernel, irqs, edu, readConfig, writeConfig } = await opened(address.edu);
  const event = kernel.eventfd(0, NONBLOCK);
  t.equal(irqs(EVENTFD, MSI, 0, 1, [event]), 0);
  t.equal(readConfig(0x40, 4), 0x800005, 'the real register cannot be seen');
  writeConfig(4, 2, 6);
  edu.port.message(0);
  edu.port.message(1);
  t.equal(counted(kernel, event), 1);
  t.equal(writeConfig(0x42, 2, 0xffff), 2);
  t.equal(readConfig(0x40, 4), 0x8f0005);
  t.equal(irqs(NONE, MSI, 0, 0), 0);
  t.equal(writeConfig(0x42, 2, 0xffff), 2);
  t.equal(readConfig(0x40, 4), 0x8e0005);
  t.equal(edu.port.interruptMode, 'intx');
  writeConfig(0x44, 4, 0xfee01234);
  t.equal(readConfig(0x44, 4), 0xfee01234);
});

t.test('requests, errors, and interrupts through the library', async t => {
  const { kernel, device, irqs, bus, nvmeA, writeConfig } = await opened(address.nvmeA);
  const event = kernel.eventfd(0, NONBLOCK);
  t.equal(irqs(NONE, REQ, 0, 1), -22);
  t.equal(irqs(vfio.VFIO_IRQ_SET_DATA_BOOL | TRIGGER, REQ, 0, 1, [1]), 0);
  t.equal(irqs(EVENTFD, REQ, 0, 1, [-2]), -22);
  t.equal(irqs(EVENTFD, REQ, 1, 1, [event]), -22);
  t.equal(irqs(EVENTFD, REQ, 0, 1, [event]), 0);
  t.equal(irqs(NONE, REQ, 0, 1), 0);
  t.equal(counted(kernel, event), 1);
  t.equal(irqs(NONE, REQ, 0, 0), 0);
  t.equal(irqs(NONE, REQ, 0, 0), -22);

  const failed = new Promise<void>(resolve => device.onError(resolve));
  bus.reportError(address.nvmeA);
  const alive = setTimeout(() => t.fail('no error came'), 5000);
  await failed;
  clearTimeout(alive);

  const [vector] = device.interrupts.enable(InterruptKind.Msix, 2);
  const heard = new Promise<number>(resolve => vector?.listen(resolve));
  writeConfig(4, 2, 6);
  nvmeA.port.message(0);
  t.equal(await heard, 1);
  device[Symbol.dispose]();
});

t.test('eventfds that write registers', async t => {
  const { kernel, fd, nvmeA, writeConfig, device } = await opened(address.nvmeA);
  const event = kernel.eventfd(0, NONBLOCK);
  const set = (flags: number, offset: number, data: bigint, to: number, argsz = 32): number =>
    issue(kernel, fd, vfio.VFIO_DEVICE_IOEVENTFD, { argsz, flags, offset: BigInt(offset), data, fd: to })
      .result;
  t.equal(set(4, 0x1000, 5n, event), 0);
  t.equal(set(4, 0x1000, 5n, event), -17);
  t.equal(set(4, 0x1000, 6n, -1), -19);
  t.equal(set(3, 0x1000, 5n, event), -22);
  t.equal(set(16, 0x1000, 5n, event), -22);
  t.equal(set(4, CONFIG, 5n, event), -22);
  t.equal(set(4, 0x2000, 5n, event), -22, 'the MSI-X table');
  t.equal(set(4, 0x1000, 5n, -2), -22);
  t.equal(set(4, 0x1000, 5n, event, 27), -22);
  t.equal(set(4, 0x1000, 7n, 999), -9);
  const signal = (): void => void kernel.write(event, Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  signal();
  t.equal(nvmeA.registers[0x1000], 5);
  t.equal(counted(kernel, event), 0);
  nvmeA.registers[0x1000] = 0;
  writeConfig(4, 2, 0);
  signal();
  t.equal(nvmeA.registers[0x1000], 0, 'not while memory is not decoded');
  writeConfig(4, 2, 2);
  t.equal(set(4, 0x1000, 5n, -1), 0);
  signal();
  t.equal(counted(kernel, event), 1, 'nobody takes it any more');
  device[Symbol.dispose]();
});
