// SPDX-License-Identifier: LGPL-2.1-or-later
// Frames that makedumpfile writes: of known size, without checksum and dictionary, one compressed block. Of
// them, those whose literals are stored as they are; all else is the library's.  The format is told by RFC
// 8878. The bytes are a dump's, and may say anything: what is followed was made of the library's own answers.
//
// To learn a section costs as much as the library takes for many frames, so it is done when one comes for the
// second time, once if it cannot be learnt, and no oftener than there is credit for it.

#include "recipe.h"

#include <stdlib.h>

#include "../core/util.h"
#include "expand.h"

enum {
	/** So few that all can be looked through for each frame that is not like the one before. */
	RECIPES = 16,
	/** What makes a regular page is much less. */
	STEPS_MAX = 256,
	SECTION_MAX = 512,
	/** Sections that are remembered; two that share a place and come in turn are not learnt. */
	SEEN = 256,
	/** Credit.  To learn a section takes as long as the library takes for about 20 frames; to follow one
	 * saves about two thirds of a frame.  A little is given in any case: what was learnt may be of no use.
	 */
	LEARN_COST = 128,
	CREDIT_FOLLOWED = 4,
	CREDIT_EXPANDED = 1,
	CREDIT_MAX = LEARN_COST * RECIPES,
	/** Numbered literals that fit a byte. */
	NUMBERS = 256,

	BLOCK_HEADER = 3,
	/** The last block, compressed. */
	BLOCK_LAST = 1 | 2 << 1,
	LITERALS_RAW = 0,

	/** Origins that are looked for together: a word. */
	GRAM = sizeof(uint64_t) / sizeof(uint16_t),
	GRAM_BITS = 12,
	NOWHERE = UINT16_MAX,
};

// Magic, and a descriptor that says: one segment, no checksum, no dictionary, the size less 256 in two bytes.
static const uint8_t frame_header[] = {
	0x28, 0xb5, 0x2f, 0xfd, 0x60, (ZD_FRAME - 256) & 0xff, (ZD_FRAME - 256) >> 8,
};

/** A frame taken apart. */
struct frame {
	const uint8_t *literals, *section;
	size_t literals_count, section_size;
};

/** A match and so many of the next literals; and that again and again. */
struct step {
	uint16_t offset, length, literals, repeats;
};

struct recipe {
	size_t literals_count, section_size;
	/** The page begins with so many literals. */
	size_t literals_first, steps_count;
	uint8_t section[SECTION_MAX];
	struct step steps[STEPS_MAX];
};

/** A section that came before. */
struct seen {
	uint32_t hash;
	/** It cannot be learnt. */
	bool in_vain;
};

struct zd_recipes {
	zd_zstd_fn expand;
	void *context;
	/** How many there are, where the next one goes, which was followed last. */
	size_t count, next, last;
	struct recipe recipes[RECIPES];
	unsigned int credit;
	struct seen seen[SEEN];
};

struct zd_recipes *zd_recipes_create(zd_zstd_fn expand, void *context)
{
	struct zd_recipes *recipes = calloc(1, sizeof(*recipes));

	if (recipes) {
		recipes->expand = expand;
		recipes->context = context;
		recipes->credit = CREDIT_MAX;
	}
	return recipes;
}

void zd_recipes_destroy(struct zd_recipes *recipes)
{
	free(recipes);
}

// ---------------------------------------------------------------- frames

/** Take literals that are stored as they are from the block at @bytes; false where they are not. */
static bool take_literals(const uint8_t *bytes, size_t size, struct frame *ret)
{
	// Of one, two or three bytes, with 5, 12 or 20 bits of a count.
	static const uint8_t sizes[] = { 1, 2, 1, 3 }, shifts[] = { 3, 4, 3, 4 };
	unsigned int form = *bytes >> 2 & 3, header = sizes[form];
	size_t count;

	if ((*bytes & 3) != LITERALS_RAW)
		return false;
	count = zd_load_bytes(bytes, header, false) >> shifts[form];
	if (count > size - header || count > ZD_FRAME)
		return false;
	*ret = (struct frame){ bytes + header, bytes + header + count, count, size - header - count };
	return true;
}

static bool take_frame(const uint8_t *bytes, size_t size, struct frame *ret)
{
	size_t block;

	// A block of less than three bytes makes no page.
	if (size < sizeof(frame_header) + 2 * BLOCK_HEADER || memcmp(bytes, frame_header, sizeof(frame_header)))
		return false;
	block = zd_load_bytes(bytes + sizeof(frame_header), BLOCK_HEADER, false);
	bytes += sizeof(frame_header) + BLOCK_HEADER;
	size -= sizeof(frame_header) + BLOCK_HEADER;
	return block == (size << 3 | BLOCK_LAST) && take_literals(bytes, size, ret) &&
	       ret->section_size <= SECTION_MAX;
}

