/* SPDX-License-Identifier: LGPL-2.1-or-later */
/** Pages compressed by LZO1X: faster than liblzo2 where pages are of a memmap, and nothing to install. */
#ifndef ZONEDEV_READERS_LZO_H
#define ZONEDEV_READERS_LZO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"

/**
 * One page from @size compressed bytes, however many.  False where they are not one, all of it and nothing
 * behind it; what is then in @page is anything.  What liblzo2 takes, this takes.
 */
bool zd_lzo_expand(const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME]);

#endif
