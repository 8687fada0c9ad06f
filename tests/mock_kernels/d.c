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
	[PMEM] = { TYPED_DEVICE("namespace0.0", FS_DAX, 0x100000, 1536), .reserve = 24, .idle = 1,
		   .ref_error = -1, PAGEMAP_ERROR("ref-below-bias") },
	[DEVDAX] = { TYPED_DEVICE("dax1.0", GENERIC, 0x100800, 4096), .shift = 9, .idle = 1 },
	[P2P] = { TYPED_DEVICE("0000:00:03.0", PCI_P2PDMA, 0x180000, 512), .idle = 1 },
	[GPU] = { TYPED_DEVICE("gpu", PRIVATE, 0x3fffe00, 512), .idle = 1, .rest_rule = REST_RULE,
		  .ref_error = -2, PAGEMAP_ERROR("ref-below-bias") },
	[COHERENT] = { TYPED_DEVICE("gpu-coherent", COHERENT, 0x200000, 512), .idle = 1,
		       .rest_rule = REST_RULE },
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "a block of a file, mapped or not: maps are not counted" },
	{ PMEM, .at = 80, .count = 2, .refcount = 1, .mapping = M_SHARED, .index = 2, .class = "busy",
	  .why = "a block of two files" },
	{ PMEM, .at = 88, .count = 1, .refcount = 3, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "two I/Os" },
	{ PMEM, .at = 96, .count = 1, .refcount = 1 + 1024, .mapping = M_FILE, .class = "busy",
	  INFO("dma-pinned"), .why = "pinned" },
	{ PMEM, .at = 104, .count = 1, .refcount = 2, .class = "busy", WARNING("reference-outlives-mapping"),
	  .why = "held after truncate" },
	{ PMEM, .at = 112, .count = 1, .refcount = 1 + 1024, .class = "busy", WARNING("pinned-after-truncate"),
	  .why = "pinned after truncate" },
	{ PMEM, .at = 120, .count = 1, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "one put too many: nothing frees a DAX page at 0" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .maps = 1, .mapping = M_FILE,
	  ERROR("unaccounted-mapcount"), .why = "DAX maps are not counted" },
	{ PMEM, .at = 136, .count = 1, .refcount = 1, .mapping = M_ANON, ERROR("wrong-mapping"),
	  .why = "anonymous memory on a DAX page" },
	{ DEVDAX, .at = 0, .count = 512, .order = 9, .refcount = 1, .mapping = M_FILE, .class = "idle",
	  .why = "once faulted, at rest" },
	{ DEVDAX, .at = 512, .count = 1024, .order = 9, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "an I/O on each of two folios" },
	{ DEVDAX, .at = 1536, .count = 512, .order = 9, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "one put too many" },
	{ DEVDAX, .at = 2048, .count = 512, .order = 9, .refcount = 1, .tail_refcount = 1,
	  ERROR("tail-refcount"), .why = "a reference on a tail" },
	{ DEVDAX, .at = 2560, .count = 512, .order = 8, .refcount = 1, ERROR("wrong-order"),
	  .why = "half as large as vmemmap_shift says" },
	{ P2P, .at = 16, .count = 2, .refcount = 2, .class = "busy",
	  .why = "referenced by an I/O; allocation does not count" },
	{ P2P, .at = 24, .count = 1, .refcount = 0, ERROR("refcount-below-idle"), .why = "one put too many" },
	{ P2P, .at = 32, .count = 1, .refcount = 1, .mapping = M_FILE, ERROR("stale-mapping"),
	  .why = "P2PDMA pages never have one" },
	{ GPU, .at = 0, .count = 8, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "in use, with the count of a free page" },
	{ GPU, .at = 16, .count = 1, .refcount = 3, .maps = 2, .mapping = M_ANON, .class = "busy",
	  .why = "mapped twice, and held by a migration" },
	{ GPU, .at = 24, .count = 1, .refcount = 2, .class = "busy", .why = "held; nobody can tell by whom" },
	{ GPU, .at = 32, .count = 1, .refcount = 1, .maps = 2, .mapping = M_ANON,
	  ERROR("refcount-below-mapcount"), .why = "two maps, one reference" },
	{ GPU, .at = 40, .count = 1, .refcount = 0, .maps = 1, .mapping = M_ANON,
	  ERROR("mapped-without-reference"), .why = "put while it is mapped" },
	{ GPU, .at = 48, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "busy",
	  WARNING("stale-mapping"), .why = "unmapped with a mapping: free or in use" },
	{ GPU, .at = 56, .count = 1, .refcount = 1 + 1024, .maps = 1, .mapping = M_ANON,
	  ERROR("pinned-private"), .why = "pinned where it must migrate" },
	{ COHERENT, .at = 8, .count = 4, .refcount = 2, .maps = 2, .mapping = M_ANON, .class = "busy",
	  .why = "mapped twice" },
	{ COHERENT, .at = 16, .count = 1, .refcount = 1 + 1024, .maps = 1, .mapping = M_ANON, .class = "busy",
	  INFO("dma-pinned"), .why = "pinned, which coherent memory may be" },
	{ COHERENT, .at = 24, .count = 1, .refcount = 2, .maps = 3, .mapping = M_ANON,
	  ERROR("refcount-below-mapcount"), .why = "three maps, two references" },
#ifdef DRIVERS
	{ P2P, .at = 40, .count = 4, .refcount = 1, .books = BOOKS_USED, .class = "idle",
	  .why = "handed out to a driver, which takes no reference" },
	{ P2P, .at = 48, .count = 2, .refcount = 2, .books = BOOKS_FREE, ERROR("pool-vs-pages"),
	  .why = "back in the pool during an I/O" },
	{ GPU, .at = 64, .count = 4, .refcount = 1, .books = BOOKS_USED, .class = "idle",
	  INFO("free-or-allocated"), .why = "not on the list: allocated, and not mapped yet" },
	{ GPU, .at = 72, .count = 1, .refcount = 2, .books = BOOKS_FREE, ERROR("free-list-nonidle"),
	  .why = "freed while it is held" },
	{ GPU, .at = 80, .count = 1, .refcount = 0, .class = "idle", WARNING("free-list-nonidle"),
	  .why = "listed, and its count not set back yet" },
	{ COHERENT, .at = 32, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .books = BOOKS_FREE,
	  ERROR("free-list-nonidle"), .why = "freed while it is mapped" },
#endif
};

#define REFERENCES_HELD folios_of
#include "program.h"
