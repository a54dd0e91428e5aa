/** Admin commands (Base Specification 2.0, 5). @module */
import type { Controller } from './controller.js';
import { getFeature, setFeature } from './features.js';
import { identify } from './identify.js';
import { getLogPage } from './log-pages.js';
import { BLOCK_FORMATS } from './namespace.js';
import { AdminOpcode, BROADCAST, DNR, MAX_QUEUE_ENTRIES, Status, validNamespaceId } from './protocol.js';
import type { Request } from './request.js';

const OPCODES: readonly number[] = Object.values(AdminOpcode);
/** Flag of queue creation: the queue is in one piece. */
const CONTIGUOUS = 1;
const INTERRUPTS = 2;

/** @returns a status; undefined when the command completes later @throws PointerError */
export function executeAdmin(controller: Controller, request: Request): number | undefined {
  if (!OPCODES.includes(request.opcode)) return Status.INVALID_OPCODE | DNR;
  // Admin commands have no scatter-gather lists on PCI Express.
  if (request.pointerKind !== 0) return Status.INVALID_FIELD | DNR;
  if (request.fuse !== 0) return Status.INVALID_FIELD;
  switch (request.opcode) {
    case AdminOpcode.DELETE_SQ:
      return deleteSubmissionQueue(controller, request);
    case AdminOpcode.CREATE_SQ:
      return createSubmissionQueue(controller, request);
    case AdminOpcode.GET_LOG_PAGE:
      return getLogPage(controller, request);
    case AdminOpcode.DELETE_CQ:
      return deleteCompletionQueue(controller, request);
    case AdminOpcode.CREATE_CQ:
      return createCompletionQueue(controller, request);
    case AdminOpcode.IDENTIFY: {
      const answer = identify(controller, request);
      if (typeof answer === 'number') return answer;
      controller.pointer(request, answer.length).write(answer);
      return Status.SUCCESS;
    }
    case AdminOpcode.ABORT:
      return abort(controller, request);
    case AdminOpcode.SET_FEATURES:
      return setFeature(controller, request);
    case AdminOpcode.GET_FEATURES:
      return getFeature(controller, request);
    case AdminOpcode.ASYNC_EVENT:
      return controller.events.request(request);
    case AdminOpcode.NAMESPACE_ATTACHMENT:
      // Its namespaces are its own; nothing can be attached or detached.
      return (validNamespaceId(request.namespaceId) ? Status.INVALID_FIELD : Status.INVALID_NAMESPACE) | DNR;
    case AdminOpcode.DOORBELL_BUFFER:
      return useDoorbellBuffer(controller, request);
    case AdminOpcode.FORMAT:
      return format(controller, request);
    default:
      return Status.INVALID_FIELD | DNR;
  }
}

function createCompletionQueue(controller: Controller, request: Request): number {
  const { options } = controller;
  const id = request.dword(10) & 0xffff;
  const size = (request.dword(10) >>> 16) + 1;
  const flags = request.dword(11) & 0xffff;
  const vector = request.dword(11) >>> 16;
  if (id === 0 || id > options.maxQueues || controller.completionQueues.has(id)) {
    return Status.INVALID_QUEUE_ID | DNR;
  }
  const wrong = checkQueue(controller, request, size);
  if (wrong) return wrong;
  if (vector >= options.msixVectors || (vector !== 0 && !controller.hasVectors)) {
    return Status.INVALID_VECTOR | DNR;
  }
  if (!(flags & CONTIGUOUS)) return Status.INVALID_FIELD | DNR;
  controller.addCompletionQueue(id, size, request.prp1, vector, (flags & INTERRUPTS) !== 0);
  controller.queuesCreated = true;
  return Status.SUCCESS;
}

