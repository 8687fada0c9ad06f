// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: any bytes as BTF, and any others as BTF that is split from it (ext/core/btf.c).
// Promises: an error has a message; of BTF that was accepted every type can be asked for all that it has, and
// is found by its name, as its members and enumerators are.
//
// The input: a byte (1: pointers of 4 bytes), the length of the base in 4 bytes, the base, the rest.

#include <string.h>

#include "../core/btf.h"
#include "fuzz.h"

enum { ASKED_MAX = 64 };

/** BTF of a copy of its own length, so that ASan sees a byte too many; NULL where it is refused. */
static struct zd_btf *make(const uint8_t *data, size_t size, uint8_t word_size, const struct zd_btf *base)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct zd_error *error;
	struct zd_btf *btf;

	PROMISE(copy);
	memcpy(copy, data, size);
	if (size >= ZD_BTF_HEADER_SIZE)
		PROMISE(zd_btf_size(copy) <= ZD_BTF_SIZE_MAX);
	error = zd_btf_create(copy, size, word_size, base, &btf);
	free(copy);
	if (!error)
		return btf;
	PROMISE(error->code == ZD_ERROR_FORMAT && error->message[0]);
	zd_error_destroy(error);
	return NULL;
}

static void check_members(const struct zd_btf *btf, uint32_t id, uint32_t count)
{
	struct zd_btf_member member, found;

	for (uint32_t i = 0; i < count; i++) {
		zd_btf_member(btf, id, i, &member);
		PROMISE(member.type < zd_btf_count(btf));
		PROMISE(strlen(member.name) < ZD_BTF_NAME_MAX);
		if (i < ASKED_MAX && member.name[0])
			PROMISE(zd_btf_find_member(btf, id, member.name, &found) &&
				!strcmp(found.name, member.name));
	}
	PROMISE(!zd_btf_find_member(btf, id, "", &found));
}

static void check_enumerators(const struct zd_btf *btf, uint32_t id, uint32_t count)
{
	struct zd_btf_enumerator enumerator;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t place = 0;

		zd_btf_enumerator(btf, id, i, &enumerator);
		PROMISE(strlen(enumerator.name) < ZD_BTF_NAME_MAX);
		if (i < ASKED_MAX)
			PROMISE(zd_btf_find_enumerator(btf, enumerator.name, &place));
	}
}

static void check_others(const struct zd_btf *btf, uint32_t id, const struct zd_btf_type *type)
{
	struct zd_btf_parameter parameter;
	struct zd_btf_variable variable;

	for (uint32_t i = 0; i < type->count; i++) {
		if (type->kind == ZD_BTF_FUNC_PROTO) {
			zd_btf_parameter(btf, id, i, &parameter);
			PROMISE(parameter.type < zd_btf_count(btf) && strlen(parameter.name) < ZD_BTF_NAME_MAX);
		} else {
			zd_btf_variable(btf, id, i, &variable);
			PROMISE(variable.type < zd_btf_count(btf));
		}
	}
}

static void check_name(const struct zd_btf *btf, uint32_t id, const struct zd_btf_type *type)
{
	uint32_t found = 0;

	if (!type->name[0])
		return;
	do
		found = zd_btf_find(btf, type->name, 1 << type->kind, found);
	while (found && found != id);
	PROMISE(found == id);
}

static void check_type(const struct zd_btf *btf, uint32_t id, bool ask)
{
	struct zd_btf_type type, resolved;

	zd_btf_type(btf, id, &type);
	PROMISE(type.kind < ZD_BTF_KINDS && type.type < zd_btf_count(btf));
	PROMISE(strlen(type.name) < ZD_BTF_NAME_MAX);
	zd_btf_type(btf, zd_btf_resolve(btf, id), &resolved);
	PROMISE(resolved.kind != ZD_BTF_TYPEDEF && resolved.kind != ZD_BTF_CONST);
	PROMISE(zd_btf_sizeof(btf, id) == zd_btf_sizeof(btf, zd_btf_resolve(btf, id)));
	if (!ask)
		return;
	check_name(btf, id, &type);
	switch (type.kind) {
	case ZD_BTF_STRUCT:
	case ZD_BTF_UNION:
		check_members(btf, id, type.count);
		break;
	case ZD_BTF_ENUM:
	case ZD_BTF_ENUM64:
		check_enumerators(btf, id, type.count);
		break;
	default:
		check_others(btf, id, &type);
	}
}

static void check(const struct zd_btf *btf)
{
	uint32_t first = zd_btf_first(btf);

	PROMISE(zd_btf_count(btf) >= first);
	for (uint32_t id = 0; id < zd_btf_count(btf); id++)
		check_type(btf, id, id < ASKED_MAX || (id >= first && id - first < ASKED_MAX));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint8_t word_size = take(&input, 1) & 1 ? 4 : 8;
	size_t base_size = take(&input, 4);
	struct zd_btf *base, *btf;

	if (base_size > input.size)
		base_size = input.size;
	base = make(input.data, base_size, word_size, NULL);
	if (!base)
		return 0;
	check(base);
	btf = make(input.data + base_size, input.size - base_size, word_size, base);
	if (btf)
		check(btf);
	zd_btf_destroy(btf);
	zd_btf_destroy(base);
	return 0;
}
