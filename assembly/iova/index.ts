export {
  INVALID,
  NO_SPACE,
  NOT_ALLOCATED,
  OK,
  addRange,
  allocate,
  allocateAt,
  freeRangeCount,
  freeSpace,
  free,
  lastResult,
} from './ranges';
