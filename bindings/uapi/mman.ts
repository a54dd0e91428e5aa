/** `mmap(2)` and `madvise(2)` constants, as on x86-64 and arm64 (asm-generic/mman-common.h). @module */

export const PROT_READ = 1;
export const PROT_WRITE = 2;

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_ANONYMOUS = 0x20;
export const MAP_POPULATE = 0x8000;
export const MAP_HUGETLB = 0x4_0000;

export const MADV_DONTFORK = 10;
