// SPDX-License-Identifier: LGPL-2.1-or-later
// Kdump-compressed dumps: header, sub header, two bitmaps, a descriptor for each dumped page, the pages.
// A page's descriptor is found by counting the bits before its own; the counts at the edges of blocks of the
// bitmap are made once, everything else is read when it is asked for.  Dumps in several files are not read
// here.
//
// Equal frames of a memmap have equal compressed bytes, which lie side by side in the file: a frame whose bytes
// are those of the frame before is the same frame, and is not decompressed.

#include <stdlib.h>
#include <string.h>

#include "../core/util.h"
#include "decompress.h"
#include "format.h"
#include "view.h"

enum {
	// Offsets in struct disk_dump_header of 64-bit kernels, and in struct kdump_sub_header.
	HEADER_VERSION = 8,
	HEADER_SIZES = 428,
	HEADER_SIZE = HEADER_SIZES + 16,
	SUB_SPLIT = 12,
	SUB_MAX_MAPNR = 96,
	SUB_SIZE = SUB_MAX_MAPNR + 8,
	// Versions that brought them.
	VERSION_SPLIT = 2,
	VERSION_MAX_MAPNR = 6,

	DESCRIPTOR = 24,
	// Pages that are compared at a time.
	RUN_MAX = ZD_VIEW_MAX / ZD_FRAME,
	// Bytes of the bitmap that are held at a time.
	BITMAP_BLOCK = 8192,
	BLOCK_WORDS = BITMAP_BLOCK / 8,
	BLOCK_PAGES = BITMAP_BLOCK * 8,
};

// Of 256 TiB of memory, more than 64-bit machines have by far.
#define BITMAP_MAX (UINT64_C(8) << 30)

struct dump {
	struct zd_memory memory;
	uint64_t max_mapnr;
	uint64_t bitmap, descriptors; /* where they begin in the file */
	/** Pages that the dump holds before each block of the bitmap. */
	uint64_t *before;
	size_t blocks;
};

struct descriptor {
	uint64_t offset;
	uint32_t size, flags;
};

struct dump_cursor {
	struct zd_cursor cursor;
	struct zd_decompress *decompress;
	/** A block of the bitmap, and how many of its pages come before each word; block_valid. */
	uint64_t words[BLOCK_WORDS];
	uint32_t ranks[BLOCK_WORDS];
	size_t block;
	bool block_valid;
	struct zd_view descriptors, pages;
	/** The compressed bytes of the last frame, if the cursor has one. */
	struct descriptor token;
	uint8_t token_bytes[ZD_FRAME];
};

static bool probe(const uint8_t *magic)
{
	return !memcmp(magic, "KDUMP   ", 8) || !memcmp(magic, "DISKDUMP", 8);
}

static uint64_t number(const uint8_t *bytes, unsigned int size)
{
	return zd_load_bytes(bytes, size, false);
}

static void deinit(struct zd_memory *memory)
{
	free(((struct dump *)memory)->before);
}

static uint32_t count_bits(const uint8_t *bytes)
{
	uint32_t count = 0;
	uint64_t word;

	for (size_t i = 0; i < BLOCK_WORDS; i++) {
		memcpy(&word, bytes + 8 * i, sizeof(word));
		count += __builtin_popcountll(word);
	}
	return count;
}

/** Read a block of the bitmap, zeroes behind its end; false where the file has it not. */
static bool read_block(const struct dump *dump, size_t block, uint8_t bytes[BITMAP_BLOCK])
{
	uint64_t pages = dump->max_mapnr - (uint64_t)block * BLOCK_PAGES;
	size_t size = pages < BLOCK_PAGES ? (pages + 7) / 8 : BITMAP_BLOCK;

	memset(bytes + size, 0, BITMAP_BLOCK - size);
	return zd_memory_pread(&dump->memory, bytes, size, dump->bitmap + (uint64_t)block * BITMAP_BLOCK);
}

static struct zd_error *count_pages(struct dump *dump)
{
	uint8_t bytes[BITMAP_BLOCK];

	dump->blocks = (dump->max_mapnr + BLOCK_PAGES - 1) / BLOCK_PAGES;
	dump->before = calloc(dump->blocks + 1, sizeof(*dump->before));
	if (!dump->before)
		return zd_error_no_memory();
	for (size_t i = 0; i < dump->blocks; i++) {
		if (!read_block(dump, i, bytes))
			return zd_error_create(ZD_ERROR_FORMAT, "dump: it ends within its bitmap");
		dump->before[i + 1] = dump->before[i] + count_bits(bytes);
	}
	return NULL;
}

/** What the sub header says: that the dump is whole, and how many pages there could be. */
static struct zd_error *read_sub_header(struct dump *dump, uint32_t version, uint64_t offset)
{
	uint8_t header[SUB_SIZE];

