export { codecFault, codecFree, codecReserve, codecStaging } from './memory';
export { codecCrc32c, codecStart } from './crc32c';
export {
  codecFdtBootCpu,
  codecFdtIndex,
  codecFdtIndexEnd,
  codecFdtOpen,
  codecFdtReservationCount,
  codecFdtReservations,
  codecFdtTotal,
} from './fdt-read';
export {
  codecFdtBegin,
  codecFdtBeginNode,
  codecFdtBeginProperty,
  codecFdtCursor,
  codecFdtEndNode,
  codecFdtEndProperty,
  codecFdtFinish,
  codecFdtProperty,
  codecFdtReservation,
} from './fdt-write';
export {
  codecMappingsBegin,
  codecMappingsDecode,
  codecMappingsEncode,
  codecMappingsPackedEnd,
  codecMappingsRows,
} from './mappings';
export {
  codecExtentsBegin,
  codecExtentsDecode,
  codecExtentsEncode,
  codecExtentsPackedEnd,
  codecExtentsRows,
} from './extents';
export { codecRfcBegin, codecRfcId, codecRfcInOrder, codecRfcNext, codecRfcRows, codecRfcWrite } from './rfc';
