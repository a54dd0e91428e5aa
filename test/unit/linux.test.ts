// The real system calls: none of these needs privileges or a device. What cannot be passed must be refused before the
// foreign-function layer truncates it; some of that would end the process, and is tried in another one.
import { constants } from 'node:buffer';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { linux } from '../../bindings/linux.js';
import {
  EACCES,
  EBADF,
  EINVAL,
  EISDIR,
  EMSGSIZE,
  ENOENT,
  ENOMEM,
  ENOSYS,
  ENOTDIR,
  ENOTTY,
  EPERM,
} from '../../bindings/uapi/errno.js';
import { EFD_NONBLOCK } from '../../bindings/uapi/eventfd.js';
import {
  F_ADD_SEALS,
  F_GET_SEALS,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
} from '../../bindings/uapi/fcntl.js';
import { KEXEC_FILE_NO_INITRAMFS } from '../../bindings/uapi/kexec.js';
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from '../../bindings/uapi/memfd.js';
import {
  MADV_DONTFORK,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from '../../bindings/uapi/mman.js';
import { createSealedMemfd, PageSize } from '../../src/memory/memfd.js';
import { linuxModule, runScript } from './support/child.js';
import { DelegatingKernel } from './support/delegating-kernel.js';
import { mappings, openDescriptors } from './support/holdings.js';

const kernel = linux();
const PAGE = 4096;
const EAGAIN = 11;
const O_RDONLY = 0;
const O_WRONLY = 1;
const O_RDWR = 2;

const directory = mkdtempSync(join(tmpdir(), 'linux-test-'));
t.teardown(() => rmSync(directory, { recursive: true }));
const text = join(directory, 'text');
writeFileSync(text, 'hello\n');

t.test('open, read, write and close', async t => {
  const before = openDescriptors();
  const fd = kernel.open(text, O_RDWR);
  t.ok(fd > 2);
  const buffer = new Uint8Array(16);
  t.equal(kernel.read(fd, buffer), 6, 'short at the end');
  t.equal(Buffer.from(buffer).toString('latin1', 0, 6), 'hello\n');
  t.equal(kernel.read(fd, buffer), 0, 'the end');
  t.equal(kernel.read(fd, new Uint8Array(0)), 0);
  t.equal(kernel.pwrite(fd, Buffer.from('J'), 0), 1);
  t.equal(kernel.pread(fd, buffer.subarray(4, 6), 0), 2);
  t.same([...buffer.subarray(3, 7)], [0x6c, 0x4a, 0x65, 0], 'into the part of a buffer that was given');
  t.equal(kernel.pread(fd, buffer, 1000), 0);
  t.equal(kernel.write(fd, Buffer.from('!\n')), 2);
  t.equal(kernel.readText(text), 'Jello\n!\n');
  t.equal(kernel.close(fd), 0);
  t.equal(kernel.close(fd), -EBADF);
  t.equal(openDescriptors(), before);

  for (const bad of [fd, -1, 0x7fff_ffff]) {
    t.equal(kernel.read(bad, buffer), -EBADF);
    t.equal(kernel.write(bad, buffer), -EBADF);
    t.equal(kernel.pread(bad, buffer, 0), -EBADF);
    t.equal(kernel.pwrite(bad, buffer, 0), -EBADF);
    t.equal(kernel.ioctl(bad, 0x3b80, buffer), -EBADF);
    t.equal(kernel.ioctl(bad, 0x3b80, 0), -EBADF);
    t.equal(kernel.fcntl(bad, F_GET_SEALS, 0), -EBADF);
    t.equal(kernel.ftruncate(bad, 0), -EBADF);
    t.equal(kernel.close(bad), -EBADF);
    t.equal(kernel.mmap(PAGE, PROT_READ, MAP_SHARED, bad, 0), BigInt(-EBADF));
  }
  t.equal(kernel.open(join(directory, 'none'), O_RDONLY), -ENOENT);
  t.equal(kernel.open(join(directory, 'new'), O_RDWR), -ENOENT, 'never makes a file');
  t.equal(kernel.open(join(text, 'below'), O_RDONLY), -ENOTDIR);
  t.equal(kernel.open(directory, O_RDWR), -EISDIR);
  t.equal(kernel.open('', O_RDONLY), -ENOENT);
  const readOnly = kernel.open(text, O_RDONLY);
  t.equal(kernel.write(readOnly, buffer), -EBADF);
  kernel.close(readOnly);
  const writeOnly = kernel.open(text, O_WRONLY);
  t.equal(kernel.read(writeOnly, buffer), -EBADF);
  t.match(kernel.readText(`/proc/self/fdinfo/${writeOnly}`), /flags:\s+02\d*00001/, 'opened close-on-exec');
  kernel.close(writeOnly);
});

t.test('ioctl', async t => {
  const fd = kernel.open('/dev/null', O_RDWR);
  t.equal(kernel.ioctl(fd, 0x3b80, new Uint8Array(8)), -ENOTTY);
  t.equal(kernel.ioctl(fd, 0x3b80, 0), -ENOTTY);
  t.equal(kernel.ioctl(fd, 0x3b80, 2 ** 40), -ENOTTY);
  kernel.close(fd);
  // FIONREAD puts the bytes that can be read into an int.
  const file = kernel.open(text, O_RDONLY);
  const count = new Int32Array(1);
  t.equal(kernel.ioctl(file, 0x541b, new Uint8Array(count.buffer)), 0);
  t.equal(count[0], 8, 'the kernel writes into the bytes that were given');
  kernel.close(file);
});

t.test('memfd, its size and its seals', async t => {
  const fd = kernel.memfdCreate('seals', MFD_CLOEXEC | MFD_ALLOW_SEALING);
  t.ok(fd > 2);
  t.equal(kernel.readLink(`/proc/self/fd/${fd}`), '/memfd:seals (deleted)');
  t.equal(kernel.ftruncate(fd, 2 ** 41), 0, 'sizes beyond 32 bits');
  t.equal(kernel.pwrite(fd, Uint8Array.of(7), 2 ** 41 - 1), 1, 'and offsets');
  t.equal(kernel.pwrite(fd, Uint8Array.of(8), 2 ** 32 + 5), 1);
  const byte = new Uint8Array(1);
  kernel.pread(fd, byte, 5);
  t.equal(byte[0], 0, 'an offset is not cut to 32 bits');
  t.equal(kernel.fcntl(fd, F_GET_SEALS, 0), 0);
  t.equal(kernel.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
  t.equal(kernel.fcntl(fd, F_GET_SEALS, 0), F_SEAL_GROW);
  t.equal(kernel.ftruncate(fd, 2 ** 42), -EPERM);
  t.equal(kernel.fcntl(fd, F_ADD_SEALS, 0x4000_0000), -EINVAL);
  kernel.close(fd);
  t.equal(kernel.memfdCreate('x'.repeat(300), MFD_CLOEXEC), -EINVAL);
  t.equal(kernel.memfdCreate('flags', 0x4000), -EINVAL);
});

t.test('a sealed memfd', async t => {
  const before = openDescriptors();
  const fd = createSealedMemfd(kernel, 'sealed', 3 * PAGE, PageSize.Small);
  t.equal(kernel.readLink(`/proc/self/fd/${fd}`), '/memfd:sealed (deleted)');
  t.equal(kernel.fcntl(fd, F_GET_SEALS, 0), F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW);
  t.equal(kernel.ftruncate(fd, 4 * PAGE), -EPERM, 'cannot grow');
  t.equal(kernel.ftruncate(fd, 2 * PAGE), -EPERM, 'cannot shrink');
  t.equal(kernel.ftruncate(fd, 3 * PAGE), 0);
  t.equal(kernel.fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), -EPERM, 'takes no further seals');
  t.equal(kernel.pwrite(fd, Uint8Array.of(1), 3 * PAGE - 1), 1);
  t.not(kernel.pwrite(fd, Uint8Array.of(1), 3 * PAGE), 1, 'ends where it ends');
  t.match(kernel.readText(`/proc/self/fdinfo/${fd}`), /flags:\s+02\d*2/, 'close-on-exec');
  kernel.close(fd);

  const failing = new DelegatingKernel();
  for (const call of ['memfdCreate', 'ftruncate', 'fcntl']) {
    failing.refuse(call, ENOMEM);
    t.throws(() => createSealedMemfd(failing, 'fails', PAGE, PageSize.Small), {
      name: 'KernelError',
      code: 'ENOMEM',
    });
    t.equal(openDescriptors(), before, `${call}: nothing stays open`);
  }
});

t.test('two mappings of one memfd', async t => {
  const fd = kernel.memfdCreate('two-mappings', MFD_CLOEXEC);
  kernel.ftruncate(fd, 4 * PAGE);
  const first = kernel.mmap(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const second = kernel.mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 2 * PAGE);
  t.ok(first > 0n && second > 0n && first % 4096n === 0n);
  t.equal(mappings('memfd:two-mappings'), 2);
  {
    const [a, b] = [
      new Uint8Array(kernel.view(first, 4 * PAGE)),
      new Uint8Array(kernel.view(second, 2 * PAGE)),
    ];
    t.equal(a.byteLength, 4 * PAGE);
    a[2 * PAGE + 17] = 99;
    t.equal(b[17], 99, 'what one writes the other reads');
    b.fill(3);
    t.ok(a.subarray(2 * PAGE).every(byte => byte === 3));
    t.ok(a.subarray(0, 2 * PAGE).every(byte => byte === 0));
    const inner = new Uint8Array(kernel.view(first + 4096n, PAGE));
    inner[0] = 77;
    t.equal(a[PAGE], 77, 'a view of a part');
    t.equal(kernel.addressOf(a), first, 'the address of a view is that of the memory');
    t.equal(kernel.addressOf(a.subarray(5)), first + 5n);
  }
  t.equal(kernel.madvise(first, PAGE, MADV_DONTFORK), 0);
  t.equal(kernel.madvise(first, PAGE, 0x7777), -EINVAL);
  t.equal(kernel.munmap(second, 2 * PAGE), 0);
  t.equal(mappings('memfd:two-mappings') > 0, true);
  t.equal(kernel.munmap(first, 4 * PAGE), 0);
  t.equal(mappings('memfd:two-mappings'), 0);
  t.equal(kernel.madvise(first, PAGE, MADV_DONTFORK), -ENOMEM);
  kernel.close(fd);

  t.equal(kernel.mmap(0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), BigInt(-EINVAL));
  t.equal(kernel.mmap(2 ** 52, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), BigInt(-ENOMEM));
  t.equal(kernel.mmap(PAGE, PROT_READ, MAP_SHARED, -1, 0), BigInt(-EBADF));
  const readOnly = kernel.open(text, O_RDONLY);
  t.equal(kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, readOnly, 0), BigInt(-EACCES));
  t.equal(
    kernel.mmap(PAGE, PROT_READ, MAP_SHARED, readOnly, 100),
    BigInt(-EINVAL),
    'an offset within a page',
  );
  kernel.close(readOnly);
});

