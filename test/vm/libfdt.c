// Trees written and read with libfdt, for dtc.test.ts: `libfdt <what> [count]`, blobs on stdin and stdout.
#include <libfdt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 1 << 24 };
static char buffer[SIZE];
static char other[SIZE];

static int good(int result, const char *what) {
  if (result < 0) {
    fprintf(stderr, "%s: %s\n", what, fdt_strerror(result));
    exit(1);
  }
  return result;
}
#define GOOD(call) good(call, #call)

static void put(const void *fdt) { fwrite(fdt, 1, fdt_totalsize(fdt), stdout); }

static size_t get(void) { return fread(buffer, 1, SIZE, stdin); }

static void sequential(void) {
  GOOD(fdt_create(buffer, SIZE));
  GOOD(fdt_add_reservemap_entry(buffer, 0x1000, 0x2000));
  GOOD(fdt_finish_reservemap(buffer));
  GOOD(fdt_begin_node(buffer, ""));
  GOOD(fdt_property_string(buffer, "compatible", "libfdt,test-v1"));
  GOOD(fdt_property_u64(buffer, "wide", UINT64_C(0x123456789abcdef0)));
  GOOD(fdt_property(buffer, "empty", NULL, 0));
  GOOD(fdt_begin_node(buffer, "a"));
  GOOD(fdt_property_u32(buffer, "narrow", 5));
  GOOD(fdt_property(buffer, "odd", "abc", 3));
  GOOD(fdt_begin_node(buffer, "inner"));
  GOOD(fdt_end_node(buffer));
  GOOD(fdt_end_node(buffer));
  GOOD(fdt_begin_node(buffer, "b@1"));
  GOOD(fdt_property_u32(buffer, "row", 6)); // the end of "narrow", which it may share
  GOOD(fdt_end_node(buffer));
  GOOD(fdt_begin_node(buffer, "c"));
  GOOD(fdt_end_node(buffer));
  GOOD(fdt_end_node(buffer));
  GOOD(fdt_finish(buffer));
}

static void read_write(void) {
  GOOD(fdt_create_empty_tree(buffer, SIZE));
  // Each subnode goes before those that are there.
  const int a = GOOD(fdt_add_subnode(buffer, 0, "a"));
  GOOD(fdt_add_subnode(buffer, a, "inner"));
  GOOD(fdt_setprop_string(buffer, 0, "compatible", "x"));
  GOOD(fdt_setprop(buffer, GOOD(fdt_path_offset(buffer, "/a")), "odd", "abc", 3));
  GOOD(fdt_setprop_u32(buffer, GOOD(fdt_path_offset(buffer, "/a")), "narrow", 5));
  GOOD(fdt_add_subnode(buffer, 0, "c"));
  GOOD(fdt_add_subnode(buffer, 0, "x"));
  GOOD(fdt_setprop_u32(buffer, GOOD(fdt_add_subnode(buffer, 0, "b@1")), "row", 6));
  GOOD(fdt_setprop_string(buffer, 0, "compatible", "libfdt,test-v1"));
  GOOD(fdt_setprop_u64(buffer, 0, "wide", UINT64_C(0x123456789abcdef0)));
  GOOD(fdt_setprop_empty(buffer, 0, "empty"));
  GOOD(fdt_setprop_empty(buffer, 0, "gone"));
  GOOD(fdt_delprop(buffer, 0, "gone"));
  GOOD(fdt_del_node(buffer, GOOD(fdt_path_offset(buffer, "/x"))));
  GOOD(fdt_add_mem_rsv(buffer, 0x1000, 0x2000));
}

static void rfc(int count, int reversed) {
  char name[16];
  GOOD(fdt_create_empty_tree(buffer, SIZE));
  GOOD(fdt_setprop_string(buffer, 0, "compatible", "iommufd-v0"));
  int node = GOOD(fdt_add_subnode(buffer, 0, "iommufds"));
  node = GOOD(fdt_add_subnode(buffer, node, "1"));
  node = GOOD(fdt_add_subnode(buffer, node, "ioases"));
  node = GOOD(fdt_add_subnode(buffer, node, "3"));
  for (int i = 0; i < count; i++) {
    const int index = reversed ? i : count - 1 - i;
    const unsigned long start = index * 0x2000ul;
    const unsigned long length = 0x1000;
    const int prot = 7;
    snprintf(name, sizeof name, "%d", index);
    const int area = GOOD(fdt_add_subnode(buffer, node, name));
    // The last goes first as well.
    GOOD(fdt_setprop(buffer, area, "iommu-prot", &prot, sizeof prot));
    GOOD(fdt_setprop(buffer, area, "iova-len", &length, sizeof length));
    GOOD(fdt_setprop(buffer, area, "iova-start", &start, sizeof start));
  }
}

static void sum(void) {
  unsigned long count = 0;
  unsigned long total = 0;
  int iommufd, ioas, area;
  fdt_for_each_subnode(iommufd, buffer, GOOD(fdt_path_offset(buffer, "/iommufds"))) {
    fdt_for_each_subnode(ioas, buffer, GOOD(fdt_subnode_offset(buffer, iommufd, "ioases"))) {
      fdt_for_each_subnode(area, buffer, ioas) {
        int size;
        const void *value = fdt_getprop(buffer, area, "iova-len", &size);
        unsigned long length;
        if (value == NULL || size != sizeof length) exit(1);
        memcpy(&length, value, sizeof length);
        count++;
        total += length;
      }
    }
  }
  printf("%lu %lu\n", count, total);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const char *what = argv[1];
  const int count = argc > 2 ? atoi(argv[2]) : 0;
  if (strcmp(what, "sequential") == 0) {
    sequential();
    put(buffer);
  } else if (strcmp(what, "read-write") == 0) {
    read_write();
    GOOD(fdt_pack(buffer));
    put(buffer);
  } else if (strcmp(what, "unpacked") == 0) {
    sequential();
    GOOD(fdt_open_into(buffer, other, 8192));
    GOOD(fdt_add_subnode(other, 0, "more"));
    GOOD(fdt_del_node(other, GOOD(fdt_path_offset(other, "/more"))));
    put(other);
  } else if (strcmp(what, "nops") == 0) {
    read_write();
    GOOD(fdt_setprop_u32(buffer, GOOD(fdt_path_offset(buffer, "/a")), "gone", 1));
    GOOD(fdt_setprop_u32(buffer, GOOD(fdt_add_subnode(buffer, 0, "y")), "x", 1));
    GOOD(fdt_nop_property(buffer, GOOD(fdt_path_offset(buffer, "/a")), "gone"));
    GOOD(fdt_nop_node(buffer, GOOD(fdt_path_offset(buffer, "/y"))));
    GOOD(fdt_pack(buffer));
    put(buffer);
  } else if (strcmp(what, "rfc") == 0 || strcmp(what, "rfc-reversed") == 0) {
    rfc(count, strcmp(what, "rfc") != 0);
    GOOD(fdt_pack(buffer));
    put(buffer);
  } else if (strcmp(what, "check") == 0) {
    GOOD(fdt_check_full(buffer, get()));
    puts("ok");
  } else if (strcmp(what, "move") == 0) {
    get();
    GOOD(fdt_open_into(buffer, other, SIZE));
    GOOD(fdt_setprop_empty(other, 0, "moved"));
    GOOD(fdt_delprop(other, 0, "moved"));
    GOOD(fdt_pack(other));
    put(other);
  } else if (strcmp(what, "sum") == 0) {
    get();
    sum();
  } else {
    return 2;
  }
  return 0;
}
