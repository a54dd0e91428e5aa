/** A VFIO cdev, by raw requests. @module */
import type { Syscalls } from '../../../bindings/syscalls.js';
import {
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_BIND_IOMMUFD,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
} from '../../../bindings/uapi/vfio.js';
import type { ConformanceHost } from './case.js';
import { equal, succeeds } from './expect.js';
import { type Caller, call } from './ioctl.js';
import { vfioNode } from './vfio.js';

const O_RDWR = 2;

/** An open file of a device; not bound yet. */
export class Cdev implements Caller, Disposable {
  readonly kernel: Syscalls;
  readonly fd: number;
  #open = true;

  private constructor(kernel: Syscalls, fd: number) {
    this.kernel = kernel;
    this.fd = fd;
  }

  static async open(host: ConformanceHost, address: string): Promise<Cdev> {
    const path = await vfioNode(host, address);
    return new Cdev(host.kernel, succeeds(host.kernel.open(path, O_RDWR), `open of ${path}`));
  }

  tryBind(iommufd: number): { result: number; deviceId: number } {
    const { result, values } = call(this, this.fd, VFIO_DEVICE_BIND_IOMMUFD, { iommufd });
    return { result, deviceId: values.out_devid };
  }

  /** @returns the device's id */
  bind(iommufd: number): number {
    const { result, deviceId } = this.tryBind(iommufd);
    equal(result, 0, 'VFIO_DEVICE_BIND_IOMMUFD');
    return deviceId;
  }

  tryAttach(ptId: number): { result: number; hwptId: number } {
    const { result, values } = call(this, this.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, { pt_id: ptId });
    return { result, hwptId: values.pt_id };
  }

  /** @returns the page table in use */
  attach(ptId: number): number {
    const { result, hwptId } = this.tryAttach(ptId);
    equal(result, 0, 'VFIO_DEVICE_ATTACH_IOMMUFD_PT');
    return hwptId;
  }

  detach(): void {
    equal(call(this, this.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, {}).result, 0, 'VFIO_DEVICE_DETACH_IOMMUFD_PT');
  }

  [Symbol.dispose](): void {
    if (this.#open) equal(this.kernel.close(this.fd), 0, 'close of the cdev');
    this.#open = false;
  }
}
