/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * An index of entries 0 .. count - 1 by the hash of their names.  It holds no names: who asks compares.
 */
#ifndef ZONEDEV_NAMES_H
#define ZONEDEV_NAMES_H

#include <stdint.h>

#include "error.h"

/** Heads and next hold an entry + 1; 0: none. */
struct zd_names {
	uint32_t *heads, *next;
	uint32_t mask;
};

/** Use zd_names_deinit() also after an error.  Errors: no memory. */
struct zd_error *zd_names_init(struct zd_names *names, uint32_t count);
void zd_names_deinit(struct zd_names *names);

/** Entries that are added last are found first.  @entry below count, each once. */
void zd_names_add(struct zd_names *names, const char *name, uint32_t entry);

/** The first entry + 1 that may have the name, 0: none; the next of one is next[entry]. */
uint32_t zd_names_first(const struct zd_names *names, const char *name);

#endif
