// The peer of the pagetable suite: VT-d second stage, 4 levels, the same walk and the same runs of equal leaves over
// the same tables. Pointers in entries are offsets into one arena, as a physical address less a base; they need no
// bounds checks here, since nobody else writes the tables.
//
//   pagetable translate <pages> <count>   ns per translation of random IOVAs
//   pagetable map-pages <pages>           ns per page, one record a page
//   pagetable map-range <pages>           ns per page, one range, physical addresses of another alignment
//   pagetable map-large <bytes>           ns per 2 MiB, one range
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define R 1ull
#define W 2ull
#define PS (1ull << 7)
#define ADDRESS 0x000ffffffffff000ull
#define BASE 0x100000000ull
#define TOP 3

static uint8_t *arena;
static uint64_t used, capacity;

static inline uint64_t *table_at(uint64_t physical) { return (uint64_t *)(arena + (physical - BASE)); }

static uint64_t allocate(void) {
  if (used == capacity) {
    fprintf(stderr, "out of table pages\n");
    exit(1);
  }
  uint64_t physical = BASE + (used++ << 12);
  memset(table_at(physical), 0, 4096);
  return physical;
}

static inline int shift_of(int level) { return 12 + 9 * level; }
static inline unsigned index_of(int level, uint64_t va) { return (va >> shift_of(level)) & 511; }

enum kind { EMPTY, TABLE, LEAF, BAD };
static inline enum kind kind_of(int level, uint64_t entry) {
  if (!(entry & (R | W))) return entry ? BAD : EMPTY;
  if (level == 0) return LEAF;
  if (!(entry & PS)) return TABLE;
  return level <= 2 ? LEAF : BAD;
}

static uint64_t root;

static inline uint64_t translate(uint64_t va) {
  if (va >> 48) return ~0ull;
  uint64_t *table = table_at(root);
  for (int level = TOP; level >= 0; level--) {
    uint64_t entry = table[index_of(level, va)];
    enum kind kind = kind_of(level, entry);
    if (kind == TABLE) {
      table = table_at(entry & ADDRESS);
      continue;
    }
    if (kind == LEAF) {
      uint64_t mask = (1ull << shift_of(level)) - 1;
      return (entry & ADDRESS & ~mask) | (va & mask);
    }
    break;
  }
  return ~0ull;
}

// The table at `level` for `va`, made where it is missing. NULL: mapped already.
static uint64_t *descend(uint64_t va, int level) {
  uint64_t *table = table_at(root);
  for (int at = TOP; at > level; at--) {
    uint64_t *slot = &table[index_of(at, va)];
    enum kind kind = kind_of(at, *slot);
    if (kind == EMPTY) *slot = allocate() | R | W;
    else if (kind != TABLE) return NULL;
    table = table_at(*slot & ADDRESS);
  }
  return table;
}

static const uint64_t sizes = 1ull << 12 | 1ull << 21 | 1ull << 30;

static int map(uint64_t va, uint64_t length, uint64_t physical) {
  uint64_t last = va + length - 1;
  if (!length || last < va || last >> 48 || (va | length | physical) & 4095) return -1;
  while (1) {
    uint64_t left = last - va + 1;
    uint64_t both = va | physical;
    int align = both ? __builtin_ctzll(both) : 63;
    int fits = 63 - __builtin_clzll(left);
    uint64_t fitting = sizes & ((2ull << (align < fits ? align : fits)) - 1);
    int size = 63 - __builtin_clzll(fitting), level = (size - 12) / 9;
    uint64_t larger = sizes & ~((2ull << size) - 1);
    if (larger) {
      uint64_t mask = (1ull << __builtin_ctzll(larger)) - 1;
      if (!((va ^ physical) & mask) && (va | mask) - va + 1 < left) left = (va | mask) - va + 1;
    }
    uint64_t *table = descend(va, level);
    if (!table) return -1;
    unsigned index = index_of(level, va);
    uint64_t slots = left >> size;
    if (slots > 512 - index) slots = 512 - index;
    for (uint64_t i = 0; i < slots; i++)
      if (kind_of(level, table[index + i]) != EMPTY) return -1;
    for (uint64_t i = 0; i < slots; i++) {
      table[index + i] = R | W | physical | (level ? PS : 0);
      physical += 1ull << size;
    }
    va += slots << size;
    if (va > last) return 0;
  }
}

