/** The landing script in an initrd image: whether it is there and will be the first to run, and putting it there. @module */
import { posix } from 'node:path';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { KernelError } from '../../errors.js';
import { readFile } from '../../files.js';
import { CPIO_ALIGNMENT, type CpioItem, directory, file, packCpio, program } from './cpio.js';
import { LandingImageError } from './image-error.js';
import { InitrdImage } from './initrd-image.js';
import type { LandingPlan } from './plan.js';
import type { LandingProblem } from './problem.js';
import { ImageKind, INIT_TOP_ORDER, PRE_UDEV, scriptInImage } from './script.js';

const EXECUTABLE = 0o111;
/** The kernel takes lz4 data to end where zeroes follow, four at least. */
const GAP = 4;

/** Where systemd looks for units. */
const UNIT_PLACES = ['etc/systemd/system', 'usr/lib/systemd/system'];

/** How the image runs scripts; `undefined` for one of another make. */
export function imageKind(image: InitrdImage): ImageKind | undefined {
  if (image.text('init')?.includes('/scripts/init-top')) return ImageKind.InitramfsTools;
  const wanted = UNIT_PLACES.some(place => image.has(`${place}/initrd.target.wants/dracut-pre-udev.service`));
  return (wanted && image.has('bin/dracut-pre-udev')) || image.text('init')?.includes('source_hook pre-udev')
    ? ImageKind.Dracut
    : undefined;
}

const NO_KIND = 'it was made neither by initramfs-tools nor by dracut';
const KIND_HINT = 'Use an initrd of one of these';

const orderLine = (path: string): string => `/${path} "$@"`;
const PARAMETERS = '[ -e /conf/param.conf ] && . /conf/param.conf';

/** What initramfs-tools runs first. */
function firstInOrder(order: string): string | undefined {
  return order.split('\n').find(line => line.trim() !== '' && !line.startsWith('#') && line !== PARAMETERS);
}

/** Scripts that would run before ours. */
function earlierHooks(image: InitrdImage, path: string): string[] {
  const name = posix.basename(path);
  // As the shell sorts them in the locale that there is so early.
  return image.names(PRE_UDEV).filter(each => each.endsWith('.sh') && each < name);
}

/** Modules that systemd loads beside everything else, at no certain time. */
function modulesLoaded(image: InitrdImage): string[] {
  return ['etc/modules-load.d', 'usr/lib/modules-load.d'].flatMap(path =>
    image
      .names(path)
      .flatMap(name => image.text(`${path}/${name}`)?.split('\n') ?? [])
      .map(line => line.trim())
      .filter(line => line !== '' && !line.startsWith('#') && !line.startsWith(';')),
  );
}

/** What is wrong with an image, as far as the plan needs its script. */
export function checkImage(plan: LandingPlan, bytes: Uint8Array): LandingProblem[] {
  let image: InitrdImage;
  try {
    image = new InitrdImage(bytes);
  } catch (error) {
    if (!(error instanceof LandingImageError)) throw error;
    return [{ problem: error.message, remedy: error.hint ?? 'Use another image, or make it anew' }];
  }
  const kind = imageKind(image);
  if (kind === undefined) return [{ problem: `initrd: ${NO_KIND}`, remedy: KIND_HINT }];
  const { path, text } = scriptInImage(kind, plan.script);
  const remedy = `Install the script with "iommufd land --${kind}" and make the image anew, or add it with "iommufd land --initrd"`;
  const wrong = (problem: string): LandingProblem => ({ problem: `initrd: ${problem}`, remedy });
  const script = image.file(path);
  if (script === undefined) return [wrong(`it has no landing script (/${path})`)];
  if (!Buffer.from(script.data).equals(Buffer.from(text))) {
    return [wrong(`its landing script (/${path}) is not the one for this state`)];
  }
  const problems: LandingProblem[] = [];
  if (kind === ImageKind.InitramfsTools) {
    if ((script.mode & EXECUTABLE) === 0) problems.push(wrong(`/${path} cannot be executed`));
    const first = firstInOrder(image.text(INIT_TOP_ORDER) ?? '');
    if (first !== orderLine(path)) {
      problems.push(wrong(`/${path} is not the first to run: ${first ?? 'nothing'} is`));
    }
  } else {
    const earlier = earlierHooks(image, path);
    if (earlier.length > 0) problems.push(wrong(`hooks run before it: ${earlier.join(', ')}`));
    const natives = new Set(plan.devices.flatMap(each => each.natives.map(native => native.module)));
    const loaded = modulesLoaded(image).filter(module => natives.has(module.replaceAll('-', '_')));
    if (loaded.length > 0) {
      problems.push({
        problem: `initrd: systemd loads ${loaded.join(', ')} (modules-load.d), perhaps before the landing script runs`,
        remedy: 'Take it out there: udev loads the drivers of the devices that there are',
      });
    }
  }
  return problems;
}

/**
 * An image with the plan's script in it: the image as it was, and a small archive behind it. A script that was added
 * before is replaced.
 *
 * @throws LandingImageError when the image cannot be read, or is not of a make that runs such scripts
 */
export function appendLanding(bytes: Uint8Array, plan: LandingPlan): Buffer {
  const image = new InitrdImage(bytes);
  const kind = imageKind(image);
  if (kind === undefined) throw new LandingImageError(NO_KIND, KIND_HINT);
  const { path, text } = scriptInImage(kind, plan.script);
  const place = image.resolve(path);
  const items: CpioItem[] = [...missingDirectories(image, place), program(place, Buffer.from(text))];
  if (kind === ImageKind.InitramfsTools) {
    const ours = orderLine(path);
    const lines = image.text(INIT_TOP_ORDER)?.split('\n') ?? [];
    const at = lines.indexOf(ours);
    if (at >= 0) lines.splice(at, lines[at + 1] === PARAMETERS ? 2 : 1);
    const order = [ours, PARAMETERS, ...lines].join('\n');
    items.push(file(image.resolve(INIT_TOP_ORDER), Buffer.from(order.endsWith('\n') ? order : `${order}\n`)));
  }
  const gap = GAP + (-bytes.length & (CPIO_ALIGNMENT - 1));
  return Buffer.concat([bytes, Buffer.alloc(gap), packCpio(items)]);
}

function missingDirectories(image: InitrdImage, path: string): CpioItem[] {
  const parent = posix.dirname(path);
  if (parent === '.' || image.has(parent)) return [];
  return [...missingDirectories(image, parent), directory(parent)];
}

/** Reads an image. @returns why it cannot be read, where it cannot */
export function readImage(kernel: Syscalls, path: string): Uint8Array | LandingProblem {
  const unreadable = (reason: string): LandingProblem => ({
    problem: `initrd: ${reason}`,
    remedy: 'Name the image that will be booted',
  });
  try {
    return readFile(kernel, path) ?? unreadable(`there is no ${path}`);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return unreadable(error.message);
  }
}
