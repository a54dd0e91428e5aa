/** Writes quantities for people. @module */

const BINARY = 1024;
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** Such as `512 B`, `1.5 MiB`, `128 MiB`. */
export function formatSize(bytes: number | bigint): string {
  let value = Number(bytes);
  let unit = 0;
  while (value >= BINARY && unit < units.length - 1) {
    value /= BINARY;
    unit++;
  }
  const digits = Number.isInteger(value) || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Such as `128 MiB (134217728 bytes)`. */
export function formatSizeExactly(bytes: number | bigint): string {
  if (Number(bytes) === 1) return '1 byte';
  return Number(bytes) < BINARY ? `${bytes} bytes` : `${formatSize(bytes)} (${bytes} bytes)`;
}

/** Such as `1.5 GiB/s`. */
export function formatRate(bytes: number, seconds: number): string {
  return `${formatSize(Math.round(bytes / Math.max(seconds, 1e-6)))}/s`;
}

/** Such as `0.25 s`, `12 s`, `3 min 20 s`, `2 h 5 min`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 10) return `${Number(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** An identifier of a given width, such as `0x010802`. */
export function formatHex(value: number | bigint, digits: number): string {
  return `0x${value.toString(16).padStart(digits, '0')}`;
}

/** An address, in groups of four digits, such as `0x0001_0000`. */
export function formatAddress(value: bigint): string {
  const digits = value.toString(16);
  const padded = digits.padStart(Math.ceil(digits.length / 4) * 4, '0');
  return `0x${padded.replace(/(?!^)(?=(?:.{4})+$)/g, '_')}`;
}

/** Such as `1 arena`, `2 arenas`. */
export function formatCount(count: number, one: string, several = `${one}s`): string {
  return `${count} ${count === 1 ? one : several}`;
}
