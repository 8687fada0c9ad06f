/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct dev_pagemap and its registry in 6.0 and 6.1: a reference of its own, ops, ranges, an xarray.
 *
 * Mirrors include/linux/memremap.h and mm/memremap.c.  INIT_MODE: with the member that scheme F1 adds.
 */
#ifndef MOCK_MEMREMAP_H
#define MOCK_MEMREMAP_H

#include "percpu_ref.h"
#include "states.h"
#include "xarray.h"

enum memory_type {
	MEMORY_DEVICE_PRIVATE = 1,
	MEMORY_DEVICE_COHERENT,
	MEMORY_DEVICE_FS_DAX,
	MEMORY_DEVICE_GENERIC,
	MEMORY_DEVICE_PCI_P2PDMA,
};

struct range {
	u64 start, end;
};

struct vmem_altmap {
	unsigned long base_pfn;
	unsigned long end_pfn;
	unsigned long reserve, free, align, alloc;
};

struct dev_pagemap_ops {
	void (*page_free)(struct page *page);
	unsigned int (*migrate_to_ram)(void *fault);
	int (*memory_failure)(struct dev_pagemap *pgmap, unsigned long pfn, unsigned long nr, int flags);
};

struct dev_pagemap {
	struct vmem_altmap altmap;
	struct percpu_ref ref;
	struct {
		unsigned int done;
	} done;
	enum memory_type type;
	unsigned int flags;
	unsigned long vmemmap_shift;
	const struct dev_pagemap_ops *ops;
#ifdef INIT_MODE
	enum { INIT_PAGEMAP_BUSY, INIT_PAGEMAP_IDLE } init_mode;
#endif
	void *owner;
	int nr_range;
	union {
		struct range range;
		struct range ranges[0];
	};
};

enum { PGMAP_ALTMAP_VALID = 1 };

static struct xarray pgmap_array KERNEL;

static void gpu_page_free(struct page *page)
{
	page->zone_device_data = NULL;
}

static unsigned int gpu_migrate_to_ram(void *fault)
{
	return !fault;
}

static struct dev_pagemap_ops gpu_ops KERNEL;

DEFINE_REF_RELEASE(dev_pagemap_release)

static bool is_gpu(int type)
{
	return type == MEMORY_DEVICE_PRIVATE || type == MEMORY_DEVICE_COHERENT;
}

static void fill_ops(struct dev_pagemap *pgmap)
{
	gpu_ops.page_free = K(gpu_page_free);
	gpu_ops.migrate_to_ram = K(gpu_migrate_to_ram);
	pgmap->ops = K(&gpu_ops);
	pgmap->owner = K(&gpu_ops);
}

static void register_device(struct device *device)
{
	struct dev_pagemap *pgmap = device->pgmap;
	struct resource resource = device_resource(device);

	ref_init(&pgmap->ref, dev_pagemap_release, device->ref_state, device->ref);
	pgmap->type = device->kernel_type;
	pgmap->vmemmap_shift = device->shift;
	pgmap->nr_range = 1;
	pgmap->range = (struct range){ resource.start, resource.end };
	if (device->reserve) {
		pgmap->flags = PGMAP_ALTMAP_VALID;
		pgmap->altmap = (struct vmem_altmap){ .base_pfn = device->pfn, .free = device->reserve };
	}
	if (is_gpu(device->kernel_type))
		fill_ops(pgmap);
#ifdef INIT_MODE
	pgmap->init_mode = device->idle ? INIT_PAGEMAP_BUSY : INIT_PAGEMAP_IDLE;
#endif
	xa_store_range(&pgmap_array, device->pfn, end_pfn(device) - 1, K(pgmap));
}

#endif
