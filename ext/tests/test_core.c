// SPDX-License-Identifier: LGPL-2.1-or-later
// C tests of the core, built with ASan and UBSan: arbitrary bytes in arbitrary pieces, every
// allocation failed once.  What the answers are is tested from Python; here it is that there is one,
// that the classes add up, and that nothing is read, leaked or shifted that must not be.
// Link with -Wl,--wrap=malloc,--wrap=realloc.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/zonedev.h"

enum { PAGES = 600, ROUNDS = 200 };

static int failures;
static unsigned long allocations, fail_at;
static uint64_t state = 88172645463325252;

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);

static bool must_fail(void)
{
	return fail_at && ++allocations == fail_at;
}

void *__wrap_malloc(size_t size)
{
	return must_fail() ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return must_fail() ? NULL : __real_realloc(old, size);
}

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

#define CHECK(condition)                                                                                       \
	do {                                                                                                   \
		if (!(condition)) {                                                                            \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
			failures++;                                                                            \
		}                                                                                              \
	} while (0)

static const struct zd_layout amd64 = {
	.page_size = 64, .word_size = 8, .page_shift = 12, .pmd_order = 9, .compound_mask = true,
	.page_type_limit = -16777216,
	.field = {
		[ZD_FLAGS] = { 0, 8, 0 }, [ZD_PGMAP] = { 8, 8, 0 }, [ZD_ZONE_DEVICE_DATA] = { 16, 8, 0 },
		[ZD_MAPPING] = { 24, 8, 0 }, [ZD_INDEX] = { 32, 8, 0 }, [ZD_SHARE] = { 32, 8, 0 },
		[ZD_MAPCOUNT] = { 48, 4, 0 }, [ZD_REFCOUNT] = { 52, 4, 0 }, [ZD_MEMCG_DATA] = { 56, 8, 0 },
		[ZD_ORDER] = { 64, 8, 8 }, [ZD_LARGE_MAPCOUNT] = { 80, 4, 0 }, [ZD_PINCOUNT] = { 92, 4, 0 },
	},
	.flag = { 0, 5, 6, 13, 10, 15, 11, 21 },
	.zone = { 51, 3 }, .node = { 54, 10 }, .zone_device = 4,
};

/** Words that bring a page near to something: flags, pointers, counters. */
static uint64_t telling_word(const struct zd_range *range)
{
	static const uint64_t words[] = { 0, 1, 2, UINT64_MAX, 0xfdfdfdfdfdfdfdfd, 0xffff888101234500 };
	uint64_t r = next_random();

	switch (r % 6) {
	case 0:
		return range->memmap + r / 6 % PAGES * 64 + 1;
	case 1:
		return ~(UINT64_C(64) << r / 6 % 40) + 2;
	case 2:
		return UINT64_C(4) << 51 | 1 << 13 | (r / 6 & 0x7f);
	case 3:
		return r;
	default:
		return words[r / 6 % (sizeof(words) / sizeof(*words))];
	}
}

static void make_pages(uint8_t *bytes, const struct zd_range *range)
{
	uint64_t idle[8] = { UINT64_C(4) << 51 | 1 << 13, 0xffff888101234500, 0, 0, 0, 0, UINT32_MAX, 0 };

	for (int i = 0; i < PAGES; i++)
		memcpy(bytes + i * 64, idle, 64);
	for (unsigned int i = next_random() % 400; i; i--) {
		uint64_t word = telling_word(range);

		memcpy(bytes + next_random() % (PAGES * 8) * 8, &word, 8);
	}
}

