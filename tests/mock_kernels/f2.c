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
	[PMEM] = { TYPED_DEVICE("namespace0.0", FS_DAX, 0x100000, 1536), .reserve = 24 },
	[DEVDAX] = { TYPED_DEVICE("dax1.0", GENERIC, 0x100800, 4096), .shift = 9 },
	[P2P] = { TYPED_DEVICE("0000:00:03.0", PCI_P2PDMA, 0x180000, 512) },
	[GPU] = { TYPED_DEVICE("gpu", PRIVATE, 0x3fffe00, 512), .dies = true, PAGEMAP_ERROR("dying-busy") },
	[COHERENT] = { TYPED_DEVICE("gpu-coherent", COHERENT, 0x200000, 512) },
#ifdef DRIVERS
	[XEN] = { TYPED_DEVICE("Xen scratch", GENERIC, 0x208000, 512) },
#endif
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "a block of a file: the entry's reference" },
	{ PMEM, .at = 80, .count = 2, .refcount = 1, .mapping = M_SHARED, .index = 2, .class = "busy",
	  .why = "a block of two files, of which the first took a reference" },
	{ PMEM, .at = 88, .count = 1, .refcount = 3, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "the entry, and two I/Os" },
	{ PMEM, .at = 96, .count = 1, .refcount = 1 + 1024, .mapping = M_FILE, .class = "busy",
	  INFO("dma-pinned"), .why = "the entry, and a pin" },
	{ PMEM, .at = 104, .count = 3, .refcount = 0, .mapping = M_FILE, ERROR("stale-mapping"),
	  .why = "associated without the entry's reference" },
	{ PMEM, .at = 112, .count = 2, .refcount = 1, ERROR("reference-on-free-folio"),
	  .why = "set to 1 by code of an older scheme: never idle again" },
	{ PMEM, .at = 120, .count = 1, .refcount = 1024, ERROR("pinned-after-truncate"),
	  .why = "truncate did not wait for the pin" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .maps = 1, .mapping = M_FILE,
	  ERROR("unaccounted-mapcount"), .why = "DAX maps are not counted" },
	{ PMEM, .at = 136, .count = 1, .refcount = 0, .maps = 1, .mapping = M_FILE,
	  ERROR("mapped-without-reference"), .why = "mapped and free at once" },
	/* pgmap_release_folios() on four folios: the first is put, then the second three times. */
	{ PMEM, .at = 256, .count = 1, .refcount = 0, .broken_only = true, .class = "idle",
	  .why = "the first folio of a release of four: as it should be" },
	{ PMEM, .at = 257, .count = 1, .refcount = -2, ERROR("refcount-out-of-range"),
	  .why = "the second folio of a release of four: put three times" },
	{ PMEM, .at = 258, .count = 2, .refcount = 1, ERROR("reference-on-free-folio"),
	  .why = "the third and fourth folios of a release of four: never put" },
	{ DEVDAX, .at = 0, .count = 1024, .order = 9, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "two folios with a devdax entry" },
	{ DEVDAX, .at = 1024, .count = 512, .order = 9, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "the entry, and an I/O" },
	{ DEVDAX, .at = 1536, .count = 512, .order = 9, .refcount = 1, .class = "busy",
	  WARNING("reference-outlives-mapping"), .why = "held without an entry" },
	{ DEVDAX, .at = 2048, .count = 512, .order = 9, .refcount = 0, .mapping = M_FILE,
	  ERROR("stale-mapping"), .why = "associated without the entry's reference" },
	{ DEVDAX, .at = 2560, .count = 512, .order = 9, .refcount = 0, .tail_refcount = -1,
	  ERROR("tail-refcount"), .why = "a put on a tail" },
	{ P2P, .at = 16, .count = 1, .refcount = 1, .class = "busy", WARNING("reference-on-free-folio"),
	  .why = "held, and nobody maps it" },
	{ P2P, .at = 24, .count = 1, .refcount = 0, .mapping = M_FILE, ERROR("stale-mapping"),
	  .why = "P2PDMA pages never have one" },
	{ GPU, .at = 0, .count = 8, .refcount = 0, .broken_only = true, .class = "idle", .why = "free" },
	{ GPU, .at = 8, .count = 1, .refcount = 1, .set = 1UL << PG_locked, .class = "busy",
	  .why = "allocated, not mapped yet" },
	{ GPU, .at = 16, .count = 4, .refcount = 2, .maps = 2, .mapping = M_ANON, .class = "busy",
	  .why = "mapped twice" },
	{ GPU, .at = 24, .count = 1, .refcount = 1, .class = "busy", WARNING("reference-on-free-folio"),
	  .why = "unlocked, unmapped, held" },
	{ GPU, .at = 32, .count = 1, .refcount = 1, .maps = 2, .mapping = M_ANON,
	  ERROR("refcount-below-mapcount"), .why = "two maps, one reference" },
	{ COHERENT, .at = 8, .count = 4, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "mapped" },
	{ COHERENT, .at = 16, .count = 1, .refcount = 0, .mapping = M_ANON, ERROR("stale-mapping"),
	  .why = "freed without clearing its mapping" },
	{ COHERENT, .at = 24, .count = 1, .refcount = 0, .set = 1UL << PG_locked, .class = "idle",
	  WARNING("dirty-free-state"), .why = "free, and locked by its last user" },
#ifdef DRIVERS
	{ P2P, .at = 32, .count = 4, .books = BOOKS_USED, .class = "idle",
	  .why = "handed out to a driver, which takes no reference" },
	{ P2P, .at = 40, .count = 4, .refcount = 1, .maps = 1, .class = "busy", .why = "mapped" },
	{ P2P, .at = 48, .count = 2, .refcount = 1, .maps = 1, .books = BOOKS_FREE, ERROR("pool-vs-pages"),
	  .why = "back in the pool while it is mapped" },
	{ P2P, .at = 56, .count = 1, .refcount = 1, .books = BOOKS_FREE, ERROR("pool-vs-pages"),
	  .why = "left behind by an mmap that failed" },
	{ GPU, .at = 40, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .books = BOOKS_FREE,
	  ERROR("free-list-nonidle"), .why = "freed while it is mapped" },
	{ GPU, .at = 48, .count = 1, .refcount = 2, .books = BOOKS_FREE, ERROR("free-list-nonidle"),
	  .why = "freed while it is held" },
	{ GPU, .at = 56, .count = 2, .books = BOOKS_USED, .class = "idle",
	  .why = "taken off the list, and not set up yet" },
	{ COHERENT, .at = 32, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .books = BOOKS_FREE,
	  ERROR("free-list-nonidle"), .why = "freed while it is mapped" },
	{ XEN, .at = 8, .count = 2, .refcount = 1, .maps = 1, .class = "busy",
	  .why = "handed out, and mapped by gntdev" },
	{ XEN, .at = 16, .count = 1, .refcount = 1, .maps = 1, .books = BOOKS_FREE, ERROR("free-list-nonidle"),
	  .why = "given back while it is mapped" },
#endif
};

#include "program.h"
