// SPDX-License-Identifier: LGPL-2.1-or-later
// Pages compressed by snappy, raw: how long they are, then tokens, whose two lowest bits say what each is:
// literals, or a match with an offset of one, two or four bytes.  The format is told by the library's
// format_description.txt.  The bytes are a dump's, and may say anything.

#include "snappy.h"

#include "../core/util.h"
#include "expand.h"

enum {
	LITERALS = 0,
	NEAR = 1,
	FAR = 2,
	/** From here on, so many bytes and one hold the count of literals. */
	LITERALS_FOLLOW = 60,
};

// ZD_FRAME, seven bits to a byte.
static const uint8_t page_size[] = { 0x80, ZD_FRAME >> 7 };

/** A number of @size bytes, at most 4. */
ZD_INLINE bool take_number(struct zd_input *input, size_t size, size_t *ret)
{
	if (zd_input_left(input) < size)
		return false;
	*ret = zd_load_bytes(input->at, size, false);
	input->at += size;
	return true;
}

ZD_INLINE bool put_literals(struct zd_output *output, struct zd_input *input, unsigned int token)
{
	size_t last = token >> 2;

	if (last >= LITERALS_FOLLOW && !take_number(input, last - LITERALS_FOLLOW + 1, &last))
		return false;
	return last < ZD_FRAME && zd_put_literals(output, input, last + 1);
}

/** Take the literals behind a match of two bytes of offset, if they are few, and what follows as long as both
 * repeat. */
ZD_INLINE bool put_repeats(struct zd_output *output, struct zd_input *input, size_t length, size_t offset)
{
	size_t literals = offset - length;
	unsigned int token = (literals - 1) << 2 | LITERALS;
	struct zd_repeat repeat = { literals ? 4 : 3, literals, length, SIZE_MAX };

	if (literals > ZD_REPEAT_LITERALS_MAX)
		return true;
	if (literals) {
		if (!zd_input_left(input) || *input->at != token)
			return true;
		input->at++;
		if (!put_literals(output, input, token))
			return false;
	}
	zd_put_repeats(output, input, &repeat);
	return true;
}

ZD_INLINE bool put_match(struct zd_output *output, struct zd_input *input, unsigned int token)
{
	size_t length = (token >> 2) + 1, offset;

	if (token % 4 == NEAR) {
		if (!take_number(input, 1, &offset))
			return false;
		offset |= (token >> 5) << 8;
		return zd_put_match(output, offset, (token >> 2) % 8 + 4);
	}
	if (!take_number(input, token % 4 == FAR ? 2 : 4, &offset) || !zd_put_match(output, offset, length))
		return false;
	return token % 4 != FAR || put_repeats(output, input, length, offset);
}

bool zd_snappy_expand(const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	struct zd_input input = { bytes, bytes + size };
	struct zd_output output = zd_output(page);
	unsigned int token;

	if (size < sizeof(page_size) || memcmp(bytes, page_size, sizeof(page_size)))
		return false;
	input.at += sizeof(page_size);
	while (zd_input_left(&input)) {
		token = *input.at++;
		if (!(token % 4 == LITERALS ? put_literals(&output, &input, token)
					    : put_match(&output, &input, token)))
			return false;
	}
	return !zd_output_left(&output);
}
