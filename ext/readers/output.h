/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * A page on its way out of compressed bytes: literals, and matches with what lies before them in the page.
 *
 * It owns every store to the page, and the check that it lies in it; what compressed bytes say is lzo.c's,
 * snappy.c's and recipe.c's.  All is inlined into their loops.
 *
 * Frames of a memmap are one struct page after the other, each the one before but for a few bytes.  So two
 * things are fast: a match with what a match has just written is copied from where that one came from (a
 * processor waits for bytes that it has stored in other pieces than it loads them in), and tokens that
 * repeat are stored out of registers.
 */
#ifndef ZONEDEV_READERS_OUTPUT_H
#define ZONEDEV_READERS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "memory.h"

#define ZD_INLINE static inline __attribute__((always_inline))

enum {
	/** Bytes that are moved at a time. */
	ZD_VECTOR = 16,
	ZD_WORD = 8,
	/** Where less room is left than this behind what is written, it is written exactly. */
	ZD_SLACK = 4 * ZD_VECTOR,
};

typedef uint8_t zd_vector __attribute__((vector_size(ZD_VECTOR), aligned(1), may_alias));

struct zd_output {
	uint8_t *begin, *at, *end;
	/** The last match: what is at @match came from @source, so many bytes. */
	const uint8_t *match, *source;
	size_t length;
};

ZD_INLINE struct zd_output zd_output(uint8_t page[ZD_FRAME])
{
	return (struct zd_output){ page, page, page + ZD_FRAME, page, page, 0 };
}

ZD_INLINE size_t zd_output_left(const struct zd_output *output)
{
	return output->end - output->at;
}

/** Bytes that may overlap: each is what lies @source before it once it is there. */
static __attribute__((noinline, unused)) void zd_copy_exactly(uint8_t *to, const uint8_t *source, size_t length)
{
	size_t n;

	// What is there doubles with each step.
	for (; length; to += n, length -= n) {
		n = (size_t)(to - source) < length ? (size_t)(to - source) : length;
		memcpy(to, source, n);
	}
}

/** At least @length bytes, less than ZD_SLACK more, from at least ZD_VECTOR bytes before. */
ZD_INLINE void zd_copy_far(uint8_t *to, const uint8_t *source, size_t length)
{
	size_t i = 0;

	do {
		*(zd_vector *)(to + i) = *(const zd_vector *)(source + i);
		*(zd_vector *)(to + i + ZD_VECTOR) = *(const zd_vector *)(source + i + ZD_VECTOR);
		i += 2 * ZD_VECTOR;
	} while (i < length);
}

/** The same from at least a word before. */
ZD_INLINE void zd_copy_near(uint8_t *to, const uint8_t *source, size_t length)
{
	size_t i = 0;

	do {
		memcpy(to + i, source + i, ZD_WORD);
		i += ZD_WORD;
	} while (i < length);
}

/** @length bytes from @offset bytes before; false where either leaves the page. */
ZD_INLINE bool zd_put_match(struct zd_output *output, size_t offset, size_t length)
{
	size_t into, left = zd_output_left(output);
	uint8_t *at = output->at;
	const uint8_t *source;

	if (offset - 1 >= (size_t)(at - output->begin) || length > left)
		return false;
	source = at - offset;
	into = source - output->match;
	if (into <= output->length && length <= output->length - into)
		source = output->source + into;
	output->match = at;
	output->source = source;
	output->length = length;
	output->at = at + length;
	if (at - source < ZD_WORD || left - length < ZD_SLACK)
		zd_copy_exactly(at, source, length);
	else if (at - source < ZD_VECTOR)
		zd_copy_near(at, source, length);
	else
		zd_copy_far(at, source, length);
	return true;
}

/** @length bytes of the @size at @bytes; false where they are not as many, or leave the page. */
ZD_INLINE bool zd_put_literals(struct zd_output *output, const uint8_t *bytes, size_t length, size_t size)
{
	size_t left = zd_output_left(output);

	if (length > size || length > left)
		return false;
	if (__builtin_expect(length <= ZD_VECTOR && size >= ZD_VECTOR && left >= ZD_VECTOR, 1))
		*(zd_vector *)output->at = *(const zd_vector *)bytes;
	else
		memcpy(output->at, bytes, length);
	output->at += length;
	return true;
}

ZD_INLINE uint32_t zd_load_32(const uint8_t *bytes)
{
	uint32_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

enum { ZD_LITERALS_MAX = 4 };

/** A match and the literals behind it, again and again. */
struct zd_repeat {
	/** What comes next: tokens of so many bytes, at most 4, each with its literals behind it. */
	const uint8_t *bytes, *end;
	size_t token;
	/** Of the literals, at most ZD_LITERALS_MAX, and of the match, at most ZD_SLACK; the match's offset is
	 * as much as both together. */
	size_t literals, length;
	/** No more of them than this. */
	size_t most;
};

/**
 * A match and literals have been written: write what follows them as long as their token, which lies before
 * @bytes with the literals, is there again.  Returns how often it was; some at the end may be left over.
 */
ZD_INLINE size_t zd_put_repeats(struct zd_output *output, const struct zd_repeat *repeat)
{
	static const uint8_t masks[][4] = {
		{ 0 }, { 0xff }, { 0xff, 0xff }, { 0xff, 0xff, 0xff }, { 0xff, 0xff, 0xff, 0xff },
	};
	size_t count = 0, step = repeat->token + repeat->literals;
	const uint8_t *source = output->source, *bytes = repeat->bytes;
	uint32_t mask = zd_load_32(masks[repeat->token]), token;
	uint8_t *at = output->at;
	zd_vector words[4];

	// Loads reach behind the tokens, and behind what the source has of the match.
	if (output->end - source < ZD_SLACK || repeat->end - bytes < 4 + ZD_LITERALS_MAX)
		return 0;
	token = repeat->token ? zd_load_32(bytes - step) & mask : 0;
	memcpy(words, source, sizeof(words));
	while (count < repeat->most && repeat->end - bytes >= 4 + ZD_LITERALS_MAX &&
	       output->end - at >= ZD_SLACK + ZD_LITERALS_MAX && (zd_load_32(bytes) & mask) == token) {
		memcpy(at, words, sizeof(words));
		memcpy(at + repeat->length, bytes + repeat->token, ZD_LITERALS_MAX);
		at += repeat->length + repeat->literals;
		bytes += step;
		count++;
	}
	if (count)
		output->match = at - repeat->literals - repeat->length;
	output->at = at;
	return count;
}

#endif
