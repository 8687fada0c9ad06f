// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: any bytes as a dump that libkdumpfile knows (ext/readers/kdump.c).
// Promises: an error has a message, and strings end.
//
// libkdumpfile maps files, and what a header places behind the end of the file is SIGBUS when it is read.
// The program has an answer to that (guard_sigbus() in ext/python/inspect.c); here it ends the run of that
// input, and what the library held then is lost: run this without leak detection.

#include "fuzz_file.h"

#include <setjmp.h>
#include <signal.h>
#include <string.h>

#include "../readers/inspect.h"

enum { LOST_MAX = 4, HEADERS_MAX = 16 << 20, SIZES_AT = 428 };

static sigjmp_buf behind_the_end;

static void on_sigbus(int number)
{
	(void)number;
	siglongjmp(behind_the_end, 1);
}

static void check_answer(struct zd_error *error, const struct zd_kdump_info *info)
{
	if (error) {
		PROMISE(error->code != ZD_ERROR_INVALID && error->message[0]);
		zd_error_destroy(error);
		return;
	}
	PROMISE(memchr(info->format, 0, sizeof(info->format)));
	PROMISE(memchr(info->arch, 0, sizeof(info->arch)));
	PROMISE(memchr(info->release, 0, sizeof(info->release)));
}

/**
 * Do the headers claim more than a file would have?  The library would copy it all; the program does not
 * let it come to that (wanted_sizes() in zonedev/diskdump.py).
 */
static bool claims_too_much(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	uint64_t block_size, sub_blocks, bitmap_blocks;

	if (size < SIZES_AT + 12)
		return false;
	input.data += SIZES_AT;
	input.size -= SIZES_AT;
	block_size = take(&input, 4);
	sub_blocks = take(&input, 4);
	bitmap_blocks = take(&input, 4);
	return block_size * (1 + sub_blocks + bitmap_blocks) > HEADERS_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct zd_kdump_info info;
	char path[64];
	int fd;

	if (claims_too_much(data, size))
		return 0;
	fd = file_of(data, size, path);
	signal(SIGBUS, on_sigbus);
	if (!sigsetjmp(behind_the_end, 1))
		check_answer(zd_kdump_inspect(path, &info), &info);
	// And what was opened after it, and is lost.
	for (int i = fd; i < fd + LOST_MAX; i++)
		close(i);
	return 0;
}
