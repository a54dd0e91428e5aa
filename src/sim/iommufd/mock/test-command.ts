/** The request for tests, as its operations see it. @module */
import type { IOMMU_TEST_CMD } from '../../../../bindings/uapi/iommufd-test.js';
import type { UserCommand } from '../user-command.js';

/** Operations read their own struct from the `view`, and put into it what goes out. */
export type TestCommand = UserCommand<typeof IOMMU_TEST_CMD.argument>;