struct record {
  uint64_t iova, length, physical;
};

// Pages of 4 KiB whose leaf table is there go straight to it.
static int map_many(const struct record *records, uint64_t count) {
  uint64_t *leaves = NULL, covered = 0;
  for (uint64_t i = 0; i < count; i++) {
    const struct record *r = &records[i];
    if (r->length == 4096 && !((r->iova | r->physical) & 4095) && !(r->physical >> 52)) {
      if ((!leaves || r->iova >> 21 != covered) && !(r->iova >> 48)) {
        uint64_t *table = table_at(root);
        for (int at = TOP; at > 0 && table; at--) {
          uint64_t entry = table[index_of(at, r->iova)];
          table = kind_of(at, entry) == TABLE ? table_at(entry & ADDRESS) : NULL;
        }
        leaves = table;
        covered = r->iova >> 21;
      }
      if (leaves && r->iova >> 21 == covered) {
        uint64_t *slot = &leaves[index_of(0, r->iova)];
        if (kind_of(0, *slot) == EMPTY) {
          *slot = R | W | r->physical;
          continue;
        }
      }
    }
    if (map(r->iova, r->length, r->physical)) return -1;
    leaves = NULL;
  }
  return 0;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

static void reset(void) {
  used = 0;
  root = allocate();
}

static struct record *page_records(uint64_t pages) {
  struct record *records = malloc(pages * sizeof *records);
  for (uint64_t i = 0; i < pages; i++)
    records[i] = (struct record){0x4000000000ull + (i << 12), 4096, 0x200000000ull + ((i ^ 1) << 12)};
  return records;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  uint64_t amount = strtoull(argv[2], NULL, 0);
  capacity = 4096;
  arena = aligned_alloc(4096, capacity << 12);
  memset(arena, 1, capacity << 12);
  double best = 1e300;
  if (!strcmp(argv[1], "translate")) {
    uint64_t count = strtoull(argv[3], NULL, 0);
    struct record *records = page_records(amount);
    reset();
    if (map_many(records, amount)) return 1;
    uint64_t *iovas = malloc(count * 8), *results = malloc(count * 8);
    uint32_t state = 0x2545f491;
    for (uint64_t i = 0; i < count; i++) {
      state ^= state << 13, state ^= state >> 17, state ^= state << 5;
      iovas[i] = 0x4000000000ull + ((uint64_t)(state % amount) << 12) + (state >> 20);
    }
    for (int round = 0; round < 5; round++) {
      double start = now();
      for (uint64_t i = 0; i < count; i++) results[i] = translate(iovas[i]);
      double taken = (now() - start) / count;
      if (taken < best) best = taken;
      for (uint64_t i = 0; i < count; i++) {
        uint64_t page = (iovas[i] - 0x4000000000ull) >> 12;
        if (results[i] != 0x200000000ull + ((page ^ 1) << 12) + (iovas[i] & 4095)) return 1;
      }
    }
  } else {
    struct record *records = page_records(!strcmp(argv[1], "map-pages") ? amount : 1);
    uint64_t units = !strcmp(argv[1], "map-large") ? amount >> 21 : amount;
    for (int round = 0; round < 5; round++) {
      reset();
      double start = now();
      int status = !strcmp(argv[1], "map-pages")   ? map_many(records, amount)
                   : !strcmp(argv[1], "map-range") ? map(0x4000000000ull, amount << 12, 0x200001000ull)
                                                   : map(0x4000200000ull, amount, 0x200000000ull);
      if (status) return 1;
      double taken = (now() - start) / units;
      if (taken < best) best = taken;
    }
  }
  printf("%.4f\n", best);
  return 0;
}
