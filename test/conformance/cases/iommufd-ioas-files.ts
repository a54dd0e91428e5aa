/** FIXTURE(iommufd_ioas): memory that comes from a dma-buf. @module */
import { EINVAL, ENODEV } from '../../../bindings/uapi/errno.js';
import { equal, refused } from '../support/expect.js';
import type { IoasTests } from '../support/iommufd-ioas.js';
import { PAGE } from '../support/memory.js';

const SIZE = 4 * PAGE;

export const fileTests: IoasTests = {
  dmabuf_simple(f) {
    const fd = f.createDmabuf(SIZE);
    refused(f.tryMapFile(f.ioas, fd, 0, 0).result, EINVAL, 'no length');
    refused(f.tryMapFile(f.ioas, fd, SIZE, SIZE).result, EINVAL, 'from the end on');
    refused(f.tryMapFile(f.ioas, fd, 0, SIZE + 1).result, EINVAL, 'beyond the end');
    f.mapFile(f.ioas, fd, 0, SIZE);
    equal(f.kernel.close(fd), 0, 'close of a dma-buf that is mapped');
  },

  dmabuf_revoke(f) {
    const fd = f.createDmabuf(SIZE);
    const iova = f.mapFile(f.ioas, fd, 0, SIZE);
    f.revokeDmabuf(fd, true);
    if (f.device !== undefined) f.allocHwpt(f.device.deviceId, f.ioas);
    refused(f.tryMapFile(f.ioas, fd, 0, SIZE).result, ENODEV, 'revoked');

    f.revokeDmabuf(fd, false);
    f.mapFile(f.ioas, fd, 0, SIZE);
    f.unmap(f.ioas, iova, SIZE);
    f.mapFile(f.ioas, fd, 0, SIZE, iova);
    equal(f.kernel.close(fd), 0, 'close of a dma-buf that is mapped');
  },
};
