// SPDX-License-Identifier: LGPL-2.1-or-later
// C tests of compressed pages, built with ASan and UBSan: streams made token by token, beside the page that
// they make; each cut off everywhere, too long, or with a token that leaves the page.  Zstd's part is played by
// a format of this file, whose sections are plain.  What the libraries make of the same bytes is
// fuzz_expand.c's. Link with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc.

#include "../readers/lzo.h"
#include "../readers/recipe.h"
#include "../readers/snappy.h"
#include "check.h"

#include <string.h>

enum { ROOM = 4 * ZD_FRAME };

/** Compressed bytes, and what they make. */
struct stream {
	uint8_t bytes[ROOM], page[ROOM];
	size_t size, length;
};

static struct stream stream;

static void begin(void)
{
	memset(&stream, 0, sizeof(stream));
}

static void put_byte(unsigned int byte)
{
	stream.bytes[stream.size++] = byte;
}

static void put_number(uint64_t number, int size)
{
	for (int i = 0; i < size; i++)
		put_byte(number >> 8 * i & 0xff);
}

/** Literals, each unlike those near it. */
static void put_literals(size_t count)
{
	for (; count; count--) {
		uint8_t literal = stream.length * 37 + stream.length / 256;

		put_byte(literal);
		stream.page[stream.length++] = literal;
	}
}

/** An offset may lead out of the page. */
static void match(size_t offset, size_t length)
{
	for (; length; length--, stream.length++)
		stream.page[stream.length] = offset <= stream.length ? stream.page[stream.length - offset] : 0;
}

static size_t left(void)
{
	return ZD_FRAME - stream.length;
}

// ---------------------------------------------------------------- what is expected

typedef bool (*expand_fn)(const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME]);

/** Expand bytes that have no more room than they need, to a page that has not either. */
static bool expand(expand_fn function, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	uint8_t *exact = malloc(size ? size : 1), *page = malloc(ZD_FRAME);
	bool taken;

	memcpy(exact, bytes, size);
	taken = function(exact, size, page);
	memcpy(ret, page, ZD_FRAME);
	free(exact);
	free(page);
	return taken;
}

static bool is_refused(expand_fn function)
{
	uint8_t page[ZD_FRAME];

	return !expand(function, stream.bytes, stream.size, page);
}

static bool is_page(expand_fn function)
{
	uint8_t page[ZD_FRAME];

	return stream.length == ZD_FRAME && expand(function, stream.bytes, stream.size, page) &&
	       !memcmp(page, stream.page, ZD_FRAME);
}

/** A page; and none when something is missing behind, or is too much. */
static bool is_just_page(expand_fn function)
{
	uint8_t page[ZD_FRAME];
	bool good = is_page(function);

	for (size_t size = 0; size < stream.size; size++)
		good &= !expand(function, stream.bytes, size, page);
	return good && !expand(function, stream.bytes, stream.size + 1, page);
}

// ---------------------------------------------------------------- lzo

/** What did not fit a token: 255 for each 0. */
static void lzo_put_length(size_t length)
{
	for (; length > 255; length -= 255)
		put_byte(0);
	put_byte(length);
}

static void lzo_first_run(size_t count)
{
	put_byte(17 + count);
	put_literals(count);
}

static void lzo_run(size_t count)
{
	put_byte(count <= 18 ? count - 3 : 0);
	if (count > 18)
		lzo_put_length(count - 18);
	put_literals(count);
}

static void lzo_near(size_t offset, size_t length, size_t literals)
{
	put_byte(32 | (length <= 33 ? length - 2 : 0));
	if (length > 33)
		lzo_put_length(length - 33);
	put_number((offset - 1) << 2 | literals, 2);
	match(offset, length);
	put_literals(literals);
}

static void lzo_short(size_t offset, size_t length, size_t literals)
{
	put_byte((length - 1) << 5 | ((offset - 1) & 7) << 2 | literals);
	put_byte((offset - 1) >> 3);
	match(offset, length);
	put_literals(literals);
}

