// SPDX-License-Identifier: LGPL-2.1-or-later
// One bit per page: set out of a bitmap, or by walking a list that is linked through struct pages.

#include <stdlib.h>
#include <string.h>

#include "pagebits.h"
#include "util.h"

enum {
	// Struct pages that are read at once: a list is filled in the order of its pages.
	WINDOW_BYTES = 4096,
};

// 16 TiB of 4 KiB pages, half a gigabyte of bits.
static const uint64_t PAGES_MAX = UINT64_C(1) << 32;

struct zd_error *zd_page_bits_init(struct zd_page_bits *bits, const struct zd_layout *layout)
{
	struct zd_error *error;

	memset(bits, 0, sizeof(*bits));
	error = zd_layout_check(layout);
	if (error)
		return error;
	bits->layout = *layout;
	bits->window.bytes = malloc(WINDOW_BYTES);
	return bits->window.bytes ? NULL : zd_error_no_memory();
}

void zd_page_bits_deinit(struct zd_page_bits *bits)
{
	for (size_t i = 0; i < bits->ranges_count; i++)
		free(bits->ranges[i].bits);
	free(bits->ranges);
	free(bits->window.bytes);
	memset(bits, 0, sizeof(*bits));
}

struct zd_error *zd_page_bits_add_range(struct zd_page_bits *bits, const struct zd_range *range)
{
	const struct zd_bits_range *last = bits->ranges_count ? &bits->ranges[bits->ranges_count - 1] : NULL;
	uint64_t pages = range->end_pfn - range->start_pfn;
	struct zd_bits_range *grown, added = { .range = *range };

	if (range->end_pfn <= range->start_pfn || pages > PAGES_MAX - bits->pages ||
	    (last && range->start_pfn < last->range.end_pfn))
		return zd_error_create(ZD_ERROR_INVALID, "range [%#llx, %#llx) makes no sense",
				       (unsigned long long)range->start_pfn,
				       (unsigned long long)range->end_pfn);
	grown = realloc(bits->ranges, (bits->ranges_count + 1) * sizeof(*grown));
	if (!grown)
		return zd_error_no_memory();
	bits->ranges = grown;
	added.bits = calloc(1, pages / 8 + 1);
	if (!added.bits)
		return zd_error_no_memory();
	bits->ranges[bits->ranges_count++] = added;
	bits->pages += pages;
	return NULL;
}

static bool ends_before(const void *element, const void *key)
{
	return ((const struct zd_bits_range *)element)->range.end_pfn <= *(const uint64_t *)key;
}

/** The range that holds a page, or NULL. */
static struct zd_bits_range *range_of(const struct zd_page_bits *bits, uint64_t pfn)
{
	struct zd_bits_range *ranges = bits->ranges;
	size_t i = zd_lower_bound(ranges, bits->ranges_count, sizeof(*ranges), &pfn, ends_before);

	return i < bits->ranges_count && ranges[i].range.start_pfn <= pfn ? &ranges[i] : NULL;
}

static bool is_set(const struct zd_bits_range *range, uint64_t pfn)
{
	uint64_t i = pfn - range->range.start_pfn;

	return range->bits[i / 8] >> i % 8 & 1;
}

/** Set a page's bit; false where it was set before. */
static bool set_bit(struct zd_page_bits *bits, struct zd_bits_range *range, uint64_t pfn)
{
	uint64_t i = pfn - range->range.start_pfn;

	if (is_set(range, pfn))
		return false;
	range->bits[i / 8] |= 1 << i % 8;
	bits->set++;
	return true;
}

void zd_page_bits_set(struct zd_page_bits *bits, uint64_t pfn, const uint8_t *from, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		struct zd_bits_range *range = from[i / 8] >> i % 8 & 1 ? range_of(bits, pfn + i) : NULL;

		if (range)
			set_bit(bits, range, pfn + i);
	}
}

bool zd_page_bits_test(const struct zd_page_bits *bits, uint64_t pfn)
{
	const struct zd_bits_range *range = range_of(bits, pfn);

	return range && is_set(range, pfn);
}

