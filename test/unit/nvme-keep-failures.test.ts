// Every system call of a restoration fails once: what the controller has in flight completes to whoever tries again.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { EIO } from '../../bindings/uapi/errno.js';
import { NvmeController } from '../../src/drivers/nvme/index.js';
import { DeviceError, KernelError } from '../../src/errors.js';
import { Succession } from './support/nvme-succession.js';

/** A kernel whose n-th call fails from a moment on. */
class Countdown {
  left = Number.POSITIVE_INFINITY;
  calls = 0;
  failed: string | undefined;
  readonly kernel: Syscalls;

  constructor(kernel: Syscalls) {
    const fallible = new Set(['ioctl', 'pread', 'pwrite', 'eventfd']);
    this.kernel = new Proxy(kernel, {
      get: (target, name) => {
        const value = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]): unknown => {
          if (!fallible.has(String(name))) return value.apply(target, args);
          this.calls++;
          if (--this.left !== 0) return value.apply(target, args);
          this.failed = String(name);
          return -EIO;
        };
      },
    });
  }
}

for (const how of ['handed over', 'after a live update'] as const) {
  for (const profile of ['vtd', 'noiommu'] as const) {
    t.test(`${how}, ${profile}`, async t => {
      let failures = 0;
      const outcomes = { 'kept-running': 0, 're-initialised': 0 };
      // What differs without IOMMU is spread over all of them.
      for (let nth = 1; ; nth += profile === 'vtd' ? 1 : 3) {
        let countdown: Countdown | undefined;
        using stage = await Succession.make({
          profile,
          wrap: kernel => {
            countdown = new Countdown(kernel);
            return countdown.kernel;
          },
        });
        const { device } = stage;
        const first = await NvmeController.open(device);
        await first.namespace(1).write(0, new Uint8Array(512).fill(0x2a));
        if (how === 'handed over') {
          stage.model.throttle(0.01);
          await first.namespace(1).readBlocks(0, 1);
          first
            .namespace(1)
            .readBlocks(0, 1)
            .catch(() => undefined);
        }
        await stage.turns();
        first.freeze();
        const record = first.record();
        first.relinquish(new Error('ended'));
        if (how !== 'handed over') {
          for (const kind of device.interrupts.enabled) device.interrupts.disable(kind);
          device.config.busMaster = false;
        }
        const memory = stage.passArenas();
        countdown!.left = nth;
        const error = await NvmeController.restore(device, record, { memory }).then(
          async controller => {
            countdown!.left = Number.POSITIVE_INFINITY;
            stage.model.throttle(0);
            await controller.close();
            return undefined;
          },
          (error: unknown) => error,
        );
        if (countdown!.failed === undefined) {
          t.equal(error, undefined);
          t.ok(failures > 3, `${failures} calls failed, one after the other: ${JSON.stringify(outcomes)}`);
          break;
        }
        if (error === undefined) continue;
        failures++;
        const what = `call ${nth}, ${countdown!.failed}`;
        t.ok(error instanceof KernelError || error instanceof DeviceError, what);
        const second = await NvmeController.restore(device, record, { memory });
        t.equal(second.inherited.length, how === 'handed over' ? 1 : 0, what);
        stage.model.throttle(0);
        for (const { transfer, done } of second.inherited) {
          t.equal(await done, 0);
          t.equal(new Uint8Array(transfer!.memory.buffer)[transfer!.offset], 0x2a);
        }
        t.equal((await second.namespace(1).readBlocks(0, 1))[0], 0x2a, what);
        outcomes[second.outcome as keyof typeof outcomes]++;
        await second.close();
      }
      t.end();
    });
  }
}
