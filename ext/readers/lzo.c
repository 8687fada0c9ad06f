// SPDX-License-Identifier: LGPL-2.1-or-later
// Pages compressed by LZO1X, as lzo1x_1_compress() of liblzo2 makes them.
//
// A stream is a row of tokens: a match, with up to three literals behind it, or a run of literals. What a token
// below 16 is depends on what came before it. The last one is a match with an offset of 16384, which no page
// has.

#include "lzo.h"

#include "output.h"

enum {
	/** What lies before a token, besides one to three literals of a match. */
	NO_LITERALS = 0,
	LITERAL_RUN = 4,
	/** Tokens begin with these. */
	FAR = 16,
	NEAR = 32,
	SHORT = 64,
	/** A first byte above it is a run of as many literals more. */
	FIRST_RUN = 17,
	END_OFFSET = 16384,
	/** The shortest token, and the last one, are of no more bytes. */
	TOKEN_MAX = 3,
};

struct input {
	const uint8_t *at, *end;
};

struct match {
	size_t length, offset, literals;
};

ZD_INLINE size_t left(const struct input *input)
{
	return input->end - input->at;
}

/** A length that did not fit its token: 255 for each zero, and what follows them. */
ZD_INLINE bool take_length(struct input *input, size_t *length)
{
	while (left(input) && !*input->at) {
		input->at++;
		*length += 255;
	}
	if (!left(input))
		return false;
	*length += *input->at++;
	return true;
}

/** The end of a long token: 14 bits of an offset, two of a count of literals. */
ZD_INLINE bool take_offset(struct input *input, struct match *match)
{
	unsigned int bits;

	if (left(input) < 2)
		return false;
	bits = input->at[0] | input->at[1] << 8;
	input->at += 2;
	match->offset += bits >> 2;
	match->literals = bits & 3;
	return true;
}

/** A token of which @bits are the length; if they are 0, it follows. */
ZD_INLINE bool take_long(struct input *input, unsigned int first, unsigned int bits, struct match *match)
{
	match->length = (first & bits) + 2;
	return ((first & bits) || (match->length += bits, take_length(input, &match->length))) &&
	       take_offset(input, match);
}

/** A token of two bytes: offset and literals of the first, and the second, which is the offset's upper part. */
ZD_INLINE void take_short(struct input *input, unsigned int first, unsigned int bits, struct match *match)
{
	match->offset = 1 + (first >> 2 & ((1 << bits) - 1)) + ((size_t)*input->at++ << bits);
	match->literals = first & 3;
}

/** The match that begins with @first, which has been taken, behind so many literals. */
ZD_INLINE bool take_match(struct input *input, unsigned int first, size_t behind, struct match *match)
{
	if (first >= SHORT) {
		take_short(input, first, 3, match);
		match->length = (first >> 5) + 1;
	} else if (first >= NEAR) {
		match->offset = 1;
		return take_long(input, first, NEAR - 1, match);
	} else if (first >= FAR) {
		match->offset = END_OFFSET + ((size_t)(first & 8) << 11);
		return take_long(input, first, 7, match);
	} else {
		take_short(input, first, 2, match);
		match->length = behind == LITERAL_RUN ? 3 : 2;
		match->offset += behind == LITERAL_RUN ? 2048 : 0;
	}
	return true;
}

ZD_INLINE bool put_literals(struct zd_output *output, struct input *input, size_t length)
{
	bool fits = zd_put_literals(output, input->at, length, left(input));

	input->at += fits ? length : 0;
	return fits;
}

/** Take what follows a match of a long token as long as it repeats. */
ZD_INLINE void put_repeats(struct zd_output *output, struct input *input, unsigned int first,
			   const struct match *match)
{
	struct zd_repeat repeat = {
		input->at, input->end, first == NEAR ? 4 : 3, match->literals, match->length, SIZE_MAX,
	};

	if (first >= NEAR && first < SHORT && match->length <= ZD_SLACK &&
	    match->length + match->literals == match->offset)
		input->at += zd_put_repeats(output, &repeat) * (repeat.token + repeat.literals);
}

bool zd_lzo_expand(const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	struct input input = { bytes, bytes + size };
	struct zd_output output = zd_output(page);
	size_t length, behind = NO_LITERALS;
	struct match match;
	unsigned int first;

	if (size && *bytes > FIRST_RUN) {
		length = *input.at++ - FIRST_RUN;
		if (!put_literals(&output, &input, length))
			return false;
		behind = length < LITERAL_RUN ? length : LITERAL_RUN;
	}
	while (left(&input) >= TOKEN_MAX) {
		first = *input.at++;
		if (first < FAR && !behind) {
			length = first + 3;
			if ((!first && (length += FAR - 1, !take_length(&input, &length))) ||
			    !put_literals(&output, &input, length))
				return false;
			behind = LITERAL_RUN;
			continue;
		}
		if (!take_match(&input, first, behind, &match))
			return false;
		if (match.offset == END_OFFSET)
			return match.length == 3 && !match.literals && !left(&input) &&
			       !zd_output_left(&output);
		if (!zd_put_match(&output, match.offset, match.length) ||
		    (match.literals && !put_literals(&output, &input, match.literals)))
			return false;
		behind = match.literals;
		if (behind)
			put_repeats(&output, &input, first, &match);
	}
	return false;
}