bool zd_page_bits_has(const struct zd_page_bits *bits, uint64_t pfn)
{
	return range_of(bits, pfn);
}

uint64_t zd_page_bits_clear_run(const struct zd_page_bits *bits, uint64_t pfn, uint64_t count)
{
	const struct zd_bits_range *range = range_of(bits, pfn);
	uint64_t i = 0;

	while (i < count) {
		uint64_t offset;

		if (!range || pfn + i >= range->range.end_pfn)
			range = range_of(bits, pfn + i);
		if (!range) {
			i++;
			continue;
		}
		offset = pfn + i - range->range.start_pfn;
		if (offset % 8 == 0 && !range->bits[offset / 8])
			i += 8;
		else if (is_set(range, pfn + i))
			break;
		else
			i++;
	}
	return i < count ? i : count;
}

// ---------------------------------------------------------------- a list through struct pages

struct place {
	uint64_t address;
	uint32_t page_size;
};

/** The memmap rises with the pfns. */
static bool lies_before(const void *element, const void *key)
{
	const struct zd_range *range = &((const struct zd_bits_range *)element)->range;
	const struct place *place = key;

	return range->memmap + (range->end_pfn - range->start_pfn) * place->page_size <= place->address;
}

/** The page whose struct page lies at @address, and its range; NULL where there is none. */
static struct zd_bits_range *page_at(const struct zd_page_bits *bits, uint64_t address, uint64_t *pfn)
{
	struct place place = { address, bits->layout.page_size };
	struct zd_bits_range *ranges = bits->ranges;
	size_t i = zd_lower_bound(ranges, bits->ranges_count, sizeof(*ranges), &place, lies_before);
	uint64_t offset = i < bits->ranges_count ? address - ranges[i].range.memmap : 0;

	if (i == bits->ranges_count || address < ranges[i].range.memmap || offset % place.page_size)
		return NULL;
	*pfn = ranges[i].range.start_pfn + offset / place.page_size;
	return *pfn < ranges[i].range.end_pfn ? &ranges[i] : NULL;
}

/** The struct page of a page, read together with its neighbours; NULL where it cannot be read. */
static const uint8_t *struct_page(struct zd_page_bits *bits, const struct zd_memory *memory,
				  const struct zd_range *range, uint64_t pfn)
{
	uint32_t size = bits->layout.page_size, room = WINDOW_BYTES / size;
	uint64_t first = pfn - (pfn - range->start_pfn) % room;
	uint64_t pages = range->end_pfn - first < room ? range->end_pfn - first : room;
	const uint8_t *page = zd_window_page(&bits->window, size, pfn);

	// Not all of its neighbours may be there.
	if (!page && zd_window_read(&bits->window, memory, range, size, first, pages) == ZD_READ_FAULT)
		zd_window_read(&bits->window, memory, range, size, pfn, 1);
	return page ? page : zd_window_page(&bits->window, size, pfn);
}

void zd_page_bits_walk(struct zd_page_bits *bits, const struct zd_memory *memory, uint64_t head,
		       struct zd_chain *ret)
{
	*ret = (struct zd_chain){ .link = head };
	bits->window.pages = 0;
	// Called hmm_data before 4.19, when no driver kept such a list.
	if (!zd_layout_has(&bits->layout, ZD_ZONE_DEVICE_DATA)) {
		ret->why = "pages have no zone_device_data";
		return;
	}
	while (ret->link) {
		uint64_t pfn;
		struct zd_bits_range *range = page_at(bits, ret->link, &pfn);
		const uint8_t *page = range ? struct_page(bits, memory, &range->range, pfn) : NULL;

		if (!range)
			ret->why = "a link leads to no page of these pagemaps";
		else if (!page)
			ret->why = "a struct page cannot be read";
		else if (!set_bit(bits, range, pfn))
			ret->why = "a page is linked twice";
		if (ret->why)
			return;
		ret->pages++;
		ret->link = zd_load(&bits->layout, page, ZD_ZONE_DEVICE_DATA);
	}
}
