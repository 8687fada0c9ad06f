/* SPDX-License-Identifier: LGPL-2.1-or-later */
/** What the parts of the core and its binding would otherwise each write again: a load, a search. */
#ifndef ZONEDEV_UTIL_H
#define ZONEDEV_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** An unsigned number of up to 8 bytes. */
static inline uint64_t zd_load_bytes(const uint8_t *bytes, unsigned int size, bool big_endian)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < size; i++)
		value |= (uint64_t)bytes[i] << 8 * (big_endian ? size - 1 - i : i);
	return value;
}

/** Index of the first of @count elements of @size bytes, in rising order, that is not below @key. */
static inline size_t zd_lower_bound(const void *array, size_t count, size_t size, const void *key,
				    bool (*is_below)(const void *element, const void *key))
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (is_below((const char *)array + middle * size, key))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#endif
