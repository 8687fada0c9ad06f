/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * A window on a dump's file, for small pieces of it in order: read ahead into a buffer, more at a time the more
 * is read in order.  Not mapped: that costs more than the copy, and a file that is cut off meanwhile is then a
 * signal. For one thread.
 */
#ifndef ZONEDEV_READERS_VIEW_H
#define ZONEDEV_READERS_VIEW_H

#include <stddef.h>
#include <stdint.h>

#include "memory.h"

enum {
	/** Bytes that can be asked for at a time. */
	ZD_VIEW_MAX = 256 << 10,
};

/** Zeroed before its first use. */
struct zd_view {
	/** Bytes [offset, offset + size) of the file. */
	uint8_t *bytes;
	uint64_t offset;
	size_t size;
	/** How much was read last. */
	size_t last;
};

/**
 * The @size bytes of the file from @offset on, at most ZD_VIEW_MAX, of any alignment; they are there until the
 * next call.  NULL where the file has not as many, they cannot be read, or there is no memory.
 */
const uint8_t *zd_view_get(struct zd_view *view, const struct zd_memory *memory, uint64_t offset, size_t size);

void zd_view_deinit(struct zd_view *view);

#endif
