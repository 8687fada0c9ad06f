// SPDX-License-Identifier: LGPL-2.1-or-later
// Loads of members through the layout table.  Any word size and byte order; the scan's fast
// path (scan.c) covers native 64-bit layouts and must agree with this.
// zd_layout_check() makes every later load total: nothing here checks bounds again.

#include <string.h>

#include "util.h"
#include "zonedev.h"

const char *const zd_member_names[ZD_MEMBERS] = {
	[ZD_FLAGS] = "flags",
	[ZD_PGMAP] = "pgmap",
	[ZD_ZONE_DEVICE_DATA] = "zone_device_data",
	[ZD_MAPPING] = "mapping",
	[ZD_INDEX] = "index",
	[ZD_SHARE] = "share",
	[ZD_MAPCOUNT] = "_mapcount",
	[ZD_REFCOUNT] = "_refcount",
	[ZD_MEMCG_DATA] = "memcg_data",
	[ZD_ORDER] = "order",
	[ZD_LARGE_MAPCOUNT] = "_large_mapcount",
	[ZD_PINCOUNT] = "_pincount",
};

const char *const zd_flag_names[ZD_FLAG_COUNT] = {
	[ZD_PG_LOCKED] = "PG_locked",
	[ZD_PG_LRU] = "PG_lru",
	[ZD_PG_HEAD] = "PG_head",
	[ZD_PG_RESERVED] = "PG_reserved",
	[ZD_PG_SWAPCACHE] = "PG_swapcache",
	[ZD_PG_WRITEBACK] = "PG_writeback",
	[ZD_PG_ANON_EXCLUSIVE] = "PG_anon_exclusive",
	[ZD_PG_HWPOISON] = "PG_hwpoison",
};

/** Members without which no page can be judged. */
static const enum zd_member indispensable[] = { ZD_FLAGS, ZD_PGMAP, ZD_MAPPING, ZD_MAPCOUNT, ZD_REFCOUNT };

/** Bytes that a member has in every kernel; 0 where that differs. */
static uint8_t size_of(const struct zd_layout *layout, enum zd_member member)
{
	switch (member) {
	case ZD_FLAGS:
	case ZD_PGMAP:
	case ZD_MAPPING:
		return layout->word_size;
	case ZD_MAPCOUNT:
	case ZD_REFCOUNT:
	case ZD_LARGE_MAPCOUNT:
	case ZD_PINCOUNT:
		return sizeof(int32_t);
	default:
		return 0;
	}
}

/** Words and counters count as a whole; of what differs any size that can be loaded will do. */
static bool size_fits(const struct zd_layout *layout, enum zd_member member)
{
	const struct zd_field *field = &layout->field[member];
	uint8_t size = size_of(layout, member);

	if (size)
		return field->size == size && !field->bits;
	return field->size == 1 || field->size == 2 || field->size == 4 || field->size == 8;
}

static struct zd_error *check_field(const struct zd_layout *layout, enum zd_member member)
{
	const struct zd_field *field = &layout->field[member];
	uint32_t pages = member < ZD_PAGE_MEMBERS ? 1 : ZD_FOLIO_PAGES;

	if (!field->size)
		return NULL;
	if (!size_fits(layout, member))
		return zd_error_create(ZD_ERROR_INVALID, "layout: %s has a size of %u bytes",
				       zd_member_names[member], field->size);
	if ((uint32_t)field->offset + field->size > pages * layout->page_size)
		return zd_error_create(ZD_ERROR_INVALID, "layout: %s lies outside of struct page",
				       zd_member_names[member]);
	if (field->bits > field->size * 8)
		return zd_error_create(ZD_ERROR_INVALID, "layout: %s has more bits than bytes hold",
				       zd_member_names[member]);
	return NULL;
}

static bool bits_fit(struct zd_bits bits, uint8_t word_size)
{
	return bits.width < 32 && bits.shift < word_size * 8 && bits.shift + bits.width <= word_size * 8;
}

static struct zd_error *check_flags(const struct zd_layout *layout)
{
	for (int i = 0; i < ZD_FLAG_COUNT; i++) {
		if (layout->flag[i] < -1 || layout->flag[i] >= layout->word_size * 8)
			return zd_error_create(ZD_ERROR_INVALID, "layout: %s is not a bit of flags",
					       zd_flag_names[i]);
	}
	if (!bits_fit(layout->zone, layout->word_size) || !bits_fit(layout->node, layout->word_size))
		return zd_error_create(ZD_ERROR_INVALID, "layout: zone or node bits lie outside of flags");
	if (layout->zone.width && layout->zone_device >> layout->zone.width)
		return zd_error_create(ZD_ERROR_INVALID, "layout: ZONE_DEVICE does not fit into the zone bits");
	return NULL;
}

struct zd_error *zd_layout_check(const struct zd_layout *layout)
{
	struct zd_error *error;

	if (layout->word_size != 4 && layout->word_size != 8)
		return zd_error_create(ZD_ERROR_INVALID, "layout: word size %u", layout->word_size);
	if (layout->page_size < 2 * layout->word_size || layout->page_size > ZD_PAGE_MAX ||
	    layout->page_size % layout->word_size)
		return zd_error_create(ZD_ERROR_INVALID, "layout: sizeof(struct page) is %u",
				       layout->page_size);
	if (layout->page_shift < 10 || layout->page_shift > 24)
		return zd_error_create(ZD_ERROR_INVALID, "layout: page shift %u", layout->page_shift);
	if (layout->pmd_order > ZD_ORDER_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "layout: PMD order %u", layout->pmd_order);
	// An unmapped page shows -1, and that is no type.
	if (layout->page_type_limit >= 0)
		return zd_error_create(ZD_ERROR_INVALID, "layout: page types up to _mapcount %d",
				       layout->page_type_limit);
	for (size_t i = 0; i < sizeof(indispensable) / sizeof(*indispensable); i++) {
		if (!zd_layout_has(layout, indispensable[i]))
			return zd_error_create(ZD_ERROR_INVALID, "layout: struct page has no %s",
					       zd_member_names[indispensable[i]]);
	}
	for (int i = 0; i < ZD_MEMBERS; i++) {
		error = check_field(layout, i);
		if (error)
			return error;
	}
	return check_flags(layout);
}

uint64_t zd_load(const struct zd_layout *layout, const uint8_t *page, enum zd_member member)
{
	struct zd_field field = layout->field[member];
	uint64_t value = zd_load_bytes(page + field.offset, field.size, layout->big_endian);

	if (field.bits && field.bits < 64)
		value &= (UINT64_C(1) << field.bits) - 1;
	return value;
}

int32_t zd_load_s32(const struct zd_layout *layout, const uint8_t *page, enum zd_member member)
{
	return (int32_t)(uint32_t)zd_load(layout, page, member);
}

bool zd_layout_is_native64(const struct zd_layout *layout)
{
	return layout->word_size == 8 && layout->page_size == 64 &&
	       layout->big_endian == (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
}
