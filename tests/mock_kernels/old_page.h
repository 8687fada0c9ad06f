/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct page of 4.5 to 4.17, where the pgmap overlays lru and compound_head behind the counters.
 *
 * Mirrors include/linux/mm_types.h of those kernels, members and places only.
 */
#ifndef MOCK_OLD_PAGE_H
#define MOCK_OLD_PAGE_H

#define OLD_PAGEFLAGS
#include "pageflags.h"

struct page {
	unsigned long flags;
	union {
		struct address_space *mapping;
		void *s_mem;
		atomic_t compound_mapcount;
	};
	union {
		pgoff_t index;
		void *freelist;
	};
	union {
		unsigned long counters;
		struct {
			union {
				atomic_t _mapcount;
				unsigned int active;
			};
			atomic_t REFCOUNT;
		};
	};
	union {
		struct list_head lru;
		struct dev_pagemap *pgmap;
		struct {
			unsigned long compound_head;
			unsigned int compound_dtor;
			unsigned int compound_order;
		};
	};
	unsigned long private;
	struct mem_cgroup *mem_cgroup;
};

#endif
