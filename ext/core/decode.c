// SPDX-License-Identifier: LGPL-2.1-or-later
// One struct page as numbers: refcount, maps, mapping words, compound encoding, and the parts
// of the refcount that the contract calls base, extra, plain and pin.
// It judges nothing (rules.c) and walks nothing (scan.c).
// Mirrors include/linux/page-flags.h (compound_head, compound_info since 7.1), mm_types.h.

#include <string.h>

#include "zonedev.h"

const char *const zd_type_names[ZD_TYPES] = {
	[ZD_PRIVATE] = "MEMORY_DEVICE_PRIVATE",	      [ZD_COHERENT] = "MEMORY_DEVICE_COHERENT",
	[ZD_FS_DAX] = "MEMORY_DEVICE_FS_DAX",	      [ZD_GENERIC] = "MEMORY_DEVICE_GENERIC",
	[ZD_PCI_P2PDMA] = "MEMORY_DEVICE_PCI_P2PDMA",
};

enum {
	// A pin of an order-0 page counts this many references (GUP_PIN_COUNTING_BIAS).
	PIN_BIAS = 1024,
	// Widest alignment mask that a compound_info word may hold, in address bits.
	MASK_BITS_MAX = 40,
};

static bool filled_with(const uint8_t *page, uint32_t size, uint8_t byte)
{
	return page[0] == byte && !memcmp(page, page + 1, size - 1);
}

enum zd_pattern zd_page_pattern(const struct zd_layout *layout, const uint8_t *page)
{
	if (filled_with(page, layout->page_size, 0))
		return ZD_PATTERN_ZERO;
	// page_init_poison() writes 0xff; x86 marks unused parts of a vmemmap PMD with 0xfd.
	if (filled_with(page, layout->page_size, 0xff) || filled_with(page, layout->page_size, 0xfd))
		return ZD_PATTERN_POISON;
	return ZD_PATTERN_DATA;
}

static uint32_t flag_bits(uint64_t flags, struct zd_bits bits)
{
	return flags >> bits.shift & ((UINT32_C(1) << bits.width) - 1);
}

static bool has_flag(const struct zd_layout *layout, uint64_t flags, enum zd_flag flag)
{
	return layout->flag[flag] >= 0 && flags >> layout->flag[flag] & 1;
}

/** True where a tail's word (bit 0 cleared) is an alignment mask and not a pointer. */
static bool is_head_mask(const struct zd_layout *layout, uint64_t word)
{
	uint64_t low = layout->word_size == 8 ? ~word : (uint32_t)~word;
	bool power_of_two = !(layout->page_size & (layout->page_size - 1));

	return layout->compound_mask && power_of_two && low >= 2 * (uint64_t)layout->page_size - 1 &&
	       !(low & (low + 1)) && low >> MASK_BITS_MAX == 0;
}

static void decode_tail(const struct zd_layout *layout, const struct zd_range *range, struct zd_folio *folio)
{
	uint64_t word = folio->word1 & ~UINT64_C(1);
	uint64_t self = range->memmap + (folio->pfn - range->start_pfn) * layout->page_size;
	uint64_t head = is_head_mask(layout, word) ? self & word : word;
	uint64_t offset = head - range->memmap;

	// A head above the page, or between two struct pages, is no head.
	folio->head_valid = head >= range->memmap && head < self && offset % layout->page_size == 0;
	folio->head_pfn = folio->head_valid ? range->start_pfn + offset / layout->page_size : 0;
}

/** True where the member (possibly in a tail) lies within the bytes at hand. */
static bool within(const struct zd_layout *layout, enum zd_member member, size_t available)
{
	const struct zd_field *field = &layout->field[member];

	return field->offset + field->size <= available * layout->page_size;
}

/** True where the struct page behind a head is a tail that names it. */
static bool has_tail(const struct zd_layout *layout, const struct zd_range *range, const uint8_t *bytes,
		     const struct zd_folio *head)
{
	struct zd_folio next = { .pfn = head->pfn + 1,
				 .word1 = zd_load(layout, bytes + layout->page_size, ZD_PGMAP) };

	if (!(next.word1 & 1))
		return false;
	decode_tail(layout, range, &next);
	return next.head_valid && next.head_pfn == head->pfn;
}

static void decode_large(const struct zd_layout *layout, const uint8_t *bytes, size_t available,
			 struct zd_folio *folio)
{
	if (!zd_layout_has(layout, ZD_ORDER) || !within(layout, ZD_ORDER, available) ||
	    !within(layout, ZD_LARGE_MAPCOUNT, available) || !within(layout, ZD_PINCOUNT, available)) {
		folio->partial = true;
		return;
	}
	folio->order = zd_load(layout, bytes, ZD_ORDER);
	if (!folio->order)
		return;
	folio->mapcount = 0;
	if (zd_layout_has(layout, ZD_LARGE_MAPCOUNT))
		folio->mapcount = (int64_t)zd_load_s32(layout, bytes, ZD_LARGE_MAPCOUNT) + 1;
	if (zd_layout_has(layout, ZD_PINCOUNT))
		folio->pincount = zd_load_s32(layout, bytes, ZD_PINCOUNT);
}

static void split_refcount(const struct zd_scheme *scheme, const struct zd_pagemap *pagemap,
			   struct zd_folio *folio)
{
	const struct zd_scheme_type *type = &scheme->type[pagemap->type];
	bool foreign_maps = pagemap->foreign_maps;
	bool maps_take_refs = type->maps_take_refs || foreign_maps;