t.test('addressOf', async t => {
  const bytes = new Uint8Array(64);
  const address = kernel.addressOf(bytes);
  t.type(address, 'bigint');
  bytes[10] = 5;
  t.equal(new Uint8Array(kernel.view(address, 64))[10], 5, 'is where the bytes are');
  t.equal(kernel.addressOf(bytes.subarray(10)), address + 10n);
  const small = Uint8Array.of(1, 2, 3, 4);
  const where = kernel.addressOf(small);
  const garbage = Array.from({ length: 200_000 }, (_, i) => [i]);
  t.equal(garbage.length, 200_000);
  t.equal(kernel.addressOf(small), where, 'a small one stays where it is, too');
  t.same(new Uint8Array(kernel.view(where, 4)), small);
});

t.test('eventfd and watch', async t => {
  const fd = kernel.eventfd(3, EFD_NONBLOCK);
  const value = new BigUint64Array(1);
  const bytes = new Uint8Array(value.buffer);
  t.equal(kernel.read(fd, bytes), 8);
  t.equal(value[0], 3n);
  t.equal(kernel.read(fd, bytes), -EAGAIN);
  t.equal(kernel.read(fd, new Uint8Array(4)), -EINVAL);
  const signal = (): void => {
    t.equal(kernel.write(fd, new Uint8Array(new BigUint64Array([1n]).buffer)), 8);
  };

  let calls = 0;
  let drain = true;
  const watch = kernel.watch(fd, () => {
    calls++;
    if (drain) kernel.read(fd, bytes);
  });
  const until = async (condition: () => boolean): Promise<void> => {
    const deadline = performance.now() + 5000;
    while (!condition() && performance.now() < deadline) await turn();
    t.ok(condition());
  };
  for (let i = 0; i < 5; i++) await turn();
  t.equal(calls, 0, 'not called while there is nothing to read');
  signal();
  t.equal(calls, 0, 'called from the event loop only');
  await until(() => calls === 1);
  for (let i = 0; i < 5; i++) await turn();
  t.equal(calls, 1, 'once, when it is drained');
  drain = false;
  signal();
  await until(() => calls >= 5);
  drain = true;
  kernel.read(fd, bytes);
  await turn();
  const level = calls;
  for (let i = 0; i < 5; i++) await turn();
  t.equal(calls, level, 'again and again while it is not');
  signal();
  watch[Symbol.dispose]();
  watch[Symbol.dispose]();
  for (let i = 0; i < 5; i++) await turn();
  t.equal(calls, level, 'not after disposal');
  const again = kernel.watch(fd, () => {
    calls++;
    again[Symbol.dispose]();
  });
  await until(() => calls === level + 1);
  for (let i = 0; i < 5; i++) await turn();
  t.equal(calls, level + 1, 'watched anew, and disposed of in its own callback');
  kernel.close(fd);
  t.throws(() => kernel.watch(fd, undefined as unknown as () => void), TypeError);
});

