/* SPDX-License-Identifier: LGPL-2.1-or-later */
/** Where ranges of something (memory, a file that was taken apart) lie in a file, where the last one that says
 * so counts.
 */
#ifndef ZONEDEV_READERS_EXTENTS_H
#define ZONEDEV_READERS_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

enum {
	/** Extents that can be divided. */
	ZD_EXTENTS_MAX = 2048,
};

/** [start, end) at offset in the file, of which the first file_size bytes are there. */
struct zd_extent {
	uint64_t start, end, offset, file_size;
};

/**
 * The same without overlaps, in rising order of start: of several that have an address, the last of @count
 * counts.
 * @count: at most ZD_EXTENTS_MAX.  @ret has room for two of each; returns how many they are.
 */
size_t zd_extents_divide(const struct zd_extent *extents, size_t count, struct zd_extent *ret);

/**
 * Of extents without overlaps the one that has @address, or else that follows it; @count where none does.
 * @hint: where it may be.
 */
size_t zd_extents_find(const struct zd_extent *extents, size_t count, size_t hint, uint64_t address);

#endif
