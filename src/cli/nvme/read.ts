/** `iommufd nvme <address> read`: logical blocks to a file or a pipe. @module */
import type { Namespace } from '../../drivers/nvme/index.js';
import type { ReadCommand } from '../arguments.js';
import { Incomplete, UsageError } from '../errors.js';
import { toJson } from '../json.js';
import { openOutput } from '../output.js';
import { Progress } from '../progress.js';
import { note, print } from '../streams.js';
import { formatSize } from '../units.js';
import { chunkSize, type Extent, planRead } from './plan.js';
import { pump } from './pump.js';
import { withController } from './session.js';
import { summary, summaryJson, type Transferred } from './summary.js';

/** Copies `extent`, in chunks. */
async function copy(
  namespace: Namespace,
  extent: Extent,
  name: string,
  signal: AbortSignal,
): Promise<Transferred> {
  await using output = await openOutput(name, signal);
  using progress = new Progress(extent.bytes);
  let fetched = 0;
  let delivered = 0;
  try {
    await pump(
      chunkSize(namespace.blockSize),
      async buffer => {
        const left = extent.blocks - fetched;
        const blocks = Math.min(left, buffer.length / namespace.blockSize);
        if (blocks === 0) return 0;
        const lba = extent.lba + fetched;
        await namespace.read(lba, buffer.subarray(0, blocks * namespace.blockSize), { signal });
        fetched += blocks;
        return blocks * namespace.blockSize;
      },
      async bytes => {
        const wanted = bytes.subarray(0, extent.bytes - delivered);
        await output.write(wanted);
        delivered += wanted.length;
        progress.update(delivered);
      },
    );
  } catch (error) {
    throw new Incomplete(`${formatSize(delivered)} of ${formatSize(extent.bytes)} had been read`, {
      cause: error,
    });
  }
  return { namespace: namespace.id, ...extent, seconds: progress.seconds };
}

export async function runRead(command: ReadCommand, signal: AbortSignal): Promise<void> {
  const { target, output } = command;
  if (output === '-' && process.stdout.isTTY) {
    throw new UsageError(
      'binary data is no use on a terminal; give --output FILE, or a pipe such as "| hexdump -C"',
    );
  }
  const result = await withController(target, signal, ({ controller }) => {
    const namespace = controller.namespace(command.namespace);
    return copy(namespace, planRead(namespace, command.lba, command.length), output, signal);
  });
  if (command.json) await print(toJson({ ...summaryJson(target.address, result), output }));
  else if (output !== '-') await print(`read ${summary(`to ${output}`, result)}\n`);
  else if (process.stderr.isTTY) note(`read ${summary('to standard output', result)}`);
}
