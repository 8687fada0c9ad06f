// SPDX-License-Identifier: LGPL-2.1-or-later
// BTF.  Records are left as they are in a copy of the bytes; their places and the names are indexed.

#include <stdlib.h>
#include <string.h>

#include "btf.h"
#include "names.h"

enum {
	MAGIC = 0xeb9f,
	VERSION = 1,
	TYPE_SIZE = 12, /* name, info, size or type */
	LENGTH_BITS = 16,
	UNSEEN = 0, /* heights */
	OPEN = 255,
};

_Static_assert((int)ZD_BTF_HEIGHT_MAX < (int)OPEN, "a height fits beside the mark");

const char *const zd_btf_kind_names[ZD_BTF_KINDS] = {
	"void", "int",	   "ptr",      "array",	   "struct",   "union",	 "enum",
	"fwd",	"typedef", "volatile", "const",	   "restrict", "func",	 "func_proto",
	"var",	"datasec", "float",    "decl_tag", "type_tag", "enum64",
};

/** What follows a type's record: some bytes, and some for each of its count. */
struct shape {
	uint8_t extra, each;
	/** The record's third word is an id. */
	bool refers;
};

static const struct shape shapes[ZD_BTF_KINDS] = {
	[ZD_BTF_INT] = { 4, 0, false },	      [ZD_BTF_PTR] = { 0, 0, true },
	[ZD_BTF_ARRAY] = { 12, 0, false },    [ZD_BTF_STRUCT] = { 0, 12, false },
	[ZD_BTF_UNION] = { 0, 12, false },    [ZD_BTF_ENUM] = { 0, 8, false },
	[ZD_BTF_FWD] = { 0, 0, false },	      [ZD_BTF_TYPEDEF] = { 0, 0, true },
	[ZD_BTF_VOLATILE] = { 0, 0, true },   [ZD_BTF_CONST] = { 0, 0, true },
	[ZD_BTF_RESTRICT] = { 0, 0, true },   [ZD_BTF_FUNC] = { 0, 0, true },
	[ZD_BTF_FUNC_PROTO] = { 0, 8, true }, [ZD_BTF_VAR] = { 4, 0, true },
	[ZD_BTF_DATASEC] = { 0, 12, false },  [ZD_BTF_FLOAT] = { 0, 0, false },
	[ZD_BTF_DECL_TAG] = { 4, 0, true },   [ZD_BTF_TYPE_TAG] = { 0, 0, true },
	[ZD_BTF_ENUM64] = { 0, 12, false },
};

struct zd_btf {
	const struct zd_btf *base;
	uint8_t *bytes;
	bool big_endian;
	uint8_t word_size;
	/** Of types and strings in bytes: begin and length; offsets of names go on from the base's. */
	uint32_t types_at, types_size, strings_at, strings_size, first_string;
	uint32_t first, count; /* of its own ids */
	uint32_t *places;      /* of its own types in bytes */
	struct zd_names names;
	/** Its own enumerators: type and place there. */
	struct place {
		uint32_t id, i;
	} * enumerators;
	uint32_t enumerators_count;
	struct zd_names enumerator_names;
};

// ---------------------------------------------------------------- bytes

static uint32_t load16(const uint8_t *bytes, bool big_endian)
{
	return big_endian ? (uint32_t)bytes[0] << 8 | bytes[1] : (uint32_t)bytes[1] << 8 | bytes[0];
}

static uint32_t load32(const uint8_t *bytes, bool big_endian)
{
	uint32_t first = load16(bytes, big_endian), second = load16(bytes + 2, big_endian);

	return big_endian ? first << 16 | second : second << 16 | first;
}

/** Word @i of what begins @at. */
static uint32_t word(const struct zd_btf *btf, uint32_t at, uint32_t i)
{
	return load32(btf->bytes + at + 4 * i, btf->big_endian);
}

// ---------------------------------------------------------------- records

static const struct zd_btf *owner(const struct zd_btf *btf, uint32_t id)
{
	while (id < btf->first && btf->base)
		btf = btf->base;
	return btf;
}