function createSubmissionQueue(controller: Controller, request: Request): number {
  const id = request.dword(10) & 0xffff;
  const size = (request.dword(10) >>> 16) + 1;
  const completionsId = request.dword(11) >>> 16;
  const completions = controller.completionQueues.get(completionsId);
  if (completionsId === 0 || completions === undefined) return Status.INVALID_CQ | DNR;
  if (id === 0 || id > controller.options.maxQueues || controller.submissionQueues.has(id)) {
    return Status.INVALID_QUEUE_ID | DNR;
  }
  const wrong = checkQueue(controller, request, size);
  if (wrong) return wrong;
  if (!(request.dword(11) & CONTIGUOUS)) return Status.INVALID_FIELD | DNR;
  controller.addSubmissionQueue(id, size, request.prp1, completions);
  return Status.SUCCESS;
}

/** @returns a status when size or address of a queue will not do */
function checkQueue(controller: Controller, request: Request, size: number): number {
  if (size === 1 || size > MAX_QUEUE_ENTRIES) return Status.INVALID_QUEUE_SIZE | DNR;
  if (request.prp1 & BigInt(controller.pageSize - 1)) return Status.INVALID_PRP_OFFSET | DNR;
  return Status.SUCCESS;
}

function deleteSubmissionQueue(controller: Controller, request: Request): number {
  const id = request.dword(10) & 0xffff;
  const queue = controller.submissionQueues.get(id);
  if (id === 0 || queue === undefined) return Status.INVALID_QUEUE_ID | DNR;
  controller.removeSubmissionQueue(queue);
  return Status.SUCCESS;
}

function deleteCompletionQueue(controller: Controller, request: Request): number {
  const id = request.dword(10) & 0xffff;
  const queue = controller.completionQueues.get(id);
  if (id === 0 || queue === undefined) return Status.INVALID_CQ | DNR;
  if (queue.submissionQueues.size > 0) return Status.INVALID_QUEUE_DELETION;
  controller.removeCompletionQueue(queue);
  return Status.SUCCESS;
}

function abort(controller: Controller, request: Request): number {
  const queueId = request.dword(10) & 0xffff;
  const id = request.dword(10) >>> 16;
  request.result = 1; // it was not aborted
  const queue = controller.submissionQueues.get(queueId);
  if (queue === undefined) return Status.INVALID_FIELD | DNR;
  if (!controller.options.aborts) return Status.SUCCESS;
  const event = queueId === 0 ? controller.events.withdraw(id) : undefined;
  if (event !== undefined) controller.complete(event, Status.ABORT_REQUESTED);
  if (event !== undefined || controller.abort(queue, id)) request.result = 0;
  return Status.SUCCESS;
}

/** From now on doorbells are in memory; the registers are only rung to wake the controller. */
function useDoorbellBuffer(controller: Controller, request: Request): number {
  const { prp1: doorbells, prp2: eventIndexes } = request;
  if ((doorbells | eventIndexes) & BigInt(controller.pageSize - 1)) return Status.INVALID_FIELD | DNR;
  controller.doorbells.moveToMemory(doorbells, eventIndexes);
  return Status.SUCCESS;
}

function format(controller: Controller, request: Request): number {
  const nsid = request.namespaceId;
  if (!validNamespaceId(nsid)) return Status.INVALID_NAMESPACE | DNR;
  const targets = controller.namespaces.filter(({ id }) => nsid === BROADCAST || id === nsid);
  if (targets.length === 0 && nsid !== BROADCAST) return Status.INVALID_FIELD | DNR;
  const dword = request.dword(10);
  const upper = controller.features.extendedFormats ? (dword >>> 12) & 3 : 0;
  const index = (dword & 0xf) | (upper << 4);
  const chosen = BLOCK_FORMATS[index];
  const protection = (dword >>> 5) & 7;
  if (chosen === undefined || chosen.metadata !== 0 || protection !== 0) return Status.INVALID_FORMAT | DNR;
  for (const namespace of targets) {
    namespace.storage.clear(0, namespace.storage.size);
    namespace.format = index;
  }
  return Status.SUCCESS;
}