const script = (rest: string): string => `
  import { linux } from ${JSON.stringify(linuxModule)};
  const kernel = linux();
  const fd = kernel.eventfd(0, ${EFD_NONBLOCK});
  const one = new Uint8Array([1, 0, 0, 0, 0, 0, 0, 0]);
  ${rest}`;

t.test('a watch and the life of the process', async t => {
  t.match(
    await runScript(script('kernel.watch(fd, () => undefined).unref();')),
    { code: 0, signal: null },
    'unref',
  );
  const ref = script(`
    const watch = kernel.watch(fd, () => { console.log('called'); watch[Symbol.dispose](); });
    watch.unref();
    watch.ref();
    setTimeout(() => kernel.write(fd, one), 20).unref();
    setTimeout(() => undefined, 40);`);
  t.match(await runScript(ref), { code: 0, stdout: 'called\n' }, 'ref');
  t.match(
    await runScript(
      script('kernel.watch(fd, () => undefined); setTimeout(() => console.log("timer"), 10);'),
      1500,
    ),
    { signal: 'SIGKILL', stdout: 'timer\n' },
    'without unref it stays',
  );
  const disposed = script(
    'const w = kernel.watch(fd, () => 0); w[Symbol.dispose](); w.unref(); w.ref(); console.log("alive");',
  );
  t.match(
    await runScript(disposed),
    { code: 0, stdout: 'alive\n' },
    'ref and unref after disposal do nothing',
  );
  const throws = script(`
    process.on('uncaughtException', error => console.log('uncaught', error.message));
    let n = 0;
    const watch = kernel.watch(fd, () => {
      if (++n === 2) watch[Symbol.dispose]();
      throw new Error('number ' + n);
    });
    kernel.write(fd, one);`);
  t.match(
    await runScript(throws),
    { code: 0, stdout: 'uncaught number 1\nuncaught number 2\n' },
    'what a callback throws is an uncaught exception, and it is called again',
  );
});

