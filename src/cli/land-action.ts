/** What `iommufd land` does beside telling the plan. @module */
import { ImageKind } from '../keepalive/landing/script.js';

export type LandAction =
  | { readonly kind: 'plan' }
  | { readonly kind: 'install'; readonly make: ImageKind }
  /** `output` may be `-`, standard output. */
  | { readonly kind: 'add'; readonly input: string; readonly output: string }
  | { readonly kind: 'verify'; readonly initrd?: string; readonly commandLine: string };

/** The options that say it. */
export interface LandOptions {
  readonly 'initramfs-tools'?: boolean | undefined;
  readonly dracut?: boolean | undefined;
  readonly initrd?: string | undefined;
  readonly output?: string | undefined;
  readonly verify?: boolean | undefined;
  readonly 'command-line'?: string | undefined;
}

/** @throws RangeError for options that do not go together */
export function landAction(options: LandOptions): LandAction {
  const { verify, dracut, initrd, output, 'initramfs-tools': tools, 'command-line': commandLine } = options;
  const makes = [...(tools ? [ImageKind.InitramfsTools] : []), ...(dracut ? [ImageKind.Dracut] : [])];
  if (makes.length + (verify ? 1 : 0) > 1) {
    throw new RangeError('--initramfs-tools, --dracut and --verify exclude each other');
  }
  if (commandLine !== undefined && !verify) throw new RangeError('--command-line goes with --verify');
  if (output !== undefined && (verify || initrd === undefined)) {
    throw new RangeError('--output goes with --initrd, for the image with the script in it');
  }
  if (initrd === '' || output === '') throw new RangeError('--initrd and --output must name files');
  if (verify) {
    if (commandLine === undefined) throw new RangeError('--verify needs --command-line');
    return { kind: 'verify', commandLine, ...(initrd !== undefined && { initrd }) };
  }
  const [make] = makes;
  if (make !== undefined) {
    if (initrd !== undefined)
      throw new RangeError(`--${make} installs a script, and --initrd adds it to an image`);
    return { kind: 'install', make };
  }
  if (initrd === undefined) return { kind: 'plan' };
  return { kind: 'add', input: initrd, output: output ?? '-' };
}
