/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Pages compressed by zstd that are put together as pages before them were.
 *
 * A frame of zstd is literals, and a section that says how a page is made of them.  Pages of a memmap differ in
 * their literals much more often than in that section.  So it is read once, by zstd: of literals that are
 * numbered, the page tells where each went.  What was learnt is kept as steps, and the same section is followed
 * by them with other literals.
 */
#ifndef ZONEDEV_READERS_RECIPE_H
#define ZONEDEV_READERS_RECIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory.h"

struct zd_recipes;

/**
 * Decompress @size bytes of zstd to @page; false where they are not exactly one.  Of a frame that it takes it
 * is asked again with other literals, and must not depend on what it was asked before.
 */
typedef bool (*zd_zstd_fn)(void *context, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME]);

/** For one thread.  NULL: no memory. */
struct zd_recipes *zd_recipes_create(zd_zstd_fn expand, void *context);
void zd_recipes_destroy(struct zd_recipes *recipes);

/** One page from @size compressed bytes, however many; false where the function would say so. */
bool zd_recipes_expand(struct zd_recipes *recipes, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME]);

#endif
