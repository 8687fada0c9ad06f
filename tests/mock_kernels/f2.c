/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme F2, as in mm-unstable of October 2022, never merged: pages of every type rest at 0, and a DAX
 * entry, of a file or of a devdax device, owns a reference on each page that it covers.
 *
 * Defined by "mm/memremap_pages: initialize all ZONE_DEVICE pages to start at refcount 0" and the series
 * around it.  pgmap_release_folios() of that patch does not advance: its states are rows here.
 */
#define RELEASE "6.1.0-rc1-mock-f2"
#define SCHEME "F2"
#define HAS_PHYS_BASE
#define HAS_BUILD_ID
#define PERCPU_REF_DATA
#define COMPOUND_DEVMAP

#include "page.h"
#ifdef DRIVERS
#include "drivers.h"
#else
#include "memremap.h"
#endif

/* The functions that make a kernel one of this scheme. */
bool pgmap_request_folios(struct dev_pagemap *pgmap, struct page *folio, int nr_folios);
bool pgmap_request_folios(struct dev_pagemap *pgmap, struct page *folio, int nr_folios)
{
	for (int i = 0; i < nr_folios; i++)
		folio[i]._refcount.counter++;
	return pgmap != NULL;
}

void free_zone_device_page(struct page *page);
void free_zone_device_page(struct page *page)
{
	page->mapping = NULL;
	gpu_page_free(page);
}

void dax_associate_entry(struct page *page, struct address_space *mapping);
void dax_associate_entry(struct page *page, struct address_space *mapping)
{
	page->mapping = mapping;
}

static const char *const evidence[] = { "symbol pgmap_request_folios: present", NULL };

enum { PMEM, DEVDAX, P2P, GPU, COHERENT, XEN };

static struct device devices[] = {
	[PMEM] = { .name = "namespace0.0",
		   .type = "MEMORY_DEVICE_FS_DAX",
		   .kernel_type = MEMORY_DEVICE_FS_DAX,
		   .pfn = 0x100000,
		   .pages = 1536,
		   .reserve = 24 },
	[DEVDAX] = { .name = "dax1.0",
		     .type = "MEMORY_DEVICE_GENERIC",
		     .kernel_type = MEMORY_DEVICE_GENERIC,
		     .pfn = 0x100800,
		     .pages = 4096,
		     .shift = 9 },
	[P2P] = { .name = "0000:00:03.0",
		  .type = "MEMORY_DEVICE_PCI_P2PDMA",
		  .kernel_type = MEMORY_DEVICE_PCI_P2PDMA,
		  .pfn = 0x180000,
		  .pages = 512 },
	[GPU] = { .name = "gpu",
		  .type = "MEMORY_DEVICE_PRIVATE",
		  .kernel_type = MEMORY_DEVICE_PRIVATE,
		  .pfn = 0x3fffe00,
		  .pages = 512,
		  .dies = true,
		  .pagemap_rule = "dying-busy",
		  .pagemap_severity = "error" },
	[COHERENT] = { .name = "gpu-coherent",
		       .type = "MEMORY_DEVICE_COHERENT",
		       .kernel_type = MEMORY_DEVICE_COHERENT,
		       .pfn = 0x200000,
		       .pages = 512 },
#ifdef DRIVERS
	[XEN] = { .name = "Xen scratch",
		  .type = "MEMORY_DEVICE_GENERIC",
		  .kernel_type = MEMORY_DEVICE_GENERIC,
		  .pfn = 0x208000,
		  .pages = 512 },
#endif
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "a block of a file: the entry's reference" },
	{ PMEM, .at = 80, .count = 2, .refcount = 1, .mapping = M_SHARED, .index = 2, .class = "busy",
	  .why = "a block of two files, of which the first took a reference" },
	{ PMEM, .at = 88, .count = 1, .refcount = 3, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "the entry, and two I/Os" },
	{ PMEM, .at = 96, .count = 1, .refcount = 1 + 1024, .mapping = M_FILE, .class = "busy",
	  .rule = "dma-pinned", .severity = "info", .why = "the entry, and a pin" },
	{ PMEM, .at = 104, .count = 3, .refcount = 0, .mapping = M_FILE, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "associated without the entry's reference" },
	{ PMEM, .at = 112, .count = 2, .refcount = 1, .class = "violation", .rule = "reference-on-free-folio",
	  .severity = "error", .why = "set to 1 by code of an older scheme: never idle again" },
	{ PMEM, .at = 120, .count = 1, .refcount = 1024, .class = "violation", .rule = "pinned-after-truncate",
	  .severity = "error", .why = "truncate did not wait for the pin" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .maps = 1, .mapping = M_FILE, .class = "violation",
	  .rule = "unaccounted-mapcount", .severity = "error", .why = "DAX maps are not counted" },
	{ PMEM, .at = 136, .count = 1, .refcount = 0, .maps = 1, .mapping = M_FILE, .class = "violation",
	  .rule = "mapped-without-reference", .severity = "error", .why = "mapped and free at once" },
	/* pgmap_release_folios() on four folios: the first is put, then the second three times. */
	{ PMEM, .at = 256, .count = 1, .refcount = 0, .broken_only = true, .class = "idle",
	  .why = "the first folio of a release of four: as it should be" },
	{ PMEM, .at = 257, .count = 1, .refcount = -2, .class = "violation", .rule = "refcount-out-of-range",
	  .severity = "error", .why = "the second folio of a release of four: put three times" },
	{ PMEM, .at = 258, .count = 2, .refcount = 1, .class = "violation", .rule = "reference-on-free-folio",
	  .severity = "error", .why = "the third and fourth folios of a release of four: never put" },
	{ DEVDAX, .at = 0, .count = 1024, .order = 9, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "two folios with a devdax entry" },
	{ DEVDAX, .at = 1024, .count = 512, .order = 9, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "the entry, and an I/O" },
	{ DEVDAX, .at = 1536, .count = 512, .order = 9, .refcount = 1, .class = "busy",
	  .rule = "reference-outlives-mapping", .severity = "warning", .why = "held without an entry" },
	{ DEVDAX, .at = 2048, .count = 512, .order = 9, .refcount = 0, .mapping = M_FILE, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "associated without the entry's reference" },
	{ DEVDAX, .at = 2560, .count = 512, .order = 9, .refcount = 0, .tail_refcount = -1,
	  .class = "violation", .rule = "tail-refcount", .severity = "error", .why = "a put on a tail" },
	{ P2P, .at = 16, .count = 1, .refcount = 1, .class = "busy", .rule = "reference-on-free-folio",
	  .severity = "warning", .why = "held, and nobody maps it" },
	{ P2P, .at = 24, .count = 1, .refcount = 0, .mapping = M_FILE, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "P2PDMA pages never have one" },
	{ GPU, .at = 0, .count = 8, .refcount = 0, .broken_only = true, .class = "idle", .why = "free" },
	{ GPU, .at = 8, .count = 1, .refcount = 1, .set = 1UL << PG_locked, .class = "busy",
	  .why = "allocated, not mapped yet" },
	{ GPU, .at = 16, .count = 4, .refcount = 2, .maps = 2, .mapping = M_ANON, .class = "busy",
	  .why = "mapped twice" },
	{ GPU, .at = 24, .count = 1, .refcount = 1, .class = "busy", .rule = "reference-on-free-folio",
	  .severity = "warning", .why = "unlocked, unmapped, held" },
	{ GPU, .at = 32, .count = 1, .refcount = 1, .maps = 2, .mapping = M_ANON, .class = "violation",
	  .rule = "refcount-below-mapcount", .severity = "error", .why = "two maps, one reference" },
	{ COHERENT, .at = 8, .count = 4, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "mapped" },
	{ COHERENT, .at = 16, .count = 1, .refcount = 0, .mapping = M_ANON, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "freed without clearing its mapping" },
	{ COHERENT, .at = 24, .count = 1, .refcount = 0, .set = 1UL << PG_locked, .class = "idle",
	  .rule = "dirty-free-state", .severity = "warning", .why = "free, and locked by its last user" },