/** Of two bytes behind literals of a match, of three behind a run, from at least 2049 before. */
static void lzo_tiny(size_t offset, size_t literals, bool behind_run)
{
	size_t coded = offset - 1 - (behind_run ? 2048 : 0);

	put_byte((coded & 3) << 2 | literals);
	put_byte(coded >> 2);
	match(offset, behind_run ? 3 : 2);
	put_literals(literals);
}

static void lzo_end(void)
{
	put_byte(0x11);
	put_number(0, 2);
}

/** The rest of the page, and the end. */
static void lzo_rest(void)
{
	lzo_near(100, left(), 0);
	lzo_end();
}

static void test_lzo_tokens(void)
{
	begin();
	lzo_first_run(30);
	lzo_near(30, 5, 0);
	lzo_run(4);
	lzo_short(1, 8, 3);
	lzo_tiny(7, 0, false);
	lzo_run(18);
	lzo_short(9, 3, 2);
	lzo_tiny(40, 1, false);
	lzo_near(8, 33, 0);
	lzo_run(19);
	lzo_near(15, 34, 1);
	lzo_near(3, 300, 3);
	lzo_near(1, 33 + 255, 2);
	lzo_near(17, 33 + 256, 0);
	lzo_run(18 + 255);
	lzo_near(16, 900, 0);
	lzo_run(18 + 256);
	lzo_tiny(2049, 2, true);
	lzo_tiny(1, 0, false);
	lzo_run(5);
	lzo_tiny(2049 + 17, 0, true);
	lzo_rest();
	CHECK(is_just_page(zd_lzo_expand));

	// Fewer literals than a run has in front.
	begin();
	lzo_first_run(3);
	lzo_tiny(2, 0, false);
	lzo_near(1, 200, 0);
	lzo_rest();
	CHECK(is_just_page(zd_lzo_expand));
}

static void test_lzo_leaves_the_page(void)
{
	for (int kind = 0; kind < 5; kind++) {
		begin();
		lzo_first_run(100);
		if (kind == 0)
			lzo_near(stream.length + 1, 10, 0);
		else if (kind == 1)
			lzo_near(1, left() + 1, 0);
		else if (kind == 2)
			lzo_near(1, left(), 1);
		else if (kind == 3)
			lzo_run(left() + 1);
		else
			lzo_tiny(2049, 0, true);
		if (stream.length < ZD_FRAME)
			lzo_rest();
		else
			lzo_end();
		CHECK(is_refused(zd_lzo_expand));
	}
	// Not enough; and an end that says of a length and of literals what nobody asks for.
	begin();
	lzo_first_run(100);
	lzo_near(100, left() - 1, 0);
	lzo_end();
	CHECK(is_refused(zd_lzo_expand));
	begin();
	lzo_first_run(100);
	lzo_near(100, left(), 0);
	put_byte(0x12);
	put_number(1, 2);
	CHECK(is_page(zd_lzo_expand));
	// A near match from as far away as the end says it is.
	begin();
	lzo_first_run(100);
	lzo_near(100, left(), 0);
	put_byte(33);
	put_number((16384 - 1) << 2, 2);
	CHECK(is_refused(zd_lzo_expand));
	// A length that never ends, and one that is larger than any page.
	begin();
	lzo_first_run(100);
	put_byte(32);
	stream.size += 3000;
	CHECK(is_refused(zd_lzo_expand));
	put_number(1, 8);
	CHECK(is_refused(zd_lzo_expand));
}

/** Struct pages of @size bytes, each the one before but for its last ones. */
static void lzo_repeats(size_t size, size_t literals, size_t count)
{
	begin();
	lzo_first_run(size);
	for (; count; count--)
		lzo_near(size, size - literals, literals);
}

