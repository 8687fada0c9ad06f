// SPDX-License-Identifier: LGPL-2.1-or-later
// Pages compressed by LZO1X, as lzo1x_1_compress() of liblzo2 makes them.  The format is told by the kernel's
// Documentation/staging/lzo.rst.
//
// A stream is a row of tokens: a match, with up to three literals behind it, or a run of literals. What a token
// below 16 is depends on what came before it. The last one is a far match with nothing to add to its offset,
// which no page has.  The bytes are a dump's, and may say anything.

#include "lzo.h"

#include "../core/util.h"
#include "expand.h"

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
	/** Each token has as many bytes, or is followed by the last one, which has. */
	TOKEN_MIN = 3,
};

struct match {
	size_t length, offset, literals;
};

/** A length that did not fit its token: 255 for each zero, and what follows them. */
ZD_INLINE bool take_length(struct zd_input *input, size_t *length)
{
	while (zd_input_left(input) && !*input->at) {
		input->at++;
		*length += 255;
	}
	if (!zd_input_left(input))
		return false;
	*length += *input->at++;
	return true;
}

/** The end of a long token: 14 bits of an offset, two of a count of literals. */
ZD_INLINE bool take_offset(struct zd_input *input, struct match *match)
{
	unsigned int word;

	if (zd_input_left(input) < 2)
		return false;
	word = zd_load_bytes(input->at, 2, false);
	input->at += 2;
	match->offset += word >> 2;
	match->literals = word & 3;
	return true;
}

/** A token whose first byte has the length under @mask; if that is 0, it follows. */
ZD_INLINE bool take_long(struct zd_input *input, unsigned int first, unsigned int mask, struct match *match)
{
	match->length = 2 + (first & mask);
	if (!(first & mask)) {
		match->length += mask;
		if (!take_length(input, &match->length))
			return false;
	}
	return take_offset(input, match);
}

/** A token of two bytes: the offset's lower @bits and the literals in the first, the offset's upper part. */
ZD_INLINE void take_short(struct zd_input *input, unsigned int first, unsigned int bits, struct match *match)
{
	match->offset = 1 + (first >> 2 & ((1 << bits) - 1)) + ((size_t)*input->at++ << bits);
	match->literals = first & 3;
}

/** The match that begins with @first, which has been taken, behind so many literals. */
ZD_INLINE bool take_match(struct zd_input *input, unsigned int first, size_t behind, struct match *match)
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

/** A match and its literals, and what follows as long as it repeats. */
ZD_INLINE bool put_match(struct zd_output *output, struct zd_input *input, unsigned int first,
			 const struct match *match)
{
	struct zd_repeat repeat = { first == NEAR ? 4 : 3, match->literals, match->length, SIZE_MAX };

	if (!zd_put_match(output, match->offset, match->length))
		return false;
	if (!match->literals)
		return true;
	if (!zd_put_literals(output, input, match->literals))
		return false;
	if (first >= NEAR && first < SHORT && match->length <= ZD_REPEAT_LENGTH_MAX &&
	    match->length + match->literals == match->offset)
		zd_put_repeats(output, input, &repeat);
	return true;
}

/** A run of literals behind its token; a token of 0 has a length behind it. */
ZD_INLINE bool put_run(struct zd_output *output, struct zd_input *input, unsigned int token)
{
	size_t length = token + 3;

	if (!token) {
		length += FAR - 1;
		if (!take_length(input, &length))
			return false;
	}
	return zd_put_literals(output, input, length);
}

bool zd_lzo_expand(const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	struct zd_input input = { bytes, bytes + size };
	struct zd_output output = zd_output(page);
	size_t behind = NO_LITERALS;
	struct match match;
	unsigned int first;

	if (size && *bytes > FIRST_RUN) {
		behind = *input.at++ - FIRST_RUN;
		if (!zd_put_literals(&output, &input, behind))
			return false;
		if (behind > LITERAL_RUN)
			behind = LITERAL_RUN;
	}
	while (zd_input_left(&input) >= TOKEN_MIN) {
		first = *input.at++;
		if (first < FAR && !behind) {
			if (!put_run(&output, &input, first))
				return false;
			behind = LITERAL_RUN;
			continue;
		}
		if (!take_match(&input, first, behind, &match))
			return false;
		if (first < NEAR && match.offset == END_OFFSET)
			return !zd_input_left(&input) && !zd_output_left(&output);
		if (!put_match(&output, &input, first, &match))
			return false;
		behind = match.literals;
	}
	return false;
}
