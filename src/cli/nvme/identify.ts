/** `iommufd nvme <address> identify`: what a controller and its namespaces say of themselves. @module */
import type { ControllerIdentity, NamespaceIdentity } from '../../drivers/nvme/index.js';
import type { IdentifyCommand } from '../arguments.js';
import { colours } from '../colours.js';
import { toJson } from '../json.js';
import { print } from '../streams.js';
import { fields, table } from '../table.js';
import { formatHex, formatSize, formatSizeExactly } from '../units.js';
import { type Session, withController } from './session.js';

/** Everything that is shown, apart from the live objects, which end with the session. */
export interface Identification {
  readonly address: string;
  readonly noiommu: boolean;
  readonly driver: string | undefined;
  readonly controller: ControllerIdentity;
  readonly namespaces: readonly NamespaceIdentity[];
}

const NAMESPACE_HEADING = ['NAMESPACE', 'SIZE', 'BLOCKS', 'BLOCK SIZE', 'IN USE', 'IDENTIFIER'];

function bytesOf(namespace: NamespaceIdentity, blocks: bigint): bigint {
  return blocks * BigInt(namespace.blockSize);
}

function identifierText({ nguid, eui64 }: NamespaceIdentity): string {
  if (nguid !== undefined) return `nguid ${nguid}`;
  return eui64 === undefined ? '-' : `eui64 ${eui64}`;
}

function blockSizeText({ blockSize, metadataSize }: NamespaceIdentity): string {
  return metadataSize > 0 ? `${formatSize(blockSize)} + ${metadataSize} B metadata` : formatSize(blockSize);
}

function commandsText({ supports }: ControllerIdentity): string {
  const names = [
    ...(supports.writeZeroes ? ['Write Zeroes'] : []),
    ...(supports.datasetManagement ? ['Dataset Management'] : []),
  ];
  return names.join(', ') || 'none';
}

/** For people. */
export function identificationText(
  { address, noiommu, driver, controller, namespaces }: Identification,
  bold?: (text: string) => string,
): string {
  const head = `${address}  ${controller.modelNumber}`;
  const about = fields([
    ['serial number', controller.serialNumber],
    ['firmware', controller.firmwareRevision],
    ['vendor id', formatHex(controller.vendorId, 4)],
    ['controller id', String(controller.controllerId)],
    ['NVMe version', controller.version],
    [
      'largest transfer',
      controller.maxTransfer === undefined ? 'no limit' : formatSizeExactly(controller.maxTransfer),
    ],
    ['optional commands', commandsText(controller)],
    ['write cache', controller.supports.volatileWriteCache ? 'volatile' : 'none, or not volatile'],
    ['confined by', noiommu ? 'nothing (no IOMMU)' : 'IOMMU'],
    ['driver', driver ?? 'none'],
  ]);
  const rows = namespaces.map(namespace => [
    String(namespace.id),
    formatSizeExactly(bytesOf(namespace, namespace.blocks)),
    String(namespace.blocks),
    blockSizeText(namespace),
    formatSize(bytesOf(namespace, namespace.utilisation)),
    identifierText(namespace),
  ]);
  const list = rows.length > 0 ? table([NAMESPACE_HEADING, ...rows], bold) : 'no active namespaces\n';
  return `${bold ? bold(head) : head}\n${about}\n${list}`;
}

/** For programs. */
export function identificationJson(identification: Identification): unknown {
  const { address, noiommu, driver, controller, namespaces } = identification;
  return {
    address,
    noiommu,
    driver: driver ?? null,
    controller: {
      ...controller,
      vendorId: formatHex(controller.vendorId, 4),
      maxTransfer: controller.maxTransfer ?? null,
    },
    namespaces: namespaces.map(namespace => ({
      ...namespace,
      bytes: bytesOf(namespace, namespace.blocks),
      nguid: namespace.nguid ?? null,
      eui64: namespace.eui64 ?? null,
    })),
  };
}

async function identify({ controller, found }: Session): Promise<Identification> {
  return {
    address: found.address,
    noiommu: controller.device.noiommu,
    driver: found.driver,
    controller: controller.identity,
    namespaces: controller.namespaces.map(namespace => namespace.identity),
  };
}

export async function runIdentify(command: IdentifyCommand, signal: AbortSignal): Promise<void> {
  const identification = await withController(command.target, signal, identify);
  if (command.json) await print(toJson(identificationJson(identification)));
  else await print(identificationText(identification, colours(process.stdout).bold));
}