	folio->base = folio->mapcount > 0 && !foreign_maps ? type->mapped_base : type->idle;
	if (type->entry_takes_ref && folio->mapping)
		folio->base++;
	folio->extra = (int64_t)folio->refcount - folio->base - (maps_take_refs ? folio->mapcount : 0);
	if (!scheme->counts_pins) {
		folio->plain = folio->extra;
	} else if (folio->order) {
		folio->pin = folio->pincount;
		folio->plain = folio->extra - folio->pin;
	} else {
		folio->pin = folio->extra > 0 ? folio->extra / PIN_BIAS : 0;
		folio->plain = folio->extra - folio->pin * PIN_BIAS;
	}
}

void zd_folio_decode(const struct zd_layout *layout, const struct zd_scheme *scheme,
		     const struct zd_pagemap *pagemap, const struct zd_range *range, uint64_t pfn,
		     const uint8_t *bytes, size_t available, struct zd_folio *ret)
{
	*ret = (struct zd_folio){
		.pfn = pfn,
		.flags = zd_load(layout, bytes, ZD_FLAGS),
		.word1 = zd_load(layout, bytes, ZD_PGMAP),
		.zone_device_data = zd_load(layout, bytes, ZD_ZONE_DEVICE_DATA),
		.refcount = zd_load_s32(layout, bytes, ZD_REFCOUNT),
		.raw_mapcount = zd_load_s32(layout, bytes, ZD_MAPCOUNT),
	};
	ret->zone = flag_bits(ret->flags, layout->zone);
	ret->node = flag_bits(ret->flags, layout->node);
	ret->tail = ret->word1 & 1;
	if (ret->tail) {
		// The other words of a tail belong to its folio: they are not read (2.4).
		decode_tail(layout, range, ret);
		return;
	}
	ret->mapping = zd_load(layout, bytes, ZD_MAPPING);
	ret->index = zd_load(layout, bytes, ZD_INDEX);
	ret->share = zd_load(layout, bytes, ZD_SHARE);
	ret->memcg_data = zd_load(layout, bytes, ZD_MEMCG_DATA);
	ret->has_type = ret->raw_mapcount < layout->page_type_limit;
	ret->mapcount = ret->has_type ? 0 : (int64_t)ret->raw_mapcount + 1;
	// A freed large private folio keeps PG_head; its tails, and with them its counters, may be
	// pages of their own by now.
	if (has_flag(layout, ret->flags, ZD_PG_HEAD) &&
	    !(scheme->large_private && ret->refcount == 0 && pagemap->type <= ZD_COHERENT && available > 1 &&
	      !has_tail(layout, range, bytes, ret)))
		decode_large(layout, bytes, available, ret);
	split_refcount(scheme, pagemap, ret);
}

bool zd_mapping_is_pointer(const struct zd_layout *layout, uint64_t mapping)
{
	// CONFIG_ILLEGAL_POINTER_VALUE: 0xdead000000000000, and 0x5deadbeef0000000 on 64-bit powerpc.
	bool poison = layout->word_size == 8 && (mapping >> 48 == 0xdead || mapping >> 28 == 0x5deadbeef);

	// Bits 0 and 1 are tags.
	return !(mapping & 3) && mapping >= 4096 && !poison;
}

bool zd_share_may_be_stale(const struct zd_folio *folio, const struct zd_scheme *scheme)
{
	// dax_folio_put() went on only for large folios, whose pages it cleaned one by one.
	return scheme->stale_share && folio->order == 0;
}

/** True where a file (or an anon_vma) claims the folio. */
static bool is_associated(const struct zd_folio *folio, const struct zd_scheme *scheme, enum zd_type type)
{
	switch (type) {
	case ZD_FS_DAX:
		return folio->mapping || (scheme->shared == ZD_SHARED_SHARE && folio->share &&
					  !zd_share_may_be_stale(folio, scheme));
	case ZD_PRIVATE:
	case ZD_COHERENT:
		return folio->mapping;
	default:
		// device-dax never clears the mapping that the first fault set.
		return false;
	}
}

bool zd_folio_is_busy(const struct zd_folio *folio, const struct zd_scheme *scheme,
		      const struct zd_pagemap *pagemap)
{
	int idle = scheme->type[pagemap->type].idle;

	return folio->refcount > (idle < 0 ? 0 : idle) || folio->mapcount > 0 ||
	       is_associated(folio, scheme, pagemap->type);
}

bool zd_folio_has_user(const struct zd_folio *folio, const struct zd_layout *layout,
		       const struct zd_scheme *scheme, const struct zd_pagemap *pagemap)
{
	int idle = scheme->type[pagemap->type].idle;

	if (folio->tail || idle < 0 || pagemap->type > ZD_COHERENT)
		return false;
	return folio->mapcount > 0 || (folio->refcount > idle && !has_flag(layout, folio->flags, ZD_PG_LOCKED));
}

bool zd_folio_is_identified(const struct zd_folio *folio, const struct zd_layout *layout,
			    const struct zd_pagemap *pagemap)
{
	if (!layout->zone.width || folio->zone != layout->zone_device)
		return false;
	return folio->tail || folio->word1 == pagemap->address;
}
