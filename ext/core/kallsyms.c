// SPDX-License-Identifier: LGPL-2.1-or-later
// kallsyms.  The tokens are found first: those of the ten digits stand for themselves, one behind the other.
// From there the other tables are found by what they say of each other.

// For memmem().
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "kallsyms.h"
#include "names.h"

enum {
	TOKENS = 256,
	TOKEN_INDEX_SIZE = 2 * TOKENS,
	MARKED = 256, /* names from one marker to the next */
	MIN_SYMBOLS = 256,
	/** A name takes at least its length and one token; more than this no kernel's names take on average. */
	NAME_SIZE_MIN = 2,
	NAME_SIZE_MAX = 64,
	/** Places and names that a search may step over in all, so that an image of garbage ends. */
	STEPS_MAX = 1 << 28,
	/** Bytes of all names. */
	TEXT_MAX = 1 << 26,
};

/** Where the tables lie, in bytes of the image. */
struct tables {
	const struct zd_image *image;
	/**
	 * Each table begins at a multiple of this: a word, or 4 since commit a081b5789255 ("kallsyms: Get rid
	 * of kallsyms relative base") (in v7.0).
	 */
	unsigned int align;
	size_t tokens, token_index, names, names_end, markers;
	uint32_t count;
};

struct zd_kallsyms {
	uint32_t count;
	struct zd_kallsyms_form form;
	uint64_t *addresses;
	/** Of each symbol its type and name in @text. */
	uint32_t *places;
	char *text;
	size_t text_size;
	struct zd_names names;
	/** Symbols by rising address. */
	uint32_t *order;
};

static uint64_t load(const struct zd_image *image, size_t at, unsigned int size)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < size; i++)
		value = value << 8 | image->bytes[at + (image->big_endian ? i : size - 1 - i)];
	return value;
}

static size_t align(const struct tables *tables, size_t at)
{
	return (at + tables->align - 1) & ~(size_t)(tables->align - 1);
}

// ---------------------------------------------------------------- tokens

/** One past the zero that ends a token; 0: it does not end. */
static size_t skip_token(const struct zd_image *image, size_t at)
{
	size_t left = image->size - at;
	const uint8_t *end;

	if (left > ZD_KALLSYMS_NAME_MAX)
		left = ZD_KALLSYMS_NAME_MAX;
	end = left ? memchr(image->bytes + at, 0, left) : NULL;
	return end ? (size_t)(end - image->bytes) + 1 : 0;
}

/** Whether the index says of each token where it begins. */
static bool is_index(const struct tables *tables, size_t tokens, size_t index)
{
	const struct zd_image *image = tables->image;
	size_t at = tokens;

	for (int i = 0; i < TOKENS; i++) {
		if (!at || load(image, index + 2 * i, 2) != at - tokens)
			return false;
		at = skip_token(image, at);
	}
	return at && align(tables, at) == index;
}

/** Tables of tokens around the token of the digit 0 that begins @zero; false: there are none. */
static bool take_tokens(struct tables *tables, size_t zero)
{
	const struct zd_image *image = tables->image;
	size_t at = zero, before;

	for (int i = '0'; i < TOKENS; i++) {
		at = skip_token(image, at);
		if (!at)
			return false;
	}
	at = align(tables, at);
	if (at > image->size || image->size - at < TOKEN_INDEX_SIZE)
		return false;
	before = load(image, at + 2 * '0', 2);
	if (before > zero || !is_index(tables, zero - before, at))
		return false;
	tables->tokens = zero - before;
	tables->token_index = at;
	return true;
}

// ---------------------------------------------------------------- names and markers

/** The compressed length of the name at @at, which is moved behind the length; 0: it does not fit. */
static uint32_t name_length(const struct zd_image *image, size_t *at, size_t end)
{
	uint32_t length;

	if (*at >= end)
		return 0;
	length = image->bytes[(*at)++];
	// Since commit 73bbb94466fd ("kallsyms: support "big" kernel symbols") (in v6.1).
	if (length & 0x80) {
		if (*at >= end)
			return 0;
		length = (length & 0x7f) | (uint32_t)image->bytes[(*at)++] << 7;
	}
	return length <= end - *at ? length : 0;
}

