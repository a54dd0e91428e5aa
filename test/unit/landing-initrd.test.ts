// Initrd images: what is in them, whether the landing script would be the first to run, and adding it. Other programs
// make images to read, and read images that were made here.
import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { crc32 } from '../../src/keepalive/crc32.js';
import {
  CPIO_ALIGNMENT,
  characterDevice,
  directory,
  FileType,
  file,
  link,
  packCpio,
  program,
  unpackCpio,
} from '../../src/keepalive/landing/cpio.js';
import { LandingImageError } from '../../src/keepalive/landing/image-error.js';
import { appendLanding, checkImage } from '../../src/keepalive/landing/initrd.js';
import { InitrdImage } from '../../src/keepalive/landing/initrd-image.js';
import type { LandingPlan } from '../../src/keepalive/landing/plan.js';
import { ImageKind, landingBody, scriptInImage } from '../../src/keepalive/landing/script.js';
import { pciAddress } from '../../src/pci/address.js';

const identity = {
  address: pciAddress('0000:00:04.0'),
  vendorId: 0x1b36,
  deviceId: 0x0010,
  subsystemVendorId: 0x1af4,
  subsystemDeviceId: 0x1100,
  classCode: 0x010802,
};

const plan: LandingPlan = {
  release: '7.3.4',
  vfioPci: 'module',
  devices: [
    {
      address: identity.address,
      identity,
      natives: [{ module: 'nvme_like', builtIn: false }],
      method: 'script',
    },
  ],
  commandLine: [],
  script: landingBody([identity]),
  needsScript: true,
  problems: [],
};
const otherPlan: LandingPlan = { ...plan, script: landingBody([{ ...identity, deviceId: 0x11 }]) };

const text = (words: string): Buffer => Buffer.from(words);
const PARAMETERS = '[ -e /conf/param.conf ] && . /conf/param.conf';
const OURS = '/scripts/init-top/00-iommufd-land "$@"';

/** As mkinitramfs makes them. */
const initramfsTools = [
  directory('scripts'),
  directory('scripts/init-top'),
  program('init', text('#!/bin/sh\nrun_scripts /scripts/init-top\n')),
  program('scripts/init-top/udev', text('#!/bin/sh\n')),
  file('scripts/init-top/ORDER', text(`/scripts/init-top/udev "$@"\n${PARAMETERS}\n`)),
];

/** As dracut makes them, with systemd: directories are links, and hooks lie elsewhere in later versions. */
const dracut = (
  hooks: 'usr/lib/dracut/hooks' | 'var/lib/dracut/hooks',
  ...more: ReturnType<typeof file>[]
) => [
  ...['usr', 'usr/bin', 'usr/lib', 'usr/lib/dracut', 'var', 'var/lib', 'var/lib/dracut'].map(directory),
  link('bin', 'usr/bin'),
  link('lib', 'usr/lib'),
  directory(hooks),
  directory(`${hooks}/pre-udev`),
  ...(hooks.startsWith('var') ? [link('usr/lib/dracut/hooks', '../../../var/lib/dracut/hooks')] : []),
  link('init', 'usr/lib/systemd/systemd'),
  program('usr/bin/dracut-pre-udev', text('#!/bin/sh\nsource_hook pre-udev\n')),
  file('usr/lib/systemd/system/dracut-pre-udev.service', text('[Unit]\n')),
  link(
    'etc/systemd/system/initrd.target.wants/dracut-pre-udev.service',
    '/lib/systemd/system/dracut-pre-udev.service',
  ),
  file(`${hooks}/pre-udev/30-dm-pre-udev.sh`, text('modprobe dm_mod\n')),
  ...more,
];

const problemsOf = (image: Uint8Array, of = plan): string[] =>
  checkImage(of, image).map(({ problem }) => problem);
const available = (name: string): boolean => spawnSync(name, ['--version']).error === undefined;

t.test('archives', async t => {
  const items = [
    directory('a'),
    file('a/odd', text('12345')),
    program('a/run', text('#!/bin/sh\n')),
    link('b', 'a/odd'),
    characterDevice('console', 5, 1),
    file('empty', text('')),
  ];
  const archive = packCpio(items);
  const { entries, end } = unpackCpio(Buffer.concat([Buffer.alloc(512), archive, Buffer.alloc(4)]), 512);
  t.equal(end, 512 + archive.length);
  t.strictSame(
    entries.map(({ path, mode, data }) => [path, mode, Buffer.from(data).toString()]),
    items.map(({ path, mode, data = '' }) => [path, mode, data.toString()]),
  );
  t.equal(archive.length % CPIO_ALIGNMENT, 0);

  for (const length of [0, 50, 109, 110, 115, 200, archive.length - 1]) {
    t.throws(() => unpackCpio(archive.subarray(0, length), 0), LandingImageError, `cut off at ${length}`);
  }
  const damaged = Buffer.from(archive);
  damaged.write('zz', 14);
  t.throws(() => unpackCpio(damaged, 0), /damaged/);
  const nameless = Buffer.from(archive);
  nameless.write('00000000', 6 + 8 * 11);
  t.throws(() => unpackCpio(nameless, 0), LandingImageError);
});