/** Where the record of an id lies in its owner's bytes; not for 0. */
static uint32_t place(const struct zd_btf *btf, uint32_t id)
{
	return btf->places[id - btf->first];
}

/** Where what follows the record lies. */
static uint32_t behind(const struct zd_btf *btf, uint32_t id)
{
	return place(btf, id) + TYPE_SIZE;
}

static enum zd_btf_kind kind_of(uint32_t info)
{
	return info >> 24 & 31;
}

/** How many bytes a type takes; its kind is known. */
static uint64_t record_size(uint32_t info)
{
	const struct shape *shape = &shapes[kind_of(info)];

	return TYPE_SIZE + shape->extra + (uint64_t)shape->each * (info & ((1 << LENGTH_BITS) - 1));
}

static const char *string(const struct zd_btf *btf, uint32_t offset)
{
	while (offset < btf->first_string)
		btf = btf->base;
	return (const char *)btf->bytes + btf->strings_at + (offset - btf->first_string);
}

uint32_t zd_btf_count(const struct zd_btf *btf)
{
	return btf->first + btf->count;
}

uint32_t zd_btf_first(const struct zd_btf *btf)
{
	return btf->first;
}

static void fill_int(struct zd_btf_type *type, uint32_t data)
{
	type->encoding = data >> 24 & 15;
	type->bit_offset = data >> 16;
	type->bits = data;
}

void zd_btf_type(const struct zd_btf *btf, uint32_t id, struct zd_btf_type *ret)
{
	uint32_t at, info, last;

	*ret = (struct zd_btf_type){ .kind = ZD_BTF_VOID, .name = "" };
	if (!id)
		return;
	btf = owner(btf, id);
	at = place(btf, id);
	info = word(btf, at, 1);
	last = word(btf, at, 2);
	ret->kind = kind_of(info);
	ret->name = string(btf, word(btf, at, 0));
	ret->flag = info >> 31;
	if (shapes[ret->kind].each)
		ret->count = info & ((1 << LENGTH_BITS) - 1);
	if (shapes[ret->kind].refers)
		ret->type = last;
	else
		ret->size = last;
	switch (ret->kind) {
	case ZD_BTF_INT:
		fill_int(ret, word(btf, at, 3));
		break;
	case ZD_BTF_PTR:
		ret->size = btf->word_size;
		break;
	case ZD_BTF_ARRAY:
		ret->size = 0;
		ret->type = word(btf, at, 3);
		ret->length = word(btf, at, 5);
		break;
	default:
		break;
	}
}

/** Bit fields that old compilers describe by an INT of fewer bits. */
static void fill_old_bit_field(const struct zd_btf *btf, struct zd_btf_member *member)
{
	struct zd_btf_type type;

	zd_btf_type(btf, zd_btf_resolve(btf, member->type), &type);
	if (type.kind != ZD_BTF_INT || (type.bits == 8 * type.size && !type.bit_offset))
		return;
	member->bit_offset += type.bit_offset;
	member->bit_size = type.bits;
}

void zd_btf_member(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_member *ret)
{
	const struct zd_btf *own = owner(btf, id);
	uint32_t at = behind(own, id) + 12 * i, offset = word(own, at, 2);
	bool flag = word(own, place(own, id), 1) >> 31;

	ret->name = string(own, word(own, at, 0));
	ret->type = word(own, at, 1);
	ret->bit_offset = flag ? offset & 0xffffff : offset;
	ret->bit_size = flag ? offset >> 24 : 0;
	if (!flag)
		fill_old_bit_field(btf, ret);
}

void zd_btf_enumerator(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_enumerator *ret)
{
	const struct zd_btf *own = owner(btf, id);
	uint32_t info = word(own, place(own, id), 1), at = behind(own, id);
	uint32_t low;

	at += shapes[kind_of(info)].each * i;
	low = word(own, at, 1);
	ret->name = string(own, word(own, at, 0));
	if (kind_of(info) == ZD_BTF_ENUM64)
		ret->value = (uint64_t)word(own, at, 2) << 32 | low;
	else
		ret->value = info >> 31 ? (uint64_t)(int64_t)(int32_t)low : low;
}

