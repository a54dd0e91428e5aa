/**
 * What is known of the kernel that devices are to land in: which drivers it has, built in or as modules. It is read from
 * where that kernel is installed (`lib/modules/<release>`, kbuild and depmod write it) and, where that kernel is the one
 * that runs, from the kernel itself.
 *
 * @module
 */
import { posix } from 'node:path';
import type { Syscalls } from '../../../bindings/syscalls.js';
import { KernelError } from '../../errors.js';
import { readFile } from '../../files.js';
import { type DriverModule, driverModule, moduleName } from '../../pci/driver-module.js';
import { matchesAlias } from '../../pci/modalias.js';

const OS_RELEASE = '/proc/sys/kernel/osrelease';
const KALLSYMS = '/proc/kallsyms';
const RELEASE = /^[\w.+~-]+$/;
const VFIO_PCI = 'vfio_pci';

/** The kernel that devices are to land in. */
export interface LandingTarget {
  /** As `uname -r` will say; that of the running kernel unless told. */
  readonly release?: string;
  /** The root file system that it is installed on; `/` unless told. */
  readonly root?: string;
}

interface Alias {
  readonly pattern: string;
  readonly module: DriverModule;
}

/** Where a driver is: part of the kernel, a module, or nowhere. */
export type DriverPlace = 'built-in' | 'module' | 'absent';

export class NextKernel {
  readonly release: string;
  readonly root: string;
  /** It is the kernel that runs. */
  readonly isRunning: boolean;
  readonly #kernel: Syscalls;
  /** Undefined where the kernel is not installed. */
  readonly #aliases: readonly Alias[] | undefined;
  readonly #builtInFacts: readonly string[];

  /**
   * @throws TypeError, RangeError for a release that cannot be; KernelError when the running kernel does not say which it
   * is, or files cannot be read
   */
  constructor(kernel: Syscalls, { release, root = '/' }: LandingTarget = {}) {
    const running = kernel.readText(OS_RELEASE);
    if (release === undefined && typeof running === 'number') {
      throw new KernelError(-running, { syscall: 'read', path: OS_RELEASE });
    }
    this.#kernel = kernel;
    this.root = root;
    this.release = checkRelease(release ?? (running as string).trim());
    this.isRunning = typeof running === 'string' && running.trim() === this.release;
    this.#builtInFacts = this.#text(`${this.#modules}/modules.builtin.modinfo`)?.split('\0') ?? [];
    this.#aliases = this.#readAliases();
  }