/** Whether there are @count names from @names on, which the markers behind them agree with. */
static bool take_names(struct tables *tables, size_t names, uint32_t count, uint64_t *steps)
{
	const struct zd_image *image = tables->image;
	size_t at = names, end = tables->tokens, markers, last;
	uint32_t length;

	for (uint32_t i = 0; i < count; i++) {
		length = name_length(image, &at, end);
		if (!length || *steps <= 1)
			return false;
		at += length;
		--*steps;
	}
	tables->names_end = at;
	markers = align(tables, at);
	last = markers + 4 * (size_t)((count + MARKED - 1) / MARKED);
	if (last > end)
		return false;
	at = names;
	for (uint32_t i = 0; i < count; i++) {
		if (i % MARKED == 0 && load(image, markers + 4 * (i / MARKED), 4) != at - names)
			return false;
		length = name_length(image, &at, end);
		at += length;
	}
	tables->names = names;
	tables->markers = markers;
	tables->count = count;
	return true;
}

/** Find the names: their number stands before them, and both before the tokens. */
static bool find_names(struct tables *tables, uint64_t *steps)
{
	for (size_t names = tables->tokens & ~(size_t)(tables->align - 1);
	     names >= 2 * tables->align && *steps > 1; names -= tables->align, --*steps) {
		size_t room = tables->tokens - names;
		uint64_t count = load(tables->image, names - tables->align, 4);

		if (room / NAME_SIZE_MAX > ZD_KALLSYMS_MAX)
			return false;
		if (count < MIN_SYMBOLS || count > ZD_KALLSYMS_MAX || count * NAME_SIZE_MIN > room ||
		    count * NAME_SIZE_MAX < room)
			continue;
		if (take_names(tables, names, count, steps))
			return true;
	}
	return false;
}

/** Find all tables but that of the addresses, around tokens whose digits begin @zero. */
static bool take_tables(struct tables *tables, size_t zero, uint64_t *steps)
{
	for (tables->align = tables->image->word_size; tables->align >= 4; tables->align -= 4) {
		if (take_tokens(tables, zero) && find_names(tables, steps))
			return true;
	}
	return false;
}

static bool find_tables(struct tables *tables)
{
	static const char digits[] = "\0000\0001\0002\0003\0004\0005\0006\0007\0008\0009";
	const struct zd_image *image = tables->image;
	uint64_t steps = STEPS_MAX; /* 1: none are left */
	const uint8_t *at = image->bytes;

	for (;;) {
		at = memmem(at, image->size - (at - image->bytes), digits, sizeof(digits));
		if (!at)
			return false;
		at++;
		if (take_tables(tables, at - image->bytes, &steps))
			return true;
	}
}

// ---------------------------------------------------------------- text

/** Write the text of the name at *@at, and move behind it; false: it is too long, or there is none. */
static bool expand(const struct tables *tables, size_t *at, char *text, size_t *length)
{
	const struct zd_image *image = tables->image;
	uint32_t tokens = name_length(image, at, tables->names_end);

	*length = 0;
	for (uint32_t i = 0; i < tokens; i++) {
		uint8_t token = image->bytes[(*at)++];
		const char *part = (const char *)image->bytes + tables->tokens +
				   load(image, tables->token_index + 2 * token, 2);
		size_t size = strlen(part);

		if (size >= ZD_KALLSYMS_NAME_MAX - *length)
			return false;
		memcpy(text + *length, part, size);
		*length += size;
	}
	text[*length] = 0;
	return *length > 1;
}

static struct zd_error *not_found(const char *what)
{
	return zd_error_create(ZD_ERROR_FORMAT, "kallsyms: %s", what);
}

static struct zd_error *add_text(struct zd_kallsyms *kallsyms, size_t *used, const char *text, size_t length)
{
	if (kallsyms->text_size - *used < length + 1) {
		size_t size = 2 * kallsyms->text_size + ZD_KALLSYMS_NAME_MAX + 1;
		char *larger = realloc(kallsyms->text, size);

		if (!larger)
			return zd_error_no_memory();
		kallsyms->text = larger;
		kallsyms->text_size = size;
	}
	memcpy(kallsyms->text + *used, text, length + 1);
	*used += length + 1;
	return NULL;
}

static struct zd_error *take_text(struct zd_kallsyms *kallsyms, const struct tables *tables)
{
	char text[ZD_KALLSYMS_NAME_MAX];
	size_t at = tables->names, length, used = 0;
	struct zd_error *error = NULL;

	for (uint32_t i = 0; i < tables->count && !error; i++) {
		if (!expand(tables, &at, text, &length) || used > TEXT_MAX)
			return not_found("a name is too long or empty");
		kallsyms->places[i] = used;
		error = add_text(kallsyms, &used, text, length);
	}
	return error;
}

