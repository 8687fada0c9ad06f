/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page flags and zones of 4.5 to 6.1.
 *
 * Mirrors include/linux/page-flags.h and mmzone.h of 4.9 (OLD_PAGEFLAGS) and 6.0, numbers and names only.
 * REFCOUNT: the member of struct page that counts.
 */
#ifndef MOCK_PAGEFLAGS_H
#define MOCK_PAGEFLAGS_H

#include "mock.h"

#ifndef REFCOUNT
#define REFCOUNT _refcount
#endif

enum pageflags {
	PG_locked,
#ifdef OLD_PAGEFLAGS
	PG_error,
#endif
	PG_referenced,
	PG_uptodate,
	PG_dirty,
	PG_lru,
	PG_active,
#ifndef OLD_PAGEFLAGS
	PG_workingset,
	PG_waiters,
	PG_error,
#endif
	PG_slab,
	PG_owner_priv_1,
	PG_arch_1,
	PG_reserved,
	PG_private,
	PG_private_2,
	PG_writeback,
	PG_head,
#ifdef OLD_PAGEFLAGS
	PG_swapcache,
#endif
	PG_mappedtodisk,
	PG_reclaim,
	PG_swapbacked,
	PG_unevictable,
	PG_mlocked,
	PG_uncached,
	PG_hwpoison,
	__NR_PAGEFLAGS,
#ifdef OLD_PAGEFLAGS
	PG_checked = PG_owner_priv_1,
#else
	PG_swapcache = PG_owner_priv_1,
	PG_anon_exclusive = PG_mappedtodisk,
#endif
};

enum zone_type { ZONE_DMA, ZONE_DMA32, ZONE_NORMAL, ZONE_MOVABLE, ZONE_DEVICE, __MAX_NR_ZONES };

#endif