t.test('what cannot be watched', async t => {
  for (const [name, watched] of [
    ['a bad descriptor', '12345'],
    ['no descriptor', '-1'],
    ['an ordinary file', `kernel.open(${JSON.stringify(text)}, 0)`],
    ['one that is watched already', '(kernel.watch(fd, () => undefined).unref(), fd)'],
  ] as const) {
    const source = script(`
      try { kernel.watch(${watched}, () => undefined); } catch (error) { console.log(error instanceof Error); }`);
    t.match(await runScript(source), { code: 0, signal: null, stdout: 'true\n' }, `${name}: an Error`);
  }
});

t.test('small files, directories and links', async t => {
  const file = join(directory, 'attribute');
  writeFileSync(file, '0x1b36\n');
  t.equal(kernel.readText(file), '0x1b36\n');
  t.equal(kernel.writeText(file, 'vfio-pci'), 8);
  t.equal(kernel.readText(file), 'vfio-pci');
  t.equal(kernel.writeText(file, ''), 0);
  writeFileSync(file, 'é€😀');
  t.equal(kernel.readText(file), 'é€😀', 'UTF-8');
  t.equal(kernel.writeText(file, 'é'), 2, 'in bytes');
  writeFileSync(file, 'x'.repeat(40_000));
  t.equal((kernel.readText(file) as string).length, 40_000);
  t.equal(kernel.readText(join(directory, 'none')), -ENOENT);
  t.equal(kernel.readText(directory), -EISDIR);
  t.equal(kernel.writeText(join(directory, 'none'), 'x'), -ENOENT);
  t.equal(existsSync(join(directory, 'none')), false, 'no file is made');
  t.equal(kernel.writeText(directory, 'x'), -EISDIR);
  t.ok((kernel.readText('/proc/self/mountinfo') as string).length > 0, 'a file without size');

  symlinkSync('../somewhere/else', join(directory, 'link'));
  t.equal(kernel.readLink(join(directory, 'link')), '../somewhere/else');
  t.equal(kernel.readLink(file), -EINVAL);
  t.equal(kernel.readLink(join(directory, 'none')), -ENOENT);
  t.same(kernel.readDirectory(directory), ['attribute', 'link', 'text'], 'sorted');
  t.equal(kernel.readDirectory(join(directory, 'none')), -ENOENT);
  t.equal(kernel.readDirectory(file), -ENOTDIR);
  t.equal(kernel.access(file, 0), 0);
  t.equal(kernel.access(file, 6), 0);
  t.equal(kernel.access(join(directory, 'none'), 0), -ENOENT);
  t.equal(kernel.access(join(directory, 'link'), 0), -ENOENT, 'a link is followed');
  const before = openDescriptors();
  for (let i = 0; i < 10; i++) {
    kernel.readText(file);
    kernel.writeText(file, 'x');
    kernel.readText(directory);
  }
  t.equal(openDescriptors(), before, 'nothing stays open');
});

