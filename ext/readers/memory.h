/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * The physical memory of a dump, read from its file without a library's page cache between: ELF cores and what
 * makedumpfile compresses (kdump-compressed).  For reading much of it in order, by several threads.
 *
 * It answers only what is certain.  Whatever is not (damaged data, a file cut off, a compression that was not
 * built in, memory that an ELF segment claims and its file does not have) is ZD_MEMORY_UNSURE: the caller asks
 * drgn, which says why.  Absent memory is never zeroes.
 *
 * Everything in the file is untrusted: offsets, lengths, counts and indices are checked against the file's
 * size. The file is read, never mapped: one that shrinks is a short read and no signal.
 *
 * Threads: a struct zd_memory is read-only once opened and may be shared; each thread has a cursor of its own.
 *
 * Mirrors: ELF-64; struct disk_dump_header, struct kdump_sub_header and struct page_desc as makedumpfile
 * documents them (IMPLEMENTATION).
 */
#ifndef ZONEDEV_READERS_MEMORY_H
#define ZONEDEV_READERS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/error.h"

enum {
	/** Bytes of a frame: of a page of memory, of a dump's block. */
	ZD_FRAME = 4096,
	/** PT_LOAD segments of a core that is read here. */
	ZD_SEGMENTS_MAX = 2048, /* ZD_EXTENTS_MAX */
};

enum zd_memory_state {
	ZD_MEMORY_DATA,
	/** The bytes of the frame that was asked for before, the last one of the call before included. */
	ZD_MEMORY_SAME,
	/** The dump says that it does not hold the frame. */
	ZD_MEMORY_ABSENT,
	ZD_MEMORY_UNSURE,
};

struct zd_memory;
struct zd_cursor;

/**
 * Open what @fd is, which must stay open until zd_memory_destroy().
 * Errors: FORMAT for a file of another kind or a damaged one, INVALID for one that is not read here, IO, no
 * memory.
 */
struct zd_error *zd_memory_open(int fd, struct zd_memory **ret);
void zd_memory_destroy(struct zd_memory *memory);

/** "elf" or "kdump", flattened or not. */
const char *zd_memory_format(const struct zd_memory *memory);

/** True where the file itself says what lies at some of the virtual addresses [start, end). */
bool zd_memory_has_virtual(const struct zd_memory *memory, uint64_t start, uint64_t end);

/** Errors: no memory. */
struct zd_error *zd_cursor_create(const struct zd_memory *memory, struct zd_cursor **ret);
void zd_cursor_destroy(struct zd_cursor *cursor);

/**
 * Read @count frames at the physical addresses @frames, each a multiple of ZD_FRAME, to
 * @buffer + i * ZD_FRAME where their state is ZD_MEMORY_DATA; the others' places are left as they are.
 */
void zd_cursor_load(struct zd_cursor *cursor, const uint64_t *frames, size_t count, uint8_t *buffer,
		    uint8_t *states);

/** The next frame is the same as no other. */
void zd_cursor_forget(struct zd_cursor *cursor);

/** A compression of kdump-compressed dumps that is read here, NULL behind the last. */
const char *zd_memory_method(size_t i);

#endif
