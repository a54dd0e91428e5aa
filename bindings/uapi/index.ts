/**
 * The kernel's user API as far as this library speaks it: every struct, request and constant of the headers
 * it uses, under the names they have there, and the language they are declared in.
 *
 * @module
 */

export * from './eventfd.js';
export * from './fcntl.js';
export * from './iommufd.js';
export * from './kexec.js';
export * from './liveupdate.js';
export * from './memfd.js';
export * from './mman.js';
export * from './request.js';
export * from './socket.js';
export * from './struct.js';
export * from './vfio.js';
