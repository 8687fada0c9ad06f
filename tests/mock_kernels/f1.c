/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme F1, as in the second version of the series of September 2022, never merged: a pagemap chooses with
 * init_mode whether its pages rest at 1 (INIT_PAGEMAP_BUSY, the default) or at 0 (INIT_PAGEMAP_IDLE).
 *
 * Defined by "mm/memremap_pages: Support initializing pages to a zero reference count" and its discussion.
 * pmem and device-dax chose IDLE there; what nobody converted (virtio-fs, GPUs, P2PDMA) stayed BUSY, so that
 * two pagemaps of one type can rest at different counts.
 */
#define RELEASE "6.0.0-rc5-mock-f1"
#define SCHEME "F1"
#define HAS_PHYS_BASE
#define HAS_BUILD_ID
#define PERCPU_REF_DATA
#define COMPOUND_DEVMAP
#define INIT_MODE

#include "page.h"
#include "memremap.h"

/* The function that frees in this scheme. */
void free_zone_device_page(struct page *page);
void free_zone_device_page(struct page *page)
{
	struct dev_pagemap *pgmap = at_kaddr((u64)page->pgmap);

	page->mapping = NULL;
	if (pgmap->ops)
		gpu_page_free(page);
	if (pgmap->init_mode == INIT_PAGEMAP_BUSY)
		page->_refcount.counter = 1;
}

static const char *const evidence[] = { "member dev_pagemap.init_mode: present", NULL };

enum { PMEM, VIRTIOFS, DEVDAX, P2P, GPU, CONVERTED };

static struct device devices[] = {
	[PMEM] = { TYPED_DEVICE("namespace0.0", FS_DAX, 0x100000, 1536), .reserve = 24 },
	[VIRTIOFS] = { TYPED_DEVICE("0000:00:02.0", FS_DAX, 0x140000, 512), .idle = 1 },
	[DEVDAX] = { TYPED_DEVICE("dax1.0", GENERIC, 0x100800, 2048), .shift = 9 },
	[P2P] = { TYPED_DEVICE("0000:00:03.0", PCI_P2PDMA, 0x180000, 512), .idle = 1 },
	[GPU] = { TYPED_DEVICE("gpu", PRIVATE, 0x3fffe00, 512), .idle = 1, .rest_rule = "free-or-allocated" },
	/* A driver that was converted, as the discussion asks of test_hmm. */
	[CONVERTED] = { TYPED_DEVICE("hmm_dmirror", PRIVATE, 0x3ff0000, 512) },
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "a block of a file: the entry's reference" },
	{ PMEM, .at = 88, .count = 1, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "the entry, and an I/O" },
	{ PMEM, .at = 104, .count = 1, .refcount = 0, .mapping = M_FILE, ERROR("stale-mapping"),
	  .why = "associated without the entry's reference" },
	{ PMEM, .at = 112, .count = 2, .refcount = 1, ERROR("reference-on-free-folio"),
	  .why = "set to 1 where init_mode says IDLE" },
	{ VIRTIOFS, .at = 8, .count = 4, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  .why = "a block of a file: the idle reference and the entry's" },
	{ VIRTIOFS, .at = 16, .count = 1, .refcount = 3, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "the same, and an I/O" },
	{ VIRTIOFS, .at = 24, .count = 1, .refcount = 1, .mapping = M_FILE, ERROR("stale-mapping"),
	  .why = "associated without the entry's reference" },
	{ VIRTIOFS, .at = 32, .count = 1, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "at 0 where init_mode says BUSY" },
	{ VIRTIOFS, .at = 40, .count = 1, .refcount = 2, ERROR("reference-on-free-folio"),
	  .why = "held without an entry" },
	{ DEVDAX, .at = 0, .count = 512, .order = 9, .refcount = 1, .mapping = M_FILE, .class = "busy",
	  .why = "a folio with a devdax entry" },
	{ DEVDAX, .at = 512, .count = 512, .order = 9, .refcount = 1, .class = "busy",
	  WARNING("reference-outlives-mapping"), .why = "held without an entry" },
	{ P2P, .at = 8, .count = 1, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "at 0 where init_mode says BUSY" },
	{ GPU, .at = 0, .count = 2, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "in use, with the count of a free page" },
	{ GPU, .at = 8, .count = 1, .refcount = 1, .maps = 2, .mapping = M_ANON,
	  ERROR("refcount-below-mapcount"), .why = "two maps, one reference" },
	{ GPU, .at = 16, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "busy",
	  WARNING("stale-mapping"), .why = "unmapped with a mapping: free or in use" },
	{ CONVERTED, .at = 0, .count = 2, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "in use" },
	{ CONVERTED, .at = 8, .count = 1, .refcount = 0, .maps = 1, .mapping = M_ANON,
	  ERROR("mapped-without-reference"), .why = "free and mapped" },
};

#include "program.h"