static void test_lzo_repeats(void)
{
	static const size_t sizes[] = { 64, 32, 24, 70, 20, 128, 66 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (size_t literals = 1; literals <= 3; literals++) {
			size_t fit = ZD_FRAME / sizes[i] - 1;

			lzo_repeats(sizes[i], literals, fit);
			if (left())
				lzo_near(sizes[i], left(), 0);
			lzo_end();
			CHECK(is_just_page(zd_lzo_expand));
			// One more than there is room for, many more, and both with an end.
			for (size_t more = 1; more <= 20; more += 19) {
				lzo_repeats(sizes[i], literals, fit + more);
				CHECK(is_refused(zd_lzo_expand));
				lzo_end();
				CHECK(is_refused(zd_lzo_expand));
			}
			// Others among them.
			lzo_repeats(sizes[i], literals, 4);
			lzo_near(sizes[i], sizes[i] - 3, literals);
			for (int j = 0; j < 5; j++)
				lzo_near(sizes[i], sizes[i] - literals, literals);
			for (int j = 0; j < 5; j++)
				lzo_near(sizes[i] + 1, sizes[i] - literals, literals);
			for (int j = 0; j < 3; j++)
				lzo_near(sizes[i] - 1, sizes[i] - literals, literals);
			lzo_near(sizes[i], 2 * sizes[i], literals);
			lzo_rest();
			CHECK(is_just_page(zd_lzo_expand));
		}
	}
	// At the end of the page, where what repeats is itself.
	begin();
	lzo_run(ZD_FRAME - 32);
	lzo_near(16, 13, 3);
	lzo_near(16, 13, 3);
	lzo_end();
	CHECK(is_just_page(zd_lzo_expand));
}

// ---------------------------------------------------------------- snappy

static void snappy_begin(void)
{
	begin();
	put_number(0x2080, 2);
}

/** Literals with so many bytes of a count behind the token. */
static void snappy_literals(size_t count, unsigned int size)
{
	put_byte(size ? (59 + size) << 2 : (count - 1) << 2);
	put_number(count - 1, size);
	put_literals(count);
}

/** A match with an offset of 1, 2 or 4 bytes. */
static void snappy_match(size_t offset, size_t length, int size)
{
	if (size == 1)
		put_byte(1 | (length - 4) << 2 | offset >> 8 << 5);
	else
		put_byte((size == 2 ? 2 : 3) | (length - 1) << 2);
	put_number(size == 1 ? offset & 0xff : offset, size);
	match(offset, length);
}

static void snappy_rest(void)
{
	while (left())
		snappy_match(50, left() < 64 ? left() : 64, 2);
}

static void test_snappy_tokens(void)
{
	snappy_begin();
	snappy_literals(60, 0);
	snappy_match(60, 11, 1);
	snappy_literals(61, 1);
	snappy_match(3, 64, 2);
	snappy_literals(1, 1);
	snappy_literals(300, 2);
	snappy_match(1, 7, 4);
	snappy_literals(20, 3);
	snappy_match(257, 4, 1);
	snappy_literals(17, 4);
	snappy_literals(1800, 2);
	snappy_match(2047, 9, 1);
	snappy_match(stream.length, 64, 2);
	snappy_rest();
	CHECK(is_just_page(zd_snappy_expand));
	snappy_begin();
	snappy_literals(ZD_FRAME, 2);
	CHECK(is_just_page(zd_snappy_expand));
}

static void test_snappy_leaves_the_page(void)
{
	snappy_begin();
	snappy_literals(10, 0);
	snappy_match(11, 10, 2);
	snappy_rest();
	CHECK(is_refused(zd_snappy_expand));
	snappy_begin();
	snappy_literals(10, 0);
	put_byte(2 | 9 << 2);
	put_number(0, 2);
	match(10, 10);
	snappy_rest();
	CHECK(is_refused(zd_snappy_expand));
	snappy_begin();
	snappy_literals(ZD_FRAME + 1, 2);
	CHECK(is_refused(zd_snappy_expand));
	snappy_begin();
	snappy_literals(ZD_FRAME - 10, 2);
	snappy_match(100, 11, 2);
	CHECK(is_refused(zd_snappy_expand));
	// More literals than any number of bytes.
	snappy_begin();
	put_byte(63 << 2);
	put_number(UINT32_MAX, 4);
	put_literals(ZD_FRAME);
	CHECK(is_refused(zd_snappy_expand));
	// Of another length.
	snappy_begin();
	snappy_literals(ZD_FRAME, 2);
	stream.bytes[1]++;
	CHECK(is_refused(zd_snappy_expand));
}

static void snappy_repeats(size_t size, size_t literals, size_t count)
{
	snappy_begin();
	snappy_literals(size, 1);
	for (; count; count--) {
		snappy_match(size, size - literals, 2);
		if (literals)
			snappy_literals(literals, 0);
	}
}