	if (version < VERSION_SPLIT)
		return NULL;
	if (!zd_memory_pread(&dump->memory, header, sizeof(header), offset))
		return zd_error_create(ZD_ERROR_FORMAT, "dump: it ends within its sub header");
	if (number(header + SUB_SPLIT, 4))
		return zd_error_create(ZD_ERROR_INVALID, "dump: one of several files");
	if (version >= VERSION_MAX_MAPNR)
		dump->max_mapnr = number(header + SUB_MAX_MAPNR, 8);
	return NULL;
}

static struct zd_error *init(struct zd_memory *memory)
{
	struct dump *dump = (struct dump *)memory;
	uint64_t block_size, sub_blocks, bitmap_size;
	struct zd_error *error;
	uint8_t header[HEADER_SIZE];

	if (!zd_memory_pread(memory, header, sizeof(header), 0))
		return zd_error_create(ZD_ERROR_FORMAT, "dump: it ends within its header");
	block_size = number(header + HEADER_SIZES, 4);
	sub_blocks = number(header + HEADER_SIZES + 4, 4);
	bitmap_size = number(header + HEADER_SIZES + 8, 4) * block_size;
	dump->max_mapnr = number(header + HEADER_SIZES + 12, 4);
	if (block_size != ZD_FRAME || sub_blocks > UINT16_MAX || bitmap_size > BITMAP_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "dump: of a machine that is not read here");
	error = read_sub_header(dump, number(header + HEADER_VERSION, 4), block_size);
	if (error)
		return error;
	// The second half of the bitmaps says which pages the dump holds; each half has a bit for every page.
	if (!dump->max_mapnr || dump->max_mapnr > bitmap_size / 2 * 8)
		return zd_error_create(ZD_ERROR_INVALID, "dump: its bitmap does not fit its memory");
	dump->bitmap = block_size * (1 + sub_blocks) + bitmap_size / 2;
	dump->descriptors = block_size * (1 + sub_blocks) + bitmap_size;
	return count_pages(dump);
}

static struct zd_error *cursor_init(struct zd_cursor *cursor)
{
	return zd_decompress_create(&((struct dump_cursor *)cursor)->decompress);
}

static void cursor_deinit(struct zd_cursor *base)
{
	struct dump_cursor *cursor = (struct dump_cursor *)base;

	zd_decompress_destroy(cursor->decompress);
	zd_view_deinit(&cursor->descriptors);
	zd_view_deinit(&cursor->pages);
}

/** Hold a block of the bitmap. */
static bool load_block(struct dump_cursor *cursor, size_t block)
{
	const struct dump *dump = (const struct dump *)cursor->cursor.memory;
	uint32_t rank = 0;

	if (cursor->block_valid && cursor->block == block)
		return true;
	cursor->block_valid = read_block(dump, block, (uint8_t *)cursor->words);
	cursor->block = block;
	for (size_t i = 0; i < BLOCK_WORDS; i++) {
		cursor->ranks[i] = rank;
		rank += __builtin_popcountll(cursor->words[i]);
	}
	return cursor->block_valid;
}

/** The number of a page's descriptor. */
static enum zd_memory_state find_page(struct dump_cursor *cursor, uint64_t pfn, uint64_t *ret)
{
	const struct dump *dump = (const struct dump *)cursor->cursor.memory;
	uint64_t word, bit = UINT64_C(1) << pfn % 64;
	size_t i = pfn % BLOCK_PAGES / 64;

	if (pfn >= dump->max_mapnr)
		return ZD_MEMORY_ABSENT;
	if (!load_block(cursor, pfn / BLOCK_PAGES))
		return ZD_MEMORY_UNSURE;
	word = cursor->words[i];
	if (!(word & bit))
		return ZD_MEMORY_ABSENT;
	*ret = dump->before[cursor->block] + cursor->ranks[i] + __builtin_popcountll(word & (bit - 1));
	return ZD_MEMORY_DATA;
}

/** Where a descriptor lies in the file. */
static uint64_t descriptor_at(const struct dump_cursor *cursor, uint64_t index)
{
	// No product can overflow: there are not more pages than bits in a bitmap.
	return ((const struct dump *)cursor->cursor.memory)->descriptors + index * DESCRIPTOR;
}

static bool read_descriptor(struct dump_cursor *cursor, uint64_t index, struct descriptor *ret)
{
	const uint8_t *bytes = zd_view_get(&cursor->descriptors, cursor->cursor.memory,
					   descriptor_at(cursor, index), DESCRIPTOR);

	if (!bytes)
		return false;
	ret->offset = number(bytes, 8);
	ret->size = number(bytes + 8, 4);
	ret->flags = number(bytes + 12, 4);
	return ret->size && ret->size <= ZD_FRAME;
}

/** The compressed bytes of a page that the dump holds, until the next call; NULL where they cannot be read. */
static const uint8_t *read_page(struct dump_cursor *cursor, uint64_t index, struct descriptor *ret)
{
	if (!read_descriptor(cursor, index, ret))
		return NULL;
	return zd_view_get(&cursor->pages, cursor->cursor.memory, ret->offset, ret->size);
}

