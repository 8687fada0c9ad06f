/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What pagemaps up to 4.19 have in common: the tree that they are in, the altmap, and that callers lend the
 * reference: pmem the counter of its request queue, device-dax one of its own.
 *
 * Mirrors kernel/memremap.c, include/linux/memremap.h, drivers/nvdimm/pmem.c and drivers/dax/pmem.c.
 */
#ifndef MOCK_PGMAP_RADIX_H
#define MOCK_PGMAP_RADIX_H

#include "radix.h"
#include "states.h"

struct vmem_altmap {
	const unsigned long base_pfn, reserve;
	unsigned long free, align, alloc;
};

struct request_queue {
	unsigned long queue_flags;
	struct percpu_ref q_usage_counter;
};

static struct radix_tree_root pgmap_radix KERNEL;

DEFINE_REF_RELEASE(blk_queue_usage_counter_release)
DEFINE_REF_RELEASE(dax_pmem_percpu_release)

static struct percpu_ref *lend_ref(const struct device *device)
{
	bool is_pmem = !strcmp(device->type, "MEMORY_DEVICE_FS_DAX");
	struct percpu_ref *ref;

	ref = is_pmem ? &NEW(struct request_queue)->q_usage_counter : NEW(struct percpu_ref);
	ref_init(ref, is_pmem ? blk_queue_usage_counter_release : dax_pmem_percpu_release, device->ref_state,
		 device->ref);
	return ref;
}

static void fill_altmap(struct vmem_altmap *ret, const struct device *device)
{
	struct vmem_altmap altmap = {
		.base_pfn = device->pfn, .reserve = 2, .free = device->reserve - 2, .alloc = device->reserve - 2
	};

	/* It has members that are const. */
	memcpy(ret, &altmap, sizeof(altmap));
}

#endif
