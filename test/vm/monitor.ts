// For programs in the guest: QEMU's monitor, through the virtio-serial port that leads to it. On a simulated machine,
// its counterpart there.
import { closeSync, constants, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { simulatedMonitor } from '../support/simulated-monitor.js';
import { simulation } from '../support/simulation.js';
import { monitorPort } from './topology.js';

const ports = '/sys/class/virtio-ports';

const device = (): string => {
  const name = readdirSync(ports).find(
    port => readFileSync(`${ports}/${port}/name`, 'utf8').trim() === monitorPort,
  );
  if (name === undefined) throw new Error(`no virtio-serial port ${monitorPort}: not in a test VM?`);
  return `/dev/${name}`;
};

type Reply = { readonly id: number; readonly return?: unknown; readonly error?: { readonly desc: string } };

const read = (port: number, into: Buffer): number => {
  try {
    return readSync(port, into);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return 0;
    throw error;
  }
};

/** Gives QEMU a QMP command: `await monitor('device_del', { id: qemuId.nvmeB })`. */
export const monitor = async (
  execute: string,
  args: Readonly<Record<string, unknown>> = {},
  timeoutMs = 10_000,
): Promise<unknown> => {
  const simulated = simulation();
  if (simulated !== undefined) return simulatedMonitor(simulated, execute, args);
  // Not blocking, because a thread that is stuck in a read would keep the process from exiting.
  const port = openSync(device(), constants.O_RDWR | constants.O_NONBLOCK);
  try {
    const id = process.hrtime()[1];
    writeSync(port, `${JSON.stringify({ execute, arguments: args, id })}\n`);
    const chunk = Buffer.alloc(4096);
    let text = '';
    for (const end = Date.now() + timeoutMs; Date.now() < end; await setTimeout(10)) {
      text += chunk.toString('utf8', 0, read(port, chunk));
      const replies = text.split('\n').slice(0, -1);
      const reply = replies.map(line => JSON.parse(line) as Reply).find(candidate => candidate.id === id);
      if (reply?.error !== undefined) throw new Error(`${execute}: ${reply.error.desc}`);
      if (reply !== undefined) return reply.return;
    }
    throw new Error(`${execute}: QEMU did not reply within ${timeoutMs} ms`);
  } finally {
    closeSync(port);
  }
};