// ---------------------------------------------------------------- learning

/** For each byte of a page, the number of its literal. */
typedef uint16_t origins[ZD_FRAME];

static bool find_origins(struct zd_recipes *recipes, const uint8_t *bytes, size_t size,
			 const struct frame *frame, origins ret)
{
	uint8_t numbered[ZD_FRAME], page[ZD_FRAME];
	size_t at = frame->literals - bytes;

	if (size > sizeof(numbered))
		return false;
	memset(ret, 0, sizeof(origins));
	memcpy(numbered, bytes, size);
	for (unsigned int shift = 0; shift < 16 && (!shift || frame->literals_count > NUMBERS); shift += 8) {
		for (size_t i = 0; i < frame->literals_count; i++)
			numbered[at + i] = i >> shift;
		if (!recipes->expand(recipes->context, numbered, size, page))
			return false;
		for (size_t i = 0; i < ZD_FRAME; i++)
			ret[i] |= page[i] << shift;
	}
	for (size_t i = 0; i < ZD_FRAME; i++) {
		if (ret[i] >= frame->literals_count)
			return false;
	}
	return true;
}

/** Where a row of GRAM origins, or one, was found last, or NOWHERE. */
struct found {
	uint16_t grams[1 << GRAM_BITS], ones[ZD_FRAME];
};

static uint16_t *gram_slot(struct found *found, const uint16_t *origin)
{
	uint64_t words;

	memcpy(&words, origin, sizeof(words));
	return &found->grams[words * UINT64_C(0x9e3779b97f4a7c15) >> (64 - GRAM_BITS)];
}

static size_t run_length(const origins origin, size_t from, size_t at)
{
	size_t length = 0;

	while (at + length < ZD_FRAME && origin[from + length] == origin[at + length])
		length++;
	return length;
}

static void note(struct found *found, const origins origin, size_t at)
{
	found->ones[origin[at]] = at;
	if (at + GRAM <= ZD_FRAME)
		*gram_slot(found, origin + at) = at;
}

/** The match at @at that goes on for longest, as far as is known; 0: none. */
static size_t find_match(struct found *found, const origins origin, size_t at, size_t *length)
{
	size_t from = found->ones[origin[at]], other, other_length;

	*length = from != NOWHERE ? run_length(origin, from, at) : 0;
	if (at + GRAM > ZD_FRAME)
		return *length ? at - from : 0;
	other = *gram_slot(found, origin + at);
	other_length = other != NOWHERE ? run_length(origin, other, at) : 0;
	if (other_length > *length) {
		*length = other_length;
		from = other;
	}
	return *length ? at - from : 0;
}

/** Take literals that have not been before from @at on; returns how many. */
static size_t find_literals(struct found *found, const origins origin, size_t at, size_t next)
{
	size_t count = 0;

	for (; at < ZD_FRAME && origin[at] == next; at++, next++, count++)
		note(found, origin, at);
	return count;
}

/** Does a step do what the one before it does, so that both are a repeat? */
static bool is_repeat(const struct step *step, const struct step *before)
{
	return step->offset == before->offset && step->length == before->length &&
	       step->literals == before->literals && step->length <= ZD_REPEAT_LENGTH_MAX &&
	       step->literals <= ZD_REPEAT_LITERALS_MAX && step->offset == step->length + step->literals;
}

/** Find the steps that make a page with these origins. */
static bool find_steps(const origins origin, struct recipe *recipe)
{
	struct found found;
	size_t at, next, length, count = 0;

	// NOWHERE.
	memset(&found, 0xff, sizeof(found));
	at = next = recipe->literals_first = find_literals(&found, origin, 0, 0);
	while (at < ZD_FRAME && count < STEPS_MAX) {
		struct step *step = &recipe->steps[count];

		*step = (struct step){ .offset = find_match(&found, origin, at, &length) };
		if (!step->offset)
			return false;
		step->length = length;
		for (; length; length--)
			note(&found, origin, at++);
		step->literals = find_literals(&found, origin, at, next);
		at += step->literals;
		next += step->literals;
		if (count && is_repeat(step, step - 1))
			step[-1].repeats++;
		else
			count++;
	}
	recipe->steps_count = count;
	return at == ZD_FRAME;
}

// ---------------------------------------------------------------- following