// How sockets behave is in sim-sockets.test.ts, for this kernel and the simulated one.
t.test('a message with more descriptors than the process may have', async t => {
  const source = `
    import { readdirSync } from 'node:fs';
    import { linux } from ${JSON.stringify(linuxModule)};
    const kernel = linux();
    const [one, other] = kernel.socketPair(5);
    const buffer = new Uint8Array(4);
    const open = () => readdirSync('/proc/self/fd').length;
    const before = open();
    const results = [kernel.sendMessage(one, Uint8Array.of(1), new Array(100).fill(0))];
    results.push(kernel.receiveMessage(other, buffer), open() - before);
    kernel.sendMessage(one, Uint8Array.of(1), [0]);
    const { length, fds } = kernel.receiveMessage(other, buffer);
    console.log(...results, length, fds.length);`;
  const limited = 'ulimit -n 100; exec "$0" --input-type=module --eval "$1"';
  const output = execFileSync('sh', ['-c', limited, process.execPath, source], { encoding: 'utf8' });
  t.equal(output, `1 ${-EMSGSIZE} 0 1 1\n`, 'it is gone, and none of them stays open');
});

// Only what cannot load a kernel, or start one.
t.test('kexec', async t => {
  const refused = [EPERM, ENOSYS];
  const load = (flags: number): number => -kernel.kexecFileLoad(-1, -1, 'quiet', flags);
  t.ok([EBADF, ...refused].includes(load(KEXEC_FILE_NO_INITRAMFS)));
  t.ok([EINVAL, ...refused].includes(load(0x4000_0000)));
  for (const bad of [-2, 0.5, 2 ** 31]) {
    t.throws(() => kernel.kexecFileLoad(bad, -1, '', 0), RangeError);
    t.throws(() => kernel.kexecFileLoad(-1, bad, '', 0), RangeError);
  }
  for (const bad of [-1, 0.5, 2 ** 53]) t.throws(() => kernel.kexecFileLoad(-1, -1, '', bad), RangeError);
  t.throws(() => kernel.kexecFileLoad(-1, -1, 'a\0b', 0), RangeError);
  for (const bad of [0.5, 2 ** 32, -(2 ** 31) - 1, Number.NaN]) {
    t.throws(() => kernel.reboot(bad), RangeError);
  }
  for (const bad of [undefined, null, {}]) {
    const wrong = bad as unknown as number;
    t.throws(() => kernel.kexecFileLoad(wrong, -1, '', 0), TypeError);
    t.throws(() => kernel.kexecFileLoad(-1, wrong, '', 0), TypeError);
    t.throws(() => kernel.kexecFileLoad(-1, -1, wrong as unknown as string, 0), TypeError);
    t.throws(() => kernel.kexecFileLoad(-1, -1, '', wrong), TypeError);
    t.throws(() => kernel.reboot(wrong), TypeError);
  }
});

