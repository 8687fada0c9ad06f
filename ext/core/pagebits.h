/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * One bit per page of some pagemaps: what the driver that owns them says of its pages, beside what the
 * pages say of themselves.  A pool's bitmap says which pages are handed out; a list of free pages, which
 * are not.
 *
 * It owns the bits and the walk of a list that is linked through the pages (page->zone_device_data).
 * It does not know where pools and lists are (the caller does), and does not judge (rules.c).
 *
 * Invariant: memory is bounded by the pages of the ranges, and a list is as long as there are pages at
 * most: it ends where it meets a page for the second time.
 *
 * Mirrors lib/test_hmm.c, drivers/gpu/drm/nouveau/nouveau_dmem.c, drivers/xen/unpopulated-alloc.c (the
 * lists), lib/genalloc.c (the bitmap).
 */
#ifndef ZONEDEV_PAGEBITS_H
#define ZONEDEV_PAGEBITS_H

#include "window.h"

/** The bits of one range, lowest page first: bit i % 8 of byte i / 8. */
struct zd_bits_range {
	struct zd_range range;
	uint8_t *bits;
};

struct zd_page_bits {
	struct zd_layout layout;
	struct zd_bits_range *ranges; /* rising, disjoint */
	size_t ranges_count;
	uint64_t pages; /* of all ranges */
	uint64_t set;	/* bits that are set */
	/** The last struct pages that were read. */
	struct zd_window window;
};

/** How the walk of a list went. */
struct zd_chain {
	uint64_t pages; /* that were met */
	/** Why it ended too early, NULL: it did not; and the link that was not followed. */
	const char *why;
	uint64_t link;
};

/** @layout is copied.  Use zd_page_bits_deinit() also after an error.  Errors: a layout that is none. */
struct zd_error *zd_page_bits_init(struct zd_page_bits *bits, const struct zd_layout *layout);
void zd_page_bits_deinit(struct zd_page_bits *bits);

/** Add a range of pages, rising and disjoint; all clear.  Errors: it is not; too many pages; no memory. */
struct zd_error *zd_page_bits_add_range(struct zd_page_bits *bits, const struct zd_range *range);

/** Set the bits of pages [pfn, pfn + count) that are set in @from, lowest first; pages of no range are left
 * out. */
void zd_page_bits_set(struct zd_page_bits *bits, uint64_t pfn, const uint8_t *from, uint64_t count);

/**
 * Set the bits of the pages of a list: @head is the address of the first one's struct page, each names the
 * next in page->zone_device_data, the last one NULL.
 */
void zd_page_bits_walk(struct zd_page_bits *bits, const struct zd_memory *memory, uint64_t head,
		       struct zd_chain *ret);

/** The page's bit; false for pages of no range. */
bool zd_page_bits_test(const struct zd_page_bits *bits, uint64_t pfn);

/** True where a range holds the page. */
bool zd_page_bits_has(const struct zd_page_bits *bits, uint64_t pfn);

/** How many of @count pages from @pfn on have their bit clear. */
uint64_t zd_page_bits_clear_run(const struct zd_page_bits *bits, uint64_t pfn, uint64_t count);

#endif
