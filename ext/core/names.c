// SPDX-License-Identifier: LGPL-2.1-or-later
// A hash table with chains in an array.  Names that collide on purpose make it slow, never wrong.

#include <stdlib.h>

#include "names.h"

static uint32_t hash(const char *name)
{
	uint32_t value = 2166136261;

	for (; *name; name++)
		value = (value ^ (uint8_t)*name) * 16777619;
	return value ^ value >> 15;
}

struct zd_error *zd_names_init(struct zd_names *names, uint32_t count)
{
	uint32_t size = 16;

	while (size < count)
		size *= 2;
	names->mask = size - 1;
	names->heads = calloc(size, sizeof(*names->heads));
	names->next = calloc(count ? count : 1, sizeof(*names->next));
	return names->heads && names->next ? NULL : zd_error_no_memory();
}

void zd_names_add(struct zd_names *names, const char *name, uint32_t entry)
{
	uint32_t *head = &names->heads[hash(name) & names->mask];

	names->next[entry] = *head;
	*head = entry + 1;
}

uint32_t zd_names_first(const struct zd_names *names, const char *name)
{
	return names->heads[hash(name) & names->mask];
}

void zd_names_deinit(struct zd_names *names)
{
	free(names->heads);
	free(names->next);
}
