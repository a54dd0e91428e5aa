// Running one command in a test VM, as a function and as a program.
import { createWriteStream, existsSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { accelerator } from './accel.js';
import { initrd } from './initrd.js';
import { type Kernel, kernel } from './kernel.js';
import { firstStageQemu } from './newer-qemu.js';
import { kill, tail } from './process.js';
import { escaped, machine, type ProfileName, profileNames, profiles } from './profiles.js';
import { isMain, projectRoot } from './project.js';
import { startQemu } from './qemu.js';
import { createRunDirectory, keep, type RunDirectory } from './run-directory.js';
import { ensureTools, qemu, qemuVersion } from './tools.js';
import { type DiskName, guestEnv, guestRunDirectory } from './topology.js';

export type VmOptions = {
  readonly profile: ProfileName;
  /** Run in the checkout's directory; a first word `node` means this process's own node. */
  readonly command: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** The size of each disk; 128 MiB unless told. */
  readonly diskBytes?: number;
  /** Called before boot, for instance to write to the disks. */
  readonly before?: (files: Pick<VmResult, 'disks' | 'results'>) => void | Promise<void>;
  /** From QEMU's start to its end; 10 minutes unless told. */
  readonly timeoutMs?: number;
  /** Without a byte from program or console; 5 minutes unless told. */
  readonly idleMs?: number;
  /** Added to the kernel command line. */
  readonly append?: string;
  /** More `-device` values; give each an `addr=` among topology's `freeSlots`. */
  readonly extraDevices?: readonly string[];
  readonly qemuArgs?: readonly string[];
  /** QEMU trace events, with wildcards (`pci_nvme_admin_cmd`). */
  readonly trace?: readonly string[];
  readonly onStdout?: (chunk: Buffer) => void;
  readonly onStderr?: (chunk: Buffer) => void;
  readonly onConsole?: (chunk: Buffer) => void;
};

export type VmResult = {
  /** What went wrong, in one line; undefined when the program ended with exit code 0. */
  readonly failure: string | undefined;
  /** The program's exit code; undefined when it did not get to end. */
  readonly exitCode: number | undefined;
  readonly timedOut: boolean;
  /** Kernels that ran: 1, and one more for each kexec. */
  readonly boots: number;
  readonly durationMs: number;
  /** Disk images, as the guest left them, until disposed. */
  readonly disks: Readonly<Record<DiskName, string>>;
  /** Host side of the guest's `IOMMUFD_VM_RESULTS`, until disposed. */
  readonly results: string;
  /** The last lines of the guest's console, and of QEMU's own messages. */
  readonly console: string;
  readonly consoleLog: string;
  /** QEMU's trace output; undefined when no events were asked for. */
  readonly trace: string | undefined;
  readonly directory: string;
  /** Removes the disks, results and logs. Process exit does so too. */
  [Symbol.dispose](): void;
};

const consoleLines = 40;

const read = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8') : '');

type Ending = { readonly exitCode: number; readonly boot: number };

const closing = (directory: RunDirectory): Ending | undefined => {
  const match = /^exit (\d+) boot (\d+)\n$/.exec(read(join(directory.shared, 'closing')));
  return match === null ? undefined : { exitCode: Number(match[1]), boot: Number(match[2]) };
};

const kernelArgs = (kernel: Kernel, append: readonly string[]): string[] => {
  // pcie_ports=native: hot-plug through the root ports although the firmware does not grant it.
  // no_timer_check, tsc=nowatchdog: a busy host delivers ticks late, and the kernel would panic over the timer
  // of the I/O APIC, or give up a good clock.
  // hugepages: reserved later, they may lie in what the kernel keeps for a kexec, where nothing can be pinned.
  const always =
    'console=ttyS0 loglevel=5 panic=-1 oops=panic pcie_ports=native no_timer_check tsc=nowatchdog hugepages=8';
  const commandLine = [always, ...append].filter(Boolean).join(' ');
  return ['-kernel', kernel.bzImage, '-initrd', initrd(kernel), '-append', commandLine];
};

const shares = (directory: RunDirectory): string[] => [
  // remap: the host root may span several file systems, whose inode numbers must not collide.
  ...['-fsdev', 'local,id=host,path=/,security_model=none,readonly=on,multidevs=remap'],
  ...['-device', 'virtio-9p-pci,fsdev=host,mount_tag=host,addr=02.0'],
  ...['-fsdev', `local,id=vm,path=${escaped(directory.shared)},security_model=none`],
  ...['-device', 'virtio-9p-pci,fsdev=vm,mount_tag=vm,addr=03.0'],
];

const seconds = (ms: number): string => `${Math.round(ms / 100) / 10} s`;

/** Boots a VM, runs the command in it, and returns when it has powered off, however that came about. */
export const runVm = async (options: VmOptions): Promise<VmResult> => {
  const profile = profiles[options.profile];
  await ensureTools();
  const booted = await kernel(profile.flavour);
  const accel = await accelerator(booted);
  const program = profile.firstStage === true ? await firstStageQemu() : qemu();
  const node = realpathSync(process.execPath);
  const [word = '', ...args] = options.command;
  const env = {
    PATH: `${dirname(node)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: '/root',
    [guestEnv.profile]: options.profile,
    [guestEnv.results]: `${guestRunDirectory}/results`,
    [guestEnv.bzImage]: booted.bzImage,
    [guestEnv.initrd]: initrd(booted),
    ...options.env,
  };
  const directory = createRunDirectory([word === 'node' ? node : word, ...args], env, {
    diskBytes: options.diskBytes ?? 128 << 20,
  });
  const { disks, results, consoleLog } = directory;
  const trace = options.trace ?? [];
  try {
    await options.before?.({ disks, results });
    const { args: machineArgs, plug } = machine(profile, {
      accel,
      qemuVersion: await qemuVersion(program),
      disks,
      extraDevices: options.extraDevices ?? [],
    });
    directory.settings({
      project: projectRoot,
      modules: booted.modules ?? '',
      plug: plug?.command ?? '',
      plugged: plug?.address ?? '',
    });
    const start = Date.now();
    const vm = startQemu(
      machineArgs,
      [
        ...shares(directory),
        ...kernelArgs(booted, [profile.append, options.append ?? '']),
        ...(trace.length === 0 ? [] : ['-D', directory.traceLog]),
        ...trace.flatMap(event => ['-trace', `enable=${event}`]),
        ...(options.qemuArgs ?? []),
      ],
      program,
    );
    const { timeoutMs = 600_000, idleMs = 300_000 } = options;
    let stopped: string | undefined;
    const stop = (reason: string): void => {
      stopped ??= reason;
      kill(vm.child);
    };
    const limit = setTimeout(() => stop(`no end within ${seconds(timeoutMs)}`), timeoutMs);
    const idle = setTimeout(() => stop(`no output for ${seconds(idleMs)}`), idleMs);
    const log = createWriteStream(consoleLog);
    let messages = '';
    const listen = (stream: NodeJS.ReadableStream, handler: ((chunk: Buffer) => void) | undefined): void => {
      stream.on('data', (chunk: Buffer) => {
        idle.refresh();
        handler?.(chunk);
      });
    };
    listen(vm.stdout, options.onStdout);
    listen(vm.stderr, options.onStderr);
    listen(vm.console, chunk => {
      log.write(chunk);
      options.onConsole?.(chunk);
    });
    listen(vm.messages, chunk => {
      messages += chunk.toString();
    });
    // 'close' rather than 'exit': by then everything the guest printed has been read.
    const qemuEnd = await new Promise<string | undefined>((resolve, reject) => {
      vm.child.once('error', error => reject(new Error(`cannot start QEMU: ${error.message}`)));
      vm.child.once('close', (code, signal) =>
        resolve(code === 0 ? undefined : `QEMU ended with ${signal ?? `exit code ${code}`}`),
      );
    }).finally(() => {
      clearTimeout(limit);
      clearTimeout(idle);
    });
    await new Promise<void>(resolve => log.end(resolve));
    const durationMs = Date.now() - start;

    const kernelLog = read(consoleLog).replaceAll('\r', '');
    const ending = closing(directory);
    const failure = (): string | undefined => {
      if (stopped !== undefined) return stopped;
      const panic = /Kernel panic - not syncing: .*/.exec(kernelLog);
      if (panic !== null) return panic[0];
      if (qemuEnd !== undefined) return qemuEnd;
      if (ending === undefined) return 'the VM powered off before the program ended (no closing line)';
      return ending.exitCode === 0 ? undefined : `the program ended with exit code ${ending.exitCode}`;
    };
    return {
      failure: failure(),
      exitCode: ending?.exitCode,
      timedOut: stopped !== undefined,
      boots: Number(read(join(directory.shared, 'boot'))),
      durationMs,
      disks,
      results,
      console: tail(messages === '' ? kernelLog : `${kernelLog}\n${messages}`, consoleLines),
      consoleLog,
      trace: trace.length === 0 ? undefined : directory.traceLog,
      directory: directory.path,
      [Symbol.dispose]: directory.remove,
    };
  } catch (error) {
    directory.remove();
    throw error;
  }
};

const usage = `usage: node dist/test/vm/vm.js [options] -- command [argument ...]
  --profile NAME   ${profileNames.join(', ')} (default noiommu)
  --timeout S      seconds from start to end (default 600)
  --idle S         seconds without any output (default 300)
  --env NAME=VALUE in the guest; may be repeated
  --append TEXT    more kernel command line
  --disk-size MIB  size of each NVMe namespace (default 128)
  --device VALUE   one more QEMU -device; may be repeated
  --qemu ARGUMENT  one more QEMU argument; may be repeated
  --trace EVENT    QEMU trace event; may be repeated; implies --keep
  --console        show the guest's console on stderr
  --keep           leave the VM's directory and print its path on stderr
`;

const parse = (argv: readonly string[]) => {
  const text = { type: 'string' } as const;
  const texts = { type: 'string', multiple: true } as const;
  const flag = { type: 'boolean', default: false } as const;
  const { values, positionals } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    options: {
      profile: { type: 'string', default: 'noiommu' },
      ...{ timeout: text, idle: text, append: text, 'disk-size': text },
      ...{ env: texts, device: texts, qemu: texts, trace: texts },
      ...{ console: flag, keep: flag, help: { type: 'boolean', default: false, short: 'h' } as const },
    },
  });
  const number = (name: 'timeout' | 'idle' | 'disk-size', unit: number): number | undefined => {
    const value = values[name];
    if (value === undefined) return undefined;
    if (!(Number(value) > 0)) throw new Error(`--${name} wants a number above 0, not ${value}`);
    return Number(value) * unit;
  };
  const profile = profileNames.find(name => name === values.profile);
  if (profile === undefined) throw new Error(`--profile is one of ${profileNames.join(', ')}`);
  const env = (values.env ?? []).map(pair => {
    const at = pair.indexOf('=');
    if (at < 1) throw new Error(`--env wants NAME=VALUE, not ${pair}`);
    return [pair.slice(0, at), pair.slice(at + 1)] as const;
  });
  const timeoutMs = number('timeout', 1000);
  const idleMs = number('idle', 1000);
  const diskBytes = number('disk-size', 1 << 20);
  const vm: VmOptions = {
    profile,
    command: positionals,
    env: Object.fromEntries(env),
    append: values.append ?? '',
    extraDevices: values.device ?? [],
    qemuArgs: values.qemu ?? [],
    trace: values.trace ?? [],
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(idleMs === undefined ? {} : { idleMs }),
    ...(diskBytes === undefined ? {} : { diskBytes }),
  };
  return { vm, help: values.help, console: values.console, keep: values.keep || vm.trace?.length !== 0 };
};

const main = async (argv: readonly string[]): Promise<number> => {
  const options = parse(argv);
  if (options.help || options.vm.command.length === 0) {
    process.stderr.write(usage);
    return options.help ? 0 : 2;
  }
  const result = await runVm({
    ...options.vm,
    onStdout: chunk => process.stdout.write(chunk),
    onStderr: chunk => process.stderr.write(chunk),
    ...(options.console ? { onConsole: (chunk: Buffer) => process.stderr.write(chunk) } : {}),
  });
  if (result.failure !== undefined) {
    process.stderr.write(`vm: ${result.failure}; the last lines of the console:\n${result.console}\n`);
  }
  if (options.keep) {
    keep({ path: result.directory });
    process.stderr.write(`vm: kept ${result.directory}\n`);
  }
  if (result.failure === undefined) return 0;
  return result.timedOut ? 124 : result.exitCode || 125;
};

if (isMain(import.meta.url)) {
  try {
    process.exitCode = await main(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`vm: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 2;
  }
}
