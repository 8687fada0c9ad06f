/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme D, as in 6.0: a private or coherent page is freed by its last put, and its count set back to 1 at
 * once: free and in use look alike.  The other types rest at 1 as before.
 *
 * Defined by free_zone_device_page() since 27674ef6c73f (5.18), which grew out of the series "Remove extra
 * ZONE_DEVICE page refcount" of November 2021.  Mirrors mm/memremap.c and fs/dax.c of 6.0.
 */
#define RELEASE "6.0.0-mock-d"
#define SCHEME "D"
#define HAS_PHYS_BASE
#define HAS_BUILD_ID
#define PERCPU_REF_DATA
#define COMPOUND_DEVMAP

#include "page.h"
#ifdef DRIVERS
#define OLD_P2PDMA
#include "drivers.h"
#else
#include "memremap.h"
#endif

/* The functions that make a kernel one of this scheme. */
void free_zone_device_page(struct page *page);
void free_zone_device_page(struct page *page)
{
	page->mapping = NULL;
	gpu_page_free(page);
	page->_refcount.counter = 1;
}

bool __put_devmap_managed_page_refs(struct page *page, int refs);
bool __put_devmap_managed_page_refs(struct page *page, int refs)
{
	page->_refcount.counter -= refs;
	return true;
}

static inline __attribute__((always_inline)) void dax_mapping_set_cow(struct page *page)
{
	page->mapping = (void *)1;
	page->index++;
}

void dax_associate_entry(struct page *page);
void dax_associate_entry(struct page *page)
{
	dax_mapping_set_cow(page);
}

static const char *const evidence[] = { "member folio.pgmap: absent", "symbol free_zone_device_page: present",
					NULL };

enum { PMEM, DEVDAX, P2P, GPU, COHERENT };

#ifdef DRIVERS
/* Their lists tell that they are free. */
#define REST_RULE NULL
#else
#define REST_RULE "free-or-allocated"
#endif

