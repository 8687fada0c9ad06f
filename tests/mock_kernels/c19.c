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

#include "page.h"
#include "pgmap_radix.h"

enum memory_type { MEMORY_DEVICE_PRIVATE = 1, MEMORY_DEVICE_PUBLIC, MEMORY_DEVICE_FS_DAX };

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
	[PMEM] = { TYPED_DEVICE("namespace0.0", FS_DAX, 0x100000, 1536), .reserve = 24, .idle = 1 },
	[DEVDAX] = { DEVICE("dax1.0", GENERIC, 0x100800, 1024), .idle = 1, .ref_error = -500,
		     PAGEMAP_WARNING("ref-versus-pages") },
};

static const struct state states[] = {
	{ PMEM, .at = 64, .count = 16, .refcount = 1, .mapping = M_FILE, .index = 3, .class = "busy",
	  .why = "a block of a file: at the idle count, associated" },
	{ PMEM, .at = 96, .count = 2, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "an I/O on a file's block" },
	{ PMEM, .at = 104, .count = 2, .refcount = 2, .class = "busy", WARNING("reference-outlives-mapping"),
	  .why = "held after truncate" },
	{ PMEM, .at = 112, .count = 1, .refcount = 0, .mapping = M_FILE, ERROR("refcount-below-idle"),
	  .why = "one put too many on a file's block" },
	{ PMEM, .at = 120, .count = 1, .refcount = 1, .mapping = M_SHARED, .index = 2, ERROR("wrong-mapping"),
	  .why = "shared extents came with 6.0" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .mapping = M_POISON, ERROR("wrong-mapping"),
	  .why = "the mapping of a tail page" },
	{ PMEM, .at = 136, .count = 1, .refcount = 1 + 1024, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "1024 I/Os: pins came with 5.7" },
	{ DEVDAX, .at = 0, .count = 4, .refcount = 2, .class = "busy", INFO("held-without-map"),
	  .why = "an I/O; whether devdax pages know their file, this kernel does not tell" },
	{ DEVDAX, .at = 8, .count = 4, .refcount = 2, .mapping = M_FILE, .class = "busy",
	  INFO("held-without-map"), .why = "the same on pages that do" },
	{ DEVDAX, .at = 16, .count = 1, .refcount = 1, .mapping = M_FILE, .class = "idle",
	  .why = "devdax never clears the mapping of its first fault" },
	{ DEVDAX, .at = 24, .count = 1, .refcount = 1, .maps = 1, ERROR("unaccounted-mapcount"),
	  .why = "devdax maps are not counted" },
};

#include "program.h"

static void register_device(struct device *device)
{
	struct dev_pagemap *pgmap = device->pgmap;

	pgmap->ref = K(lend_ref(device));
	pgmap->type = device->kernel_type;
	pgmap->res = device_resource(device);
	pgmap->altmap_valid = device->reserve != 0;
	if (pgmap->altmap_valid)
		fill_altmap(&pgmap->altmap, device);
	radix_insert_range(&pgmap_radix, device->pfn, end_pfn(device), K(pgmap));
}
