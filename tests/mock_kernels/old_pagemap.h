/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct dev_pagemap of 4.5 to 4.13, and its registry: page_maps by section.
 *
 * Mirrors include/linux/memremap.h and kernel/memremap.c.
 */
#ifndef MOCK_OLD_PAGEMAP_H
#define MOCK_OLD_PAGEMAP_H

#include "pgmap_radix.h"

struct dev_pagemap {
	struct vmem_altmap *altmap;
	const struct resource *res;
	struct percpu_ref *ref;
	void *dev;
};

#include "page_map.h"

#define NEW_PAGEMAP(device) new_page_map()

static void register_device(struct device *device)
{
	radix_insert_sections(&pgmap_radix, device->pfn, end_pfn(device), K(fill_page_map(device)));
}

#endif
