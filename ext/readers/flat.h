/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * makedumpfile's flattened format, which also QEMU writes: a dump as it goes to a pipe.  Records, in the order
 * in which they were written, say what lies at which offset of the dump; a later one overwrites.
 *
 * Untrusted: whatever offsets and lengths say lies within the file, and there are at most ZD_FLAT_RECORDS_MAX
 * of them.  What no record has is not there.
 *
 * Mirrors: struct makedumpfile_header and struct makedumpfile_data_header of makedumpfile, big-endian.
 */
#ifndef ZONEDEV_READERS_FLAT_H
#define ZONEDEV_READERS_FLAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/error.h"
#include "extents.h"

enum {
	ZD_FLAT_RECORDS_MAX = 1 << 24,
};

struct zd_flat {
	/** Of the dump, in rising order. */
	struct zd_extent *extents;
	size_t count;
	/** Bytes of the dump. */
	uint64_t size;
};

/** True for a file that begins with these bytes, 8 of them. */
bool zd_flat_probe(const uint8_t *magic);

/**
 * Find all records of a file of @file_size bytes; @ret is zeroes, and to be freed in any case.
 * Errors: FORMAT for one that is damaged or cut off, INVALID for one of more records, or more that overlap,
 * than are read here, no memory.
 */
struct zd_error *zd_flat_read(int fd, uint64_t file_size, struct zd_flat *ret);
void zd_flat_deinit(struct zd_flat *flat);

/** Where in the file @offset of the dump lies; returns how many bytes from there on lie in one piece, 0 for
 * none. */
uint64_t zd_flat_find(const struct zd_flat *flat, uint64_t offset, uint64_t *ret);

#endif
