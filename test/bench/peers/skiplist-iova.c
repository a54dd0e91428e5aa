/*
 * The classic IOVA allocator of user-mode NVMe libraries: a bump pointer through the range, a skip list of free ranges
 * keyed by their start, best fit by a walk over all of them, and neighbours merged on free. Its caller knows the sizes.
 *
 * usage: skiplist-iova pairs|refill LIVE COUNT
 * Prints nanoseconds per pair of free and allocate with LIVE blocks, or per allocation after half of LIVE was freed.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LEVELS 16
#define PAGE 4096ull

struct node {
	uint64_t start, size;
	struct node *next[LEVELS];
};

struct block {
	uint64_t start, size;
};

static struct node head;
static uint64_t bump = PAGE;
static uint32_t state = 12345;

static uint32_t below(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return state % limit;
}

/* The last node before `start` on each level. */
static void find(uint64_t start, struct node *before[LEVELS])
{
	struct node *node = &head;

	for (int level = LEVELS - 1; level >= 0; level--) {
		while (node->next[level] && node->next[level]->start < start)
			node = node->next[level];
		before[level] = node;
	}
}

static void insert(uint64_t start, uint64_t size, struct node *before[LEVELS])
{
	struct node *node = calloc(1, sizeof(*node));

	if (!node)
		abort();
	node->start = start;
	node->size = size;
	for (int level = 0; level < LEVELS; level++) {
		node->next[level] = before[level]->next[level];
		before[level]->next[level] = node;
		if (below(2))
			break;
	}
}

static void erase(struct node *node, struct node *before[LEVELS])
{
	for (int level = 0; level < LEVELS && before[level]->next[level] == node; level++)
		before[level]->next[level] = node->next[level];
	free(node);
}

static uint64_t allocate(uint64_t size)
{
	struct node *best = NULL, *before[LEVELS];
	uint64_t start;

	for (struct node *node = head.next[0]; node; node = node->next[0]) {
		if (node->size >= size && (!best || node->size < best->size))
			best = node;
	}
	if (!best) {
		start = bump;
		bump += size;
		return start;
	}
	start = best->start;
	if (best->size == size) {
		find(start, before);
		erase(best, before);
	} else {
		/* The order of the starts stays. */
		best->start += size;
		best->size -= size;
	}
	return start;
}

static void release(uint64_t start, uint64_t size)
{
	struct node *before[LEVELS], *previous, *next;

	find(start, before);
	previous = before[0] == &head ? NULL : before[0];
	next = before[0]->next[0];
	if (next && start + size == next->start) {
		size += next->size;
		erase(next, before);
	}
	if (previous && previous->start + previous->size == start)
		previous->size += size;
	else
		insert(start, size, before);
}

static uint64_t draw(void)
{
	uint32_t percent = below(100);

	if (percent < 70)
		return PAGE;
	return percent < 90 ? PAGE * (2 + below(15)) : 1ull << 21;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return 1e9 * time.tv_sec + time.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	uint32_t live = strtoul(argv[2], NULL, 10), count = strtoul(argv[3], NULL, 10);
	struct block *blocks = calloc(live, sizeof(*blocks));
	uint64_t *sizes = calloc(count, sizeof(*sizes)), sum = 0;
	double start;

	if (!blocks || !sizes || !live)
		return 1;
	for (uint32_t i = 0; i < live; i++) {
		blocks[i].size = draw();
		blocks[i].start = allocate(blocks[i].size);
	}
	for (uint32_t i = live - 1; i > 0; i--) {
		uint32_t j = below(i + 1);
		struct block block = blocks[i];

		blocks[i] = blocks[j];
		blocks[j] = block;
	}
	for (uint32_t i = 0; i < count; i++)
		sizes[i] = draw();
	if (!strcmp(argv[1], "pairs")) {
		start = now();
		for (uint32_t i = 0, j = 0; i < count; i++) {
			release(blocks[j].start, blocks[j].size);
			blocks[j].size = sizes[i];
			blocks[j].start = allocate(sizes[i]);
			if (++j == live)
				j = 0;
		}
	} else {
		for (uint32_t i = 0; i < live / 2; i++)
			release(blocks[i].start, blocks[i].size);
		start = now();
		for (uint32_t i = 0; i < count; i++)
			sum += allocate(sizes[i]);
	}
	printf("%.2f\n", (now() - start) / count);
	return sum == 1;
}
