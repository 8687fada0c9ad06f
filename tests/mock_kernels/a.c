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

#include "radix.h"
#include "states.h"
#include "old_page.h"

struct vmem_altmap {
	const unsigned long base_pfn, reserve;
	unsigned long free, align, alloc;
};

struct dev_pagemap {
	struct vmem_altmap *altmap;
	const struct resource *res;
	struct percpu_ref *ref;
	void *dev;
};

#include "page_map.h"

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
	[PMEM] = { .name = "namespace0.0",
		   .type = "MEMORY_DEVICE_FS_DAX",
		   .pfn = 0x100000,
		   .pages = 1024,
		   .idle = 1,
		   .ref_error = -3,
		   .pagemap_rule = "ref-versus-pages",
		   .pagemap_severity = "warning" },
	/* In two sections, with its memmap on itself. */
	[DEVDAX] = { .name = "dax1.0",
		     .type = "MEMORY_DEVICE_GENERIC",
		     .pfn = 0x247e00,
		     .pages = 1024,
		     .reserve = 64,
		     .idle = 1 },
};

static const struct state states[] = {
	{ PMEM, .at = 16, .count = 4, .refcount = 2, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "get_page() by an I/O: legal, and no file is named in these kernels" },
	{ PMEM, .at = 24, .count = 1, .refcount = 40, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "many I/Os" },
	{ PMEM, .at = 32, .count = 2, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "one put too many" },
	{ PMEM, .at = 40, .count = 1, .refcount = -1, .class = "violation", .rule = "refcount-out-of-range",
	  .severity = "error", .why = "two puts too many" },
	{ PMEM, .at = 48, .count = 1, .refcount = 2, .maps = 1, .class = "violation",
	  .rule = "unaccounted-mapcount", .severity = "error", .why = "DAX maps are not counted" },
	{ PMEM, .at = 56, .count = 1, .refcount = 1, .mapping = M_FILE, .class = "violation",
	  .rule = "wrong-mapping", .severity = "error", .why = "nothing in this kernel sets it on a DAX page" },
	{ PMEM, .at = 64, .count = 1, .refcount = 1, .pgmap = 0xdead000000000100, .class = "violation",
	  .rule = "wrong-pgmap", .severity = "error",
	  .why = "LIST_POISON1: list_del() ran, pgmap was not set" },
	{ PMEM, .at = 72, .count = 1, .refcount = 1, .set = 1UL << PG_lru, .class = "violation",
	  .rule = "core-mm-flags", .severity = "error", .why = "on an LRU list" },
	{ PMEM, .at = 80, .count = 1, .refcount = 1, .clear = 7UL << 55, .class = "violation",
	  .rule = "wrong-zone", .severity = "error", .why = "zone bits of ZONE_DMA" },
	{ DEVDAX, .at = 96, .count = 8, .refcount = 3, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "get_user_pages() for two I/Os; devdax pages name no file either" },
	{ DEVDAX, .at = 512, .count = 1, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "one put too many, in the second section" },
	{ DEVDAX, .at = 1023, .count = 1, .refcount = 1, .clear = 1UL << PG_reserved, .class = "idle",
	  .rule = "not-reserved", .severity = "warning", .why = "the last page" },
};

#include "program.h"

/* The driver's own reference, and one for every reference on a page beyond the first. */
static long pagemap_ref(const struct device *device)
{
	return 1 + references_above(device, 1);
}

static void register_device(struct device *device)
{
	struct page_map *map = register_page_map(device, device == &devices[PMEM]);

	radix_insert_sections(&pgmap_radix, device->pfn, device->pfn + device->pages, K(map));
}