t.test('arguments that cannot be passed', async t => {
  const fd = kernel.open('/dev/null', O_RDWR);
  const bytes = new Uint8Array(8);
  const range: [string, () => unknown][] = [];
  const type: [string, () => unknown][] = [];
  const descriptors: [string, (bad: number) => unknown][] = [
    ['close', bad => kernel.close(bad)],
    ['ioctl', bad => kernel.ioctl(bad, 0, bytes)],
    ['read', bad => kernel.read(bad, bytes)],
    ['write', bad => kernel.write(bad, bytes)],
    ['pread', bad => kernel.pread(bad, bytes, 0)],
    ['pwrite', bad => kernel.pwrite(bad, bytes, 0)],
    ['fcntl', bad => kernel.fcntl(bad, F_GET_SEALS, 0)],
    ['ftruncate', bad => kernel.ftruncate(bad, 0)],
    ['mmap', bad => kernel.mmap(PAGE, 0, MAP_SHARED, bad, 0)],
    ['watch', bad => kernel.watch(bad, () => undefined)],
  ];
  for (const [name, call] of descriptors) {
    for (const bad of [Number.NaN, 0.5, -2, 2 ** 31, Number.POSITIVE_INFINITY, 2 ** 32 + fd]) {
      range.push([`${name}(${bad})`, () => call(bad)]);
    }
    for (const bad of [undefined, null, '0', 1n, {}])
      type.push([`${name}(${bad})`, () => call(bad as unknown as number)]);
  }
  const buffers: [string, (bad: Uint8Array) => unknown][] = [
    ['read', bad => kernel.read(fd, bad)],
    ['write', bad => kernel.write(fd, bad)],
    ['pread', bad => kernel.pread(fd, bad, 0)],
    ['pwrite', bad => kernel.pwrite(fd, bad, 0)],
    ['ioctl', bad => kernel.ioctl(fd, 0, bad)],
    ['addressOf', bad => kernel.addressOf(bad)],
  ];
  for (const [name, call] of buffers) {
    for (const bad of [
      undefined,
      null,
      'text',
      [1],
      new ArrayBuffer(8),
      new Uint16Array(4),
      new DataView(new ArrayBuffer(8)),
      {},
    ]) {
      type.push([`${name}(${Object.prototype.toString.call(bad)})`, () => call(bad as Uint8Array)]);
    }
  }
  const sizes: [string, (bad: number) => unknown][] = [
    ['pread offset', bad => kernel.pread(fd, bytes, bad)],
    ['pwrite offset', bad => kernel.pwrite(fd, bytes, bad)],
    ['ftruncate', bad => kernel.ftruncate(fd, bad)],
    ['mmap length', bad => kernel.mmap(bad, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)],
    ['mmap offset', bad => kernel.mmap(PAGE, PROT_READ, MAP_PRIVATE, fd, bad)],
    ['munmap', bad => kernel.munmap(0x1000n, bad)],
    ['madvise', bad => kernel.madvise(0x1000n, bad, MADV_DONTFORK)],
    ['view', bad => kernel.view(0x1000n, bad)],
    ['ioctl argument', bad => kernel.ioctl(fd, 0, bad)],
  ];
  for (const [name, call] of sizes) {
    for (const bad of [Number.NaN, 0.5, -1, 2 ** 53, Number.NEGATIVE_INFINITY]) {
      range.push([`${name} ${bad}`, () => call(bad)]);
    }
    for (const bad of [undefined, '1', 1n])
      type.push([`${name} ${typeof bad}`, () => call(bad as unknown as number)]);
  }
  const words: [string, (bad: number) => unknown][] = [
    ['open', bad => kernel.open(text, bad)],
    ['ioctl request', bad => kernel.ioctl(fd, bad, 0)],
    ['fcntl command', bad => kernel.fcntl(fd, bad, 0)],
    ['fcntl argument', bad => kernel.fcntl(fd, F_GET_SEALS, bad)],
    ['memfdCreate', bad => kernel.memfdCreate('x', bad)],
    ['eventfd initial', bad => kernel.eventfd(bad, 0)],
    ['eventfd flags', bad => kernel.eventfd(0, bad)],
    ['mmap protection', bad => kernel.mmap(PAGE, bad, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)],
    ['mmap flags', bad => kernel.mmap(PAGE, PROT_READ, bad, -1, 0)],
    ['madvise advice', bad => kernel.madvise(0x1000n, PAGE, bad)],
  ];
  for (const [name, call] of words) {
    for (const bad of [Number.NaN, 0.5, 2 ** 32, -(2 ** 31) - 1])
      range.push([`${name} ${bad}`, () => call(bad)]);
    for (const bad of [undefined, '1', 1n])
      type.push([`${name} ${typeof bad}`, () => call(bad as unknown as number)]);
  }
  const texts: [string, (bad: string) => unknown][] = [
    ['open', bad => kernel.open(bad, O_RDONLY)],
    ['memfdCreate', bad => kernel.memfdCreate(bad, 0)],
    ['readText', bad => kernel.readText(bad)],
    ['writeText path', bad => kernel.writeText(bad, 'x')],
    ['writeText text', bad => kernel.writeText('/dev/null', bad)],
    ['readDirectory', bad => kernel.readDirectory(bad)],
    ['readLink', bad => kernel.readLink(bad)],
    ['access', bad => kernel.access(bad, 0)],
  ];
  for (const [name, call] of texts) {
    range.push([`${name} with NUL`, () => call(`${text}\0x`)]);
    for (const bad of [undefined, 1, Buffer.from(text)])
      type.push([`${name} ${typeof bad}`, () => call(bad as unknown as string)]);
  }
  for (const bad of [-1, 8, 0.5, Number.NaN]) range.push([`access ${bad}`, () => kernel.access(text, bad)]);
  range.push(['view(0n)', () => kernel.view(0n, PAGE)], ['view(-1n)', () => kernel.view(-1n, PAGE)]);
  const before = openDescriptors();
  for (const [name, call] of range) t.throws(call, RangeError, name);
  for (const [name, call] of type) t.throws(call, TypeError, name);
  t.equal(openDescriptors(), before);
  kernel.close(fd);
});

