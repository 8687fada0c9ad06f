/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct page of 4.18 to 6.1, where the pgmap is the first word of the union behind the flags.
 *
 * Mirrors include/linux/mm_types.h of those kernels, members and places only.
 * MEM_CGROUP: the last word is called mem_cgroup (before 5.11).
 */
#ifndef MOCK_PAGE_H
#define MOCK_PAGE_H

#include "pageflags.h"

struct page {
	unsigned long flags;
	union {
		struct {
			struct list_head lru;
			struct address_space *mapping;
			pgoff_t index;
			unsigned long private;
		};
		/* The first tail of a compound page. */
		struct {
			unsigned long compound_head;
			unsigned char compound_dtor;
			unsigned char compound_order;
			atomic_t compound_mapcount;
			atomic_t compound_pincount;
		};
		struct {
			struct dev_pagemap *pgmap;
			void *zone_device_data;
		};
	};
	union {
		atomic_t _mapcount;
		unsigned int page_type;
	};
	atomic_t _refcount;
#ifdef MEM_CGROUP
	struct mem_cgroup *mem_cgroup;
#else
	unsigned long memcg_data;
#endif
};

#endif
