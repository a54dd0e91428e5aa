/** `iommufd state export`: a saved state in a form that others read. @module */
import { decodeState } from '../../keepalive/state/decode-state.js';
import { fdtSource } from '../../keepalive/state/dts.js';
import { readFdt } from '../../keepalive/state/fdt.js';
import { exportRfc } from '../../keepalive/state/rfc.js';
import type { StateExportCommand } from '../arguments.js';
import { UsageError } from '../errors.js';
import { jsonPieces, toJson } from '../json.js';
import { openOutput } from '../output.js';
import { print } from '../streams.js';
import { formatSizeExactly } from '../units.js';
import type { ExportFormat } from './export-format.js';
import { onState, readBytes, titleOf } from './file.js';
import { stateJson } from './state-json.js';

/** Of text to be written at a time, in characters. */
const PIECE = 1 << 16;

function* inPieces(parts: Iterable<string>): Generator<Uint8Array> {
  let text = '';
  for (const part of parts) {
    text += part;
    if (text.length < PIECE) continue;
    yield Buffer.from(text);
    text = '';
  }
  yield Buffer.from(text);
}

/** What is to be written. Source text needs a tree alone: so a state that is not good can be looked at. */
export function exported(bytes: Uint8Array, format: ExportFormat): Iterable<Uint8Array> {
  switch (format) {
    case 'dts':
      return inPieces(fdtSource(readFdt(bytes)));
    case 'json':
      return inPieces(jsonPieces(stateJson(decodeState(bytes), 'all')));
    case 'rfc':
      return [exportRfc(decodeState(bytes))];
  }
}

export async function runStateExport(command: StateExportCommand, signal: AbortSignal): Promise<void> {
  const { file, format, output, json } = command;
  if (format === 'rfc' && output === '-' && process.stdout.isTTY) {
    throw new UsageError(
      'binary data is no use on a terminal; give --output FILE, or a pipe such as "| dtc"',
    );
  }
  const bytes = await readBytes(file, signal);
  const pieces = await onState(file, () => exported(bytes, format));
  let size = 0;
  {
    // Opened last: what cannot be exported leaves what is there alone.
    await using to = await openOutput(output, signal);
    for (const piece of pieces) {
      await to.write(piece);
      size += piece.length;
    }
  }
  if (json) await print(toJson({ file, format, bytes: BigInt(size), output }));
  else if (output !== '-')
    await print(`wrote ${titleOf(file)} as ${format} to ${output}, ${formatSizeExactly(size)}\n`);
}
