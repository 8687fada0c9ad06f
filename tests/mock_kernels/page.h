/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct page of 4.18 to 6.1, where the pgmap is the first word of the union behind the flags.
 *
 * Mirrors include/linux/mm_types.h and page-flags.h of those kernels, members and places only.
 * MEM_CGROUP: the last word is called mem_cgroup (before 5.11).
 */
#ifndef MOCK_PAGE_H
#define MOCK_PAGE_H

#include "mock.h"

enum pageflags {
	PG_locked,
	PG_referenced,
	PG_uptodate,
	PG_dirty,
	PG_lru,
	PG_active,
	PG_workingset,
	PG_waiters,
	PG_error,
	PG_slab,
	PG_owner_priv_1,
	PG_arch_1,
	PG_reserved,
	PG_private,
	PG_private_2,
	PG_writeback,
	PG_head,
	PG_mappedtodisk,
	PG_reclaim,
	PG_swapbacked,
	PG_unevictable,
	PG_mlocked,
	PG_uncached,
	PG_hwpoison,
	__NR_PAGEFLAGS,
	PG_swapcache = PG_owner_priv_1,
	PG_anon_exclusive = PG_mappedtodisk,
};

enum zone_type { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE, ZONE_DEVICE, __MAX_NR_ZONES };

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