const busybox = spawnSync('busybox', ['--list'], { encoding: 'utf8' }).stdout?.split('\n') ?? [];
t.test('another cpio', { skip: !busybox.includes('cpio') && 'there is no cpio of busybox' }, async t => {
  const cpio = (args: string[], input: string | Buffer, cwd: string): Buffer =>
    spawnSync('busybox', ['cpio', ...args], { cwd, input }).stdout;

  const out = t.testdir({});
  cpio(['-i', '-d'], packCpio(initramfsTools), out);
  t.equal(
    readFileSync(join(out, 'scripts/init-top/ORDER'), 'utf8'),
    `/scripts/init-top/udev "$@"\n${PARAMETERS}\n`,
  );
  t.equal(statSync(join(out, 'init')).mode, FileType.Regular | 0o755);

  writeFileSync(join(out, 'one'), 'in both');
  spawnSync('ln', ['one', 'two'], { cwd: out });
  symlinkSync('one', join(out, 'three'));
  const image = new InitrdImage(cpio(['-o', '-H', 'newc'], 'one\ntwo\nthree\ninit\n', out));
  t.equal(image.text('one'), 'in both', 'a file with two names');
  t.equal(image.text('/two'), 'in both');
  t.equal(image.text('three'), 'in both', 'a link to it');
  t.match(image.text('init'), /run_scripts/);
});

t.test('archives one after the other', async t => {
  const early = packCpio([
    directory('kernel'),
    file('kernel/microcode', Buffer.alloc(1000, 1)),
    file('x', text('1')),
  ]);
  const main = gzipSync(packCpio([...initramfsTools, file('x', text('2')), file('y', text('2'))]));
  const late = packCpio([file('./y', text('3'))]);
  const gap = Buffer.alloc(-main.length & 3);
  const image = new InitrdImage(Buffer.concat([early, Buffer.alloc(512), main, gap, late]));
  t.equal(image.text('x'), '2', 'what comes later counts');
  t.equal(image.text('y'), '3');
  t.equal(image.file('kernel/microcode')?.data.length, 1000);
  t.strictSame(image.names('scripts/init-top'), ['ORDER', 'udev']);
  t.strictSame(image.names('/'), ['init', 'kernel', 'scripts', 'x', 'y']);
  t.equal(image.text('nothing'), undefined);
  t.equal(image.text('kernel'), undefined, 'no file');
  t.equal(image.has('kernel'), true);
  t.throws(() => new InitrdImage(Buffer.concat([main, text('junk')])), /nor a known compression at byte/);
  t.throws(() => new InitrdImage(gzipSync(main)), /no archive at byte 0 of a compressed part/);
  // The kernel takes an archive only where a word begins.
  t.throws(() => new InitrdImage(Buffer.concat([Buffer.alloc(1), early])), LandingImageError);
});

t.test('links', async t => {
  const image = new InitrdImage(
    packCpio([
      directory('usr'),
      directory('usr/lib'),
      link('lib', 'usr/lib'),
      file('lib/through', text('a link of a directory')),
      link('usr/absolute', '/lib/through'),
      link('usr/relative', '../lib/./through'),
      link('round', 'and-round'),
      link('and-round', 'round'),
    ]),
  );
  for (const path of [
    'lib/through',
    'usr/lib/through',
    'usr/absolute',
    'usr/relative',
    '/usr/../lib/through',
  ]) {
    t.equal(image.text(path), 'a link of a directory', path);
  }
  t.equal(image.resolve('lib/not/there'), 'usr/lib/not/there');
  t.throws(() => image.text('round'), /round in circles/);
});

t.equal(crc32(text('123456789')), 0xcbf4_3926);

