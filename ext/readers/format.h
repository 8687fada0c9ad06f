/* SPDX-License-Identifier: LGPL-2.1-or-later */
/** What the formats of memory.h share: one ops struct each, and reading a file at an offset. */
#ifndef ZONEDEV_READERS_FORMAT_H
#define ZONEDEV_READERS_FORMAT_H

#include "flat.h"
#include "memory.h"

struct zd_format {
	const char *name;
	/** True for a file that begins with these bytes, 8 of them. */
	bool (*probe)(const uint8_t *magic);
	/** Bytes of its own structs, which begin with a struct zd_memory and with a struct zd_cursor. */
	size_t memory_size, cursor_size;
	/** Behind their beginning they are zeroes; what deinit is for may be half made.  Errors as of
	 * zd_memory_open(). */
	struct zd_error *(*init)(struct zd_memory *memory);
	void (*deinit)(struct zd_memory *memory);
	/** NULL: its files say nothing of virtual memory. */
	bool (*has_virtual)(const struct zd_memory *memory, uint64_t start, uint64_t end);
	/** Both as above, or NULL. */
	struct zd_error *(*cursor_init)(struct zd_cursor *cursor);
	void (*cursor_deinit)(struct zd_cursor *cursor);
	/** The first one of @count frames, which is not the cursor's last, and as many more as lie behind it;
	 * returns how many. */
	size_t (*load)(struct zd_cursor *cursor, const uint64_t *frames, size_t count, uint8_t *buffer,
		       uint8_t *states);
};

struct zd_memory {
	const struct zd_format *format;
	int fd;
	/** Bytes of the dump: of the file, or of what is flattened in it. */
	uint64_t file_size;
	/** NULL for a file that is as it was meant. */
	struct zd_flat *flat;
};

struct zd_cursor {
	const struct zd_memory *memory;
	/** The frame that was asked for last, if has_last. */
	uint64_t last;
	bool has_last;
};

extern const struct zd_format zd_format_elf, zd_format_kdump;

/** Read @size bytes at @offset of a file; false where it has not as many, or cannot be read. */
bool zd_pread_all(int fd, void *buffer, size_t size, uint64_t offset);

/** Read @size bytes of the dump; false where it has not as many, or cannot be read. */
bool zd_memory_pread(const struct zd_memory *memory, void *buffer, size_t size, uint64_t offset);

#endif
