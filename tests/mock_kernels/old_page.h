/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct page of 4.5 to 4.17, where the pgmap overlays lru and compound_head behind the counters.
 *
 * Mirrors include/linux/mm_types.h and page-flags.h of those kernels, members and places only.
 */
#ifndef MOCK_OLD_PAGE_H
#define MOCK_OLD_PAGE_H

#include "mock.h"

#ifndef REFCOUNT
#define REFCOUNT _refcount
#endif

enum pageflags {
	PG_locked,
	PG_error,
	PG_referenced,
	PG_uptodate,
	PG_dirty,
	PG_lru,
	PG_active,
	PG_slab,
	PG_owner_priv_1,
	PG_arch_1,
	PG_reserved,
	PG_private,
	PG_private_2,
	PG_writeback,
	PG_head,
	PG_swapcache,
	PG_mappedtodisk,
	PG_reclaim,
	PG_swapbacked,
	PG_unevictable,
	PG_mlocked,
	PG_uncached,
	PG_hwpoison,
	__NR_PAGEFLAGS,
	PG_checked = PG_owner_priv_1,
};

enum zone_type { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE, ZONE_DEVICE, __MAX_NR_ZONES };

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
