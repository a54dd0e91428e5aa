// Interrupts over real eventfds: enabling, delivery, sharing the loop, disabling, and what is left when something fails.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { EINVAL, EIO, EMFILE } from '../../bindings/uapi/errno.js';
import {
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
} from '../../bindings/uapi/vfio.js';
import { DeviceErrorCode } from '../../src/errors.js';
import { InterruptKind, Interrupts } from '../../src/vfio/interrupts.js';
import { runScript } from './support/child.js';
import { FakeVfioDevice } from './support/fake-vfio.js';
import { openDescriptors } from './support/holdings.js';

const { Intx, Msi, Msix } = InterruptKind;

function device(): { kernel: FakeVfioDevice; interrupts: Interrupts } {
  const kernel = new FakeVfioDevice();
  return { kernel, interrupts: new Interrupts(kernel, () => kernel.fd, '0000:00:04.0') };
}

/** Waits until `condition` holds; fails the test when it does not come to. */
async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('it did not happen');
    await turn();
  }
}

t.test('what VFIO tells', async t => {
  const { kernel, interrupts } = device();
  t.same(interrupts.info(Intx), {
    count: 1,
    eventfd: true,
    maskable: true,
    automasked: true,
    fixedSize: false,
  });
  t.same(interrupts.info(Msix), {
    count: 8,
    eventfd: true,
    maskable: false,
    automasked: false,
    fixedSize: true,
  });
  kernel.forget();
  for (const kind of [-1, 5, 1.5, Number.NaN])
    t.throws(() => interrupts.info(kind as typeof Intx), RangeError);
  t.throws(() => interrupts.info('2' as unknown as typeof Intx), TypeError);
  t.same(kernel.calls, []);
});

t.test('delivery to listeners', async t => {
  const before = openDescriptors();
  const { kernel, interrupts } = device();
  const vectors = interrupts.enable(Msix, 3);
  t.same(
    vectors.map(vector => vector.index),
    [0, 1, 2],
  );
  t.same(interrupts.vectors(Msix), vectors);
  t.same(interrupts.vectors(Msi), []);
  t.same(kernel.setIrqs, [
    {
      flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
      index: Msix,
      start: 0,
      count: 3,
      eventfds: vectors.map(vector => vector.eventfd),
    },
  ]);
  const seen: string[] = [];
  const [first, second] = [0, 1].map(i => vectors[i]!.listen(count => seen.push(`${i}:${count}`)));
  kernel.interrupt(Msix, 1);
  await until(() => seen.length === 1);
  t.same(seen, ['1:1'], 'only the vector that interrupted');
  kernel.interrupt(Msix, 0, 5);
  kernel.interrupt(Msix, 0, 2);
  await until(() => seen.length === 2);
  t.same(seen, ['1:1', '0:7'], 'what came together arrives as one, with the count');
  interrupts.trigger(Msix, 0);
  await until(() => seen.length === 3);
  t.equal(seen[2], '0:1', 'a triggered one arrives like any other');
  t.same(kernel.setIrqs.at(-1), {
    flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
    index: Msix,
    start: 0,
    count: 1,
    eventfds: [],
  });
  first![Symbol.dispose]();
  kernel.interrupt(Msix, 0);
  kernel.interrupt(Msix, 1);
  await until(() => seen.length === 4);
  await turn();
  t.same(seen.slice(3), ['1:1'], 'no calls after the registration ended');
  second![Symbol.dispose]();
  t.throws(() => interrupts.trigger(Msix, 3), RangeError);
  t.throws(() => interrupts.trigger(Msi, 0), RangeError);
  t.throws(() => vectors[0]!.listen(undefined as unknown as () => void), TypeError);
  interrupts.disable(Msix);
  t.throws(() => vectors[0]!.listen(() => undefined), { name: 'DisposedError' });
  kernel.close(kernel.fd);
  t.equal(openDescriptors(), before);
});

t.test('delivery to iterations', async t => {
  const { kernel, interrupts } = device();
  const [vector] = interrupts.enable(Msi, 1);
  const counts: number[] = [];
  let ended = 0;
  const iterate = async (): Promise<void> => {
    for await (const count of vector!) counts.push(count);
    ended++;
  };
  const both = Promise.all([iterate(), iterate()]);
  kernel.interrupt(Msi, 0, 3);
  await until(() => counts.length === 2);
  t.same(counts, [3, 3], 'each iteration gets each interrupt');

  // While the body of an iteration is busy, counts add up.
  const slow = vector![Symbol.asyncIterator]();
  const next = slow.next();
  kernel.interrupt(Msi, 0);
  t.same(await next, { value: 1, done: false });
  kernel.interrupt(Msi, 0, 2);
  await until(() => counts.length === 6);
  kernel.interrupt(Msi, 0, 4);
  await until(() => counts.length === 8);
  t.same(await slow.next(), { value: 6, done: false });
  const waiting = slow.next();

  interrupts.disable(Msi);
  await both;
  t.equal(ended, 2, 'disabling ends iterations');
  t.same(await waiting, { value: undefined, done: true });
  await t.rejects(
    vector![Symbol.asyncIterator]().next(),
    { name: 'DisposedError' },
    'and there are no new ones',
  );
  kernel.close(kernel.fd);
});