static void test_snappy_repeats(void)
{
	static const size_t sizes[] = { 64, 32, 56, 48, 20, 9 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		for (size_t literals = 0; literals <= 5; literals++) {
			size_t fit = ZD_FRAME / sizes[i] - 1;

			snappy_repeats(sizes[i], literals, fit);
			if (left())
				snappy_match(sizes[i], left(), 2);
			CHECK(is_just_page(zd_snappy_expand));
			snappy_repeats(sizes[i], literals, fit + 1);
			CHECK(is_refused(zd_snappy_expand));
			snappy_repeats(sizes[i], literals, fit + 20);
			CHECK(is_refused(zd_snappy_expand));
			snappy_repeats(sizes[i], literals, 5);
			snappy_literals(2, 0);
			for (int j = 0; j < 3; j++) {
				snappy_match(sizes[i], sizes[i] - literals, 2);
				snappy_literals(literals + 1, 0);
			}
			snappy_rest();
			CHECK(is_just_page(zd_snappy_expand));
		}
	}
}

// ---------------------------------------------------------------- recipes

// In place of zstd's, a section is rows of three numbers: literals, the offset of a match, its length; what
// literals are left come last.

enum { TOY_HEADER = 7 + 3, ROW = 3 };

static uint8_t toy_section[600];
static size_t toy_section_size;
static int toy_calls;

static void toy_row(unsigned int literals, unsigned int offset, unsigned int length)
{
	const uint8_t row[ROW] = { literals, offset, length };

	memcpy(toy_section + toy_section_size, row, ROW);
	toy_section_size += ROW;
}

/** The header of literals that are stored in a way, of one to three bytes. */
static uint32_t toy_literals(size_t literals, int size, unsigned int type)
{
	static const unsigned int forms[] = { 0, 1, 3 };

	return literals << (size > 1 ? 4 : 3) | forms[size - 1] << 2 | type;
}

/** Literals, all of a seed, before the section; what they make is left to toy_expand(). */
static void toy_frame_of(size_t literals, uint8_t seed, int size, unsigned int type)
{
	begin();
	put_number(UINT64_C(0x0f0060fd2fb528), 7);
	put_number((size + literals + toy_section_size) << 3 | 5, 3);
	put_number(toy_literals(literals, size, type), size);
	for (size_t i = 0; i < literals; i++)
		put_byte(seed + i * 11);
	for (size_t i = 0; i < toy_section_size; i++)
		put_byte(toy_section[i]);
}

static void toy_frame(size_t literals, uint8_t seed)
{
	toy_frame_of(literals, seed, 3, 0);
}

static bool toy_expand(void *context, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	const uint8_t *header = bytes + TOY_HEADER;
	unsigned int form = *header >> 2 & 3;
	size_t literals = form == 1   ? (header[0] | header[1] << 8) >> 4
			  : form == 3 ? (header[0] | header[1] << 8 | header[2] << 16) >> 4
				      : *header >> 3;
	const uint8_t *literal = header + (form == 1 ? 2 : form == 3 ? 3 : 1), *row = literal + literals;
	size_t at = 0;

	(void)context;
	toy_calls++;
	for (; row < bytes + size; row += ROW) {
		if (row[0] > literals || at + row[0] + row[2] > ZD_FRAME || (row[2] && row[1] > at + row[0]))
			return false;
		for (int i = 0; i < row[0]; i++, literals--)
			page[at++] = *literal++;
		for (int i = 0; i < row[2]; i++, at++)
			page[at] = page[at - row[1]];
	}
	if (literals != ZD_FRAME - at)
		return false;
	memcpy(page + at, literal, literals);
	return true;
}

/** Expand the frame by recipes and by itself; returns how often the recipes asked, or -1 if they differ. */
static int ask(struct zd_recipes *recipes)
{
	uint8_t page[ZD_FRAME], own[ZD_FRAME], *exact = malloc(stream.size);
	bool taken, own_taken = toy_expand(NULL, stream.bytes, stream.size, own);

	memcpy(exact, stream.bytes, stream.size);
	toy_calls = 0;
	taken = zd_recipes_expand(recipes, exact, stream.size, page);
	free(exact);
	return taken == own_taken && (!taken || !memcmp(page, own, ZD_FRAME)) ? toy_calls : -1;
}

