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

#include "old_page.h"
#include "pgmap_radix.h"

enum memory_type { MEMORY_DEVICE_HOST, MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_PUBLIC };

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

DEFINE_REF_RELEASE(hmm_devmem_ref_release)

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
	[PMEM] = { DEVICE("namespace0.0", FS_DAX, 0x100200, 2048), .reserve = 64, .idle = 1 },
	[DEVDAX] = { DEVICE("dax1.0", GENERIC, 0x110000, 512), .idle = 1, .ref_error = -7,
		     PAGEMAP_WARNING("ref-versus-pages") },
	/* In two sections. */
	[GPU] = { TYPED_DEVICE("hmm_dmirror", PRIVATE, 0x3fffe00, 1024), .idle = 1, .ref_error = -10,
		  PAGEMAP_WARNING("ref-versus-pages") },
	[PUBLIC] = { DEVICE("hmm_public", COHERENT, 0x200000, 512), .kernel_type = MEMORY_DEVICE_PUBLIC,
		     .idle = 1 },
};

static const struct state states[] = {
	{ PMEM, .at = 100, .count = 10, .refcount = 2, .class = "busy", INFO("held-without-map"),
	  .why = "an I/O; no page of 4.14 knows its file" },
	{ PMEM, .at = 120, .count = 1, .refcount = 0, ERROR("refcount-below-idle"), .why = "one put too many" },
	{ PMEM, .at = 128, .count = 1, .refcount = 1, .mapping = M_FILE, ERROR("wrong-mapping"),
	  .why = "nothing in this kernel sets it on a DAX page" },
	{ PMEM, .at = 1500, .count = 1, .refcount = 2, .maps = 1, ERROR("unaccounted-mapcount"),
	  .why = "in the second chunk" },
	{ DEVDAX, .at = 5, .count = 2, .refcount = 3, .class = "busy", INFO("held-without-map"),
	  .why = "two I/Os" },
	{ GPU, .at = 8, .count = 1, .refcount = 2, .set = 1UL << PG_locked, .class = "busy",
	  .why = "allocated, not mapped yet" },
	{ GPU, .at = 16, .count = 4, .refcount = 2, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "mapped once" },
	{ GPU, .at = 24, .count = 1, .refcount = 4, .maps = 3, .mapping = M_ANON, .class = "busy",
	  .why = "mapped by three processes" },
	{ GPU, .at = 32, .count = 1, .refcount = 1, .maps = 1, .mapping = M_ANON,
	  ERROR("refcount-below-mapcount"), .why = "the map's reference is gone: free and mapped" },
	{ GPU, .at = 40, .count = 1, .refcount = 1, .mapping = M_ANON, ERROR("stale-mapping"),
	  .why = "freed without clearing its mapping" },
	{ GPU, .at = 48, .count = 1, .refcount = 0, ERROR("refcount-below-idle"),
	  .why = "below 1 in a pagemap that lives" },
	{ GPU, .at = 600, .count = 1, .refcount = 1, .set = 1UL << PG_locked, .class = "idle",
	  WARNING("dirty-free-state"), .why = "free, and locked by its last user" },
	{ PUBLIC, .at = 8, .count = 2, .refcount = 2, .maps = 1, .mapping = M_ANON, .class = "busy",
	  .why = "mapped once" },
	{ PUBLIC, .at = 16, .count = 1, .refcount = 2, .maps = 2, .mapping = M_ANON,
	  ERROR("refcount-below-mapcount"), .why = "two maps, one reference beside the idle one" },
	{ PUBLIC, .at = 511, .count = 1, .refcount = 1, .mapping = M_ANON, ERROR("stale-mapping"),
	  .why = "freed without clearing its mapping" },
};

static bool is_hmm(int type)
{
	return type != MEMORY_DEVICE_HOST;
}

#define NEW_PAGEMAP(device) (is_hmm((device)->kernel_type) ? &NEW(struct hmm_devmem)->pagemap : new_page_map())

#include "program.h"

static void register_hmm(const struct device *device)
{
	struct hmm_devmem *devmem = container_of(device->pgmap, struct hmm_devmem, pagemap);
	struct resource *resource = NEW(struct resource);

	*resource = device_resource(device);
	ref_init(&devmem->ref, hmm_devmem_ref_release, device->ref_state, device->ref);
	devmem->pfn_first = device->pfn;
	devmem->pfn_last = end_pfn(device);
	devmem->resource = K(resource);
	devmem->pagemap.res = K(resource);
	devmem->pagemap.ref = K(&devmem->ref);
	devmem->pagemap.type = device->kernel_type;
	devmem->pagemap.page_fault = K(hmm_devmem_fault);
	devmem->pagemap.page_free = K(hmm_devmem_free);
	radix_insert_sections(&hmm_devmem_radix, device->pfn, end_pfn(device), K(devmem));
}

static void register_device(struct device *device)
{
	if (is_hmm(device->kernel_type))
		register_hmm(device);
	else
		radix_insert_range(&pgmap_radix, device->pfn, end_pfn(device), K(fill_page_map(device)));
}