void zd_btf_parameter(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_parameter *ret)
{
	const struct zd_btf *own = owner(btf, id);
	uint32_t at = behind(own, id) + 8 * i;

	ret->name = string(own, word(own, at, 0));
	ret->type = word(own, at, 1);
}

void zd_btf_variable(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_variable *ret)
{
	const struct zd_btf *own = owner(btf, id);
	uint32_t at = behind(own, id) + 12 * i;

	ret->type = word(own, at, 0);
	ret->offset = word(own, at, 1);
	ret->size = word(own, at, 2);
}

// ---------------------------------------------------------------- what types are

static bool is_alias(enum zd_btf_kind kind)
{
	return kind == ZD_BTF_TYPEDEF || kind == ZD_BTF_VOLATILE || kind == ZD_BTF_CONST ||
	       kind == ZD_BTF_RESTRICT || kind == ZD_BTF_TYPE_TAG;
}

static bool is_compound(enum zd_btf_kind kind)
{
	return kind == ZD_BTF_STRUCT || kind == ZD_BTF_UNION;
}

static bool is_enum(enum zd_btf_kind kind)
{
	return kind == ZD_BTF_ENUM || kind == ZD_BTF_ENUM64;
}

uint32_t zd_btf_resolve(const struct zd_btf *btf, uint32_t id)
{
	struct zd_btf_type type;

	for (zd_btf_type(btf, id, &type); is_alias(type.kind); zd_btf_type(btf, id, &type))
		id = type.type;
	return id;
}

uint64_t zd_btf_sizeof(const struct zd_btf *btf, uint32_t id)
{
	struct zd_btf_type type;
	uint64_t count = 1;

	zd_btf_type(btf, zd_btf_resolve(btf, id), &type);
	while (type.kind == ZD_BTF_ARRAY) {
		if (__builtin_mul_overflow(count, type.length, &count))
			return UINT64_MAX;
		zd_btf_type(btf, zd_btf_resolve(btf, type.type), &type);
	}
	if (type.kind == ZD_BTF_FWD || __builtin_mul_overflow(count, type.size, &count))
		return type.kind == ZD_BTF_FWD ? 0 : UINT64_MAX;
	return count;
}

// ---------------------------------------------------------------- names

/** The next type of its own behind @after (0: the first). */
static uint32_t find_own(const struct zd_btf *btf, const char *name, uint32_t kinds, uint32_t after)
{
	uint32_t entry = after ? btf->names.next[after - btf->first] : zd_names_first(&btf->names, name);

	for (; entry; entry = btf->names.next[entry - 1]) {
		uint32_t id = btf->first + entry - 1, at = place(btf, id);

		if (kinds >> kind_of(word(btf, at, 1)) & 1 && !strcmp(string(btf, word(btf, at, 0)), name))
			return id;
	}
	return 0;
}

uint32_t zd_btf_find(const struct zd_btf *btf, const char *name, uint32_t kinds, uint32_t after)
{
	if (!*name)
		return 0;
	if (after)
		btf = owner(btf, after);
	for (; btf; btf = btf->base) {
		uint32_t id = find_own(btf, name, kinds, after);

		if (id)
			return id;
		after = 0;
	}
	return 0;
}

uint32_t zd_btf_find_enumerator(const struct zd_btf *btf, const char *name, uint32_t *i)
{
	for (; btf; btf = btf->base) {
		uint32_t entry = zd_names_first(&btf->enumerator_names, name);

		for (; entry; entry = btf->enumerator_names.next[entry - 1]) {
			const struct place *found = &btf->enumerators[entry - 1];
			struct zd_btf_enumerator enumerator;

			zd_btf_enumerator(btf, found->id, found->i, &enumerator);
			if (strcmp(enumerator.name, name))
				continue;
			*i = found->i;
			return found->id;
		}
	}
	return 0;
}

/** A struct or union on the way down to a member: where it lies, and which member is next. */
struct step {
	uint64_t bit_offset;
	uint32_t id, count, next;
};

