// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: any bytes as a compressed page (ext/readers/decompress.h), by lzo, snappy or zstd, or as a page
// that their libraries compress.
// Promises: what is taken for a page, the library takes for the same one; what the library takes is taken, of
// snappy only what the library itself compressed (it takes lengths in more bytes than they need); both whatever
// came before; no byte around the page is written.

#include "fuzz.h"

#include <lzo/lzo1x.h>
#include <snappy-c.h>
#include <string.h>
#include <zstd.h>

#include "../readers/decompress.h"
#include "../readers/memory.h"

enum {
	STRUCT_PAGE = 64,
	GUARD = 64,
	UNTOUCHED = 0xa5,
	BYTES_MAX = 2 * ZD_FRAME,
	/** Times that a page of zstd comes until its section is known; with one more it is made by what was
	   learnt. */
	LEARN_TIMES = 3,
	/** Bytes that are changed one at a time. */
	CHANGES = 24,
	/** Where literals of zstd begin, at the earliest, and how many are changed between two tries. */
	LITERALS_AT = 11,
	EACH = 29,
};

static size_t lzo_compress(const uint8_t *page, uint8_t *ret)
{
	static uint8_t work[LZO1X_1_MEM_COMPRESS];
	lzo_uint size = BYTES_MAX;

	PROMISE(lzo1x_1_compress(page, ZD_FRAME, ret, &size, work) == LZO_E_OK);
	return size;
}

static bool lzo_expand(const uint8_t *bytes, size_t size, uint8_t *ret)
{
	lzo_uint length = ZD_FRAME;

	return lzo1x_decompress_safe(bytes, size, ret, &length, NULL) == LZO_E_OK && length == ZD_FRAME;
}

static size_t snappy_compress_page(const uint8_t *page, uint8_t *ret)
{
	size_t size = BYTES_MAX;

	PROMISE(snappy_compress((const char *)page, ZD_FRAME, (char *)ret, &size) == SNAPPY_OK);
	return size;
}

static bool snappy_expand(const uint8_t *bytes, size_t size, uint8_t *ret)
{
	size_t length;

	return snappy_uncompressed_length((const char *)bytes, size, &length) == SNAPPY_OK &&
	       length == ZD_FRAME &&
	       snappy_uncompress((const char *)bytes, size, (char *)ret, &length) == SNAPPY_OK;
}

static size_t zstd_compress(const uint8_t *page, uint8_t *ret)
{
	size_t size = ZSTD_compress(ret, BYTES_MAX, page, ZD_FRAME, 1);

	PROMISE(!ZSTD_isError(size));
	return size;
}

static bool zstd_expand(const uint8_t *bytes, size_t size, uint8_t *ret)
{
	return ZSTD_decompress(ret, ZD_FRAME, bytes, size) == ZD_FRAME;
}

static const struct method {
	uint32_t flags;
	size_t (*compress)(const uint8_t *page, uint8_t *ret);
	bool (*expand)(const uint8_t *bytes, size_t size, uint8_t *ret);
	bool takes_all;
} methods[] = {
	{ 0x02, lzo_compress, lzo_expand, true },
	{ 0x04, snappy_compress_page, snappy_expand, false },
	{ 0x20, zstd_compress, zstd_expand, true },
};

enum { METHODS = sizeof(methods) / sizeof(methods[0]) };

static bool is_untouched(const uint8_t *bytes)
{
	for (int i = 0; i < GUARD; i++) {
		if (bytes[i] != UNTOUCHED)
			return false;
	}
	return true;
}

/** Compare with the library; the bytes lie in memory of just their size. */
static bool expand(struct zd_decompress *decompress, const struct method *method, const uint8_t *bytes,
		   size_t size)
{
	static uint8_t around[GUARD + ZD_FRAME + GUARD], theirs[ZD_FRAME];
	uint8_t *exact = malloc(size ? size : 1);
	bool taken, valid;

	PROMISE(exact);
	memcpy(exact, bytes, size);
	memset(around, UNTOUCHED, sizeof(around));
	taken = zd_decompress(decompress, method->flags, exact, size, around + GUARD);
	valid = method->expand(exact, size, theirs);
	free(exact);
	PROMISE(is_untouched(around) && is_untouched(around + GUARD + ZD_FRAME));
	PROMISE(!taken || (valid && !memcmp(around + GUARD, theirs, ZD_FRAME)));
	PROMISE(!valid || taken || !method->takes_all);
	return taken;
}

/** Compressed bytes as they are, several times, one more or less of them, and with a byte changed, here and
 * there.
 */
static void try_bytes(const struct method *method, uint8_t *bytes, size_t size, bool is_page)
{
	struct zd_decompress *decompress;

	PROMISE(!zd_decompress_create(&decompress));
	for (int i = 0; i <= LEARN_TIMES; i++)
		PROMISE(expand(decompress, method, bytes, size) || !is_page);
	bytes[size] = 0;
	expand(decompress, method, bytes, size + 1);
	if (size)
		expand(decompress, method, bytes, size - 1);
	for (size_t i = 0; i < CHANGES && size; i++) {
		// Close to each other in front, where literals of zstd are, and farther apart behind.
		size_t at = (i * i + i / 2) % size;
		uint8_t before = bytes[at];

		bytes[at] += 1 + i * 37 % 255;
		for (int j = 0; j < LEARN_TIMES; j++)
			expand(decompress, method, bytes, size);
		bytes[at] = before;
	}
	// More and more of them, from the first on that may be a literal of zstd.
	for (size_t at = LITERALS_AT; at < size; at++) {
		bytes[at] ^= at * 151;
		if (at % EACH == 0)
			expand(decompress, method, bytes, size);
	}
	zd_decompress_destroy(decompress);
}

/** Struct pages that are all the same, but for one byte that counts, and bytes anywhere. */
static void make_page(struct input *input, uint8_t page[ZD_FRAME])
{
	size_t place = take(input, 1) % STRUCT_PAGE;
	uint8_t step = take(input, 1);

	for (int i = 0; i < STRUCT_PAGE; i++)
		page[i] = take(input, 1);
	for (size_t i = STRUCT_PAGE; i < ZD_FRAME; i++)
		page[i] = page[i - STRUCT_PAGE] + (i % STRUCT_PAGE == place ? step : 0);
	while (input->size)
		page[take(input, 2) % ZD_FRAME] = take(input, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t page[ZD_FRAME], bytes[BYTES_MAX + 1];
	struct input input = { data, size };
	size_t kind = take(&input, 1) % (METHODS + 1);

	if (kind < METHODS) {
		size = input.size < BYTES_MAX ? input.size : BYTES_MAX;
		memcpy(bytes, input.data, size);
		try_bytes(&methods[kind], bytes, size, false);
		return 0;
	}
	make_page(&input, page);
	for (int i = 0; i < METHODS; i++)
		try_bytes(&methods[i], bytes, methods[i].compress(page, bytes), true);
	return 0;
}
