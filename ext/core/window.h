/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * The struct pages that were read last, for those who meet pages one by one, but often their neighbours.
 *
 * It owns what the window holds; how much is read at once, and what to do where it cannot be, is the user's
 * (pagebits.c: a list's neighbours; entries.c: what a file claims next).
 *
 * Invariant: after a read that failed, it holds nothing.
 */
#ifndef ZONEDEV_WINDOW_H
#define ZONEDEV_WINDOW_H

#include "xarray.h"
#include "zonedev.h"

struct zd_window {
	uint8_t *bytes;	     /* the user allocates and frees them */
	uint64_t pfn, pages; /* 0 pages: nothing */
};

/** The struct page of a page, or NULL where the window does not hold it. */
static inline const uint8_t *zd_window_page(const struct zd_window *window, uint32_t page_size, uint64_t pfn)
{
	return pfn - window->pfn < window->pages ? window->bytes + (pfn - window->pfn) * page_size : NULL;
}

/** Fill it with @pages pages of @range from @pfn on; the bytes have room for them. */
static inline enum zd_read zd_window_read(struct zd_window *window, const struct zd_memory *memory,
					  const struct zd_range *range, uint32_t page_size, uint64_t pfn,
					  uint64_t pages)
{
	uint64_t address = range->memmap + (pfn - range->start_pfn) * page_size;
	enum zd_read result = memory->read(memory->context, address, window->bytes, pages * page_size);

	window->pfn = pfn;
	window->pages = result == ZD_READ_DONE ? pages : 0;
	return result;
}

#endif
