/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct page_map, which wrapped a dev_pagemap while memremap made it for its callers (4.5 to 4.15).
 *
 * Mirrors kernel/memremap.c.  The era's struct dev_pagemap is declared before this.
 */
#ifndef MOCK_PAGE_MAP_H
#define MOCK_PAGE_MAP_H

#include "pgmap_radix.h"

struct page_map {
	struct resource res;
	struct percpu_ref *ref;
	struct dev_pagemap pgmap;
	struct vmem_altmap altmap;
};

static struct dev_pagemap *new_page_map(void)
{
	return &NEW(struct page_map)->pgmap;
}

/* Fill the page_map around device->pgmap. */
static struct page_map *fill_page_map(const struct device *device)
{
	struct page_map *map = container_of(device->pgmap, struct page_map, pgmap);

	map->res = device_resource(device);
	map->ref = K(lend_ref(device));
	map->pgmap.res = K(&map->res);
	map->pgmap.ref = map->ref;
	if (device->reserve) {
		fill_altmap(&map->altmap, device);
		map->pgmap.altmap = K(&map->altmap);
	}
	return map;
}

#endif
