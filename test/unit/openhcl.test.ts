// The private request of OpenHCL's kernel: used where a kernel has it, and nothing changes where it has not.
import t from 'tap';
import type { Syscalls } from '../../bindings/syscalls.js';
import { VFIO_GROUP_SET_KEEP_ALIVE } from '../../bindings/uapi/openhcl.js';
import { claim, DeviceKeeper, KeepAlive, openDevice, preserve } from '../../src/index.js';
import { EduModel } from '../../src/sim/devices/edu.js';
import { SimulatedHost } from '../../src/sim/host.js';

const ADDRESS = '0000:00:05.0';

/** @param group what an open of the group returns, and an answer to the request */
async function stage(group?: { readonly fd: number; readonly answer: number }) {
  const host = new SimulatedHost({ devices: [{ address: ADDRESS, function: new EduModel() }] });
  const asked: { path: string; name: string }[] = [];
  const process = host.process();
  let opened = '';
  const kernel = new Proxy(process as Syscalls, {
    get(target, property) {
      const own: Partial<Syscalls> = {
        open: (path, flags) => {
          if (!group || !/^\/dev\/vfio\/\d+$/.test(path)) return target.open(path, flags);
          opened = path;
          return group.fd;
        },
        ioctl: (fd, request, argument) => {
          if (fd !== group?.fd) return target.ioctl(fd, request, argument);
          t.equal(request, VFIO_GROUP_SET_KEEP_ALIVE.number);
          asked.push({ path: opened, name: Buffer.from(argument as Uint8Array).toString() });
          return group.answer;
        },
        close: fd => (fd === group?.fd ? 0 : target.close(fd)),
      };
      const value = own[property as keyof Syscalls] ?? Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const kept = KeepAlive.of(openDevice(await claim(ADDRESS, { kernel })));
  return { host, kept, asked };
}

t.test('a kernel that has it', async t => {
  const { kept, asked } = await stage({ fd: 1000, answer: 0 });
  using preserved = await preserve(kept, { session: 's' });
  t.equal(preserved.keepers.get(ADDRESS), DeviceKeeper.Openhcl);
  t.strictSame(asked, [{ path: '/dev/vfio/0', name: `${ADDRESS}\0` }]);
});

t.test('Linux answers ENOTTY', async t => {
  const { kept, asked } = await stage({ fd: 1000, answer: -25 });
  using preserved = await preserve(kept, { session: 's' });
  t.equal(preserved.keepers.get(ADDRESS), DeviceKeeper.Itself);
  t.equal(asked.length, 1);
});

t.test('Linux does not even open the group of a device that is bound to an iommufd', async t => {
  const { kept, asked } = await stage();
  using preserved = await preserve(kept, { session: 's' });
  t.equal(preserved.keepers.get(ADDRESS), DeviceKeeper.Itself);
  t.strictSame(asked, []);
});
