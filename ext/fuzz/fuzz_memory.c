// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: any bytes as a dump whose physical memory is read (ext/readers/memory.h); those that begin with
// FLAT as the records of a flattened one, whose header is long and says nothing.
// Promises: an error has a message; every frame has one of the states; one that was read twice is the same; no
// byte of a frame that is not there is written.

#include "fuzz_file.h"

#include <stdlib.h>
#include <string.h>

#include "../readers/memory.h"

enum { FRAMES = 48, UNTOUCHED = 0xa5, FLAT_HEADER = 4096 };

#define FLAT "FLAT"

/** Frames that may be there: the first ones, those that follow a number in the input, and some far away. */
static void choose_frames(struct input input, uint64_t frames[FRAMES])
{
	for (int i = 0; i < FRAMES; i++) {
		uint64_t number = i < FRAMES / 2 ? (uint64_t)i * ZD_FRAME : take(&input, 8);

		frames[i] = number / ZD_FRAME * ZD_FRAME;
	}
}

static void check_bytes(uint8_t state, const uint8_t *bytes)
{
	PROMISE(state <= ZD_MEMORY_UNSURE);
	if (state != ZD_MEMORY_SAME && state != ZD_MEMORY_ABSENT)
		return;
	for (size_t i = 0; i < ZD_FRAME; i++)
		PROMISE(bytes[i] == UNTOUCHED);
}

static void read_frames(const struct zd_memory *memory, const uint64_t frames[FRAMES])
{
	static uint8_t bytes[FRAMES * ZD_FRAME], again[ZD_FRAME];
	uint8_t states[FRAMES], state;
	struct zd_cursor *cursor, *other;

	PROMISE(!zd_cursor_create(memory, &cursor) && !zd_cursor_create(memory, &other));
	memset(bytes, UNTOUCHED, sizeof(bytes));
	zd_cursor_load(cursor, frames, FRAMES, bytes, states);
	PROMISE(states[0] != ZD_MEMORY_SAME);
	for (int i = 0; i < FRAMES; i++) {
		check_bytes(states[i], bytes + i * ZD_FRAME);
		zd_cursor_forget(other);
		zd_cursor_load(other, &frames[i], 1, again, &state);
		PROMISE(state == states[i] || (states[i] == ZD_MEMORY_SAME && state == ZD_MEMORY_DATA));
		PROMISE(states[i] != ZD_MEMORY_DATA || !memcmp(again, bytes + i * ZD_FRAME, ZD_FRAME));
	}
	zd_cursor_destroy(cursor);
	zd_cursor_destroy(other);
}

static int dump_of(const uint8_t *data, size_t size, char path[64])
{
	const size_t mark = strlen(FLAT);
	uint8_t header[FLAT_HEADER] = "makedumpfile";
	int fd;

	if (size < mark || memcmp(data, FLAT, mark) != 0)
		return file_of(data, size, path);
	// Type and version.
	header[23] = header[31] = 1;
	fd = file_of(header, sizeof(header), path);
	PROMISE(write(fd, data + mark, size - mark) == (ssize_t)(size - mark));
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint64_t frames[FRAMES];
	struct zd_memory *memory;
	struct zd_error *error;
	char path[64];
	int fd = dump_of(data, size, path);

	error = zd_memory_open(fd, &memory);
	if (error) {
		PROMISE(!memory && error->code != ZD_ERROR_IO && error->message[0]);
		zd_error_destroy(error);
		close(fd);
		return 0;
	}
	choose_frames(input, frames);
	zd_memory_has_virtual(memory, frames[FRAMES - 1], frames[FRAMES / 2]);
	read_frames(memory, frames);
	zd_memory_destroy(memory);
	close(fd);
	return 0;
}
