/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Compressed bytes on their way to a page: literals, and matches with what lies before them in the page.
 *
 * It owns every load of compressed bytes but those of tokens, every store to the page, and the check that both
 * lie where they may: the bytes are those of a dump, and may say anything.  What tokens say is lzo.c's,
 * snappy.c's and recipe.c's.  All is inlined into their loops.
 *
 * Frames of a memmap are one struct page after the other, each the one before but for a few bytes.  So two
 * things are fast: a match with what a match has just written is copied from where that one came from (a
 * processor waits for bytes that it has stored in other pieces than it loads them in), and what repeats is
 * stored out of registers.
 */
#ifndef ZONEDEV_READERS_EXPAND_H
#define ZONEDEV_READERS_EXPAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "memory.h"

#define ZD_INLINE static inline __attribute__((always_inline))

enum {
	/** Bytes that are moved at a time; of a match from less far away, a word. */
	ZD_VECTOR = 16,
	ZD_WORD = 8,
	/** Where less room is left than this behind what is written, it is written exactly. */
	ZD_SLACK = 2 * ZD_VECTOR,
	/** Literals and length of a match that is repeated: a struct page. */
	ZD_REPEAT_LITERALS_MAX = 4,
	ZD_REPEAT_LENGTH_MAX = 64,
};

typedef uint8_t zd_vector __attribute__((vector_size(ZD_VECTOR), aligned(1), may_alias));

/** Compressed bytes that are still to be taken. */
struct zd_input {
	const uint8_t *at, *end;
};

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

ZD_INLINE size_t zd_input_left(const struct zd_input *input)
{
	return input->end - input->at;
}

ZD_INLINE size_t zd_output_left(const struct zd_output *output)
{
	return output->end - output->at;
}

/** Just @length bytes; where they overlap, those that the copy itself has written are copied again. */
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
	// What lies in the last match is what lies as far in its source: they are equal all along, also where
	// they overlap, and neither is written again.
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

/** Move the next @length bytes to the page; false where they are not as many, or leave it. */
ZD_INLINE bool zd_put_literals(struct zd_output *output, struct zd_input *input, size_t length)
{
	size_t left = zd_output_left(output), size = zd_input_left(input);

	if (length > size || length > left)
		return false;
	if (__builtin_expect(length <= ZD_VECTOR && size >= ZD_VECTOR && left >= ZD_VECTOR, 1))
		*(zd_vector *)output->at = *(const zd_vector *)input->at;
	else
		memcpy(output->at, input->at, length);
	output->at += length;
	input->at += length;
	return true;
}

ZD_INLINE uint32_t zd_load_32(const uint8_t *bytes)
{
	uint32_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

/** A match and the literals behind it, again and again. */
struct zd_repeat {
	/** Bytes of the token before the literals, at most 4; 0: there is none, only literals. */
	size_t token;
	/** Of the last match and behind it, at most ZD_REPEAT_*_MAX; its offset is as much as both together. */
	size_t literals, length;
	/** No more of them than this. */
	size_t most;
};

/**
 * The last match and its literals, which were just put, are a repeat, and with its token the last that was
 * taken: put what follows as long as the token is there again.  Returns how often it was; what is left, near
 * the end of either, is put one by one.
 */
ZD_INLINE size_t zd_put_repeats(struct zd_output *output, struct zd_input *input,
				const struct zd_repeat *repeat)
{
	static const uint8_t masks[][4] = {
		{ 0 }, { 0xff }, { 0xff, 0xff }, { 0xff, 0xff, 0xff }, { 0xff, 0xff, 0xff, 0xff },
	};
	const size_t step = repeat->token + repeat->literals, reach = 4 + ZD_REPEAT_LITERALS_MAX;
	const uint8_t *source = output->source, *bytes = input->at;
	uint32_t mask = zd_load_32(masks[repeat->token]), token;
	zd_vector words[ZD_REPEAT_LENGTH_MAX / ZD_VECTOR];
	uint8_t *at = output->at;
	size_t count = 0;

	// Loads reach behind the tokens, and behind what the source has of the match.
	if ((size_t)(output->end - source) < sizeof(words) || zd_input_left(input) < reach)
		return 0;
	token = repeat->token ? zd_load_32(bytes - step) & mask : 0;
	memcpy(words, source, sizeof(words));
	while (count < repeat->most && (size_t)(input->end - bytes) >= reach &&
	       (size_t)(output->end - at) >= sizeof(words) + ZD_REPEAT_LITERALS_MAX &&
	       (zd_load_32(bytes) & mask) == token) {
		memcpy(at, words, sizeof(words));
		memcpy(at + repeat->length, bytes + repeat->token, ZD_REPEAT_LITERALS_MAX);
		at += repeat->length + repeat->literals;
		bytes += step;
		count++;
	}
	if (count)
		output->match = at - repeat->literals - repeat->length;
	output->at = at;
	input->at = bytes;
	return count;
}

#endif