t.test('addresses that cannot be passed', async t => {
  const address = kernel.mmap(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const mapped = (): boolean => kernel.madvise(address, PAGE, MADV_DONTFORK) === 0;
  for (const [name, bad] of [
    ['a bigint beyond 64 bits, which would be cut to a mapped address', 2n ** 64n + address],
    ['a negative one', -4096n],
    ['NaN', Number.NaN],
    ['a fraction', 4096.5],
    ['undefined', undefined],
    ['text', '4096'],
  ] as [string, bigint][]) {
    const error = typeof bad === 'bigint' ? RangeError : TypeError;
    t.throws(() => kernel.munmap(bad, PAGE), error, `munmap: ${name}`);
    t.throws(() => kernel.madvise(bad, PAGE, MADV_DONTFORK), error, `madvise: ${name}`);
    t.ok(mapped(), 'nothing was unmapped');
  }
  kernel.munmap(address, PAGE);
  // 4 GiB with Node.js 20; later ones take all that can be mapped.
  const beyond = 2 ** 36 > constants.MAX_LENGTH ? 'RangeError' : 'no error';
  for (const [name, arguments_, outcome] of [
    ['an address beyond 64 bits', '2n ** 64n + 4096n, 4096', 'RangeError'],
    ['64 GiB', `kernel.mmap(2 ** 36, 3, ${MAP_PRIVATE | MAP_ANONYMOUS | 0x4000}, -1, 0), 2 ** 36`, beyond],
  ] as const) {
    const source = script(`
      try { kernel.view(${arguments_}); console.log('no error'); } catch (error) { console.log(error.name); }`);
    t.match(await runScript(source), { code: 0, signal: null, stdout: `${outcome}\n` }, `view: ${name}`);
  }
});
