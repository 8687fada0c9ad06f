// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: any bytes as a kernel's image with kallsyms (ext/core/kallsyms.c).
// Promises: an error has a message; of what was accepted the known symbol lies where it must, every symbol is
// found by its name, and by its address where it is the last one there.
//
// The input: a byte (1: big-endian, 2: words of 4 bytes), the image's address and that of _stext, the image.

#include <string.h>

#include "../core/kallsyms.h"
#include "fuzz.h"

static const char known[] = "_stext";

static void check_symbol(const struct zd_kallsyms *kallsyms, uint32_t i)
{
	uint32_t count = zd_kallsyms_count(kallsyms), found = 0, at;
	struct zd_symbol symbol, other;

	zd_kallsyms_symbol(kallsyms, i, &symbol);
	PROMISE(symbol.name[0] && strlen(symbol.name) < ZD_KALLSYMS_NAME_MAX);
	for (found = zd_kallsyms_find(kallsyms, symbol.name, 0); found < i;)
		found = zd_kallsyms_find(kallsyms, symbol.name, found + 1);
	PROMISE(found == i);
	at = zd_kallsyms_at(kallsyms, symbol.address);
	PROMISE(at < count);
	zd_kallsyms_symbol(kallsyms, at, &other);
	PROMISE(other.address == symbol.address && other.size == symbol.size && at >= i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint8_t bits = take(&input, 1);
	struct zd_image image = { .big_endian = bits & 1, .word_size = bits & 2 ? 4 : 8 };
	uint64_t address;
	struct zd_kallsyms *kallsyms;
	struct zd_symbol symbol;
	struct zd_error *error;

	image.address = take(&input, 8);
	address = take(&input, 8);
	image.bytes = input.data;
	image.size = input.size;
	error = zd_kallsyms_create(&image, known, address, &kallsyms);
	if (error) {
		PROMISE(error->code <= ZD_ERROR_FORMAT && error->message[0]);
		zd_error_destroy(error);
		return 0;
	}
	zd_kallsyms_symbol(kallsyms, zd_kallsyms_find(kallsyms, known, 0), &symbol);
	PROMISE(symbol.address == address);
	for (uint32_t i = 0; i < zd_kallsyms_count(kallsyms); i++)
		check_symbol(kallsyms, i);
	zd_kallsyms_destroy(kallsyms);
	return 0;
}
