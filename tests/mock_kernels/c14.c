/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scheme C, as in 4.14: types.  A private or public page is free when its count falls from 2 to 1.
 *
 * Mirrors kernel/memremap.c and mm/hmm.c of 4.14: pgmap_radix is keyed by pfn, in chunks of powers of two
 * (ab1b597ee0e4); memory of GPUs stands in a tree of its own, hmm_devmem_radix, keyed by section.  pmem and
 * device-dax have one type, MEMORY_DEVICE_HOST, and no page knows its file (before d2c997c0f145).
 */
#define RELEASE "4.14.0-mock-c"
#define SCHEME "C"
#define MEM_SECTION_ARRAY
#define HAS_PHYS_BASE

#include "radix.h"
#include "states.h"
#include "old_page.h"

enum memory_type { MEMORY_DEVICE_HOST, MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_PUBLIC };

struct vmem_altmap {
	const unsigned long base_pfn, reserve;
	unsigned long free, align, alloc;
};

struct dev_pagemap {
	int (*page_fault)(void *vma, unsigned long address, struct page *page);
	void (*page_free)(struct page *page, void *data);
	struct vmem_altmap *altmap;
	const struct resource *res;
	struct percpu_ref *ref;
	void *dev;
	void *data;
	enum memory_type type;
};

#include "page_map.h"

struct hmm_devmem {
	unsigned long pfn_first, pfn_last;
	struct resource *resource;
	void *device;
	struct dev_pagemap pagemap;
	const void *ops;
	struct percpu_ref ref;
};

static struct radix_tree_root hmm_devmem_radix KERNEL;

static int hmm_devmem_fault(void *vma, unsigned long address, struct page *page)
{
	return !vma && !address && !page;
}

static void hmm_devmem_free(struct page *page, void *data)
{
	page->private = (unsigned long)data;
}

static void hmm_devmem_ref_release(struct percpu_ref *ref)
{
	ref->confirm_switch = NULL;
}

/* The function that frees at 1 in these kernels. */
void put_zone_device_private_or_public_page(struct page *page);
void put_zone_device_private_or_public_page(struct page *page)
{
	if (--page->_refcount.counter == 1)
		hmm_devmem_free(page, NULL);
}

static const char *const evidence[] = { "member folio.pgmap: absent", "symbol pgmap_radix: present",
					"member dev_pagemap.type: present", NULL };

enum { PMEM, DEVDAX, GPU, PUBLIC };

static struct device devices[] = {
	/* Chunks of 512, 1024 and 512 pages. */
	[PMEM] = { .name = "namespace0.0",
		   .type = "MEMORY_DEVICE_FS_DAX",
		   .pfn = 0x100200,
		   .pages = 2048,
		   .reserve = 64,
		   .idle = 1 },
	[DEVDAX] = { .name = "dax1.0",
		     .type = "MEMORY_DEVICE_GENERIC",
		     .pfn = 0x110000,
		     .pages = 512,
		     .idle = 1,
		     .ref_error = -7,
		     .pagemap_rule = "ref-versus-pages",
		     .pagemap_severity = "warning" },
	/* In two sections. */
	[GPU] = { .name = "hmm_dmirror",
		  .type = "MEMORY_DEVICE_PRIVATE",
		  .kernel_type = MEMORY_DEVICE_PRIVATE,
		  .pfn = 0x3fffe00,
		  .pages = 1024,
		  .idle = 1,
		  .ref_error = -10,
		  .pagemap_rule = "ref-versus-pages",
		  .pagemap_severity = "warning" },
	[PUBLIC] = { .name = "hmm_public",
		     .type = "MEMORY_DEVICE_COHERENT",
		     .kernel_type = MEMORY_DEVICE_PUBLIC,
		     .pfn = 0x200000,
		     .pages = 512,
		     .idle = 1 },
};

