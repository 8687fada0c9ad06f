/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Struct pages out of a dump's memory into a scan, by several threads: the vmemmap is translated by the
 * kernel's own page tables (x86-64), frames that repeat are neither read nor decoded again.
 *
 * The result is that of giving the scan the same pages one after the other, in the pieces that zonedev reads
 * them in otherwise: chunks of ZD_CHUNK bytes of address space, or frame by frame where a chunk has an absent
 * frame. Where anything is unsure the scan stops before that chunk, and the caller reads it by other means.
 */
#ifndef ZONEDEV_READERS_BULK_H
#define ZONEDEV_READERS_BULK_H

#include "../core/zonedev.h"
#include "memory.h"

enum {
	ZD_CHUNK = 256 << 10,
	/** Address space that one thread takes at a time. */
	ZD_PART = 16 << 20,
	ZD_THREADS_MAX = 64,
};

struct zd_bulk {
	const struct zd_memory *memory;
	uint64_t root;	      /* physical address of the top page table */
	unsigned int levels;  /* 4 or 5 */
	unsigned int threads; /* 1 to ZD_THREADS_MAX */
	/** Absent frames are holes of class ZD_NOT_CAPTURED; if not, they are unsure. */
	bool absent_is_hole;
	/** Called in the calling thread about every 50 ms, with the pages done so far; false: stop.  May be
	 * NULL. */
	bool (*poll)(void *context, uint64_t pages);
	void *context;
};

/**
 * Go on with the range of @scan, whose page size divides ZD_FRAME, from a struct page on that begins a frame.
 * On return the scan has come to the end of the range, to the chunk that is unsure, or to where it was stopped.
 * @absent: pages of holes.
 * Errors: no memory, IO (no threads); the scan is then to be thrown away.
 */
struct zd_error *zd_bulk_scan(const struct zd_bulk *bulk, struct zd_scan *scan, uint64_t *absent);

#endif
