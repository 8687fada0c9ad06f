// SPDX-License-Identifier: LGPL-2.1-or-later
// Words of memory that point to one of some equal objects in a row.

#include <string.h>

#include "pointers.h"

enum {
	// Bytes that are compared before anybody asks for the result: a loop without branches.
	BLOCK = 512,
};

struct zd_error *zd_pointers_check(const struct zd_pointers *what)
{
	if (what->hi <= what->lo)
		return zd_error_create(ZD_ERROR_INVALID, "pointers: no address lies in [%#llx, %#llx)",
				       (unsigned long long)what->lo, (unsigned long long)what->hi);
	if (!what->step)
		return zd_error_create(ZD_ERROR_INVALID, "pointers: a step of 0 bytes");
	if (what->word_size != 4 && what->word_size != 8)
		return zd_error_create(ZD_ERROR_INVALID, "pointers: words of %u bytes", what->word_size);
	return NULL;
}

/** Words that may be meant, whatever their tags: those at most @width above @lo. */
struct near {
	uint64_t lo, width;
};

static struct near near_of(const struct zd_pointers *what)
{
	uint64_t lo = what->lo & ~(uint64_t)ZD_POINTER_TAGS;

	return (struct near){ lo, ((what->hi - 1) | ZD_POINTER_TAGS) - lo };
}

static inline uint64_t load(const uint8_t *bytes, unsigned int word_size, bool swap)
{
	uint64_t word;
	uint32_t half;

	if (word_size == 8) {
		memcpy(&word, bytes, 8);
		return swap ? __builtin_bswap64(word) : word;
	}
	memcpy(&half, bytes, 4);
	return swap ? __builtin_bswap32(half) : half;
}

static inline __attribute__((always_inline)) bool any_near(struct near near, const uint8_t *block,
							   unsigned int word_size, bool swap)
{
	bool any = false;

	for (unsigned int i = 0; i < BLOCK; i += word_size)
		any |= load(block + i, word_size, swap) - near.lo <= near.width;
	return any;
}

/** One loop each for what is known when this is compiled. */
static bool block_is_near(struct near near, const uint8_t *block, unsigned int word_size, bool swap)
{
	if (word_size == 8)
		return swap ? any_near(near, block, 8, true) : any_near(near, block, 8, false);
	return swap ? any_near(near, block, 4, true) : any_near(near, block, 4, false);
}

static bool is_pointer(const struct zd_pointers *what, uint64_t word, struct zd_pointer *ret)
{
	uint64_t address = word & ~(uint64_t)ZD_POINTER_TAGS;

	if (address < what->lo || address >= what->hi || (address - what->lo) % what->step)
		return false;
	ret->index = (address - what->lo) / what->step;
	ret->tag = word & ZD_POINTER_TAGS;
	return true;
}

void zd_pointers_find(const struct zd_pointers *what, const uint8_t *buffer, size_t size,
		      struct zd_pointer *array, size_t room, struct zd_pointers_found *ret)
{
	bool swap = what->big_endian != (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
	struct near near = near_of(what);
	size_t end;

	*ret = (struct zd_pointers_found){ 0 };
	for (size_t at = 0; at < size; at = end) {
		struct zd_pointer pointer;

		end = size - at < BLOCK ? size : at + BLOCK;
		if (end - at == BLOCK && !block_is_near(near, buffer + at, what->word_size, swap))
			continue;
		for (size_t i = at; end - i >= what->word_size; i += what->word_size) {
			if (!is_pointer(what, load(buffer + i, what->word_size, swap), &pointer))
				continue;
			pointer.offset = i;
			if (ret->count < room)
				array[ret->count++] = pointer;
			else
				ret->more++;
		}
	}
}