/** A section of a page that begins with so many literals, with matches from so far before; returns how many
 * literals it takes. */
static size_t toy_matches(unsigned int first, unsigned int length, unsigned int literals, unsigned int offset)
{
	size_t at = first, count = first;

	toy_section_size = 0;
	toy_row(first, offset, length);
	for (at += length; at + length + literals < ZD_FRAME; at += length + literals) {
		toy_row(literals, offset, length);
		count += literals;
	}
	return count + ZD_FRAME - at;
}

static size_t toy_page(unsigned int first, unsigned int length, unsigned int literals)
{
	return toy_matches(first, length, literals, length + literals);
}

static void test_recipes(void)
{
	// First literals, matches and the literals behind them, and offsets: like struct pages, and unlike
	// them.
	static const struct {
		unsigned int first, length, literals, offset;
	} pages[] = {
		{ 64, 63, 1, 64 },   { 64, 62, 2, 64 },	 { 200, 60, 4, 64 }, { 80, 61, 3, 64 },
		{ 64, 64, 0, 64 },   { 64, 59, 5, 64 },	 { 250, 56, 8, 64 }, { 140, 127, 1, 128 },
		{ 100, 71, 1, 72 },  { 200, 63, 1, 60 }, { 200, 63, 1, 63 }, { 200, 60, 2, 61 },
		{ 200, 62, 2, 128 }, { 200, 40, 3, 44 },
	};

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		struct zd_recipes *recipes = zd_recipes_create(toy_expand, NULL);
		size_t literals =
			toy_matches(pages[i].first, pages[i].length, pages[i].literals, pages[i].offset);
		int to_learn = literals > 256 ? 2 : 1;

		toy_frame(literals, 0);
		CHECK(ask(recipes) == 1);
		CHECK(ask(recipes) == 1 + to_learn);
		for (unsigned int seed = 0; seed < 256; seed += 15) {
			toy_frame(literals, seed);
			CHECK(ask(recipes) == 0);
		}
		// The same section with one literal more, or less.
		toy_frame(literals + 1, 1);
		CHECK(ask(recipes) == 1);
		toy_frame(literals - 1, 1);
		CHECK(ask(recipes) == 1);
		// And one that is not as long.
		toy_section_size -= ROW;
		toy_frame(literals, 1);
		CHECK(ask(recipes) >= 1);
		zd_recipes_destroy(recipes);
	}
}

/** What is learnt of one form of a header is good for all of them. */
static void test_forms_of_literals(void)
{
	// With few literals, which fit the shortest form, as many as are even and odd: long matches.
	for (size_t literals = 20; literals <= 21; literals++) {
		toy_section_size = 0;
		toy_row(10, 1, 240);
		for (int i = 0; i < 15; i++)
			toy_row(0, 3, 255);
		toy_row(0, 3, ZD_FRAME - 10 - 240 - 15 * 255 - (literals - 10));
		for (int learnt = 1; learnt <= 3; learnt++) {
			struct zd_recipes *recipes = zd_recipes_create(toy_expand, NULL);

			toy_frame_of(literals, 0, learnt, 0);
			CHECK(ask(recipes) == 1);
			CHECK(ask(recipes) == 2);
			for (int size = 1; size <= 3; size++) {
				toy_frame_of(literals, size, size, 0);
				CHECK(ask(recipes) == 0);
				// Literals that are stored otherwise: as one byte, or compressed.
				for (unsigned int type = 1; type < 4; type++) {
					toy_frame_of(literals, size, size, type);
					CHECK(ask(recipes) == 1);
				}
			}
			zd_recipes_destroy(recipes);
		}
	}
}

/** How often the library is asked for each of @sections of @rounds frames in turn; -1: wrongly. */
static int ask_in_turn(struct zd_recipes *recipes, unsigned int sections, int rounds)
{
	int sum = 0;

	for (int round = 0; round < rounds; round++) {
		for (unsigned int i = 0; i < sections; i++) {
			int asked;

			toy_frame(toy_page(64 + i, 60, 4), i);
			asked = ask(recipes);
			if (asked < 0)
				return -1;
			sum += asked;
		}
	}
	return sum;
}