  get #modules(): string {
    return `lib/modules/${this.release}`;
  }

  #text(path: string): string | undefined {
    return readFile(this.#kernel, posix.join(this.root, path))?.toString('latin1');
  }

  #readAliases(): Alias[] | undefined {
    const modules = this.#text(`${this.#modules}/modules.alias`);
    if (modules === undefined || this.#builtInFacts.length === 0) return undefined;
    const aliases: Alias[] = [];
    for (const line of modules.split('\n')) {
      const [, pattern, module] = /^alias (pci:\S+) ([\w-]+)$/.exec(line) ?? [];
      if (pattern === undefined || module === undefined) continue;
      aliases.push({ pattern, module: { module: moduleName(module), builtIn: false } });
    }
    for (const fact of this.#builtInFacts) {
      const [, module, pattern] = /^([\w-]+)\.alias=(pci:.+)$/s.exec(fact) ?? [];
      if (pattern === undefined || module === undefined) continue;
      aliases.push({ pattern, module: { module: moduleName(module), builtIn: true } });
    }
    return aliases;
  }

  /** Where its drivers are listed, for messages. */
  get tables(): string {
    return posix.join(this.root, this.#modules);
  }

  /** The drivers that take a device of their own accord; `undefined` when the kernel is not installed. */
  driversOf(modalias: string): DriverModule[] | undefined {
    if (this.#aliases === undefined) return undefined;
    const found = new Map<string, DriverModule>();
    for (const { pattern, module } of this.#aliases) {
      if (matchesAlias(pattern, modalias)) found.set(module.module, module);
    }
    return [...found.values()];
  }

  /** Where vfio-pci is. */
  vfioPci(): DriverPlace {
    const isVfio = (path: string): boolean =>
      moduleName(posix.basename(path).split('.')[0] ?? '') === VFIO_PCI;
    const builtIn = this.#text(`${this.#modules}/modules.builtin`);
    if (builtIn?.split('\n').some(isVfio)) return 'built-in';
    const modules = this.#text(`${this.#modules}/modules.dep`);
    if (modules?.split('\n').some(line => isVfio(line.split(':')[0] ?? ''))) return 'module';
    if (!this.isRunning || this.#kernel.access('/sys/bus/pci/drivers/vfio-pci', 0) !== 0) return 'absent';
    return driverModule(this.#kernel, 'vfio-pci').builtIn ? 'built-in' : 'module';
  }

  /** Whether vfio-pci is known to have no such parameter; it is not always known. */
  lacksVfioParameter(name: string): boolean {
    const facts = this.#builtInFacts.filter(fact => fact.startsWith(`${VFIO_PCI}.`));
    if (facts.length > 0) return !facts.some(fact => fact.startsWith(`${VFIO_PCI}.parm=${name}:`));
    const parameters = `/sys/module/${VFIO_PCI}/parameters`;
    return (
      this.isRunning &&
      this.#kernel.access(parameters, 0) === 0 &&
      this.#kernel.access(`${parameters}/${name}`, 0) !== 0
    );
  }

  /** Whether it is known that the kernel does not know the names of its functions. */
  get lacksSymbols(): boolean {
    if (this.isRunning && this.#kernel.access(KALLSYMS, 0) !== 0) return true;
    const config = this.#text(`boot/config-${this.release}`);
    return config !== undefined && !/^CONFIG_KALLSYMS=y$/m.test(config);
  }

  /**
   * The functions that start a built-in driver, which `initcall_blacklist` takes; none when that is not known for
   * certain: a name that is wrong would have no effect.
   */
  initcallsOf(module: string): string[] {
    // Distributions may install a System.map that only says where the real one is.
    const symbols =
      this.#symbols(`boot/System.map-${this.release}`) ??
      this.#symbols(`${this.#modules}/System.map`) ??
      (this.isRunning ? parseSymbols(readFile(this.#kernel, KALLSYMS)?.toString('latin1')) : undefined);
    if (symbols === undefined) return [];
    // The entry that the kernel makes of module_init(): include/linux/init.h, ___initcall_id.
    const entry = new RegExp(`^__initcall__kmod_${module}__\\d+_\\d+_(.+?)(?:early|rootfs|[0-7]s?)$`);
    const named = symbols.flatMap(symbol => entry.exec(symbol)?.[1] ?? []);
    if (named.length > 0) return named;
    // Entries are data, of which kernels know the names with CONFIG_KALLSYMS_ALL only.
    const usual = ['init', 'init_module', 'driver_init', 'pci_driver_init'].map(name => `${module}_${name}`);
    const found = symbols.filter(symbol => usual.includes(symbol));
    return found.length === 1 ? found : [];
  }

  #symbols(path: string): string[] | undefined {
    return parseSymbols(this.#text(path));
  }
}

function checkRelease(release: string): string {
  if (typeof release !== 'string')
    throw new TypeError(`a kernel release must be a string, got ${typeof release}`);
  if (!RELEASE.test(release) || /^\.+$/.test(release)) {
    throw new RangeError(`${JSON.stringify(release)} is not a kernel release such as 7.3.4-amd64`);
  }
  return release;
}

/** Names of symbols of the kernel itself; those of modules have the module behind them. */
function parseSymbols(text: string | undefined): string[] | undefined {
  const symbols = text?.split('\n').flatMap(line => /^[0-9a-f]+ \S (\S+)$/i.exec(line)?.[1] ?? []) ?? [];
  return symbols.length > 1 ? symbols : undefined;
}
