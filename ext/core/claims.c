// SPDX-License-Identifier: LGPL-2.1-or-later
// The list of claims, and a radix sort of it by pfn.

#include <stdlib.h>
#include <string.h>

#include "claims.h"

enum {
	ROOM_MIN = 1024,
	// A list of no more than this is kept for the next file.
	ROOM_KEPT = 1 << 14,
	DIGIT = 11,
	DIGITS = 1 << DIGIT,
};

void zd_claims_init(struct zd_claims *claims, size_t limit)
{
	*claims = (struct zd_claims){ .limit = limit, .rising = true };
}

void zd_claims_deinit(struct zd_claims *claims)
{
	free(claims->list);
	zd_claims_init(claims, claims->limit);
}

void zd_claims_clear(struct zd_claims *claims)
{
	if (claims->room > ROOM_KEPT)
		zd_claims_deinit(claims);
	claims->count = 0;
	claims->rising = true;
}

static struct zd_error *grow(struct zd_claims *claims)
{
	size_t room = claims->room ? claims->room * 2 : ROOM_MIN;
	struct zd_claim *grown;

	if (room > claims->limit)
		room = claims->limit;
	grown = realloc(claims->list, room * sizeof(*grown));
	if (!grown)
		return zd_error_no_memory();
	claims->list = grown;
	claims->room = room;
	return NULL;
}

struct zd_error *zd_claims_add(struct zd_claims *claims, const struct zd_claim *claim)
{
	if (claims->count == claims->room) {
		struct zd_error *error = grow(claims);

		if (error)
			return error;
	}
	if (claims->count && claim->word < claims->list[claims->count - 1].word)
		claims->rising = false;
	claims->list[claims->count++] = *claim;
	return NULL;
}

/** One round of a radix sort: @from to @to by the digit at @shift. */
static void sort_digit(const struct zd_claim *from, struct zd_claim *to, size_t count, unsigned int shift)
{
	size_t start[DIGITS] = { 0 }, sum = 0;

	for (size_t i = 0; i < count; i++)
		start[from[i].word >> shift & (DIGITS - 1)]++;
	for (int i = 0; i < DIGITS; i++) {
		size_t here = start[i];

		start[i] = sum;
		sum += here;
	}
	for (size_t i = 0; i < count; i++)
		to[start[from[i].word >> shift & (DIGITS - 1)]++] = from[i];
}

struct zd_error *zd_claims_sort(struct zd_claims *claims)
{
	uint64_t differ = 0;
	struct zd_claim *other, *sorted;

	if (claims->rising)
		return NULL;
	other = malloc(claims->room * sizeof(*other));
	if (!other)
		return zd_error_no_memory();
	for (size_t i = 1; i < claims->count; i++)
		differ |= claims->list[i].word ^ claims->list[0].word;
	for (unsigned int shift = 0; shift < 64; shift += DIGIT) {
		// A digit that all of them share sorts nothing.
		if (!(differ >> shift & (DIGITS - 1)))
			continue;
		sort_digit(claims->list, other, claims->count, shift);
		sorted = other;
		other = claims->list;
		claims->list = sorted;
	}
	free(other);
	claims->rising = true;
	return NULL;
}