static void step_into(const struct zd_btf *btf, uint32_t id, uint64_t bit_offset, struct step *ret)
{
	struct zd_btf_type type;

	zd_btf_type(btf, id, &type);
	*ret = (struct step){ bit_offset, id, is_compound(type.kind) ? type.count : 0, 0 };
}

bool zd_btf_find_member(const struct zd_btf *btf, uint32_t id, const char *name, struct zd_btf_member *ret)
{
	struct step steps[ZD_BTF_HEIGHT_MAX + 1];
	unsigned int depth = 0;

	if (!*name)
		return false;
	step_into(btf, zd_btf_resolve(btf, id), 0, &steps[0]);
	for (;;) {
		struct step *step = &steps[depth];

		if (step->next == step->count) {
			if (!depth--)
				return false;
			continue;
		}
		zd_btf_member(btf, step->id, step->next++, ret);
		ret->bit_offset += step->bit_offset;
		if (!strcmp(ret->name, name))
			return true;
		if (!*ret->name && !ret->bit_size)
			step_into(btf, zd_btf_resolve(btf, ret->type), ret->bit_offset, &steps[++depth]);
	}
}

// ---------------------------------------------------------------- checks of single records

#define REFUSE(...) zd_error_create(ZD_ERROR_FORMAT, "BTF: " __VA_ARGS__)

/** Where the sections lie, relative to the end of the header. */
struct header {
	bool big_endian;
	uint32_t size;
	uint32_t types_at, types_size, strings_at, strings_size;
};

static bool parse_header(const uint8_t *bytes, struct header *ret)
{
	ret->big_endian = load16(bytes, true) == MAGIC;
	if (load16(bytes, ret->big_endian) != MAGIC || bytes[2] != VERSION)
		return false;
	ret->size = load32(bytes + 4, ret->big_endian);
	ret->types_at = load32(bytes + 8, ret->big_endian);
	ret->types_size = load32(bytes + 12, ret->big_endian);
	ret->strings_at = load32(bytes + 16, ret->big_endian);
	ret->strings_size = load32(bytes + 20, ret->big_endian);
	return ret->size >= ZD_BTF_HEADER_SIZE;
}

/** One past the last byte of what the header names. */
static uint64_t header_reach(const struct header *header)
{
	uint64_t types = (uint64_t)header->types_at + header->types_size;
	uint64_t strings = (uint64_t)header->strings_at + header->strings_size;

	return header->size + (types > strings ? types : strings);
}

uint64_t zd_btf_size(const void *bytes)
{
	struct header header;
	uint64_t size;

	if (!parse_header(bytes, &header) || header.types_at % 4 || !header.strings_size)
		return 0;
	size = header_reach(&header);
	return size <= ZD_BTF_SIZE_MAX ? size : 0;
}

/** Take the sections; bytes are there, and their length is @size. */
static struct zd_error *take_header(struct zd_btf *btf, size_t size)
{
	struct header header;
	const uint8_t *strings;

	if (size < ZD_BTF_HEADER_SIZE || !parse_header(btf->bytes, &header))
		return REFUSE("no header of version %d", VERSION);
	if (size > ZD_BTF_SIZE_MAX || header_reach(&header) > size)
		return REFUSE("the header tells of %llu bytes, %zu are there",
			      (unsigned long long)header_reach(&header), size);
	if ((header.size + header.types_at) % 4 || header.types_size % 4)
		return REFUSE("types are not aligned");
	btf->big_endian = header.big_endian;
	btf->types_at = header.size + header.types_at;
	btf->types_size = header.types_size;
	btf->strings_at = header.size + header.strings_at;
	btf->strings_size = header.strings_size;
	strings = btf->bytes + btf->strings_at;
	if ((!btf->base && !btf->strings_size) ||
	    (btf->strings_size && (strings[btf->strings_size - 1] || (!btf->base && strings[0]))))
		return REFUSE("the strings do not begin and end with a zero");
	if (!btf->base)
		return NULL;
	btf->first_string = btf->base->first_string + btf->base->strings_size;
	btf->first = zd_btf_count(btf->base);
	if (btf->first_string > ZD_BTF_SIZE_MAX || btf->base->big_endian != btf->big_endian)
		return REFUSE("it does not fit to its base");
	return NULL;
}

