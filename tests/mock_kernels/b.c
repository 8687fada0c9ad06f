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

#include "old_page.h"
#include "old_pagemap.h"

static const char *const evidence[] = { "member folio.pgmap: absent", "symbol pgmap_radix: present",
					"member dev_pagemap.type: absent", NULL };

enum { PMEM, DEVDAX, UNBOUND };

static struct device devices[] = {
	[PMEM] = { DEVICE("namespace0.0", FS_DAX, 0x100000, 1024), .reserve = 32, .idle = 1, .ref_error = -4,
		   PAGEMAP_WARNING("ref-versus-pages") },
	[DEVDAX] = { DEVICE("dax1.0", GENERIC, 0x117e00, 1024), .idle = 1 },
	/* Its driver was unbound while two pages were held; every page's own reference was put. */
	[UNBOUND] = { DEVICE("dax2.0", GENERIC, 0x140000, 512), .idle = 1, .dies = true,
		      PAGEMAP_ERROR("dying-busy") },
};

static const struct state states[] = {
	{ PMEM, .at = 40, .count = 4, .refcount = 2, .class = "busy", INFO("held-without-map"),
	  .why = "get_page() by an I/O, which the pagemap does not see" },
	{ PMEM, .at = 48, .count = 1, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "one put too many: the reference on the pagemap is gone with it" },
	{ PMEM, .at = 56, .count = 1, .refcount = -2, ERROR("refcount-out-of-range"),
	  .why = "three puts too many" },
	{ PMEM, .at = 64, .count = 2, .refcount = 1, .maps = 3, ERROR("unaccounted-mapcount"),
	  .why = "DAX maps are not counted" },
	{ PMEM, .at = 72, .count = 1, .refcount = 1, .mapping = M_ANON, ERROR("wrong-mapping"),
	  .why = "anonymous memory on a DAX page" },
	{ PMEM, .at = 80, .count = 1, .refcount = 0, .maps = 1, ERROR("mapped-without-reference"),
	  .why = "mapped and free at once" },
	{ DEVDAX, .at = 0, .count = 1, .refcount = 7, .class = "busy", INFO("held-without-map"),
	  .why = "six I/Os on the first page" },
	{ DEVDAX, .at = 600, .count = 1, .refcount = 1, .set = 1UL << PG_swapcache, ERROR("core-mm-flags"),
	  .why = "in the swap cache" },
	{ UNBOUND, .at = 100, .count = 1, .refcount = 2, .broken_only = true, .class = "busy",
	  INFO("held-without-map"), .why = "two I/Os that removal waits for" },
	{ UNBOUND, .at = 200, .count = 1, .refcount = 1, .broken_only = true, .class = "busy",
	  INFO("held-without-map"),
	  .why = "one I/O that removal waits for, at the count of a free page in a pagemap that lives" },
};

#include "program.h"
