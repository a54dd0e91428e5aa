/** `iommufd nvme <address> write`: a file or a pipe over logical blocks. @module */
import type { Namespace, NvmeController } from '../../drivers/nvme/index.js';
import type { WriteCommand } from '../arguments.js';
import { canAsk, confirm } from '../confirm.js';
import { Incomplete, UsageError } from '../errors.js';
import { type Input, openInput } from '../input.js';
import { toJson } from '../json.js';
import { Progress } from '../progress.js';
import { print } from '../streams.js';
import { formatSize, formatSizeExactly } from '../units.js';
import { checkWhole, chunkSize, type Extent, planWrite } from './plan.js';
import { pump } from './pump.js';
import { withController } from './session.js';
import { summary, summaryJson, type Transferred } from './summary.js';

/** What would be lost, in so many words. */
function describeLoss(
  controller: NvmeController,
  namespace: Namespace,
  extent: Extent,
  exact: boolean,
): string {
  const { serialNumber, modelNumber } = controller.identity;
  const last = extent.lba + extent.blocks - 1;
  const size = formatSizeExactly(extent.blocks * namespace.blockSize);
  const range = `blocks ${extent.lba} to ${last}, ${size}${exact ? '' : ' or as far as the input reaches'},`;
  return (
    `this overwrites ${range} of namespace ${namespace.id} (${formatSize(namespace.size)}) ` +
    `of ${controller.device.name}, ${modelNumber}, serial number ${serialNumber}`
  );
}

/** Returns only when the user agrees. */
async function requireConsent(loss: string, fromStdin: boolean, signal: AbortSignal): Promise<void> {
  if (fromStdin || !canAsk()) throw new UsageError(`${loss}. Pass --yes to do so`);
  if (!(await confirm(`iommufd: ${loss}.`, signal)))
    throw new UsageError('not confirmed, nothing was written');
}

/** What is no longer as it was. @param handed bytes that were given to the device, of which it finished `written` */
function damage(written: number, handed: number): string {
  if (handed === 0) return 'nothing was written';
  const unsure = handed > written ? `, and some of the next ${formatSize(handed - written)} perhaps` : '';
  return `${formatSize(written)} had been written${unsure}`;
}

/** Copies all of `input`, in chunks, to `extent`, which it may turn out not to fill. */
async function copy(
  namespace: Namespace,
  extent: Extent,
  input: Input,
  pad: boolean,
  signal: AbortSignal,
): Promise<Transferred> {
  const { blockSize } = namespace;
  using progress = new Progress(input.size);
  const room = extent.blocks * blockSize;
  let taken = 0;
  let handed = 0;
  let written = 0;
  try {
    await pump(
      chunkSize(blockSize),
      async buffer => {
        const length = await input.fill(buffer);
        taken += length;
        if (taken > room) {
          throw new RangeError(
            `the input is longer than the ${room} bytes from block ${extent.lba} to the end of the namespace`,
          );
        }
        if (!pad) checkWhole(namespace, taken);
        const whole = Math.ceil(length / blockSize) * blockSize;
        buffer.fill(0, length, whole);
        return whole;
      },
      async bytes => {
        handed += bytes.length;
        await namespace.write(extent.lba + written / blockSize, bytes, { signal });
        written += bytes.length;
        progress.update(written);
      },
    );
    if (taken === 0) throw new RangeError('the input is empty');
    await namespace.flush({ signal });
  } catch (error) {
    throw new Incomplete(damage(written, handed), { cause: error });
  }
  const { seconds } = progress;
  return { namespace: namespace.id, lba: extent.lba, blocks: written / blockSize, bytes: taken, seconds };
}

export async function runWrite(command: WriteCommand, signal: AbortSignal): Promise<void> {
  const { target, pad } = command;
  const fromStdin = command.input === '-';
  if (fromStdin && process.stdin.isTTY) {
    throw new UsageError('there is no input: give --input FILE, or a pipe', 'nvme write');
  }
  await using input = await openInput(command.input, signal);
  const result = await withController(target, signal, async ({ controller }) => {
    const namespace = controller.namespace(command.namespace);
    const extent = planWrite(namespace, command.lba, input.size, pad);
    if (!command.yes) {
      const loss = describeLoss(controller, namespace, extent, input.size !== undefined);
      await requireConsent(loss, fromStdin, signal);
    }
    return copy(namespace, extent, input, pad, signal);
  });
  if (command.json) await print(toJson({ ...summaryJson(target.address, result), input: command.input }));
  else await print(`wrote ${summary(`from ${fromStdin ? 'standard input' : command.input}`, result)}\n`);
}
