#!/usr/bin/env node
/** The `iommufd` command. @module */
import { run } from './run.js';

const SIGNALLED = 128;

const code = await run(process.argv.slice(2));
// Output that a stalled reader has not taken would keep an interrupted process alive.
if (code > SIGNALLED) process.exit(code);
process.exitCode = code;
