/* SPDX-License-Identifier: LGPL-2.1-or-later */
/** Pages compressed by snappy: faster than its library where pages are of a memmap, and nothing to install. */
#ifndef ZONEDEV_READERS_SNAPPY_H
#define ZONEDEV_READERS_SNAPPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"

/**
 * One page from @size compressed bytes, however many.  False where they are not one, all of it and nothing
 * behind it; what is then in @page is anything.  What the library takes, this takes, but for a length in more
 * bytes than it needs.
 */
bool zd_snappy_expand(const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME]);

#endif