t.test('leaving an iteration', async t => {
  const { kernel, interrupts } = device();
  const [vector] = interrupts.enable(Msi, 1);
  kernel.interrupt(Msi, 0);
  for await (const count of vector!) {
    t.equal(count, 1);
    break;
  }
  let more = 0;
  vector!.listen(() => more++);
  kernel.interrupt(Msi, 0);
  await until(() => more === 1);
  t.pass('the vector goes on');
  // Disabled from within the body, and from within a listener.
  kernel.interrupt(Msi, 0);
  for await (const _ of vector!) interrupts.disable(Msi);
  const [again] = interrupts.enable(Msi, 1);
  again!.listen(() => interrupts.disable(Msi));
  kernel.interrupt(Msi, 0);
  await until(() => interrupts.vectors(Msi).length === 0);
  t.equal(kernel.connected, 0);
  kernel.close(kernel.fd);
});

t.test('the line is unmasked after its listeners have run', async t => {
  const { kernel, interrupts } = device();
  const [vector] = interrupts.enable(Intx);
  const order: string[] = [];
  const unmask = {
    flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
    index: Intx,
    start: 0,
    count: 1,
    eventfds: [],
  };
  const unmasked = (): number => kernel.setIrqs.filter(call => call.flags === unmask.flags).length;
  vector!.listen(() => order.push(`a, unmasked ${unmasked()} times`));
  vector!.listen(() => order.push(`b, unmasked ${unmasked()} times`));
  kernel.interrupt(Intx, 0);
  await until(() => unmasked() === 1);
  t.same(order, ['a, unmasked 0 times', 'b, unmasked 0 times']);
  t.same(kernel.setIrqs.at(-1), unmask);
  kernel.interrupt(Intx, 0);
  await until(() => unmasked() === 2);
  vector!.listen(() => interrupts.disable(Intx));
  kernel.interrupt(Intx, 0);
  await until(() => interrupts.vectors(Intx).length === 0);
  await turn();
  t.equal(unmasked(), 2, 'not when a listener disabled it');

  const [message] = interrupts.enable(Msix);
  let delivered = 0;
  message!.listen(() => delivered++);
  kernel.interrupt(Msix, 0);
  await until(() => delivered === 1);
  t.equal(unmasked(), 2, 'messages are not masked by delivery');
  interrupts.disable(Msix);
  kernel.close(kernel.fd);
});

t.test('disabling', async t => {
  const { kernel, interrupts } = device();
  const before = openDescriptors();
  interrupts.disable(Msix);
  t.same(kernel.calls, [], 'nothing to do');
  interrupts.enable(Msix, 8);
  t.equal(openDescriptors(), before + 8);
  interrupts.disable(Msix);
  t.same(kernel.setIrqs.at(-1), {
    flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
    index: Msix,
    start: 0,
    count: 0,
    eventfds: [],
  });
  t.equal(kernel.connected, 0);
  t.equal(openDescriptors(), before);
  t.same(interrupts.vectors(Msix), []);

  interrupts.enable(Intx);
  interrupts.enable(InterruptKind.Error);
  interrupts.enable(InterruptKind.Request);
  interrupts[Symbol.dispose]();
  t.equal(kernel.connected, 0, 'disposal disables every kind');
  t.equal(openDescriptors(), before);

  interrupts.enable(Msi, 4);
  kernel.refuse('VFIO_DEVICE_SET_IRQS', EINVAL);
  t.throws(() => interrupts.disable(Msi), { name: 'KernelError', code: 'EINVAL' }, 'what fails is reported');
  t.equal(openDescriptors(), before, 'but the eventfds are closed');
  t.same(interrupts.vectors(Msi), []);
  kernel.close(kernel.fd);
});

t.test('INTx, MSI and MSI-X exclude each other', async t => {
  const { kernel, interrupts } = device();
  const before = openDescriptors();
  for (const kind of [Intx, Msi, Msix]) {
    interrupts.enable(kind);
    const calls = kernel.setIrqs.length;
    for (const other of [Intx, Msi, Msix]) {
      t.throws(() => interrupts.enable(other), {
        name: 'DeviceError',
        code: DeviceErrorCode.Busy,
        message: /interrupts are enabled/,
      });
    }
    t.equal(kernel.setIrqs.length, calls, 'the kernel is not asked');
    interrupts.enable(InterruptKind.Error);
    t.throws(() => interrupts.enable(InterruptKind.Error), { code: DeviceErrorCode.Busy });
    interrupts.disable(InterruptKind.Error);
    interrupts.disable(kind);
  }
  t.equal(openDescriptors(), before);
  kernel.close(kernel.fd);
});

