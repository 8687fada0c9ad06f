// SPDX-License-Identifier: LGPL-2.1-or-later
// Which format a file is of, and reading it at an offset.  What is in it is core.c's and diskdump.c's.

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"

static const struct zd_format *const formats[] = { &zd_format_elf, &zd_format_kdump };

enum { FORMATS = sizeof(formats) / sizeof(formats[0]), MAGIC = 8 };

bool zd_memory_pread(const struct zd_memory *memory, void *buffer, size_t size, uint64_t offset)
{
	uint8_t *to = buffer;

	if (offset > memory->file_size || size > memory->file_size - offset)
		return false;
	while (size) {
		ssize_t done = pread(memory->fd, to, size, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		to += done;
		offset += done;
		size -= done;
	}
	return true;
}

static struct zd_error *create(const struct zd_format *format, const struct zd_memory *file,
			       struct zd_memory **ret)
{
	struct zd_memory *memory = calloc(1, format->memory_size);
	struct zd_error *error;

	if (!memory)
		return zd_error_no_memory();
	*memory = (struct zd_memory){ format, file->fd, file->file_size };
	error = format->init(memory);
	if (error)
		zd_memory_destroy(memory);
	else
		*ret = memory;
	return error;
}

struct zd_error *zd_memory_open(int fd, struct zd_memory **ret)
{
	struct zd_memory file = { .fd = fd };
	uint8_t magic[MAGIC];
	struct stat status;

	*ret = NULL;
	if (fstat(fd, &status))
		return zd_error_create(ZD_ERROR_IO, "dump: %s", strerror(errno));
	if (!S_ISREG(status.st_mode))
		return zd_error_create(ZD_ERROR_INVALID, "dump: not a regular file");
	file.file_size = status.st_size;
	if (!zd_memory_pread(&file, magic, sizeof(magic), 0))
		return zd_error_create(ZD_ERROR_FORMAT, "dump: shorter than any header");
	for (int i = 0; i < FORMATS; i++) {
		if (formats[i]->probe(magic))
			return create(formats[i], &file, ret);
	}
	return zd_error_create(ZD_ERROR_INVALID, "dump: of a format that is not read here");
}

void zd_memory_destroy(struct zd_memory *memory)
{
	if (!memory)
		return;
	memory->format->deinit(memory);
	free(memory);
}

const char *zd_memory_format(const struct zd_memory *memory)
{
	return memory->format->name;
}

bool zd_memory_has_virtual(const struct zd_memory *memory, uint64_t start, uint64_t end)
{
	return memory->format->has_virtual && memory->format->has_virtual(memory, start, end);
}

struct zd_error *zd_cursor_create(const struct zd_memory *memory, struct zd_cursor **ret)
{
	struct zd_cursor *cursor = calloc(1, memory->format->cursor_size);
	struct zd_error *error;

	if (!cursor)
		return zd_error_no_memory();
	cursor->memory = memory;
	error = memory->format->cursor_init ? memory->format->cursor_init(cursor) : NULL;
	if (error)
		zd_cursor_destroy(cursor);
	else
		*ret = cursor;
	return error;
}

void zd_cursor_destroy(struct zd_cursor *cursor)
{
	if (!cursor)
		return;
	if (cursor->memory->format->cursor_deinit)
		cursor->memory->format->cursor_deinit(cursor);
	free(cursor);
}

void zd_cursor_load(struct zd_cursor *cursor, const uint64_t *frames, size_t count, uint8_t *buffer,
		    uint8_t *states)
{
	size_t n;

	for (size_t i = 0; i < count; i += n) {
		n = 1;
		if (cursor->has_last && cursor->last == frames[i])
			states[i] = ZD_MEMORY_SAME;
		else
			n = cursor->memory->format->load(cursor, frames + i, count - i, buffer + i * ZD_FRAME,
							 states + i);
		cursor->last = frames[i + n - 1];
		cursor->has_last = states[i + n - 1] <= ZD_MEMORY_SAME;
	}
}

void zd_cursor_forget(struct zd_cursor *cursor)
{
	cursor->has_last = false;
}
