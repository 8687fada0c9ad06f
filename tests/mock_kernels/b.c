/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme B, as in 4.12 and 4.13: every page rests at 1, and holds one reference on the pagemap until its
 * last put, which removal does.
 *
 * Defined by the single-reference patch of April 2017 (merged as 71389703839e).  Registry as in scheme A.
 */
#define RELEASE "4.12.0-mock-b"
#define SCHEME "B"
#define MEM_SECTION_ARRAY
#define HAS_PHYS_BASE

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

static const char *const evidence[] = { "member folio.pgmap: absent", "symbol pgmap_radix: present",
					"member dev_pagemap.type: absent", NULL };

enum { PMEM, DEVDAX, UNBOUND };

static struct device devices[] = {
	[PMEM] = { .name = "namespace0.0",
		   .type = "MEMORY_DEVICE_FS_DAX",
		   .pfn = 0x100000,
		   .pages = 1024,
		   .reserve = 32,
		   .idle = 1,
		   .ref_error = -4,
		   .pagemap_rule = "ref-versus-pages",
		   .pagemap_severity = "warning" },
	[DEVDAX] = { .name = "dax1.0",
		     .type = "MEMORY_DEVICE_GENERIC",
		     .pfn = 0x117e00,
		     .pages = 1024,
		     .idle = 1 },
	/* Its driver was unbound while two pages were held; every page's own reference was put. */
	[UNBOUND] = { .name = "dax2.0",
		      .type = "MEMORY_DEVICE_GENERIC",
		      .pfn = 0x140000,
		      .pages = 512,
		      .idle = 1,
		      .dies = true,
		      .pagemap_rule = "dying-busy",
		      .pagemap_severity = "error" },
};

static const struct state states[] = {
	{ PMEM, .at = 40, .count = 4, .refcount = 2, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "get_page() by an I/O, which the pagemap does not see" },
	{ PMEM, .at = 48, .count = 1, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "one put too many: the reference on the pagemap is gone with it" },
	{ PMEM, .at = 56, .count = 1, .refcount = -2, .class = "violation", .rule = "refcount-out-of-range",
	  .severity = "error", .why = "three puts too many" },
	{ PMEM, .at = 64, .count = 2, .refcount = 1, .maps = 3, .class = "violation",
	  .rule = "unaccounted-mapcount", .severity = "error", .why = "DAX maps are not counted" },
	{ PMEM, .at = 72, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "wrong-mapping", .severity = "error", .why = "anonymous memory on a DAX page" },
	{ PMEM, .at = 80, .count = 1, .refcount = 0, .maps = 1, .class = "violation",
	  .rule = "mapped-without-reference", .severity = "error", .why = "mapped and free at once" },
	{ DEVDAX, .at = 0, .count = 1, .refcount = 7, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "six I/Os on the first page" },
	{ DEVDAX, .at = 600, .count = 1, .refcount = 1, .set = 1UL << PG_swapcache, .class = "violation",
	  .rule = "core-mm-flags", .severity = "error", .why = "in the swap cache" },
	{ UNBOUND, .at = 100, .count = 1, .refcount = 2, .broken_only = true, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "two I/Os that removal waits for" },
	{ UNBOUND, .at = 200, .count = 1, .refcount = 1, .broken_only = true, .class = "busy",
	  .rule = "held-without-map", .severity = "info",
	  .why = "one I/O that removal waits for, at the count of a free page in a pagemap that lives" },
};

#include "program.h"

/* The driver's own reference, and one for every page that is not at 0. */
static long pagemap_ref(const struct device *device)
{
	return 1 + pages_referenced(device);
}

static void register_device(struct device *device)
{
	struct page_map *map = register_page_map(device, device == &devices[PMEM]);

	radix_insert_sections(&pgmap_radix, device->pfn, device->pfn + device->pages, K(map));
}
