/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Claims: DAX entries that wait to be compared with the struct pages that they name.
 *
 * It owns their list and its order: a file's entries come in the order of the file, and struct pages are
 * read best in the order of memory.  What a claim means is the caller's (entries.h).
 *
 * Invariant: the list never holds more than its limit; the caller empties it.
 */
#ifndef ZONEDEV_CLAIMS_H
#define ZONEDEV_CLAIMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

/** Page @index of a file and what follows lies at @word >> ZD_CLAIM_SHIFT, a pfn. */
struct zd_claim {
	uint64_t word, index;
};

enum {
	ZD_CLAIM_LOCKED = 1,
	ZD_CLAIM_PMD = 2,
	ZD_CLAIM_SHIFT = 2,
};

struct zd_claims {
	struct zd_claim *list;
	size_t count, room, limit;
	bool rising; /* in the order of pfns as they came */
};

/** Empty, for up to @limit claims (1 or more); no memory is taken yet. */
void zd_claims_init(struct zd_claims *claims, size_t limit);
void zd_claims_deinit(struct zd_claims *claims);

/** Errors: no memory.  The list must not be full. */
struct zd_error *zd_claims_add(struct zd_claims *claims, const struct zd_claim *claim);

static inline bool zd_claims_full(const struct zd_claims *claims)
{
	return claims->count == claims->limit;
}

static inline uint64_t zd_claim_pfn(const struct zd_claim *claim)
{
	return claim->word >> ZD_CLAIM_SHIFT;
}

/** Bring them into the order of their pfns; takes as much memory again.  Errors: no memory. */
struct zd_error *zd_claims_sort(struct zd_claims *claims);

/** Forget all of them; a long list is freed. */
void zd_claims_clear(struct zd_claims *claims);

#endif
