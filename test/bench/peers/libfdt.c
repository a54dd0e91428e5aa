// libfdt writing and reading mappings in the layout of the kernel's RFC: a node for each, three properties in it.
// Prints nanoseconds (write, read) or bytes (size) per mapping.
#include <libfdt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct mapping {
  uint64_t iova;
  uint64_t length;
  int prot;
};

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

static void check(int result, const char *what) {
  if (result < 0) {
    fprintf(stderr, "%s: %s\n", what, fdt_strerror(result));
    exit(1);
  }
}

static void write_tree(void *fdt, int size, const struct mapping *mappings, int count) {
  char name[24];
  int bad = fdt_create(fdt, size);
  bad |= fdt_finish_reservemap(fdt);
  bad |= fdt_begin_node(fdt, "");
  bad |= fdt_property_string(fdt, "compatible", "iommufd-v0");
  bad |= fdt_begin_node(fdt, "iommufds");
  bad |= fdt_begin_node(fdt, "1");
  bad |= fdt_begin_node(fdt, "ioases");
  bad |= fdt_begin_node(fdt, "1");
  for (int i = 0; i < count; i++) {
    snprintf(name, sizeof name, "%d", i);
    bad |= fdt_begin_node(fdt, name);
    bad |= fdt_property(fdt, "iova-start", &mappings[i].iova, sizeof mappings[i].iova);
    bad |= fdt_property(fdt, "iova-len", &mappings[i].length, sizeof mappings[i].length);
    bad |= fdt_property(fdt, "iommu-prot", &mappings[i].prot, sizeof mappings[i].prot);
    bad |= fdt_end_node(fdt);
  }
  for (int depth = 0; depth < 5; depth++) bad |= fdt_end_node(fdt);
  bad |= fdt_finish(fdt);
  check(bad == 0 ? 0 : -FDT_ERR_INTERNAL, "write");
}

static int read_tree(const void *fdt, struct mapping *mappings) {
  int count = 0;
  int node;
  int ioas = fdt_path_offset(fdt, "/iommufds/1/ioases/1");
  check(ioas, "path");
  fdt_for_each_subnode(node, fdt, ioas) {
    int length;
    const void *start = fdt_getprop(fdt, node, "iova-start", &length);
    const void *size = fdt_getprop(fdt, node, "iova-len", &length);
    const void *prot = fdt_getprop(fdt, node, "iommu-prot", &length);
    if (start == NULL || size == NULL || prot == NULL) exit(1);
    memcpy(&mappings[count].iova, start, 8);
    memcpy(&mappings[count].length, size, 8);
    memcpy(&mappings[count].prot, prot, 4);
    count++;
  }
  return count;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  const int count = atoi(argv[2]);
  const int size = count * 80 + 4096;
  struct mapping *mappings = malloc(count * sizeof *mappings);
  void *fdt = malloc(size);
  uint64_t iova = UINT64_C(1) << 32;
  uint32_t seed = 1;
  for (int i = 0; i < count; i++) {
    seed = seed * 1664525 + 1013904223;
    const uint32_t kind = (seed >> 8) % 100;
    const uint64_t length = kind < 70 ? 0x1000 : kind < 90 ? 0x10000 : 0x200000;
    mappings[i] = (struct mapping){iova, length, 7};
    iova += length;
  }
  uint64_t start = now();
  write_tree(fdt, size, mappings, count);
  uint64_t end = now();
  if (strcmp(argv[1], "read") == 0) {
    struct mapping *found = malloc(count * sizeof *found);
    start = now();
    if (read_tree(fdt, found) != count) return 1;
    end = now();
    if (found[count - 1].iova != mappings[count - 1].iova) return 1;
  }
  if (strcmp(argv[1], "size") == 0) printf("%f\n", (double)fdt_totalsize(fdt) / count);
  else printf("%f\n", (double)(end - start) / count);
  return 0;
}
