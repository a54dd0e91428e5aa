/** What is told of a transfer that is done. @module */
import { formatRate, formatSeconds, formatSizeExactly } from '../units.js';
import type { Extent } from './plan.js';

export interface Transferred extends Extent {
  readonly namespace: number;
  readonly seconds: number;
}

/** @param where such as `to first.img` */
export function summary(where: string, { bytes, seconds }: Transferred): string {
  return `${formatSizeExactly(bytes)} ${where} in ${formatSeconds(seconds)}, ${formatRate(bytes, seconds)}`;
}

export function summaryJson(address: string, result: Transferred): Record<string, unknown> {
  const { namespace, lba, blocks, bytes, seconds } = result;
  return {
    address,
    namespace,
    lba: BigInt(lba),
    blocks: BigInt(blocks),
    bytes: BigInt(bytes),
    seconds: Number(seconds.toFixed(6)),
    bytesPerSecond: Math.round(bytes / Math.max(seconds, 1e-6)),
  };
}
