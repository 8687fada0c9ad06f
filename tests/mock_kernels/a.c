/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme A, as in 4.9: every page rests at 1, and every get_page() takes a reference on the pagemap, too.
 *
 * Defined by what the single-reference patch of April 2017 (71389703839e) took away, and the sources before
 * it: get_zone_device_page() in kernel/memremap.c.  Registry: pgmap_radix, keyed by section, holds struct
 * page_map.  A DAX page does not know its file (before d2c997c0f145).  With OLDEST, 4.5: the counter is
 * called _count (before 0139aa7b7fa1), and the tree knows heights instead of shifts.
 */
#ifdef OLDEST
#define RELEASE "4.5.0-mock-a"
#define REFCOUNT _count
#define RADIX_BY_HEIGHT
#else
#define RELEASE "4.9.0-mock-a"
#endif
#define SCHEME "A"
#define MEM_SECTION_ARRAY

#include "old_page.h"
#include "old_pagemap.h"

/* The functions that make a kernel one of this scheme. */
void get_zone_device_page(struct page *page);
void get_zone_device_page(struct page *page)
{
	struct dev_pagemap *pgmap = at_kaddr((u64)page->pgmap);

	((struct percpu_ref *)at_kaddr((u64)pgmap->ref))->count.counter++;
}

static const char *const evidence[] = { "function get_zone_device_page: present", "symbol pgmap_array: absent",
					NULL };

enum { PMEM, DEVDAX };

static struct device devices[] = {
	/* The request queue's own counter, and a range that ends inside of its section. */
	[PMEM] = { DEVICE("namespace0.0", FS_DAX, 0x100000, 1024), .idle = 1, .ref_error = -3,
		   PAGEMAP_WARNING("ref-versus-pages") },
	/* In two sections, with its memmap on itself. */
	[DEVDAX] = { DEVICE("dax1.0", GENERIC, 0x247e00, 1024), .reserve = 64, .idle = 1 },
};

static const struct state states[] = {
	{ PMEM, .at = 16, .count = 4, .refcount = 2, .class = "busy", INFO("held-without-map"),
	  .why = "get_page() by an I/O: legal, and no file is named in these kernels" },
	{ PMEM, .at = 24, .count = 1, .refcount = 40, .class = "busy", INFO("held-without-map"),
	  .why = "many I/Os" },
	{ PMEM, .at = 32, .count = 2, .refcount = 0, ERROR("refcount-below-idle"), .why = "one put too many" },
	{ PMEM, .at = 40, .count = 1, .refcount = -1, ERROR("refcount-out-of-range"),
	  .why = "two puts too many" },
	{ PMEM, .at = 48, .count = 1, .refcount = 2, .maps = 1, ERROR("unaccounted-mapcount"),
	  .why = "DAX maps are not counted" },
	{ PMEM, .at = 56, .count = 1, .refcount = 1, .mapping = M_FILE, ERROR("wrong-mapping"),
	  .why = "nothing in this kernel sets it on a DAX page" },
	{ PMEM, .at = 64, .count = 1, .refcount = 1, .pgmap = 0xdead000000000100, ERROR("wrong-pgmap"),
	  .why = "LIST_POISON1: list_del() ran, pgmap was not set" },
	{ PMEM, .at = 72, .count = 1, .refcount = 1, .set = 1UL << PG_lru, ERROR("core-mm-flags"),
	  .why = "on an LRU list" },
	{ PMEM, .at = 80, .count = 1, .refcount = 1, .clear = 7UL << 55, ERROR("wrong-zone"),
	  .why = "zone bits of ZONE_DMA" },
	{ DEVDAX, .at = 96, .count = 8, .refcount = 3, .class = "busy", INFO("held-without-map"),
	  .why = "get_user_pages() for two I/Os; devdax pages name no file either" },
	{ DEVDAX, .at = 512, .count = 1, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "one put too many, in the second section" },
	{ DEVDAX, .at = 1023, .count = 1, .refcount = 1, .clear = 1UL << PG_reserved, .class = "idle",
	  WARNING("not-reserved"), .why = "the last page" },
};

/* A reference on a page is one on the pagemap, too. */
#define REFERENCES_HELD references_above_idle
#include "program.h"
