/**
 * A device that moves memory, and interrupts: tools/testing/selftests/vfio/vfio_pci_driver_test.c. The device is QEMU's
 * edu, whose transfers take 100 ms for 4095 bytes at the most.
 *
 * @module
 */
import type { Test } from 'tap';
import { EAGAIN } from '../../../bindings/uapi/errno.js';
import { EDU_MAX_DMA } from '../../support/edu-registers.js';
import { address } from '../../vm/topology.js';
import type { Case, ConformanceHost } from '../support/case.js';
import { EduDriver } from '../support/edu.js';
import { equal, refused, sameBytes } from '../support/expect.js';
import { anonymous, PAGE } from '../support/memory.js';
import { Iommu, type IommuMode, IovaAllocator, iommuModes, profilesOf, VfioDevice } from '../support/vfio.js';

/** As many pieces as the selftest copies at a time. */
const SIZE = 4 * EDU_MAX_DMA;
const REGION = 8 * PAGE;
/** Ten in the selftest; each takes the device two seconds. */
const MIXED_ROUNDS = 2;
/** The selftest has up to 250 GiB in flight, which would take the device half a year. */
const STORM = 8;

interface Fixture {
  readonly device: VfioDevice;
  driver: EduDriver;
  readonly source: Uint8Array;
  readonly target: Uint8Array;
  readonly sourceIova: bigint;
  readonly targetIova: bigint;
  /** Nothing is mapped here. */
  readonly unmappedIova: bigint;
}

const noInterrupt = ({ driver }: Fixture): void => refused(driver.interrupts(), EAGAIN, 'interrupts');

async function copyAndCompare({ driver, source, target, sourceIova, targetIova }: Fixture): Promise<void> {
  source.fill('x'.charCodeAt(0));
  target.fill('y'.charCodeAt(0));
  await driver.copy(sourceIova, targetIova, SIZE);
  sameBytes(target, source, 'the copy');
}

const bodies: Readonly<Record<string, (fixture: Fixture) => void | Promise<void>>> = {
  init_remove: fixture => {
    for (let round = 0; round < 10; round++) {
      fixture.driver[Symbol.dispose]();
      fixture.driver = new EduDriver(fixture.device);
    }
  },
  memcpy_success: async fixture => {
    await copyAndCompare(fixture);
    noInterrupt(fixture);
  },
  // A device may or may not notice that its access was refused; what counts is that nothing else comes of it.
  memcpy_from_unmapped_iova: async fixture => {
    await fixture.driver.copy(fixture.unmappedIova, fixture.targetIova, EDU_MAX_DMA);
    noInterrupt(fixture);
  },
  memcpy_to_unmapped_iova: async fixture => {
    await fixture.driver.copy(fixture.sourceIova, fixture.unmappedIova, EDU_MAX_DMA);
    noInterrupt(fixture);
  },
  send_msi: ({ driver }) => driver.sendInterrupt(),
  mix_and_match: async fixture => {
    const { driver, unmappedIova, targetIova } = fixture;
    for (let round = 0; round < MIXED_ROUNDS; round++) {
      await copyAndCompare(fixture);
      await driver.copy(unmappedIova, targetIova, EDU_MAX_DMA);
      await driver.sendInterrupt();
    }
  },
  memcpy_storm: async fixture => {
    const { driver, sourceIova, targetIova } = fixture;
    for (let count = 0; count < STORM; count++) await driver.copy(sourceIova, targetIova, EDU_MAX_DMA);
    noInterrupt(fixture);
  },
};

async function withDriver(
  host: ConformanceHost,
  mode: IommuMode,
  body: (fixture: Fixture) => void | Promise<void>,
): Promise<void> {
  using memory = anonymous(host, REGION);
  using iommu = new Iommu(host.kernel, mode);
  using device = await VfioDevice.open(host, address.edu, iommu);
  const iovas = new IovaAllocator(iommu);
  const length = BigInt(REGION);
  const iova = iovas.allocate(length);
  equal(iommu.map(iova, memory.address, length), 0, 'map');
  const half = REGION / 2;
  const fixture: Fixture = {
    device,
    driver: new EduDriver(device),
    source: memory.bytes.subarray(0, SIZE),
    target: memory.bytes.subarray(half, half + SIZE),
    sourceIova: iova,
    targetIova: iova + BigInt(half),
    unmappedIova: iovas.allocate(length),
  };
  try {
    await body(fixture);
  } finally {
    fixture.driver[Symbol.dispose]();
    equal(iommu.unmap(iova, length).result, 0, 'unmap');
  }
}

export const cases: readonly Case[] = iommuModes.flatMap(mode =>
  Object.entries(bodies).map(
    ([name, body]): Case => ({
      source: 'vfio/vfio_pci_driver_test.c',
      fixture: 'vfio_pci_driver_test',
      name,
      variant: mode.name,
      profiles: profilesOf(mode),
      run: (_t: Test, host) => withDriver(host, mode, body),
    }),
  ),
);