/** True where a page has the compressed bytes of the last frame. */
static bool is_same(const struct dump_cursor *cursor, const struct descriptor *page, const uint8_t *bytes)
{
	return cursor->token.size == page->size && cursor->token.flags == page->flags &&
	       !memcmp(cursor->token_bytes, bytes, page->size);
}

static enum zd_memory_state load_page(struct dump_cursor *cursor, uint64_t index, uint8_t *buffer)
{
	struct descriptor page;
	const uint8_t *bytes = read_page(cursor, index, &page);

	if (!bytes)
		return ZD_MEMORY_UNSURE;
	if (cursor->cursor.has_last && is_same(cursor, &page, bytes))
		return ZD_MEMORY_SAME;
	if (!zd_decompress(cursor->decompress, page.flags, bytes, page.size, buffer))
		return ZD_MEMORY_UNSURE;
	cursor->token = page;
	memcpy(cursor->token_bytes, bytes, page.size);
	return ZD_MEMORY_DATA;
}

/** How many of @count frames from @pfn on follow each other, and are held by the dump, in the block at hand. */
static size_t run_of_held(const struct dump_cursor *cursor, uint64_t pfn, const uint64_t *frames, size_t count)
{
	size_t n = 0;

	while (n < count && frames[n] == pfn * ZD_FRAME && pfn / BLOCK_PAGES == cursor->block &&
	       cursor->words[pfn % BLOCK_PAGES / 64] >> pfn % 64 & 1) {
		n++;
		pfn++;
	}
	return n;
}

/** How many of @count descriptors are of pages that lie one behind the other, each as long as the last frame.
 */
static size_t run_of_alike(const struct dump_cursor *cursor, const uint8_t *descriptors, size_t count)
{
	const struct descriptor *token = &cursor->token;
	uint64_t offset = number(descriptors, 8);
	size_t n = 0;

	while (n < count && number(descriptors + n * DESCRIPTOR, 8) == offset + n * token->size &&
	       number(descriptors + n * DESCRIPTOR + 8, 4) == token->size &&
	       number(descriptors + n * DESCRIPTOR + 12, 4) == token->flags)
		n++;
	return n;
}

/** How many of @count pages, which lie one behind the other, are the last frame. */
static size_t run_of_equal(const struct dump_cursor *cursor, const uint8_t *bytes, size_t count)
{
	size_t n = 0, size = cursor->token.size;

	// The first one is, and each is the one before it: one comparison.
	if (!memcmp(cursor->token_bytes, bytes, size) && !memcmp(bytes, bytes + size, (count - 1) * size))
		return count;
	while (n < count && !memcmp(cursor->token_bytes, bytes + n * size, size))
		n++;
	return n;
}

/** How many of @count pages from @pfn on, the first of which is number @index, are the last frame. */
static size_t run_of_same(struct dump_cursor *cursor, uint64_t pfn, uint64_t index, const uint64_t *frames,
			  size_t count)
{
	const struct zd_memory *memory = cursor->cursor.memory;
	const uint8_t *bytes, *descriptors;
	size_t alike;

	count = run_of_held(cursor, pfn, frames, count < RUN_MAX ? count : RUN_MAX);
	if (!count)
		return 0;
	descriptors =
		zd_view_get(&cursor->descriptors, memory, descriptor_at(cursor, index), count * DESCRIPTOR);
	alike = descriptors ? run_of_alike(cursor, descriptors, count) : 0;
	if (!alike)
		return 0;
	bytes = zd_view_get(&cursor->pages, memory, number(descriptors, 8), alike * cursor->token.size);
	return bytes ? run_of_equal(cursor, bytes, alike) : 0;
}

static size_t load(struct zd_cursor *base, const uint64_t *frames, size_t count, uint8_t *buffer,
		   uint8_t *states)
{
	struct dump_cursor *cursor = (struct dump_cursor *)base;
	uint64_t index, pfn = frames[0] / ZD_FRAME;
	size_t same;

	states[0] = find_page(cursor, pfn, &index);
	if (states[0] == ZD_MEMORY_DATA)
		states[0] = load_page(cursor, index, buffer);
	// A run is looked for behind two frames that are the same: most others begin none.
	if (states[0] != ZD_MEMORY_SAME)
		return 1;
	same = run_of_same(cursor, pfn + 1, index + 1, frames + 1, count - 1);
	memset(states + 1, ZD_MEMORY_SAME, same);
	return 1 + same;
}

const struct zd_format zd_format_kdump = {
	.name = "kdump",
	.probe = probe,
	.memory_size = sizeof(struct dump),
	.cursor_size = sizeof(struct dump_cursor),
	.init = init,
	.deinit = deinit,
	.cursor_init = cursor_init,
	.cursor_deinit = cursor_deinit,
	.load = load,
};
