// SPDX-License-Identifier: LGPL-2.1-or-later

#include "extents.h"

#include <stdlib.h>

#include "../core/util.h"

static int compare_numbers(const void *left, const void *right)
{
	uint64_t one = *(const uint64_t *)left, other = *(const uint64_t *)right;

	return (one > other) - (one < other);
}

/** The last of @extents that has @address, or NULL. */
static const struct zd_extent *last_with(const struct zd_extent *extents, size_t count, uint64_t address)
{
	while (count--) {
		if (extents[count].start <= address && address < extents[count].end)
			return &extents[count];
	}
	return NULL;
}

/** The part [start, end) of an extent. */
static struct zd_extent part_of(const struct zd_extent *extent, uint64_t start, uint64_t end)
{
	uint64_t skipped = start - extent->start;
	uint64_t there = extent->file_size > skipped ? extent->file_size - skipped : 0;

	return (struct zd_extent){ start, end, extent->offset + skipped,
				   there < end - start ? there : end - start };
}

size_t zd_extents_divide(const struct zd_extent *extents, size_t count, struct zd_extent *ret)
{
	// Where any of them begins or ends.
	uint64_t edges[2 * ZD_EXTENTS_MAX];
	size_t parts = 0;

	for (size_t i = 0; i < count; i++) {
		edges[2 * i] = extents[i].start;
		edges[2 * i + 1] = extents[i].end;
	}
	qsort(edges, 2 * count, sizeof(*edges), compare_numbers);
	for (size_t i = 0; i + 1 < 2 * count; i++) {
		const struct zd_extent *owner = last_with(extents, count, edges[i]);

		if (owner && edges[i] < edges[i + 1])
			ret[parts++] = part_of(owner, edges[i], edges[i + 1]);
	}
	return parts;
}

static bool ends_below(const void *element, const void *key)
{
	return ((const struct zd_extent *)element)->end <= *(const uint64_t *)key;
}

size_t zd_extents_find(const struct zd_extent *extents, size_t count, size_t hint, uint64_t address)
{
	if (hint < count && extents[hint].start <= address && address < extents[hint].end)
		return hint;
	return zd_lower_bound(extents, count, sizeof(*extents), &address, ends_below);
}