static const char *name_of(const struct zd_kallsyms *kallsyms, uint32_t i)
{
	return kallsyms->text + kallsyms->places[i] + 1;
}

// ---------------------------------------------------------------- addresses

/** A table of addresses: where it may lie, and how its entries are meant. */
struct encoding {
	const char *name;
	/** Bytes of an entry; 0: a word. */
	uint8_t size;
	/** A word behind the table that entries are relative to. */
	bool has_base;
	uint64_t (*address)(uint64_t entry, uint64_t base, uint64_t place);
};

static uint64_t relative_to_place(uint64_t entry, uint64_t base, uint64_t place)
{
	(void)base;
	return place + (uint64_t)(int64_t)(int32_t)entry;
}

static uint64_t relative_to_base(uint64_t entry, uint64_t base, uint64_t place)
{
	(void)place;
	return base + entry;
}

static uint64_t absolute_per_cpu(uint64_t entry, uint64_t base, uint64_t place)
{
	(void)place;
	return (int32_t)entry >= 0 ? entry : base - 1 - (uint64_t)(int64_t)(int32_t)entry;
}

static uint64_t absolute(uint64_t entry, uint64_t base, uint64_t place)
{
	(void)base;
	(void)place;
	return entry;
}

static const struct encoding encodings[] = {
	// Since commit a081b5789255 ("kallsyms: Get rid of kallsyms relative base") (in v7.0).
	{ "place", 4, false, relative_to_place },
	{ "base", 4, true, relative_to_base },
	{ "per-cpu", 4, true, absolute_per_cpu },
	// Without CONFIG_KALLSYMS_BASE_RELATIVE.
	{ "absolute", 0, false, absolute },
};

/** Where a table of @size bytes, and a base behind it if @has_base, lies in front of or behind the others. */
static bool place_addresses(const struct tables *tables, bool behind, size_t size, bool has_base, size_t *ret)
{
	size_t whole = align(tables, size) + (has_base ? tables->align : 0);

	// Since commit 404bad70fcf7 ("scripts/kallsyms: change the output order") (in v6.4), it lies behind the
	// tokens.
	if (behind) {
		*ret = align(tables, tables->token_index + TOKEN_INDEX_SIZE);
		return *ret <= tables->image->size && whole <= tables->image->size - *ret;
	}
	*ret = tables->names - tables->align - whole;
	return whole <= tables->names - tables->align;
}

/** Read the addresses in one way; false: the table would lie outside, or the known symbol elsewhere. */
static bool read_addresses(struct zd_kallsyms *kallsyms, const struct tables *tables,
			   const struct encoding *encoding, bool behind, uint32_t known, uint64_t address)
{
	const struct zd_image *image = tables->image;
	unsigned int size = encoding->size ? encoding->size : image->word_size;
	uint64_t base = 0;
	size_t at;

	if (!place_addresses(tables, behind, (size_t)size * tables->count, encoding->has_base, &at))
		return false;
	if (encoding->has_base)
		base = load(image, at + align(tables, (size_t)size * tables->count), image->word_size);
	for (uint32_t i = 0; i < tables->count; i++) {
		size_t place = at + (size_t)size * i;

		kallsyms->addresses[i] =
			encoding->address(load(image, place, size), base, image->address + place);
	}
	return kallsyms->addresses[known] == address;
}

static struct zd_error *take_addresses(struct zd_kallsyms *kallsyms, const struct tables *tables,
				       const char *name, uint64_t address)
{
	uint32_t known = zd_kallsyms_find(kallsyms, name, 0);

	if (known == kallsyms->count)
		return not_found("the known symbol is not among the names");
	for (size_t i = 0; i < sizeof(encodings) / sizeof(*encodings); i++) {
		for (int behind = 1; behind >= 0; behind--) {
			if (!read_addresses(kallsyms, tables, &encodings[i], behind, known, address))
				continue;
			kallsyms->form = (struct zd_kallsyms_form){ encodings[i].name, behind, tables->align };
			return NULL;
		}
	}
	return not_found("no table of addresses puts the known symbol where it is");
}

// ---------------------------------------------------------------- order

struct place {
	uint64_t address;
	uint32_t i;
};

static int compare_places(const void *a, const void *b)
{
	const struct place *one = a, *other = b;

	if (one->address != other->address)
		return one->address < other->address ? -1 : 1;
	return one->i < other->i ? -1 : 1;
}

