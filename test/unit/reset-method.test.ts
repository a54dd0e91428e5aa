// Keeping the kernel from resetting a device, against a tree in memory.
import t from 'tap';
import { EACCES, EINVAL, EIO } from '../../bindings/uapi/errno.js';
import { DeviceErrorCode } from '../../src/errors.js';
import { suspendResets } from '../../src/pci/reset-method.js';
import { FakeSysfs } from './support/fake-sysfs.js';

const ADDRESS = '0000:00:04.0';
const OTHER = '0000:00:05.0';
const ATTRIBUTE = `/sys/bus/pci/devices/${ADDRESS}/reset_method`;

function machine(attributes: Record<string, string | undefined> = { reset_method: 'flr bus' }): FakeSysfs {
  const kernel = new FakeSysfs();
  kernel.device(ADDRESS, { attributes });
  kernel.device(OTHER, { attributes });
  return kernel;
}

const methods = (kernel: FakeSysfs): string | number => kernel.readText(ATTRIBUTE);

t.test('resets are off until they are restored', async t => {
  const kernel = machine();
  {
    using suspended = suspendResets('00:04.0', { kernel });
    t.equal(suspended.previous, 'flr bus');
    t.equal(methods(kernel), '\n');
    suspended.restore();
    t.equal(methods(kernel), 'flr bus\n');
  }
  t.strictSame(
    kernel.writes,
    [
      [ATTRIBUTE, '\n'],
      [ATTRIBUTE, 'flr bus\n'],
    ],
    'once each, and no other device',
  );
});

t.test('one within the other', async t => {
  const kernel = machine();
  const outer = suspendResets(ADDRESS, { kernel });
  const inner = suspendResets(ADDRESS, { kernel });
  t.equal(inner.previous, '');
  inner.restore();
  t.equal(methods(kernel), '\n', 'still off');
  outer.restore();
  t.equal(methods(kernel), 'flr bus\n');
});

t.test('restored to what they were before somebody else emptied them', async t => {
  for (const restoreTo of ['bus', 'default']) {
    const kernel = machine({ reset_method: '' });
    suspendResets(ADDRESS, { kernel, restoreTo }).restore();
    t.equal(methods(kernel), `${restoreTo}\n`);
  }
});

t.test('a device that cannot be reset', async t => {
  const kernel = machine({});
  const suspended = suspendResets(ADDRESS, { kernel, restoreTo: 'flr' });
  t.equal(suspended.previous, '');
  suspended.restore();
  t.strictSame(kernel.writes, []);
});

t.test('a kernel that does not let resets be switched off', async t => {
  t.throws(() => suspendResets(ADDRESS, { kernel: machine({ reset: '' }) }), {
    code: DeviceErrorCode.Unsupported,
    hint: /5\.15/,
  });
  const stubborn = machine();
  stubborn.onWrite = () => {
    stubborn.onWrite = undefined;
    stubborn.file(`/sys/devices/pci0000:00/${ADDRESS}/reset_method`, 'bus\n');
  };
  t.throws(() => suspendResets(ADDRESS, { kernel: stubborn }), {
    code: DeviceErrorCode.Unsupported,
    message: /still says "bus"/,
  });
  t.equal(methods(stubborn), 'flr bus\n', 'put back');
});

t.test('refusals', async t => {
  const kernel = machine();
  t.throws(() => suspendResets('4', { kernel }), RangeError);
  t.throws(() => suspendResets('00:06.0', { kernel }), { code: 'ENOENT' });
  kernel.denied.push({ pattern: /reset_method$/, call: 'write', errno: EACCES });
  t.throws(() => suspendResets(ADDRESS, { kernel }), { code: 'EACCES', hint: /root/ });
  t.equal(methods(kernel), 'flr bus\n');

  const unreadable = machine();
  unreadable.onWrite = () => {
    unreadable.onWrite = undefined;
    unreadable.denied.push({ pattern: /reset_method$/, call: 'read', errno: EIO });
  };
  t.throws(() => suspendResets(ADDRESS, { kernel: unreadable }), { code: 'EIO' });
  unreadable.denied.length = 0;
  t.equal(methods(unreadable), 'flr bus\n', 'put back');
});

t.test('a restore that fails can be tried again', async t => {
  const kernel = machine();
  const suspended = suspendResets(ADDRESS, { kernel });
  kernel.denied.push({ pattern: /reset_method$/, call: 'write', errno: EINVAL });
  t.throws(() => suspended.restore(), { code: 'EINVAL' });
  kernel.denied.length = 0;
  suspended.restore();
  t.equal(methods(kernel), 'flr bus\n');
});

t.test('a device that has left', async t => {
  const kernel = machine();
  const suspended = suspendResets(ADDRESS, { kernel });
  kernel.leave(ADDRESS);
  suspended.restore();
  t.pass('needs nothing');
});