/** Find where each type begins. */
static struct zd_error *take_places(struct zd_btf *btf)
{
	uint32_t end = btf->types_at + btf->types_size, room = btf->types_size / TYPE_SIZE;

	btf->places = calloc(room ? room : 1, sizeof(*btf->places));
	if (!btf->places)
		return zd_error_no_memory();
	for (uint32_t at = btf->types_at; at < end;) {
		uint32_t id = btf->first + btf->count, info;

		if (end - at < TYPE_SIZE)
			return REFUSE("type %u is cut off", id);
		info = word(btf, at, 1);
		if (!kind_of(info) || kind_of(info) >= ZD_BTF_KINDS)
			return REFUSE("type %u is of the unknown kind %d", id, kind_of(info));
		if (record_size(info) > end - at)
			return REFUSE("type %u is cut off", id);
		if (id >= ZD_BTF_TYPES_MAX)
			return REFUSE("more than %d types", ZD_BTF_TYPES_MAX);
		btf->places[btf->count++] = at;
		at += record_size(info);
	}
	return NULL;
}

static bool is_name(const struct zd_btf *btf, uint32_t offset)
{
	const char *name;
	size_t left;

	if ((uint64_t)offset >= (uint64_t)btf->first_string + btf->strings_size)
		return false;
	name = string(btf, offset);
	// The section that it lies in ends with a zero.
	left = strnlen(name, ZD_BTF_NAME_MAX);
	return left < ZD_BTF_NAME_MAX;
}

static bool is_id(const struct zd_btf *btf, uint32_t id)
{
	return id < zd_btf_count(btf);
}

/** The names and references of what follows a record; sizes of members. */
static struct zd_error *check_items(const struct zd_btf *btf, uint32_t id, const struct zd_btf_type *type)
{
	const struct shape *shape = &shapes[type->kind];

	for (uint32_t i = 0; i < type->count; i++) {
		uint32_t at = behind(btf, id) + shape->each * i;
		bool has_type = !is_enum(type->kind);
		uint32_t reference = word(btf, at, type->kind != ZD_BTF_DATASEC);
		uint64_t bits = word(btf, at, 2 * is_compound(type->kind));

		if (type->kind != ZD_BTF_DATASEC && !is_name(btf, word(btf, at, 0)))
			return REFUSE("item %u of type %u has no proper name", i, id);
		if (has_type && !is_id(btf, reference))
			return REFUSE("item %u of type %u is of type %u, which there is not", i, id, reference);
		if (type->flag)
			bits &= 0xffffff;
		if (is_compound(type->kind) && bits > 8 * (uint64_t)type->size)
			return REFUSE("item %u of type %u lies outside of it", i, id);
	}
	return NULL;
}

static struct zd_error *check_type(const struct zd_btf *btf, uint32_t id)
{
	uint32_t at = place(btf, id);
	struct zd_btf_type type;

	if (!is_name(btf, word(btf, at, 0)))
		return REFUSE("type %u has no proper name", id);
	zd_btf_type(btf, id, &type);
	if (!is_id(btf, type.type))
		return REFUSE("type %u refers to type %u, which there is not", id, type.type);
	if (type.kind == ZD_BTF_INT &&
	    (!type.size || type.size > 16 || type.bit_offset + type.bits > 8 * type.size))
		return REFUSE("type %u is an int of %u bytes and %u bits", id, type.size, type.bits);
	if (is_enum(type.kind) && (!type.size || type.size > 8 || type.size & (type.size - 1)))
		return REFUSE("type %u is an enum of %u bytes", id, type.size);
	return check_items(btf, id, &type);
}

// ---------------------------------------------------------------- checks of the whole

/**
 * Two ways down from a type, both of which must end.  By value: what it is made of, so that sizes and
 * anonymous members can be had.  In words: what a declaration of it spells out, which structs end.
 */
enum way { BY_VALUE, IN_WORDS, WAYS };