static const struct state states[] = {
	{ PMEM, .at = 100, .count = 10, .refcount = 2, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "an I/O; no page of 4.14 knows its file" },
	{ PMEM, .at = 120, .count = 1, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "one put too many" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .mapping = M_FILE, .class = "violation",
	  .rule = "wrong-mapping", .severity = "error", .why = "nothing in this kernel sets it on a DAX page" },
	{ PMEM, .at = 1500, .count = 1, .refcount = 2, .maps = 1, .class = "violation",
	  .rule = "unaccounted-mapcount", .severity = "error", .why = "in the second chunk" },
	{ DEVDAX, .at = 5, .count = 2, .refcount = 3, .class = "busy", .rule = "held-without-map",
	  .severity = "info", .why = "two I/Os" },
	{ GPU, .at = 8, .count = 1, .refcount = 2, .set = 1UL << PG_locked, .class = "busy",
	  .why = "allocated, not mapped yet" },
	{ GPU, .at = 16, .count = 4, .refcount = 2, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "mapped once" },
	{ GPU, .at = 24, .count = 1, .refcount = 4, .maps = 3, .mapping = M_ANON, .class = "busy",
	  .why = "mapped by three processes" },
	{ GPU, .at = 32, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "refcount-below-mapcount", .severity = "error",
	  .why = "the map's reference is gone: free and mapped" },
	{ GPU, .at = 40, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "freed without clearing its mapping" },
	{ GPU, .at = 48, .count = 1, .refcount = 0, .class = "violation", .rule = "refcount-below-idle",
	  .severity = "error", .why = "below 1 in a pagemap that lives" },
	{ GPU, .at = 600, .count = 1, .refcount = 1, .set = 1UL << PG_locked, .class = "idle",
	  .rule = "dirty-free-state", .severity = "warning", .why = "free, and locked by its last user" },
	{ PUBLIC, .at = 8, .count = 2, .refcount = 2, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "mapped once" },
	{ PUBLIC, .at = 16, .count = 1, .refcount = 2, .maps = 2, .mapping = M_ANON, .class = "violation",
	  .rule = "refcount-below-mapcount", .severity = "error",
	  .why = "two maps, one reference beside the idle one" },
	{ PUBLIC, .at = 511, .count = 1, .refcount = 1, .mapping = M_ANON, .class = "violation",
	  .rule = "stale-mapping", .severity = "error", .why = "freed without clearing its mapping" },
};

static bool is_hmm(int type)
{
	return type != MEMORY_DEVICE_HOST;
}

#undef NEW_PAGEMAP
#define NEW_PAGEMAP(device) (is_hmm((device)->kernel_type) ? &NEW(struct hmm_devmem)->pagemap : new_pagemap())

#include "program.h"

static long pagemap_ref(const struct device *device)
{
	return 1 + pages_referenced(device);
}

static void register_hmm(struct device *device)
{
	struct hmm_devmem *devmem = (void *)((char *)device->pgmap - offsetof(struct hmm_devmem, pagemap));
	struct resource *resource = NEW(struct resource);

	*resource = (struct resource){ .start = device->pfn << 12,
				       .end = ((device->pfn + device->pages) << 12) - 1 };
	ref_init(&devmem->ref, hmm_devmem_ref_release, device->ref_state, device->ref);
	devmem->pfn_first = device->pfn;
	devmem->pfn_last = device->pfn + device->pages;
	devmem->resource = K(resource);
	devmem->pagemap.res = K(resource);
	devmem->pagemap.ref = K(&devmem->ref);
	devmem->pagemap.type = device->kernel_type;
	devmem->pagemap.page_fault = K(hmm_devmem_fault);
	devmem->pagemap.page_free = K(hmm_devmem_free);
	radix_insert_sections(&hmm_devmem_radix, device->pfn, device->pfn + device->pages, K(devmem));
}

static void register_device(struct device *device)
{
	unsigned long end = device->pfn + device->pages;

	if (is_hmm(device->kernel_type))
		register_hmm(device);
	else
		radix_insert_range(&pgmap_radix, device->pfn, end,
				   K(register_page_map(device, device == &devices[PMEM])));
}
