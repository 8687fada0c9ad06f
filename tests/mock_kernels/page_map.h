/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct page_map, which wrapped a dev_pagemap while memremap made it for its callers (4.5 to 4.15), and
 * the two kinds of references that callers brought along.
 *
 * Mirrors kernel/memremap.c, drivers/nvdimm/pmem.c (the counter of the request queue) and
 * drivers/dax/pmem.c (one of its own).
 */
#ifndef MOCK_PAGE_MAP_H
#define MOCK_PAGE_MAP_H

#include "radix.h"
#include "states.h"

struct page_map {
	struct resource res;
	struct percpu_ref *ref;
	struct dev_pagemap pgmap;
	struct vmem_altmap altmap;
};

static struct radix_tree_root pgmap_radix KERNEL;

struct request_queue {
	unsigned long queue_flags;
	struct percpu_ref q_usage_counter;
};

static void blk_queue_usage_counter_release(struct percpu_ref *ref)
{
	ref->confirm_switch = NULL;
}

static void dax_pmem_percpu_release(struct percpu_ref *ref)
{
	ref->confirm_switch = NULL;
}

static struct percpu_ref *make_ref(const struct device *device, bool queue)
{
	struct percpu_ref *ref;

	if (queue)
		ref = &NEW(struct request_queue)->q_usage_counter;
	else
		ref = NEW(struct percpu_ref);
	ref_init(ref, queue ? blk_queue_usage_counter_release : dax_pmem_percpu_release, device->ref_state,
		 device->ref);
	return ref;
}

static struct vmem_altmap altmap_of(const struct device *device)
{
	return (struct vmem_altmap){
		.base_pfn = device->pfn, .reserve = 2, .free = device->reserve - 2, .alloc = device->reserve - 2
	};
}

/* A dev_pagemap inside of a page_map: the device's pages name device->pgmap. */
static struct page_map *register_page_map(struct device *device, bool queue)
{
	struct page_map *map = (void *)((char *)device->pgmap - offsetof(struct page_map, pgmap));

	map->res = (struct resource){ .start = device->pfn << 12,
				      .end = ((device->pfn + device->pages) << 12) - 1 };
	map->pgmap.res = K(&map->res);
	map->pgmap.ref = K(make_ref(device, queue));
	map->ref = map->pgmap.ref;
	if (device->reserve) {
		struct vmem_altmap altmap = altmap_of(device);

		memcpy(&map->altmap, &altmap, sizeof(altmap));
		map->pgmap.altmap = K(&map->altmap);
	}
	return map;
}

/* The dev_pagemap of a device: inside of its page_map. */
static struct dev_pagemap *new_pagemap(void)
{
	return &NEW(struct page_map)->pgmap;
}

#define NEW_PAGEMAP(device) new_pagemap()

#endif