/** Kinds that a way leads on from, as a bit mask. */
static const uint32_t way_kinds[WAYS] = {
	[BY_VALUE] = 1 << ZD_BTF_STRUCT | 1 << ZD_BTF_UNION | 1 << ZD_BTF_ARRAY | 1 << ZD_BTF_TYPEDEF |
		     1 << ZD_BTF_VOLATILE | 1 << ZD_BTF_CONST | 1 << ZD_BTF_RESTRICT | 1 << ZD_BTF_TYPE_TAG |
		     1 << ZD_BTF_VAR | 1 << ZD_BTF_FUNC | 1 << ZD_BTF_DATASEC | 1 << ZD_BTF_DECL_TAG,
	[IN_WORDS] = 1 << ZD_BTF_PTR | 1 << ZD_BTF_ARRAY | 1 << ZD_BTF_TYPEDEF | 1 << ZD_BTF_VOLATILE |
		     1 << ZD_BTF_CONST | 1 << ZD_BTF_RESTRICT | 1 << ZD_BTF_TYPE_TAG | 1 << ZD_BTF_FUNC_PROTO,
};

/** What is known of types so far on one way: height + 1 (UNSEEN, OPEN: on the way to it), and weight. */
struct survey {
	const struct zd_btf *btf;
	enum way way;
	uint8_t *heights;
	uint32_t *weights;
};

struct visit {
	uint32_t id, count, next;
	struct zd_btf_type type;
	uint32_t height, weight;
};

static void visit_init(const struct survey *survey, uint32_t id, struct visit *ret)
{
	ret->id = id;
	ret->next = 0;
	ret->height = 1;
	ret->weight = 1;
	zd_btf_type(survey->btf, id, &ret->type);
	ret->count = 0;
	if (way_kinds[survey->way] >> ret->type.kind & 1)
		ret->count = ret->type.count + !!ret->type.type;
	survey->heights[id] = OPEN;
}

/** The type that item @i leads to; behind the items comes the type's own reference. */
static uint32_t target(const struct survey *survey, const struct visit *visit, uint32_t i)
{
	const struct zd_btf *btf = owner(survey->btf, visit->id);

	if (i == visit->type.count)
		return visit->type.type;
	return word(btf, behind(btf, visit->id) + shapes[visit->type.kind].each * i,
		    visit->type.kind != ZD_BTF_DATASEC);
}

/** Book what lies below a visited type with the one above it. */
static bool visit_add(struct visit *visit, uint32_t height, uint32_t weight)
{
	if (height + 1 > visit->height)
		visit->height = height + 1;
	visit->weight += weight;
	return visit->height <= ZD_BTF_HEIGHT_MAX && visit->weight <= ZD_BTF_WEIGHT_MAX;
}

static struct zd_error *refuse_depth(uint32_t id)
{
	return REFUSE("type %u leads to too many others", id);
}

/** Go down from a type, deepest first. */
static struct zd_error *survey_type(struct survey *survey, uint32_t root)
{
	struct visit visits[ZD_BTF_HEIGHT_MAX];
	unsigned int depth = 0;

	visit_init(survey, root, &visits[0]);
	for (;;) {
		struct visit *visit = &visits[depth];
		uint32_t below;

		if (visit->next == visit->count) {
			survey->heights[visit->id] = visit->height;
			survey->weights[visit->id] = visit->weight;
			if (!depth--)
				return NULL;
			if (!visit_add(&visits[depth], visit->height, visit->weight))
				return refuse_depth(visits[depth].id);
			continue;
		}
		below = target(survey, visit, visit->next++);
		if (survey->heights[below] == OPEN)
			return REFUSE("type %u leads back to itself", below);
		if (survey->heights[below] != UNSEEN) {
			if (!visit_add(visit, survey->heights[below], survey->weights[below]))
				return refuse_depth(visit->id);
			continue;
		}
		if (++depth == ZD_BTF_HEIGHT_MAX)
			return refuse_depth(root);
		visit_init(survey, below, &visits[depth]);
	}
}

