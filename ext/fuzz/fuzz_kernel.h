/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * A kernel out of any bytes, as fuzz targets take it: layout, scheme, pagemap; and a scan of any struct
 * pages with what it promises.
 *
 * The input begins with a struct head; scripts/fuzz_corpus.py writes it.
 */
#ifndef ZONEDEV_FUZZ_KERNEL_H
#define ZONEDEV_FUZZ_KERNEL_H

#include <string.h>

#include "../core/entries.h"
#include "../core/zonedev.h"
#include "fuzz.h"

enum {
	PAGES_MAX = 4096,
	HOLE_MAX = 64,
	BIG_ENDIAN_BIT = 1,
	COMPOUND_MASK_BIT = 2,
	FOREIGN_BIT = 1,
	DEDUPLICATED_BIT = 2,
	MISCALIBRATED_BIT = 4,
	DRAINED_BIT = 8,
	BUSY_BIT = 16,
	IDLE_BIT = 32,
	MERGE_BIT = 64,
	DEVICE_BIT = 128,
};

/** All that an input says before its pages. */
struct head {
	struct zd_layout layout;
	struct zd_scheme scheme;
	struct zd_pagemap pagemap;
	struct zd_range range;
	uint32_t seed; /* of the lengths of the pieces */
	bool merge;
};

static inline void take_layout(struct input *input, struct zd_layout *layout)
{
	uint8_t bits;

	layout->page_size = take(input, 1);
	layout->word_size = take(input, 1);
	bits = take(input, 1);
	layout->big_endian = bits & BIG_ENDIAN_BIT;
	layout->compound_mask = bits & COMPOUND_MASK_BIT;
	layout->page_shift = take(input, 1);
	layout->pmd_order = take(input, 1);
	layout->page_type_limit = (int32_t)take(input, 4);
	for (int i = 0; i < ZD_MEMBERS; i++) {
		layout->field[i].offset = take(input, 2);
		layout->field[i].size = take(input, 1);
		layout->field[i].bits = take(input, 1);
	}
	for (int i = 0; i < ZD_FLAG_COUNT; i++)
		layout->flag[i] = (int8_t)take(input, 1);
	layout->zone.shift = take(input, 1);
	layout->zone.width = take(input, 1);
	layout->node.shift = take(input, 1);
	layout->node.width = take(input, 1);
	layout->zone_device = take(input, 4);
}

/** A row of the table, or what a bit mask of evidence leads to. */
static inline void take_scheme(struct input *input, struct zd_scheme *scheme)
{
	uint8_t row = take(input, 1);
	uint32_t evidence = take(input, 4);
	enum zd_confidence confidence;
	bool present[ZD_PROBES];
	uint64_t decisive;

	if (row < ZD_SCHEMES) {
		*scheme = zd_schemes[row];
		return;
	}
	for (int i = 0; i < ZD_PROBES; i++)
		present[i] = evidence >> i & 1;
	zd_scheme_detect(present, scheme, &confidence, &decisive);
	PROMISE((unsigned int)confidence <= ZD_CONFIDENCE_HIGH);
}

static inline void take_pagemap(struct input *input, struct head *head)
{
	struct zd_pagemap *pagemap = &head->pagemap;
	uint8_t bits;

	pagemap->type = take(input, 1) % ZD_TYPES;
	pagemap->ref = take(input, 1) % 3;
	pagemap->vmemmap_shift = take(input, 1);
	pagemap->severity_cap = take(input, 1) % ZD_SEVERITIES;
	bits = take(input, 1);
	pagemap->foreign_maps = bits & FOREIGN_BIT;
	pagemap->deduplicated = bits & DEDUPLICATED_BIT;
	pagemap->miscalibrated = bits & MISCALIBRATED_BIT;
	head->merge = bits & MERGE_BIT;
	if (bits & DRAINED_BIT)
		zd_scheme_set_drained(&head->scheme);
	if (bits & (BUSY_BIT | IDLE_BIT))
		zd_scheme_set_init_mode(&head->scheme, pagemap->type, bits & BUSY_BIT);
	pagemap->node = (int32_t)take(input, 4);
	pagemap->address = take(input, 8);
	pagemap->driver_data = bits & DEVICE_BIT;
	pagemap->dax_mapping = bits & DEVICE_BIT ? pagemap->address : 0;
}

static inline void take_head(struct input *input, struct head *head)
{
	memset(head, 0, sizeof(*head));
	take_layout(input, &head->layout);
	take_scheme(input, &head->scheme);
	take_pagemap(input, head);
	head->range.start_pfn = take(input, 8);
	head->range.memmap = take(input, 8);
	head->seed = take(input, 4);
}

static inline uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525 + 1013904223;
	return *state >> 8;
}

/** Length of the next piece: a multiple of what folios are read best in, but for the last. */
static inline uint64_t piece_length(uint32_t *state, uint64_t left)
{
	uint64_t length = (next_random(state) % 128 + 1) * ZD_FOLIO_PAGES;

	return length < left ? length : left;
}