const archive = packCpio(initramfsTools);
const compressors: readonly [string, readonly string[]][] = [
  ['gzip', ['-c']],
  ['gzip', ['-c', '-n', '-1']],
  ['zstd', ['-q', '-c', '-1']],
  ['zstd', ['-q', '-c', '-19', '--no-check']],
  ['zstd', ['-q', '-c', '-T2', '--content-size']],
  ['xz', ['-c', '--check=crc32']],
  ['xz', ['-c', '-T2', '--block-size=4096']],
  ['lz4', ['-c', '-l']],
];
for (const [name, args] of compressors) {
  t.test([name, ...args].join(' '), { skip: !available(name) && `there is no ${name}` }, async t => {
    const source = t.testdir({ 'with a name.cpio': '' });
    writeFileSync(join(source, 'with a name.cpio'), archive);
    // Long enough for several blocks, and hard to compress in places.
    const long = packCpio([
      ...initramfsTools,
      file('long', Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) >> 7))),
    ]);
    const compress = (input: Buffer): Buffer => spawnSync(name, args, { input, maxBuffer: 2 ** 24 }).stdout;
    const named = spawnSync(name, [...args, 'with a name.cpio'], { cwd: source }).stdout;
    const behind = packCpio([file('behind', text('found'))]);
    const parts: [string, Buffer][] = [
      ['alone', compress(archive)],
      ['of a file with a name', named],
      ['long', compress(long)],
      ['twice', Buffer.concat([compress(archive), compress(packCpio([file('second', text('2'))]))])],
    ];
    for (const [title, part] of parts) {
      const image = new InitrdImage(part);
      t.match(image.text('init'), /run_scripts/, title);
      t.equal(
        new InitrdImage(Buffer.concat([part, Buffer.alloc(4 + (-part.length & 3)), behind])).text('behind'),
        'found',
      );
      t.strictSame(problemsOf(appendLanding(part, plan)), [], 'with the script');
    }
    t.equal(new InitrdImage(parts[2]?.[1] as Buffer).file('long')?.data.length, 300_000);
    const [, part] = parts[2] as [string, Buffer];
    for (const length of [7, 20, part.length >> 1, part.length - 1]) {
      t.throws(() => new InitrdImage(part.subarray(0, length)), LandingImageError, `cut off at ${length}`);
    }
    if (args.includes('--no-check') || name === 'lz4') return; // They have no checksum.
    const damaged = Buffer.from(part);
    damaged.fill(0x55, part.length >> 1, (part.length >> 1) + 64);
    t.throws(() => new InitrdImage(damaged), LandingImageError, 'damaged');
  });
}

t.test('a program that is not there', async t => {
  const path = process.env.PATH;
  t.teardown(() => {
    process.env.PATH = path;
  });
  process.env.PATH = t.testdir({});
  // A frame with one empty block.
  const zstd = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00]);
  t.throws(() => new InitrdImage(zstd), {
    name: LandingImageError.name,
    message: /zstd/,
    hint: 'Install zstd',
  });
  t.match(checkImage(plan, zstd), [{ problem: /takes the program zstd/, remedy: 'Install zstd' }]);
  for (const [name, magic] of [
    ['bzip2', [0x42, 0x5a]],
    ['lzma', [0x5d, 0x00]],
    ['lzo', [0x89, 0x4c]],
  ] as const) {
    t.throws(() => new InitrdImage(Buffer.from([...magic, 1, 2, 3])), new RegExp(name));
  }
});

t.test('initramfs-tools', async t => {
  const plain = packCpio(initramfsTools);
  t.strictSame(problemsOf(plain), ['initrd: it has no landing script (/scripts/init-top/00-iommufd-land)']);
  const image = appendLanding(plain, plan);
  t.strictSame(problemsOf(image), []);
  t.ok(image.subarray(0, plain.length).equals(plain), 'what was there is as it was');
  const files = new InitrdImage(image);
  t.equal(
    files.text('scripts/init-top/ORDER'),
    `${OURS}\n${PARAMETERS}\n/scripts/init-top/udev "$@"\n${PARAMETERS}\n`,
  );
  t.equal(files.file('scripts/init-top/00-iommufd-land')?.mode, FileType.Regular | 0o755);

  t.match(problemsOf(image, otherPlan), [/is not the one for this state/]);
  const again = appendLanding(image, otherPlan);
  t.strictSame(problemsOf(again, otherPlan), [], 'replaced');
  t.equal(
    new InitrdImage(again).text('scripts/init-top/ORDER'),
    files.text('scripts/init-top/ORDER'),
    'and listed once',
  );

  const { path, text: script } = scriptInImage(ImageKind.InitramfsTools, plan.script);
  const made = (order: string, mode = 0o755): Buffer =>
    packCpio([
      ...initramfsTools,
      { path, mode: FileType.Regular | mode, data: text(script) },
      file('scripts/init-top/ORDER', text(order)),
    ]);
  const others = `/scripts/init-top/blacklist "$@"\n${PARAMETERS}\n`;
  t.strictSame(problemsOf(made(`${OURS}\n${PARAMETERS}\n${others}`)), []);
  t.match(problemsOf(made(`${others}${OURS}\n${PARAMETERS}\n`)), [
    /not the first to run: \/scripts\/init-top\/blacklist/,
  ]);
  t.match(problemsOf(made(`modprobe nvme\n${OURS}\n`)), [/not the first to run: modprobe nvme is/]);
  t.match(problemsOf(made('')), [/nothing is/]);
  t.match(problemsOf(made(`${OURS}\n`, 0o644)), [/cannot be executed/]);

  const linked = packCpio([
    ...initramfsTools,
    program('elsewhere', text(script)),
    link(path, '/elsewhere'),
    file('scripts/init-top/ORDER', text(`${OURS}\n`)),
  ]);
  t.strictSame(problemsOf(linked), [], 'a link to the script');
});