static struct zd_error *survey_way(const struct zd_btf *btf, enum way way)
{
	struct survey survey = { .btf = btf, .way = way };
	struct zd_error *error = NULL;
	uint32_t count = zd_btf_count(btf);

	survey.heights = calloc(count, sizeof(*survey.heights));
	survey.weights = calloc(count, sizeof(*survey.weights));
	if (!survey.heights || !survey.weights)
		error = zd_error_no_memory();
	for (uint32_t id = btf->first; id < count && !error; id++) {
		if (survey.heights[id] == UNSEEN)
			error = survey_type(&survey, id);
	}
	free(survey.heights);
	free(survey.weights);
	return error;
}

// ---------------------------------------------------------------- making

static struct zd_error *index_types(struct zd_btf *btf)
{
	struct zd_error *error = zd_names_init(&btf->names, btf->count);

	// Backwards, so that the first of several is found first.
	for (uint32_t i = btf->count; i-- && !error;)
		zd_names_add(&btf->names, string(btf, word(btf, btf->places[i], 0)), i);
	return error;
}

static uint32_t count_enumerators(const struct zd_btf *btf)
{
	struct zd_btf_type type;
	uint32_t count = 0;

	for (uint32_t id = btf->first; id < zd_btf_count(btf); id++) {
		zd_btf_type(btf, id, &type);
		count += is_enum(type.kind) ? type.count : 0;
	}
	return count;
}

static struct zd_error *index_enumerators(struct zd_btf *btf)
{
	uint32_t count = count_enumerators(btf);
	struct zd_error *error = zd_names_init(&btf->enumerator_names, count);
	struct zd_btf_enumerator enumerator;
	struct zd_btf_type type;

	btf->enumerators = calloc(count ? count : 1, sizeof(*btf->enumerators));
	if (!btf->enumerators && !error)
		error = zd_error_no_memory();
	for (uint32_t id = btf->first; id < zd_btf_count(btf) && !error; id++) {
		zd_btf_type(btf, id, &type);
		for (uint32_t i = 0; is_enum(type.kind) && i < type.count; i++) {
			zd_btf_enumerator(btf, id, i, &enumerator);
			btf->enumerators[btf->enumerators_count] = (struct place){ id, i };
			zd_names_add(&btf->enumerator_names, enumerator.name, btf->enumerators_count++);
		}
	}
	return error;
}

static struct zd_error *check_types(const struct zd_btf *btf)
{
	struct zd_error *error = NULL;

	for (uint32_t id = btf->first; id < zd_btf_count(btf) && !error; id++)
		error = check_type(btf, id);
	return error;
}

struct zd_error *zd_btf_create(const void *bytes, size_t size, uint8_t word_size, const struct zd_btf *base,
			       struct zd_btf **ret)
{
	struct zd_btf *btf;
	struct zd_error *error;

	if (word_size != 4 && word_size != 8)
		return zd_error_create(ZD_ERROR_INVALID, "BTF: pointers of %u bytes", word_size);
	btf = calloc(1, sizeof(*btf));
	if (!btf)
		return zd_error_no_memory();
	btf->base = base;
	btf->word_size = word_size;
	btf->first = 1;
	btf->bytes = malloc(size ? size : 1);
	if (!btf->bytes) {
		zd_btf_destroy(btf);
		return zd_error_no_memory();
	}
	memcpy(btf->bytes, bytes, size);
	error = take_header(btf, size);
	if (!error)
		error = take_places(btf);
	if (!error)
		error = check_types(btf);
	for (int way = 0; way < WAYS && !error; way++)
		error = survey_way(btf, way);
	if (!error)
		error = index_types(btf);
	if (!error)
		error = index_enumerators(btf);
	if (error) {
		zd_btf_destroy(btf);
		return error;
	}
	*ret = btf;
	return NULL;
}

void zd_btf_destroy(struct zd_btf *btf)
{
	if (!btf)
		return;
	free(btf->bytes);
	free(btf->places);
	free(btf->enumerators);
	zd_names_deinit(&btf->names);
	zd_names_deinit(&btf->enumerator_names);
	free(btf);
}
