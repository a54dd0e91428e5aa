// Starting QEMU so that it cannot outlive us.
import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex, Readable } from 'node:stream';
import { adopt } from './process.js';
import { type QemuProgram, qemu } from './tools.js';
import { monitorPort } from './topology.js';

/** Sockets that QEMU inherits, by the number of their descriptor. */
const channel = { stdout: 3, stderr: 4, console: 5, monitor: 6, requests: 7 } as const;

export type Qemu = {
  readonly child: ChildProcess;
  /** What the guest program prints. */
  readonly stdout: Duplex;
  readonly stderr: Duplex;
  /** The guest's serial console. */
  readonly console: Duplex;
  /** QEMU's own messages. */
  readonly messages: Readable;
};

const inherited = (id: string, descriptor: number): string[] => [
  '-chardev',
  `socket,id=${id},fd=${descriptor}`,
];

const plumbing = [
  ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
  ...inherited('stdout', channel.stdout),
  ...inherited('stderr', channel.stderr),
  ...inherited('console', channel.console),
  ...inherited('monitor', channel.monitor),
  ...inherited('requests', channel.requests),
  ...['-serial', 'chardev:console', '-mon', 'chardev=monitor,mode=control'],
  ...['-device', 'virtio-serial-pci,id=ports,addr=06.0'],
  ...['-device', 'virtserialport,bus=ports.0,nr=1,chardev=stdout,name=iommufd.stdout'],
  ...['-device', 'virtserialport,bus=ports.0,nr=2,chardev=stderr,name=iommufd.stderr'],
  ...['-device', `virtserialport,bus=ports.0,nr=3,chardev=requests,name=${monitorPort}`],
];

const onLine = (stream: Duplex, handler: (line: string) => void): void => {
  let partial = '';
  stream.on('data', (chunk: Buffer) => {
    const lines = (partial + chunk.toString()).split('\n');
    partial = lines.pop() ?? '';
    for (const line of lines) handler(line);
  });
};

/**
 * Lets the guest talk to QEMU's monitor (QMP), to plug and unplug devices for instance. Of what QEMU says,
 * only replies to commands that carry an `id` go back: nobody may be reading.
 */
const bridge = (monitor: Duplex, requests: Duplex): void => {
  monitor.write('{"execute":"qmp_capabilities"}\n');
  onLine(requests, line => monitor.write(`${line}\n`));
  onLine(monitor, line => {
    if ('id' in (JSON.parse(line) as object)) requests.write(`${line}\n`);
  });
};

/** `machineArgs` come first: an IOMMU has to exist before the devices behind it. */
export const startQemu = (
  machineArgs: readonly string[],
  otherArgs: readonly string[],
  program: QemuProgram = qemu(),
): Qemu => {
  // Handlers cover our orderly ends; the parent-death signal covers a SIGKILL of this process.
  const args = ['--pdeathsig', 'KILL', ...program.command, ...machineArgs, ...plumbing, ...otherArgs];
  const child = spawn('setpriv', args, {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, ...program.env },
  });
  adopt(child);
  const socket = (descriptor: number): Duplex => child.stdio[descriptor as 3] as Duplex;
  // A QEMU that refuses its arguments resets the connection; its end and its messages say more than that.
  for (const descriptor of Object.values(channel)) socket(descriptor).on('error', () => {});
  bridge(socket(channel.monitor), socket(channel.requests));
  return {
    child,
    stdout: socket(channel.stdout),
    stderr: socket(channel.stderr),
    console: socket(channel.console),
    messages: child.stderr as Readable,
  };
};
