/* SPDX-License-Identifier: LGPL-2.1-or-later */
/** Pages of kdump-compressed dumps: lzo and snappy by our own code, zlib and zstd where the build has their
 * libraries, whose contexts are made once and used again.
 */
#ifndef ZONEDEV_READERS_DECOMPRESS_H
#define ZONEDEV_READERS_DECOMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/error.h"

struct zd_decompress;

/** For one thread.  Errors: no memory. */
struct zd_error *zd_decompress_create(struct zd_decompress **ret);
void zd_decompress_destroy(struct zd_decompress *decompress);

/**
 * One page of ZD_FRAME bytes from @size bytes compressed as @flags of its descriptor say.
 * False where they are not exactly a page, or by a method that this build has not.
 */
bool zd_decompress(struct zd_decompress *decompress, uint32_t flags, const uint8_t *bytes, size_t size,
		   uint8_t *ret);

#endif