static struct device devices[] = {
	[PMEM] = { .name = "namespace0.0",
		   .type = "MEMORY_DEVICE_FS_DAX",
		   .kernel_type = MEMORY_DEVICE_FS_DAX,
		   .pfn = 0x100000,
		   .pages = 1536,
		   .reserve = 24,
		   .idle = 1,
		   .ref_error = -1,
		   .pagemap_rule = "ref-below-bias",
		   .pagemap_severity = "error" },
	[DEVDAX] = { .name = "dax1.0",
		     .type = "MEMORY_DEVICE_GENERIC",
		     .kernel_type = MEMORY_DEVICE_GENERIC,
		     .pfn = 0x100800,
		     .pages = 4096,
		     .shift = 9,
		     .idle = 1 },
	[P2P] = { .name = "0000:00:03.0",
		  .type = "MEMORY_DEVICE_PCI_P2PDMA",
		  .kernel_type = MEMORY_DEVICE_PCI_P2PDMA,
		  .pfn = 0x180000,
		  .pages = 512,
		  .idle = 1 },
	[GPU] = { .name = "gpu",
		  .type = "MEMORY_DEVICE_PRIVATE",
		  .kernel_type = MEMORY_DEVICE_PRIVATE,
		  .pfn = 0x3fffe00,
		  .pages = 512,
		  .idle = 1,
		  .rest_rule = REST_RULE,
		  .ref_error = -2,
		  .pagemap_rule = "ref-below-bias",
		  .pagemap_severity = "error" },
	[COHERENT] = { .name = "gpu-coherent",
		       .type = "MEMORY_DEVICE_COHERENT",
		       .kernel_type = MEMORY_DEVICE_COHERENT,
		       .pfn = 0x200000,
		       .pages = 512,
		       .idle = 1,
		       .rest_rule = REST_RULE },
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "a block of a file, mapped or not: maps are not counted" },
	{ PMEM, .at = 80, .count = 2, .refcount = 1, .mapping = M_SHARED, .index = 2, .class = "busy",
	  .why = "a block of two files" },
	{ PMEM, .at = 88, .count = 1, .refcount = 3, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "two I/Os" },
	{ PMEM, .at = 96, .count = 1, .refcount = 1 + 1024, .mapping = M_FILE, .class = "busy",
	  .rule = "dma-pinned", .severity = "info", .why = "pinned" },
	{ PMEM, .at = 104, .count = 1, .refcount = 2, .class = "busy", .rule = "reference-outlives-mapping",
	  .severity = "warning", .why = "held after truncate" },
	{ PMEM, .at = 112, .count = 1, .refcount = 1 + 1024, .class = "busy", .rule = "pinned-after-truncate",
	  .severity = "warning", .why = "pinned after truncate" },
	{ PMEM, .at = 120, .count = 1, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "one put too many: nothing frees a DAX page at 0" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .maps = 1, .mapping = M_FILE, .class = "violation",
	  .rule = "unaccounted-mapcount", .severity = "error", .why = "DAX maps are not counted" },
	{ PMEM, .at = 136, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "wrong-mapping", .severity = "error", .why = "anonymous memory on a DAX page" },
	{ DEVDAX, .at = 0, .count = 512, .order = 9, .refcount = 1, .mapping = M_FILE, .class = "idle",
	  .why = "once faulted, at rest" },
	{ DEVDAX, .at = 512, .count = 1024, .order = 9, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "an I/O on each of two folios" },
	{ DEVDAX, .at = 1536, .count = 512, .order = 9, .refcount = 0, .class = "violation",
	  .rule = "refcount-below-idle", .severity = "error", .why = "one put too many" },
	{ DEVDAX, .at = 2048, .count = 512, .order = 9, .refcount = 1, .tail_refcount = 1, .class = "violation",
	  .rule = "tail-refcount", .severity = "error", .why = "a reference on a tail" },
	{ DEVDAX, .at = 2560, .count = 512, .order = 8, .refcount = 1, .class = "violation",
	  .rule = "wrong-order", .severity = "error", .why = "half as large as vmemmap_shift says" },
	{ P2P, .at = 16, .count = 2, .refcount = 2, .class = "busy",
	  .why = "referenced by an I/O; allocation does not count" },
	{ P2P, .at = 24, .count = 1, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "one put too many" },
	{ P2P, .at = 32, .count = 1, .refcount = 1, .mapping = M_FILE, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "P2PDMA pages never have one" },
	{ GPU, .at = 0, .count = 8, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "in use, with the count of a free page" },
	{ GPU, .at = 16, .count = 1, .refcount = 3, .maps = 2, .mapping = M_ANON, .class = "busy",
	  .why = "mapped twice, and held by a migration" },
	{ GPU, .at = 24, .count = 1, .refcount = 2, .class = "busy", .why = "held; nobody can tell by whom" },
	{ GPU, .at = 32, .count = 1, .refcount = 1, .maps = 2, .mapping = M_ANON, .class = "violation",
	  .rule = "refcount-below-mapcount", .severity = "error", .why = "two maps, one reference" },
	{ GPU, .at = 40, .count = 1, .refcount = 0, .maps = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "mapped-without-reference", .severity = "error", .why = "put while it is mapped" },
	{ GPU, .at = 48, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "busy", .rule = "stale-mapping",
	  .severity = "warning", .why = "unmapped with a mapping: free or in use" },
	{ GPU, .at = 56, .count = 1, .refcount = 1 + 1024, .maps = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "pinned-private", .severity = "error", .why = "pinned where it must migrate" },
	{ COHERENT, .at = 8, .count = 4, .refcount = 2, .maps = 2, .mapping = M_ANON, .class = "busy",
	  .why = "mapped twice" },
	{ COHERENT, .at = 16, .count = 1, .refcount = 1 + 1024, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .rule = "dma-pinned", .severity = "info", .why = "pinned, which coherent memory may be" },
	{ COHERENT, .at = 24, .count = 1, .refcount = 2, .maps = 3, .mapping = M_ANON, .class = "violation",
	  .rule = "refcount-below-mapcount", .severity = "error", .why = "three maps, two references" },
#ifdef DRIVERS
	{ P2P, .at = 40, .count = 4, .refcount = 1, .books = BOOKS_USED, .class = "idle",
	  .why = "handed out to a driver, which takes no reference" },
	{ P2P, .at = 48, .count = 2, .refcount = 2, .books = BOOKS_FREE, .class = "violation",
	  .rule = "pool-vs-pages", .severity = "error", .why = "back in the pool during an I/O" },
	{ GPU, .at = 64, .count = 4, .refcount = 1, .books = BOOKS_USED, .class = "idle",
	  .rule = "free-or-allocated", .severity = "info",
	  .why = "not on the list: allocated, and not mapped yet" },
	{ GPU, .at = 72, .count = 1, .refcount = 2, .books = BOOKS_FREE, .class = "violation",
	  .rule = "free-list-nonidle", .severity = "error", .why = "freed while it is held" },
	{ GPU, .at = 80, .count = 1, .refcount = 0, .class = "idle", .rule = "free-list-nonidle",
	  .severity = "warning", .why = "listed, and its count not set back yet" },
	{ COHERENT, .at = 32, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .books = BOOKS_FREE,
	  .class = "violation", .rule = "free-list-nonidle", .severity = "error",
	  .why = "freed while it is mapped" },
#endif
};

#include "program.h"

/* The pagemap's own reference, and one for every (compound) page, in use or not. */
static long pagemap_ref(const struct device *device)
{
	return 1 + folios_of(device);
}

static void register_device(struct device *device)
{
	register_pagemap(device);
#ifdef DRIVERS
	keep_books(device, books_of(device));
#endif
}