#ifdef DRIVERS
	{ P2P, .at = 32, .count = 4, .books = BOOKS_USED, .class = "idle",
	  .why = "handed out to a driver, which takes no reference" },
	{ P2P, .at = 40, .count = 4, .refcount = 1, .maps = 1, .class = "busy", .why = "mapped" },
	{ P2P, .at = 48, .count = 2, .refcount = 1, .maps = 1, .books = BOOKS_FREE, .class = "violation",
	  .rule = "pool-vs-pages", .severity = "error", .why = "back in the pool while it is mapped" },
	{ P2P, .at = 56, .count = 1, .refcount = 1, .books = BOOKS_FREE, .class = "violation",
	  .rule = "pool-vs-pages", .severity = "error", .why = "left behind by an mmap that failed" },
	{ GPU, .at = 40, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .books = BOOKS_FREE,
	  .class = "violation", .rule = "free-list-nonidle", .severity = "error",
	  .why = "freed while it is mapped" },
	{ GPU, .at = 48, .count = 1, .refcount = 2, .books = BOOKS_FREE, .class = "violation",
	  .rule = "free-list-nonidle", .severity = "error", .why = "freed while it is held" },
	{ GPU, .at = 56, .count = 2, .books = BOOKS_USED, .class = "idle",
	  .why = "taken off the list, and not set up yet" },
	{ COHERENT, .at = 32, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .books = BOOKS_FREE,
	  .class = "violation", .rule = "free-list-nonidle", .severity = "error",
	  .why = "freed while it is mapped" },
	{ XEN, .at = 8, .count = 2, .refcount = 1, .maps = 1, .class = "busy",
	  .why = "handed out, and mapped by gntdev" },
	{ XEN, .at = 16, .count = 1, .refcount = 1, .maps = 1, .books = BOOKS_FREE, .class = "violation",
	  .rule = "free-list-nonidle", .severity = "error", .why = "given back while it is mapped" },
#endif
};

#include "program.h"

/* The pagemap's own reference, and one for every folio in use. */
static long pagemap_ref(const struct device *device)
{
	return 1 + pages_referenced(device);
}

static void register_device(struct device *device)
{
	register_pagemap(device);
#ifdef DRIVERS
	keep_books(device, books_of(device));
#endif
}
