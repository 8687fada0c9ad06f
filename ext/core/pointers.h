/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Words of memory that point to one of some equal objects in a row: to the struct pages of a folio.
 *
 * It owns the comparison of words.  What the memory is, and whether a word that looks like a pointer is
 * one, is the caller's.
 *
 * Invariant: nothing is read outside of the buffer, and nothing is written behind the caller's array.
 *
 * Mirrors include/linux/scatterlist.h (page_link: the two low bits are no part of the pointer).
 */
#ifndef ZONEDEV_POINTERS_H
#define ZONEDEV_POINTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum {
	/** Low bits of a word that are no part of the pointer. */
	ZD_POINTER_TAGS = 3,
};

/** What is looked for: addresses lo, lo + step, lo + 2 * step, ... below hi. */
struct zd_pointers {
	uint64_t lo, hi;
	uint32_t step;	   /* bytes, at least 1 */
	uint8_t word_size; /* 4 or 8 bytes */
	bool big_endian;
};

/** A word that was found. */
struct zd_pointer {
	uint64_t offset; /* of the word in the buffer, bytes */
	uint64_t index;	 /* (address - lo) / step */
	uint8_t tag;	 /* the low bits of the word */
};

/** What a search found. */
struct zd_pointers_found {
	size_t count;  /* of the caller's array */
	uint64_t more; /* words that found no room in it */
};

/** Errors: an empty range, no step, a word of another size. */
struct zd_error *zd_pointers_check(const struct zd_pointers *what);

/**
 * All words of a buffer (at offsets that are multiples of the word size; a rest that is no word is left
 * out) that point to what is looked for.  The first @room of them go to @array, lowest offset first.
 * @what must have passed zd_pointers_check(); the buffer needs no alignment.
 */
void zd_pointers_find(const struct zd_pointers *what, const uint8_t *buffer, size_t size,
		      struct zd_pointer *array, size_t room, struct zd_pointers_found *ret);

#endif