/** More sections in turn than are kept, and such as come twice. */
static void test_what_learning_costs(void)
{
	struct zd_recipes *recipes = zd_recipes_create(toy_expand, NULL);
	enum { SECTIONS = 40, ROUNDS = 100 };
	int asked = ask_in_turn(recipes, SECTIONS, ROUNDS), frames = SECTIONS * ROUNDS;

	CHECK(asked > 0 && asked <= frames + frames / 8);
	zd_recipes_destroy(recipes);

	// Learnt in vain until there is no credit, then one that is worth it.
	recipes = zd_recipes_create(toy_expand, NULL);
	for (unsigned int i = 1; i < SECTIONS; i++) {
		toy_frame(toy_page(64 + i, 60, 4), i);
		CHECK(ask(recipes) >= 1);
		CHECK(ask(recipes) >= 1);
	}
	asked = ask_in_turn(recipes, 1, 1000);
	CHECK(asked >= 0 && asked < 200);
	zd_recipes_destroy(recipes);
}

/** Two sections that differ in one byte, whichever it is, in turn: both are learnt. */
static void test_sections_that_are_alike(void)
{
	for (size_t at = 0; at < 150; at += ROW) {
		struct zd_recipes *recipes = zd_recipes_create(toy_expand, NULL);
		size_t literals = toy_page(100, 60, 4);

		for (int round = 0; round < 4; round++) {
			for (int kind = 0; kind < 2; kind++) {
				// Another offset.
				toy_section[at + 1] = kind ? 64 : 65;
				toy_frame(literals, round);
				CHECK(ask(recipes) == (round == 0 ? 1 : round == 1 ? 3 : 0));
			}
		}
		zd_recipes_destroy(recipes);
	}
}

/** Frames that are anything else are asked for each time. */
static void test_no_recipes(void)
{
	struct zd_recipes *recipes = zd_recipes_create(toy_expand, NULL);
	size_t literals = toy_page(64, 63, 1);

	for (int i = 0; i < 4; i++) {
		toy_frame(literals, i);
		stream.bytes[4] |= 4;
		CHECK(ask(recipes) == 1);
		toy_frame(literals, i);
		stream.bytes[7] &= 0xfe;
		CHECK(ask(recipes) == 1);
	}
	// A section that is longer than those that are kept.
	literals = toy_page(64, 20, 2);
	CHECK(toy_section_size > 512);
	for (int i = 0; i < 4; i++) {
		toy_frame(literals, i);
		CHECK(ask(recipes) == 1);
	}
	zd_recipes_destroy(recipes);
}

static bool lie(void *context, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	(void)context;
	(void)bytes;
	(void)size;
	memset(page, 0xff, ZD_FRAME);
	toy_calls++;
	return true;
}

/** Literals that are none. */
static void test_recipes_of_a_liar(void)
{
	for (unsigned int literals = 1; literals <= 8; literals += 7) {
		struct zd_recipes *recipes = zd_recipes_create(lie, NULL);
		size_t count = toy_page(64, 60, literals);
		uint8_t page[ZD_FRAME];

		toy_frame(count, 0);
		toy_calls = 0;
		for (int i = 0; i < 3; i++)
			CHECK(zd_recipes_expand(recipes, stream.bytes, stream.size, page) && page[0] == 0xff);
		// Once more for each byte of a number, and never again.
		CHECK(toy_calls == 3 + (count > 256 ? 2 : 1));
		zd_recipes_destroy(recipes);
	}
}

static bool is_numbered(const uint8_t *literals)
{
	return literals[0] == 0 && literals[1] == 1 && literals[2] == 2;
}

/** Of numbered literals another page than of others. */
static bool expand_fickly(void *context, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	bool taken = toy_expand(context, bytes, size, page);
	uint8_t other = page[100];

	if (taken && is_numbered(bytes + TOY_HEADER + 3)) {
		page[100] = page[101];
		page[101] = other;
	}
	return taken;
}

