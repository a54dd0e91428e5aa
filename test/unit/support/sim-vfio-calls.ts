// Small calls that tests of the simulated VFIO are made of.
import type { Request } from '../../../bindings/uapi/request.js';
import type { Struct, StructInput } from '../../../bindings/uapi/struct.js';
import * as vfio from '../../../bindings/uapi/vfio.js';
import { openDevice } from '../../../src/open-device.js';
import { claim } from '../../../src/pci/claim.js';
import type { SimulatedProcess } from '../../../src/sim/process/process.js';
import { type Machine, machine } from './sim-pci-machine.js';

export const CONFIG = 7 * 2 ** 40;
export const NONBLOCK = 0o4000;

/** Issues a request with a struct. @returns the result, and the struct as the kernel left it */
export function issue<S extends Struct>(
  kernel: SimulatedProcess,
  fd: number,
  { number, argument }: Request<S>,
  values: StructInput<S>,
  trailing = 0,
) {
  const { bytes, view } = argument.allocate(trailing);
  argument.encode(view, values as Parameters<S['encode']>[1]);
  const result = kernel.ioctl(fd, number, bytes);
  return { result, view, bytes, values: argument.decode(view) as ReturnType<S['decode']> };
}

/** The small calls that tests are made of, on one open device. */
export function calls(kernel: SimulatedProcess, fd: number) {
  return {
    irqs(flags: number, index: number, start: number, count: number, data: readonly number[] = []): number {
      const { bytes, view } = vfio.vfio_irq_set.allocate(4 * data.length);
      vfio.vfio_irq_set.encode(view, { argsz: bytes.byteLength, flags, index, start, count });
      for (const [i, value] of data.entries()) view.setInt32(vfio.vfio_irq_set.size + 4 * i, value, true);
      return kernel.ioctl(fd, vfio.VFIO_DEVICE_SET_IRQS.number, bytes);
    },
    readConfig(at: number, length: number): number {
      const bytes = new Uint8Array(4);
      const result = kernel.pread(fd, bytes.subarray(0, length), CONFIG + at);
      return result < 0 ? result : new DataView(bytes.buffer).getUint32(0, true);
    },
    writeConfig(at: number, length: number, value: number): number {
      const bytes = new Uint8Array(4);
      new DataView(bytes.buffer).setUint32(0, value, true);
      return kernel.pwrite(fd, bytes.subarray(0, length), CONFIG + at);
    },
    feature(flags: number, data: readonly number[] = [], argsz = 8 + 4 * data.length): number {
      const { bytes, view } = vfio.vfio_device_feature.allocate(4 * data.length);
      vfio.vfio_device_feature.encode(view, { argsz, flags });
      for (const [i, value] of data.entries()) view.setInt32(8 + 4 * i, value, true);
      return kernel.ioctl(fd, vfio.VFIO_DEVICE_FEATURE.number, bytes);
    },
  };
}

/** What an eventfd has counted since it was last read. */
export function counted(kernel: SimulatedProcess, fd: number): number {
  const bytes = new Uint8Array(8);
  return kernel.read(fd, bytes) === 8 ? (bytes[0] as number) : 0;
}

export async function opened(at: string, on: Machine = machine(), kernel: SimulatedProcess = on.process()) {
  const claimed = await claim(at, { kernel });
  const device = openDevice(claimed, { noiommu: true });
  return { ...on, kernel, claimed, device, fd: device.fd, ...calls(kernel, device.fd) };
}