/** One scan in pieces; NULL or the error of an allocation that failed. */
static struct zd_error *scan_pages(const struct zd_layout *layout, const struct zd_scheme *scheme,
				   const struct zd_pagemap *pagemap, const struct zd_range *range,
				   const uint8_t *bytes)
{
	struct zd_scan scan;
	struct zd_error *error = zd_scan_init(&scan, layout, scheme, pagemap, true, true);
	uint64_t sum = 0;

	if (!error)
		error = zd_scan_begin(&scan, range);
	for (uint64_t done = 0; !error && done < PAGES;) {
		uint64_t n = next_random() % 100 + 1;
		uint8_t *piece;

		if (n > PAGES - done)
			n = PAGES - done;
		// A block of its own, so that ASan sees a byte too many.
		piece = __real_malloc(n * 64);
		memcpy(piece, bytes + done * 64, n * 64);
		error = next_random() % 8 ? zd_scan_pages(&scan, piece, n)
					  : zd_scan_hole(&scan, n, ZD_UNREADABLE);
		free(piece);
		done += n;
	}
	if (!error) {
		error = zd_scan_end(&scan);
		for (int i = 0; i < ZD_CLASSES; i++)
			sum += scan.tally.classes[i];
		CHECK(sum == PAGES);
	}
	zd_scan_deinit(&scan);
	return error;
}

static void scan_everything(void)
{
	static uint8_t bytes[PAGES * 64];
	struct zd_range range = { 1 << 20, (1 << 20) + PAGES, 0xffffea0004000000 };

	for (int round = 0; round < ROUNDS; round++) {
		const struct zd_scheme *scheme = &zd_schemes[next_random() % ZD_SCHEMES];
		struct zd_pagemap pagemap = {
			.address = 0xffff888101234500,
			.type = next_random() % ZD_TYPES,
			.ref = next_random() % 3,
			.vmemmap_shift = next_random() % 2 * 9,
			.node = 0,
			.deduplicated = next_random() % 2,
			.severity_cap = ZD_ERROR,
		};
		struct zd_error *error;

		make_pages(bytes, &range);
		error = scan_pages(&amd64, scheme, &pagemap, &range, bytes);
		CHECK(!error);
	}
}

/** Fail the first, the second, ... allocation, until a scan needs no more. */
static void fail_every_allocation(void)
{
	static uint8_t bytes[PAGES * 64];
	struct zd_range range = { 1 << 20, (1 << 20) + PAGES, 0xffffea0004000000 };
	struct zd_pagemap pagemap = { .address = 0xffff888101234500,
				      .type = ZD_FS_DAX,
				      .severity_cap = ZD_ERROR };
	struct zd_error *error;
	unsigned long failed = 0;

	for (fail_at = 1; fail_at < 10000; fail_at++) {
		state = 7;
		make_pages(bytes, &range);
		allocations = 0;
		error = scan_pages(&amd64, &zd_schemes[ZD_SCHEME_H], &pagemap, &range, bytes);
		if (!error)
			break;
		CHECK(error->code == ZD_ERROR_NO_MEMORY);
		zd_error_destroy(error);
		failed++;
	}
	fail_at = 0;
	CHECK(failed >= 3);
}

static void refuse_layouts(void)
{
	for (int i = 0; i < ROUNDS * 20; i++) {
		struct zd_layout layout = amd64;
		struct zd_error *error;
		uint64_t r = next_random();

		((uint8_t *)&layout)[r % sizeof(layout)] = r >> 32;
		// A bool is 0 or 1: whoever makes a layout has seen to that.
		layout.big_endian = r >> 40 & 1;
		layout.compound_mask = r >> 41 & 1;
		error = zd_layout_check(&layout);
		// What is accepted must be safe to load from.
		if (!error) {
			uint8_t *page = __real_malloc(layout.page_size * ZD_FOLIO_PAGES);

			memset(page, 0xa5, layout.page_size * ZD_FOLIO_PAGES);
			for (int member = 0; member < ZD_MEMBERS; member++)
				zd_load(&layout, page, member);
			free(page);
		}
		zd_error_destroy(error);
	}
}

int main(void)
{
	scan_everything();
	fail_every_allocation();
	refuse_layouts();
	printf("%d failures\n", failures);
	return failures != 0;
}