static struct zd_error *sort(struct zd_kallsyms *kallsyms)
{
	struct place *places = calloc(kallsyms->count, sizeof(*places));

	if (!places)
		return zd_error_no_memory();
	for (uint32_t i = 0; i < kallsyms->count; i++)
		places[i] = (struct place){ kallsyms->addresses[i], i };
	qsort(places, kallsyms->count, sizeof(*places), compare_places);
	for (uint32_t i = 0; i < kallsyms->count; i++)
		kallsyms->order[i] = places[i].i;
	free(places);
	return NULL;
}

/** How many symbols of the order lie at or below @address. */
static uint32_t count_up_to(const struct zd_kallsyms *kallsyms, uint64_t address)
{
	uint32_t low = 0, high = kallsyms->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (kallsyms->addresses[kallsyms->order[middle]] <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

// ---------------------------------------------------------------- the whole

static struct zd_error *fill(struct zd_kallsyms *kallsyms, const struct tables *tables, const char *name,
			     uint64_t address)
{
	struct zd_error *error;

	kallsyms->count = tables->count;
	kallsyms->addresses = calloc(tables->count, sizeof(*kallsyms->addresses));
	kallsyms->places = calloc(tables->count, sizeof(*kallsyms->places));
	kallsyms->order = calloc(tables->count, sizeof(*kallsyms->order));
	if (!kallsyms->addresses || !kallsyms->places || !kallsyms->order)
		return zd_error_no_memory();
	error = take_text(kallsyms, tables);
	if (!error)
		error = zd_names_init(&kallsyms->names, tables->count);
	if (error)
		return error;
	for (uint32_t i = tables->count; i--;)
		zd_names_add(&kallsyms->names, name_of(kallsyms, i), i);
	error = take_addresses(kallsyms, tables, name, address);
	return error ? error : sort(kallsyms);
}

struct zd_error *zd_kallsyms_create(const struct zd_image *image, const char *name, uint64_t address,
				    struct zd_kallsyms **ret)
{
	struct tables tables = { .image = image };
	struct zd_kallsyms *kallsyms;
	struct zd_error *error;

	if ((image->word_size != 4 && image->word_size != 8) || image->address % 8)
		return zd_error_create(ZD_ERROR_INVALID, "kallsyms: an image with words of %u bytes at %#llx",
				       image->word_size, (unsigned long long)image->address);
	if (!find_tables(&tables))
		return not_found("no tables in the kernel's image");
	kallsyms = calloc(1, sizeof(*kallsyms));
	if (!kallsyms)
		return zd_error_no_memory();
	error = fill(kallsyms, &tables, name, address);
	if (error) {
		zd_kallsyms_destroy(kallsyms);
		return error;
	}
	*ret = kallsyms;
	return NULL;
}

void zd_kallsyms_destroy(struct zd_kallsyms *kallsyms)
{
	if (!kallsyms)
		return;
	free(kallsyms->addresses);
	free(kallsyms->places);
	free(kallsyms->order);
	free(kallsyms->text);
	zd_names_deinit(&kallsyms->names);
	free(kallsyms);
}

uint32_t zd_kallsyms_count(const struct zd_kallsyms *kallsyms)
{
	return kallsyms->count;
}

struct zd_kallsyms_form zd_kallsyms_form(const struct zd_kallsyms *kallsyms)
{
	return kallsyms->form;
}

void zd_kallsyms_symbol(const struct zd_kallsyms *kallsyms, uint32_t i, struct zd_symbol *ret)
{
	uint32_t next = count_up_to(kallsyms, kallsyms->addresses[i]);

	ret->type = kallsyms->text[kallsyms->places[i]];
	ret->name = name_of(kallsyms, i);
	ret->address = kallsyms->addresses[i];
	ret->size = next < kallsyms->count ? kallsyms->addresses[kallsyms->order[next]] - ret->address : 0;
}

uint32_t zd_kallsyms_find(const struct zd_kallsyms *kallsyms, const char *name, uint32_t i)
{
	uint32_t entry = zd_names_first(&kallsyms->names, name);

	for (; entry; entry = kallsyms->names.next[entry - 1]) {
		if (entry > i && !strcmp(name_of(kallsyms, entry - 1), name))
			return entry - 1;
	}
	return kallsyms->count;
}

uint32_t zd_kallsyms_at(const struct zd_kallsyms *kallsyms, uint64_t address)
{
	uint32_t below = count_up_to(kallsyms, address);

	return below ? kallsyms->order[below - 1] : kallsyms->count;
}
