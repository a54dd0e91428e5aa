/** Hand-off, as the demonstration shows it: an NVMe controller goes from process to process while it works. @module */
import { NvmeController } from '../../drivers/nvme/index.js';
import { Channel } from '../../keepalive/handoff/channel.js';
import { ChannelListener } from '../../keepalive/handoff/channel-listener.js';
import { handOff, takeOver } from '../../keepalive/handoff/handoff.js';
import type { KeepAlive } from '../../keepalive/keep-alive.js';
import type { SimulatedProcess } from '../../sim/process/process.js';
import { Driver } from './driver.js';
import type { HandOffSummary } from './keep-report.js';
import type { Mode, Narrator } from './mode.js';
import { describeRelease } from './release.js';
import { describeTally, NVME, type Stage } from './stage.js';
import { describeGap, describeInherited, type Succession, succession } from './succession.js';

export const HANDOFFS = 20;
const SOCKET = '/run/driver.sock';
const ACCEPT_MS = 5000;

export interface HandOffReport extends HandOffSummary, Omit<Succession, 'toldTwice'> {
  readonly mode: Mode;
  /** What was left behind when everything was released; nothing, if all is well. */
  readonly leaked: readonly string[];
}

/** @throws whatever the library throws, and the reason of `signal` */
export async function showHandOffs(
  stage: Stage,
  narrator: Narrator,
  signal: AbortSignal,
): Promise<HandOffReport> {
  const { host, mode } = stage;
  let process = host.process();
  const first = await Driver.start(stage, process);
  const replace = async ({ kept }: Driver): Promise<KeepAlive> => {
    const predecessor = process;
    process = host.process();
    return handOver(kept, predecessor, process);
  };
  const { toldTwice, ...result } = await succession(stage, first, replace, HANDOFFS, narrator, signal);
  const { count, outcome } = result;
  narrator.step('hand-offs', `${count} from process to process: ${outcome}; ${describeInherited(result)}`);
  narrator.step('gap', describeGap(result));
  const report = { mode, ...result, repeated: result.repeated + toldTwice, leaked: host.leftovers() };
  narrator.step('device saw', describeTally(report));
  narrator.step('release', describeRelease(report.leaked, 'the controller is back with its driver'));
  return report;
}

/** From one process to another. @returns what is kept, in the successor */
async function handOver(
  kept: KeepAlive,
  predecessor: SimulatedProcess,
  successor: SimulatedProcess,
): Promise<KeepAlive> {
  using listener = ChannelListener.listen(SOCKET, predecessor);
  using theirs = await Channel.connect(SOCKET, { kernel: successor });
  using ours = await listener.accept(ACCEPT_MS);
  const [taken] = await Promise.all([takeOver(theirs, { verify }), handOff(kept, ours)]);
  return taken;
}

/** While the predecessor can still go on. */
function verify(kept: KeepAlive): void {
  NvmeController.verify(kept.device(NVME), kept.record(NVME), { memory: token => kept.arena(token) });
}