/** Begin a walk, with @entries unless NULL; false where the core refuses the pagemap. */
static inline bool begin(const struct head *head, bool fast, const struct zd_entries *entries,
			 struct zd_scan *ret)
{
	struct zd_error *error =
		zd_scan_init(ret, &head->layout, &head->scheme, &head->pagemap, head->merge, fast);

	if (!error) {
		zd_scan_set_entries(ret, entries);
		return true;
	}
	PROMISE(error->code == ZD_ERROR_INVALID && error->message[0]);
	zd_error_destroy(error);
	zd_scan_deinit(ret);
	return false;
}

/** One walk over @count pages and a hole behind them; the bytes are copied so that ASan sees one too many. */
static inline void scan(const struct head *head, const uint8_t *pages, uint64_t count, struct zd_scan *ret)
{
	uint32_t state = head->seed;
	uint64_t size = head->layout.page_size;

	PROMISE(!zd_scan_begin(ret, &head->range));
	PROMISE(!zd_scan_count_cells(ret, head->range.start_pfn, head->range.end_pfn, head->seed % 8));
	for (uint64_t done = 0; done < count;) {
		uint64_t n = piece_length(&state, count - done);
		uint8_t *piece = malloc(n * size);

		PROMISE(piece);
		memcpy(piece, pages + done * size, n * size);
		PROMISE(!zd_scan_pages(ret, piece, n));
		free(piece);
		done += n;
	}
	PROMISE(!zd_scan_hole(ret, head->range.end_pfn - ret->next_pfn, ZD_NOT_CAPTURED));
	PROMISE(!zd_scan_end(ret));
}

/** No folio is open, and the cells add up to the tally. */
static inline void check_cells(const struct zd_cells *cells, const struct zd_tally *tally)
{
	uint64_t sums[ZD_CLASSES] = { 0 };

	for (size_t i = 0; i < cells->count; i++) {
		for (int j = 0; j < ZD_CLASSES; j++)
			sums[j] += cells->classes[i][j];
		for (int j = 0; j <= ZD_OUTER_MAX; j++)
			PROMISE(!cells->open[i][j]);
	}
	PROMISE(!cells->count || !memcmp(sums, tally->classes, sizeof(sums)));
}

static inline void check_tally(const struct zd_tally *tally, uint64_t pages)
{
	uint64_t sum = 0;

	for (int i = 0; i < ZD_CLASSES; i++)
		sum += tally->classes[i];
	PROMISE(sum == pages);
	PROMISE(!tally->classes[ZD_VIOLATION] || tally->severities[ZD_ERROR]);
	for (size_t i = 0; i < tally->findings_count; i++) {
		PROMISE(tally->findings[i].rule < zd_rules_count);
		PROMISE(tally->findings[i].severity < ZD_SEVERITIES);
		PROMISE(tally->findings[i].count && tally->findings[i].pages);
	}
}

static inline void check_same(const struct zd_tally *a, const struct zd_tally *b)
{
	PROMISE(!memcmp(a->classes, b->classes, sizeof(a->classes)));
	PROMISE(!memcmp(a->severities, b->severities, sizeof(a->severities)));
	PROMISE(a->pages_referenced == b->pages_referenced && a->pages_mapped == b->pages_mapped);
	PROMISE(a->refcounts_count == b->refcounts_count && a->findings_count == b->findings_count);
	for (size_t i = 0; i < a->refcounts_count; i++)
		PROMISE(a->refcounts[i].refcount == b->refcounts[i].refcount &&
			a->refcounts[i].heads == b->refcounts[i].heads);
	for (size_t i = 0; i < a->findings_count; i++) {
		const struct zd_finding *one = &a->findings[i], *other = &b->findings[i];

		PROMISE(one->pfn == other->pfn && one->count == other->count && one->rule == other->rule &&
			zd_rule_set_equal(&one->also, &other->also) && one->severity == other->severity &&
			one->pages == other->pages);
	}
}

/**
 * Scan @count pages at @pages, of the range in @head, with and without templates, and compare.
 * Nothing where the core refuses the pagemap.
 */
static inline void scan_both(const struct head *head, const uint8_t *pages, uint64_t count,
			     const struct zd_entries *entries)
{
	struct zd_scan fast, slow;

	if (!begin(head, true, entries, &fast))
		return;
	PROMISE(begin(head, false, entries, &slow));
	scan(head, pages, count, &fast);
	scan(head, pages, count, &slow);
	check_tally(&fast.tally, head->range.end_pfn - head->range.start_pfn);
	check_same(&fast.tally, &slow.tally);
	check_cells(&fast.cells, &fast.tally);
	check_cells(&slow.cells, &slow.tally);
	zd_scan_deinit(&fast);
	zd_scan_deinit(&slow);
}

/** Whether a layout can be used; it is refused with words. */
static inline bool is_layout(const struct zd_layout *layout)
{
	struct zd_error *error = zd_layout_check(layout);

	if (!error)
		return true;
	PROMISE(error->code == ZD_ERROR_INVALID && error->message[0]);
	zd_error_destroy(error);
	return false;
}

#endif