/** Of numbered literals a page that takes more steps than are kept. */
static bool expand_scattered(void *context, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	const uint8_t *literals = bytes + TOY_HEADER + 3;
	bool taken = toy_expand(context, bytes, size, page);

	for (size_t i = 64; taken && is_numbered(literals) && i < ZD_FRAME; i++)
		page[i] = literals[((uint32_t)i * UINT32_C(2654435761) >> 16) % 61];
	return taken;
}

/** What is learnt must make the page that the library has made, and in few steps; if not, it is not kept. */
static void test_what_is_not_kept(void)
{
	static const zd_zstd_fn functions[] = { expand_fickly, expand_scattered };

	for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
		struct zd_recipes *recipes = zd_recipes_create(functions[i], NULL);
		size_t literals = toy_page(64, 63, 1);

		CHECK(literals < 256);
		for (int round = 0; round < 4; round++) {
			toy_frame(literals, 50 + round);
			CHECK(ask(recipes) == (round == 1 ? 2 : 1));
		}
		zd_recipes_destroy(recipes);
	}
}

/** More literals than the frame has; and a frame that is longer than a page, which is not learnt. */
static void test_literals_that_are_too_many(void)
{
	struct zd_recipes *recipes = zd_recipes_create(lie, NULL);
	uint8_t page[ZD_FRAME], *exact;

	toy_frame(toy_page(64, 63, 1), 0);
	for (size_t more = 0; more < 700; more += 100) {
		uint32_t header = toy_literals(stream.size + more, 3, 0);

		memcpy(stream.bytes + TOY_HEADER, &header, 3);
		exact = malloc(stream.size);
		memcpy(exact, stream.bytes, stream.size);
		for (int i = 0; i < 3; i++)
			CHECK(zd_recipes_expand(recipes, exact, stream.size, page) && page[0] == 0xff);
		free(exact);
	}
	zd_recipes_destroy(recipes);

	recipes = zd_recipes_create(toy_expand, NULL);
	toy_section_size = 0;
	for (int i = 0; i < 100; i++)
		toy_row(40, 1, 0);
	toy_row(40, 3, 4);
	for (int i = 0; i < 4; i++) {
		toy_frame(ZD_FRAME - 4, i);
		CHECK(stream.size > ZD_FRAME && ask(recipes) == 1);
	}
	zd_recipes_destroy(recipes);
}

/** More sections than are kept: what came last is known, once what is known has been of use. */
static void test_recipes_are_forgotten(void)
{
	struct zd_recipes *recipes = zd_recipes_create(toy_expand, NULL);
	enum { KEPT = 16, OF_USE = 90 };

	CHECK(ask_in_turn(recipes, KEPT, 2) > 0);
	CHECK(ask_in_turn(recipes, KEPT, 1) == 0);
	for (unsigned int i = KEPT; i < 2 * KEPT; i++) {
		for (int j = 0; j < 2 + OF_USE; j++) {
			toy_frame(toy_page(64 + i, 60, 4), j);
			CHECK(ask(recipes) >= 0);
		}
		CHECK(ask(recipes) == 0);
	}
	for (unsigned int i = KEPT; i < 2 * KEPT; i++) {
		toy_frame(toy_page(64 + i, 60, 4), 0);
		CHECK(ask(recipes) == 0);
	}
	toy_frame(toy_page(64, 60, 4), 0);
	CHECK(ask(recipes) >= 1);
	zd_recipes_destroy(recipes);
	allocation.fail_at = 1;
	allocation.calls = 0;
	CHECK(!zd_recipes_create(toy_expand, NULL));
	allocation.fail_at = 0;
}

int main(void)
{
	test_lzo_tokens();
	test_lzo_leaves_the_page();
	test_lzo_repeats();
	test_snappy_tokens();
	test_snappy_leaves_the_page();
	test_snappy_repeats();
	test_recipes();
	test_forms_of_literals();
	test_what_learning_costs();
	test_sections_that_are_alike();
	test_no_recipes();
	test_recipes_of_a_liar();
	test_what_is_not_kept();
	test_literals_that_are_too_many();
	test_recipes_are_forgotten();
	printf("%d failures\n", failures);
	return failures != 0;
}