t.test('enabling that fails leaves nothing behind', async t => {
  const { kernel, interrupts } = device();
  const before = openDescriptors();
  const clean = (name: string): void => {
    t.equal(openDescriptors(), before, `${name}: no descriptor`);
    t.same(interrupts.vectors(Msix), [], `${name}: no vector`);
    t.equal(kernel.connected, 0);
  };
  t.throws(() => interrupts.enable(Msix, 9), { name: 'RangeError', message: /has 8 MSI-X vectors, not 9/ });
  clean('more than there are');
  for (const count of [0, -1, 1.5, Number.NaN]) t.throws(() => interrupts.enable(Msix, count), RangeError);
  t.throws(() => interrupts.enable(Msix, '1' as unknown as number), TypeError);
  kernel.irqs[Msi] = { flags: 0, count: 0 };
  t.throws(() => interrupts.enable(Msi), { name: 'DeviceError', code: DeviceErrorCode.Unsupported });
  kernel.available = 5;
  t.throws(() => interrupts.enable(Msix, 6), {
    name: 'DeviceError',
    code: DeviceErrorCode.Unsupported,
    message: /only 5 of 6/,
  });
  clean('fewer available now');
  t.equal(interrupts.enable(Msix, 5).length, 5, 'as many as there are can be had');
  interrupts.disable(Msix);
  clean('afterwards');
  kernel.refuse('VFIO_DEVICE_SET_IRQS', EINVAL);
  t.throws(() => interrupts.enable(Msix, 4), {
    name: 'KernelError',
    request: 'VFIO_DEVICE_SET_IRQS',
    code: 'EINVAL',
  });
  clean('the ioctl fails');
  kernel.refuse('VFIO_DEVICE_GET_IRQ_INFO', EINVAL);
  t.throws(() => interrupts.enable(Msix, 4), { name: 'KernelError', request: 'VFIO_DEVICE_GET_IRQ_INFO' });
  clean('asking fails');
  kernel.refuse('eventfd', EMFILE, 2);
  t.throws(() => interrupts.enable(Msix, 4), { name: 'KernelError', syscall: 'eventfd', code: 'EMFILE' });
  clean('the third eventfd cannot be made');
  kernel.refuse('watch', EINVAL, 2);
  t.throws(() => interrupts.enable(Msix, 4), { message: 'watch refused' });
  clean('the third cannot be watched');
  kernel.refuse('watch', EINVAL, 2);
  kernel.refuse('close', EIO, 1);
  t.throws(() => interrupts.enable(Msix, 4), { name: 'AggregateError', errors: [{ code: 'EIO' }, Error] });
  clean('nor can the first be closed in order');
  kernel.close(kernel.fd);
});

t.test('a continuation runs right after the interrupt, not with the next event', async t => {
  const { kernel, interrupts } = device();
  const [vector] = interrupts.enable(Msi, 1);
  for (let i = 0; i < 20; i++) {
    const next = vector![Symbol.asyncIterator]().next();
    await sleep(1);
    const start = performance.now();
    kernel.interrupt(Msi, 0);
    await next;
    const took = performance.now() - start;
    if (took > 500) t.fail(`took ${took} ms`);
  }
  t.pass();
  interrupts.disable(Msi);
  kernel.close(kernel.fd);
});

/** A program with an enabled vector. */
const program = (rest: string): string => `
  import { FakeVfioDevice } from ${JSON.stringify(new URL('./support/fake-vfio.js', import.meta.url))};
  import { Interrupts } from ${JSON.stringify(new URL('../../src/vfio/interrupts.js', import.meta.url))};
  const kernel = new FakeVfioDevice();
  const interrupts = new Interrupts(kernel, () => kernel.fd, 'device');
  const [vector] = interrupts.enable(1);
  ${rest}`;

t.test('a vector and the life of the process', async t => {
  const idle = await runScript(program('vector.unref(); vector.listen(() => undefined);'));
  t.match(idle, { code: 0, signal: null }, 'unref lets it end');
  const busy = await runScript(
    program(`
    let n = 0;
    vector.listen(() => { console.log('interrupt'); if (++n === 2) interrupts.disable(1); else kernel.interrupt(1, 0); });
    kernel.interrupt(1, 0);`),
  );
  t.match(busy, { code: 0, stdout: 'interrupt\ninterrupt\n' }, 'an enabled vector keeps it alive');
  const thrown = await runScript(
    program(`
    process.on('uncaughtException', error => console.log('uncaught', error.message));
    let n = 0;
    vector.listen(() => {
      if (++n === 3) interrupts.disable(1);
      else kernel.interrupt(1, 0);
      throw new Error('listener ' + n);
    });
    kernel.interrupt(1, 0);`),
  );
  t.match(
    thrown,
    { code: 0, stdout: 'uncaught listener 1\nuncaught listener 2\nuncaught listener 3\n' },
    'an exception of a listener is an uncaught exception, and the next interrupt still arrives',
  );
  const late = await runScript(program(`interrupts.disable(1); vector.unref(); console.log('alive');`));
  t.match(late, { code: 0, signal: null, stdout: 'alive\n' }, 'unref after disabling does no harm');
});