static bool follow_step(struct zd_output *output, struct zd_input *literals, const struct step *step)
{
	struct zd_repeat repeat = { 0, step->literals, step->length, step->repeats };

	for (size_t done = 0; done <= step->repeats; done++) {
		if (!zd_put_match(output, step->offset, step->length) ||
		    !zd_put_literals(output, literals, step->literals))
			return false;
		if (!done && step->repeats)
			done = zd_put_repeats(output, literals, &repeat);
	}
	return true;
}

static bool follow(const struct recipe *recipe, const struct frame *frame, uint8_t page[ZD_FRAME])
{
	struct zd_input literals = { frame->literals, frame->literals + frame->literals_count };
	struct zd_output output = zd_output(page);

	if (!zd_put_literals(&output, &literals, recipe->literals_first))
		return false;
	for (size_t i = 0; i < recipe->steps_count; i++) {
		if (!follow_step(&output, &literals, &recipe->steps[i]))
			return false;
	}
	return !zd_output_left(&output);
}

// ---------------------------------------------------------------- known sections

static bool is_for(const struct recipe *recipe, const struct frame *frame)
{
	return recipe->literals_count == frame->literals_count && recipe->section_size == frame->section_size &&
	       !memcmp(recipe->section, frame->section, frame->section_size);
}

static const struct recipe *find_recipe(struct zd_recipes *recipes, const struct frame *frame)
{
	if (is_for(&recipes->recipes[recipes->last], frame))
		return &recipes->recipes[recipes->last];
	for (size_t i = 0; i < recipes->count; i++) {
		if (is_for(&recipes->recipes[i], frame)) {
			recipes->last = i;
			return &recipes->recipes[i];
		}
	}
	return NULL;
}

/** Learn the section of a frame, of which the library has made @page; false where that cannot be. */
static bool learn(struct zd_recipes *recipes, const uint8_t *bytes, size_t size, const struct frame *frame,
		  const uint8_t *page)
{
	struct recipe draft = { .literals_count = frame->literals_count, .section_size = frame->section_size };
	uint8_t followed[ZD_FRAME];
	origins origin;

	memcpy(draft.section, frame->section, frame->section_size);
	if (!find_origins(recipes, bytes, size, frame, origin) || !find_steps(origin, &draft) ||
	    !follow(&draft, frame, followed) || memcmp(followed, page, ZD_FRAME) != 0)
		return false;
	recipes->recipes[recipes->next] = draft;
	recipes->last = recipes->next;
	recipes->next = (recipes->next + 1) % RECIPES;
	recipes->count += recipes->count < RECIPES;
	return true;
}

/** What is known of the section of a frame, which has come once more. */
static struct seen *see(struct zd_recipes *recipes, const struct frame *frame, bool *again)
{
	uint64_t hash = frame->literals_count, word;
	struct seen *seen;

	for (size_t i = 0; i < frame->section_size; i += sizeof(word)) {
		size_t left = frame->section_size - i;

		word = 0;
		memcpy(&word, frame->section + i, left < sizeof(word) ? left : sizeof(word));
		hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
		hash ^= hash >> 32;
	}
	seen = &recipes->seen[hash % SEEN];
	// 0 is no hash.
	hash = hash >> 32 | 1;
	*again = seen->hash == hash;
	if (!*again)
		*seen = (struct seen){ hash, false };
	return seen;
}

static void give_credit(struct zd_recipes *recipes, unsigned int credit)
{
	recipes->credit += credit;
	if (recipes->credit > CREDIT_MAX)
		recipes->credit = CREDIT_MAX;
}

/** Learn a section that is worth it. */
static void consider(struct zd_recipes *recipes, const uint8_t *bytes, size_t size, const struct frame *frame,
		     const uint8_t *page)
{
	bool again;
	struct seen *seen = see(recipes, frame, &again);

	give_credit(recipes, CREDIT_EXPANDED);
	if (!again || seen->in_vain || recipes->credit < LEARN_COST)
		return;
	recipes->credit -= LEARN_COST;
	seen->in_vain = !learn(recipes, bytes, size, frame, page);
}

bool zd_recipes_expand(struct zd_recipes *recipes, const uint8_t *bytes, size_t size, uint8_t page[ZD_FRAME])
{
	const struct recipe *recipe;
	struct frame frame;

	if (!take_frame(bytes, size, &frame))
		return recipes->expand(recipes->context, bytes, size, page);
	recipe = find_recipe(recipes, &frame);
	if (recipe && follow(recipe, &frame, page)) {
		give_credit(recipes, CREDIT_FOLLOWED);
		return true;
	}
	if (!recipes->expand(recipes->context, bytes, size, page))
		return false;
	if (!recipe)
		consider(recipes, bytes, size, &frame, page);
	return true;
}
