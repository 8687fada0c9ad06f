// SPDX-License-Identifier: LGPL-2.1-or-later
// Which format a file is of, and reading it at an offset.  What is in it is core.c's and diskdump.c's;
// what is flattened, flat.c puts in order before.

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format.h"

static const struct zd_format *const formats[] = { &zd_format_elf, &zd_format_kdump };

enum { FORMATS = sizeof(formats) / sizeof(formats[0]), MAGIC = 8 };

bool zd_pread_all(int fd, void *buffer, size_t size, uint64_t offset)
{
	uint8_t *to = buffer;

	while (size) {
		ssize_t done = pread(fd, to, size, offset);

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

static bool pread_flat(const struct zd_memory *memory, uint8_t *to, size_t size, uint64_t offset)
{
	uint64_t at = 0, piece;

	while (size) {
		piece = zd_flat_find(memory->flat, offset, &at);
		if (piece > size)
			piece = size;
		if (!piece || !zd_pread_all(memory->fd, to, piece, at))
			return false;
		to += piece;
		offset += piece;
		size -= piece;
	}
	return true;
}

bool zd_memory_pread(const struct zd_memory *memory, void *buffer, size_t size, uint64_t offset)
{
	if (offset > memory->file_size || size > memory->file_size - offset)
		return false;
	return memory->flat ? pread_flat(memory, buffer, size, offset)
			    : zd_pread_all(memory->fd, buffer, size, offset);
}

static void forget_flat(struct zd_memory *memory)
{
	if (!memory->flat)
		return;
	zd_flat_deinit(memory->flat);
	free(memory->flat);
	memory->flat = NULL;
}

static struct zd_error *create(const struct zd_format *format, struct zd_memory *file, struct zd_memory **ret)
{
	struct zd_memory *memory = calloc(1, format->memory_size);
	struct zd_error *error;

	if (!memory)
		return zd_error_no_memory();
	*memory = *file;
	file->flat = NULL;
	memory->format = format;
	error = format->init(memory);
	if (error)
		zd_memory_destroy(memory);
	else
		*ret = memory;
	return error;
}

/** Go on with what is flattened in the file. */
static struct zd_error *unfold(struct zd_memory *file, uint8_t *magic)
{
	struct zd_error *error;

	file->flat = calloc(1, sizeof(*file->flat));
	if (!file->flat)
		return zd_error_no_memory();
	error = zd_flat_read(file->fd, file->file_size, file->flat);
	if (error)
		return error;
	file->file_size = file->flat->size;
	if (!zd_memory_pread(file, magic, MAGIC, 0))
		return zd_error_create(ZD_ERROR_FORMAT, "dump: flattened, and without a beginning");
	return NULL;
}

/** Open what begins with @magic; the flattened records of @file go over to @ret. */
static struct zd_error *open_format(struct zd_memory *file, const uint8_t *magic, struct zd_memory **ret)
{
	for (int i = 0; i < FORMATS; i++) {
		if (formats[i]->probe(magic))
			return create(formats[i], file, ret);
	}
	return zd_error_create(ZD_ERROR_INVALID, "dump: of a format that is not read here");
}

struct zd_error *zd_memory_open(int fd, struct zd_memory **ret)
{
	struct zd_memory file = { .fd = fd };
	struct zd_error *error = NULL;
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
	if (zd_flat_probe(magic))
		error = unfold(&file, magic);
	if (!error)
		error = open_format(&file, magic, ret);
	forget_flat(&file);
	return error;
}

void zd_memory_destroy(struct zd_memory *memory)
{
	if (!memory)
		return;
	memory->format->deinit(memory);
	forget_flat(memory);
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
