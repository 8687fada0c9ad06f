/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme C, as in 4.19: FS_DAX has a type, device-dax the value 0 without a name, and a DAX page knows its
 * file (d2c997c0f145).  pgmap_radix holds struct dev_pagemap itself (since e8d513483300).
 *
 * Mirrors kernel/memremap.c and fs/dax.c of 4.19.
 */
#define RELEASE "4.19.0-mock-c"
#define SCHEME "C"
#define HAS_PHYS_BASE
#define MEM_CGROUP

#include "radix.h"
#include "states.h"
#include "page.h"

enum memory_type { MEMORY_DEVICE_PRIVATE = 1, MEMORY_DEVICE_PUBLIC, MEMORY_DEVICE_FS_DAX };

struct vmem_altmap {
	const unsigned long base_pfn, reserve;
	unsigned long free, align, alloc;
};

struct dev_pagemap {
	int (*page_fault)(void *vma, unsigned long address, struct page *page);
	void (*page_free)(struct page *page, void *data);
	struct vmem_altmap altmap;
	bool altmap_valid;
	struct resource res;
	struct percpu_ref *ref;
	void *dev;
	void *data;
	enum memory_type type;
};

static struct radix_tree_root pgmap_radix KERNEL;

static void blk_queue_usage_counter_release(struct percpu_ref *ref)
{
	ref->confirm_switch = NULL;
}

static void dev_dax_percpu_release(struct percpu_ref *ref)
{
	ref->confirm_switch = NULL;
}

/* The functions that make a kernel one of this scheme, and that tell a page its file. */
void __put_devmap_managed_page(struct page *page);
void __put_devmap_managed_page(struct page *page)
{
	page->_refcount.counter--;
}

static inline __attribute__((always_inline)) void dax_associate_entry(struct page *page,
								      struct address_space *mapping)
{
	page->mapping = mapping;
}

void dax_insert_mapping_entry(struct page *page, struct address_space *mapping);
void dax_insert_mapping_entry(struct page *page, struct address_space *mapping)
{
	dax_associate_entry(page, mapping);
}

static const char *const evidence[] = { "symbol __put_devmap_managed_page: present",
					"member folio.pgmap: absent", NULL };

enum { PMEM, DEVDAX };

static struct device devices[] = {
	[PMEM] = { .name = "namespace0.0",
		   .type = "MEMORY_DEVICE_FS_DAX",
		   .kernel_type = MEMORY_DEVICE_FS_DAX,
		   .pfn = 0x100000,
		   .pages = 1536,
		   .reserve = 24,
		   .idle = 1 },
	[DEVDAX] = { .name = "dax1.0",
		     .type = "MEMORY_DEVICE_GENERIC",
		     .pfn = 0x100800,
		     .pages = 1024,
		     .idle = 1,
		     .ref_error = -500,
		     .pagemap_rule = "ref-versus-pages",
		     .pagemap_severity = "warning" },
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .index = 3, .class = "busy",
	  .why = "a block of a file: at the idle count, associated" },
	{ PMEM, .at = 96, .count = 2, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "an I/O on a file's block" },
	{ PMEM, .at = 104, .count = 2, .refcount = 2, .class = "busy", .rule = "reference-outlives-mapping",
	  .severity = "warning", .why = "held after truncate" },
	{ PMEM, .at = 112, .count = 1, .refcount = 0, .mapping = M_FILE, .class = "violation",
	  .rule = "refcount-below-idle", .severity = "error", .why = "one put too many on a file's block" },
	{ PMEM, .at = 120, .count = 1, .refcount = 1, .mapping = M_SHARED, .index = 2, .class = "violation",
	  .rule = "wrong-mapping", .severity = "error", .why = "shared extents came with 6.0" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .mapping = M_POISON, .class = "violation",
	  .rule = "wrong-mapping", .severity = "error", .why = "the mapping of a tail page" },
	{ PMEM, .at = 136, .count = 1, .refcount = 1 + 1024, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "1024 I/Os: pins came with 5.7" },
	{ DEVDAX, .at = 0, .count = 4, .refcount = 2, .class = "busy", .rule = "held-without-map",
	  .severity = "info",
	  .why = "an I/O; whether devdax pages know their file, this kernel does not tell" },
	{ DEVDAX, .at = 8, .count = 4, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  .rule = "held-without-map", .severity = "info", .why = "the same on pages that do" },
	{ DEVDAX, .at = 16, .count = 1, .refcount = 1, .mapping = M_FILE, .class = "idle",
	  .why = "devdax never clears the mapping of its first fault" },
	{ DEVDAX, .at = 24, .count = 1, .refcount = 1, .maps = 1, .class = "violation",
	  .rule = "unaccounted-mapcount", .severity = "error", .why = "devdax maps are not counted" },
};

#include "program.h"

static long pagemap_ref(const struct device *device)
{
	return 1 + pages_referenced(device);
}

static void register_device(struct device *device)
{
	struct dev_pagemap *pgmap = device->pgmap;
	struct percpu_ref *ref = NEW(struct percpu_ref);
	unsigned long end = device->pfn + device->pages;
	struct vmem_altmap altmap = { .base_pfn = device->pfn,
				      .free = device->reserve,
				      .alloc = device->reserve };

	ref_init(ref, device == &devices[PMEM] ? blk_queue_usage_counter_release : dev_dax_percpu_release,
		 device->ref_state, device->ref);
	pgmap->ref = K(ref);
	pgmap->type = device->kernel_type;
	pgmap->res = (struct resource){ .start = device->pfn << 12, .end = (end << 12) - 1 };
	pgmap->altmap_valid = device->reserve != 0;
	memcpy(&pgmap->altmap, &altmap, sizeof(altmap));
	radix_insert_range(&pgmap_radix, device->pfn, end, K(pgmap));
}
