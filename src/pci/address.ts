/** PCI addresses, as sysfs and lspci write them. @module */

declare const brand: unique symbol;

/** A PCI address in full: `domain:bus:device.function`, such as `0000:00:04.0`, in lower case. */
export type PciAddress = string & { readonly [brand]: 'PciAddress' };

const pattern = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])$/i;

/**
 * The full form of a PCI address; the domain may be left out (`00:04.0`).
 *
 * @throws TypeError, RangeError when `text` is not a PCI address.
 */
export function pciAddress(text: string): PciAddress {
  if (typeof text !== 'string') throw new TypeError(`a PCI address must be a string, got ${typeof text}`);
  const match = pattern.exec(text);
  if (!match) throw new RangeError(`${JSON.stringify(text)} is not a PCI address such as 0000:00:04.0`);
  return `${match[1] ?? '0000'}:${match[2]}`.toLowerCase() as PciAddress;
}

/** True when `text` is a PCI address in full form. */
export function isPciAddress(text: string): text is PciAddress {
  return pattern.exec(text)?.[1] !== undefined;
}
