// SPDX-License-Identifier: LGPL-2.1-or-later
// A row for each method that makedumpfile has, by the flag of its descriptors.  What is a library's
// own is made when its first page comes.

#include "decompress.h"

#include <stdlib.h>
#include <string.h>

#include "lzo.h"
#include "memory.h"
#include "recipe.h"
#include "snappy.h"

#if defined(HAVE_LIBDEFLATE)
#include <libdeflate.h>
#elif defined(HAVE_ZLIB)
#include <zlib.h>
#endif
#ifdef HAVE_LIBZSTD
#include <zstd.h>
#endif

struct zd_decompress {
#if defined(HAVE_LIBDEFLATE)
	struct libdeflate_decompressor *deflate;
#elif defined(HAVE_ZLIB)
	z_stream zlib;
	bool has_zlib;
#endif
#ifdef HAVE_LIBZSTD
	ZSTD_DCtx *zstd;
	struct zd_recipes *recipes;
#endif
	char unused;
};

struct method {
	const char *name;
	uint32_t flags;
	bool (*expand)(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret);
};

static bool copy(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	(void)decompress;
	if (size != ZD_FRAME)
		return false;
	memcpy(ret, bytes, size);
	return true;
}

#if defined(HAVE_LIBDEFLATE)
static bool expand_zlib(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	if (!decompress->deflate)
		decompress->deflate = libdeflate_alloc_decompressor();
	// What is not exactly as long as wanted is an error.
	return decompress->deflate && libdeflate_zlib_decompress(decompress->deflate, bytes, size, ret,
								 ZD_FRAME, NULL) == LIBDEFLATE_SUCCESS;
}
#elif defined(HAVE_ZLIB)
static bool expand_zlib(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	z_stream *stream = &decompress->zlib;

	if (!decompress->has_zlib)
		decompress->has_zlib = inflateInit(stream) == Z_OK;
	if (!decompress->has_zlib || inflateReset(stream) != Z_OK)
		return false;
	stream->next_in = (Bytef *)(uintptr_t)bytes;
	stream->avail_in = size;
	stream->next_out = ret;
	stream->avail_out = ZD_FRAME;
	return inflate(stream, Z_FINISH) == Z_STREAM_END && !stream->avail_out;
}
#endif

static bool expand_lzo(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	(void)decompress;
	return zd_lzo_expand(bytes, size, ret);
}

static bool expand_snappy(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	(void)decompress;
	return zd_snappy_expand(bytes, size, ret);
}

#ifdef HAVE_LIBZSTD
static bool expand_by_zstd(void *context, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	return ZSTD_decompressDCtx(context, ret, ZD_FRAME, bytes, size) == ZD_FRAME;
}

static bool expand_zstd(struct zd_decompress *decompress, const uint8_t *bytes, size_t size, uint8_t *ret)
{
	if (!decompress->zstd)
		decompress->zstd = ZSTD_createDCtx();
	if (!decompress->zstd)
		return false;
	if (!decompress->recipes)
		decompress->recipes = zd_recipes_create(expand_by_zstd, decompress->zstd);
	return decompress->recipes ? zd_recipes_expand(decompress->recipes, bytes, size, ret)
				   : expand_by_zstd(decompress->zstd, bytes, size, ret);
}
#endif

static const struct method methods[] = {
	{ "none", 0, copy },
#if defined(HAVE_LIBDEFLATE) || defined(HAVE_ZLIB)
	{ "zlib", 0x01, expand_zlib }, // DUMP_DH_COMPRESSED_ZLIB
#endif
	{ "lzo", 0x02, expand_lzo },	   // DUMP_DH_COMPRESSED_LZO
	{ "snappy", 0x04, expand_snappy }, // DUMP_DH_COMPRESSED_SNAPPY
#ifdef HAVE_LIBZSTD
	{ "zstd", 0x20, expand_zstd }, // DUMP_DH_COMPRESSED_ZSTD
#endif
};

enum { METHODS = sizeof(methods) / sizeof(methods[0]) };

const char *zd_memory_method(size_t i)
{
	return i < METHODS ? methods[i].name : NULL;
}

void zd_decompress_destroy(struct zd_decompress *decompress)
{
	if (!decompress)
		return;
#if defined(HAVE_LIBDEFLATE)
	libdeflate_free_decompressor(decompress->deflate);
#elif defined(HAVE_ZLIB)
	if (decompress->has_zlib)
		inflateEnd(&decompress->zlib);
#endif
#ifdef HAVE_LIBZSTD
	zd_recipes_destroy(decompress->recipes);
	ZSTD_freeDCtx(decompress->zstd);
#endif
	free(decompress);
}

struct zd_error *zd_decompress_create(struct zd_decompress **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? NULL : zd_error_no_memory();
}

bool zd_decompress(struct zd_decompress *decompress, uint32_t flags, const uint8_t *bytes, size_t size,
		   uint8_t *ret)
{
	for (int i = 0; i < METHODS; i++) {
		if (methods[i].flags == flags)
			return methods[i].expand(decompress, bytes, size, ret);
	}
	return false;
}