t.test('an image whose init-top has nothing in it yet', async t => {
  const image = appendLanding(packCpio([program('init', text('. /scripts/init-top/ORDER'))]), plan);
  t.strictSame(problemsOf(image), []);
  t.equal(new InitrdImage(image).text('scripts/init-top/ORDER'), `${OURS}\n${PARAMETERS}\n`);
  t.equal(new InitrdImage(image).has('scripts'), true);
});

t.test('dracut', async t => {
  for (const hooks of ['usr/lib/dracut/hooks', 'var/lib/dracut/hooks'] as const) {
    const plain = packCpio(dracut(hooks));
    t.match(problemsOf(plain), [/no landing script \(\/lib\/dracut\/hooks\/pre-udev\/00-iommufd-land\.sh\)/]);
    const image = appendLanding(plain, plan);
    t.strictSame(problemsOf(image), []);
    t.ok(
      unpackCpio(image, plain.length + 4).entries.some(
        ({ path }) => path === `${hooks}/pre-udev/00-iommufd-land.sh`,
      ),
      'where hooks are',
    );
    t.match(problemsOf(image, otherPlan), [/is not the one for this state/]);
    const earlier = packCpio(dracut(hooks, file(`${hooks}/pre-udev/00-first.sh`, text('modprobe nvme'))));
    t.match(problemsOf(appendLanding(earlier, plan)), [/hooks run before it: 00-first\.sh/]);
    const loading = (module: string): Buffer =>
      packCpio(dracut(hooks, file('etc/modules-load.d/my.conf', text(`# mine\n;\n\n  ${module}\n`))));
    t.match(problemsOf(appendLanding(loading('nvme-like'), plan)), [/systemd loads nvme-like/]);
    t.strictSame(problemsOf(appendLanding(loading('dm_mod'), plan)), []);
  }
  const withoutSystemd = packCpio([program('init', text('#!/bin/sh\nsource_hook pre-udev\n'))]);
  t.strictSame(problemsOf(appendLanding(withoutSystemd, plan)), []);
});

t.test('images of another make', async t => {
  for (const items of [
    [],
    [program('init', text('#!/bin/sh\nexec /bin/sh\n'))],
    [link('init', 'usr/lib/systemd/systemd')],
    [directory('init')],
    // The service is there, and nothing wants it.
    dracut('usr/lib/dracut/hooks').filter(({ path }) => !path.includes('initrd.target.wants')),
  ]) {
    const image = packCpio(items);
    t.match(problemsOf(image), [/neither by initramfs-tools nor by dracut/]);
    t.throws(() => appendLanding(image, plan), { name: LandingImageError.name, hint: /one of these/ });
  }
  t.match(problemsOf(text('no image at all')), [/neither an archive nor a known compression at byte 0/]);
  t.throws(() => appendLanding(text('no image at all'), plan), LandingImageError);
  t.match(problemsOf(Buffer.alloc(0)), [/neither by initramfs-tools/]);
});

t.test('images of any length', async t => {
  const plain = packCpio(initramfsTools);
  for (let zeroes = 0; zeroes < 9; zeroes++) {
    const image = appendLanding(Buffer.concat([plain, Buffer.alloc(zeroes)]), plan);
    t.strictSame(problemsOf(image), [], `${zeroes} zeroes at the end`);
  }
});

t.test('a view of a larger buffer', async t => {
  const plain = packCpio(initramfsTools);
  const shifted = Buffer.concat([Buffer.alloc(3), plain]).subarray(3);
  t.strictSame(
    problemsOf(appendLanding(new Uint8Array(shifted.buffer, shifted.byteOffset, shifted.length), plan)),
    [],
  );
});
