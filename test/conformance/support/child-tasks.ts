/** What other processes do in a case: each task is a function by its own name. @module */
import {
  IOMMU_IOAS_CHANGE_PROCESS,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
} from '../../../bindings/uapi/iommufd.js';
import type { ChildContext } from './case.js';
import { call } from './ioctl.js';
import { mapMemfd } from './memory.js';
import { accountedMemory } from './status.js';

export type Task = (context: ChildContext) => void | Promise<void>;

/** Charges all that is pinned to this process, and says what it had before and after, then waits. */
async function changeProcess(context: ChildContext): Promise<void> {
  const [iommufd = -1] = context.descriptors;
  context.say(accountedMemory(context));
  await context.heard();
  context.say(call(context, iommufd, IOMMU_IOAS_CHANGE_PROCESS, {}).result);
  context.say(accountedMemory(context));
  await context.heard();
}

/** Maps a memfd of its own address space in an IOAS, says the result, and waits to be told to end. */
async function mapInIoas(context: ChildContext): Promise<void> {
  const [iommufd = -1, file = -1] = context.descriptors;
  const { ioasId, iova, length } = context.argument as { ioasId: number; iova: bigint; length: number };
  const memory = mapMemfd(context, file, length);
  const { result } = call(context, iommufd, IOMMU_IOAS_MAP, {
    flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
    ioas_id: ioasId,
    user_va: memory.address,
    length: BigInt(length),
    iova,
  });
  context.say(result);
  await context.heard();
}

const tasks: Readonly<Record<string, Task>> = { changeProcess, mapInIoas };

/** The task called `name`. */
export function findTask(name: string): Task {
  const task = tasks[name];
  if (task === undefined) throw new Error(`there is no task ${name}`);
  return task;
}
