// SPDX-License-Identifier: LGPL-2.1-or-later
// The records of a flattened dump, put in order.

#include "flat.h"

#include <stdlib.h>
#include <string.h>

#include "../core/util.h"
#include "format.h"

enum {
	HEADER_SIZE = 4096,
	SIGNATURE_SIZE = 16,
	HEADER_USED = SIGNATURE_SIZE + 16,
	RECORD_HEADER = 16,
	TYPE = 1,
	VERSION = 1,
	ROOM_FIRST = 1024,
};

// Offset and size of the record behind the last one.
#define END_FLAG UINT64_MAX

static const char signature[SIGNATURE_SIZE] = "makedumpfile";

struct records {
	struct zd_extent *extents;
	size_t count, room;
};

bool zd_flat_probe(const uint8_t *magic)
{
	return !memcmp(magic, signature, 8);
}

void zd_flat_deinit(struct zd_flat *flat)
{
	free(flat->extents);
}

static bool is_header(const uint8_t *bytes)
{
	return !memcmp(bytes, signature, sizeof(signature)) &&
	       zd_load_bytes(bytes + SIGNATURE_SIZE, 8, true) == TYPE &&
	       zd_load_bytes(bytes + SIGNATURE_SIZE + 8, 8, true) == VERSION;
}

static struct zd_error *add(struct records *records, struct zd_extent extent)
{
	struct zd_extent *larger;

	if (records->count == ZD_FLAT_RECORDS_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "dump: of more records than are read here");
	if (records->count == records->room) {
		records->room = records->room ? 2 * records->room : ROOM_FIRST;
		larger = realloc(records->extents, records->room * sizeof(*larger));
		if (!larger)
			return zd_error_no_memory();
		records->extents = larger;
	}
	records->extents[records->count++] = extent;
	return NULL;
}

/** The record at @at; its end is its begin behind the last one. */
static struct zd_error *read_record(int fd, uint64_t file_size, uint64_t at, struct zd_extent *ret)
{
	uint8_t header[RECORD_HEADER];
	uint64_t size, end;

	if (file_size - at < RECORD_HEADER || !zd_pread_all(fd, header, sizeof(header), at))
		return zd_error_create(ZD_ERROR_FORMAT, "dump: flattened, and it ends before its last record");
	ret->start = zd_load_bytes(header, 8, true);
	size = zd_load_bytes(header + 8, 8, true);
	at += RECORD_HEADER;
	*ret = (struct zd_extent){ ret->start, ret->start, at, size };
	if (ret->start == END_FLAG && size == END_FLAG)
		return NULL;
	if (!size || size > file_size - at || __builtin_add_overflow(ret->start, size, &end) || end > INT64_MAX)
		return zd_error_create(ZD_ERROR_FORMAT, "dump: flattened, and a record of it makes no sense");
	ret->end = end;
	return NULL;
}

static struct zd_error *read_records(int fd, uint64_t file_size, struct records *records)
{
	uint64_t at = HEADER_SIZE;
	struct zd_extent extent = { 0 };
	struct zd_error *error;
	uint8_t header[HEADER_USED];

	if (file_size < HEADER_SIZE || !zd_pread_all(fd, header, sizeof(header), 0) || !is_header(header))
		return zd_error_create(ZD_ERROR_FORMAT, "dump: flattened, and its header makes no sense");
	for (;;) {
		error = read_record(fd, file_size, at, &extent);
		if (error || extent.start == extent.end)
			return error;
		error = add(records, extent);
		if (error)
			return error;
		at = extent.offset + extent.file_size;
	}
}

static int compare_offsets(const void *left, const void *right)
{
	const struct zd_extent *one = left, *other = right;

	return (one->offset > other->offset) - (one->offset < other->offset);
}

static int compare_starts(const void *left, const void *right)
{
	const struct zd_extent *one = left, *other = right;

	if (one->start != other->start)
		return one->start > other->start ? 1 : -1;
	return compare_offsets(left, right);
}

/** How many records from the first one on hang together by overlaps. */
static size_t overlapping(const struct zd_extent *extents, size_t count)
{
	uint64_t end = extents[0].end;
	size_t n = 1;

	for (; n < count && extents[n].start < end; n++) {
		if (extents[n].end > end)
			end = extents[n].end;
	}
	return n;
}

/** Take records in rising order of their start; @flat has room for two of each. */
static struct zd_error *take_records(struct records *records, struct zd_flat *flat)
{
	size_t n;

	for (size_t i = 0; i < records->count; i += n) {
		n = overlapping(records->extents + i, records->count - i);
		if (n > ZD_EXTENTS_MAX)
			return zd_error_create(ZD_ERROR_INVALID,
					       "dump: of more records that overlap than are read here");
		qsort(records->extents + i, n, sizeof(*records->extents), compare_offsets);
		flat->count += zd_extents_divide(records->extents + i, n, flat->extents + flat->count);
	}
	if (flat->count)
		flat->size = flat->extents[flat->count - 1].end;
	return NULL;
}

struct zd_error *zd_flat_read(int fd, uint64_t file_size, struct zd_flat *ret)
{
	struct records records = { 0 };
	struct zd_error *error = read_records(fd, file_size, &records);

	if (!error && records.count) {
		qsort(records.extents, records.count, sizeof(*records.extents), compare_starts);
		ret->extents = calloc(2 * records.count, sizeof(*ret->extents));
		error = ret->extents ? take_records(&records, ret) : zd_error_no_memory();
	}
	free(records.extents);
	return error;
}

uint64_t zd_flat_find(const struct zd_flat *flat, uint64_t offset, uint64_t *ret)
{
	size_t i = zd_extents_find(flat->extents, flat->count, flat->count, offset);

	if (i == flat->count || offset < flat->extents[i].start)
		return 0;
	*ret = flat->extents[i].offset + (offset - flat->extents[i].start);
	return flat->extents[i].end - offset;
}
