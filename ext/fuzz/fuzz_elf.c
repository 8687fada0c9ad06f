// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: any bytes as an ELF file (ext/readers/elf.c).
// Promises: an error has a message; no size is above what was given.

#include "fuzz_file.h"

#include "../readers/inspect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct zd_elf_info info;
	struct zd_error *error;
	char path[64];
	int fd = file_of(data, size, path);

	error = zd_elf_inspect(path, &info);
	close(fd);
	if (error) {
		PROMISE(error->code == ZD_ERROR_FORMAT && error->message[0]);
		zd_error_destroy(error);
		return 0;
	}
	PROMISE(info.file_size == size);
	PROMISE(info.bits == 32 || info.bits == 64);
	PROMISE(info.build_id_size <= ZD_BUILD_ID_MAX);
	return 0;
}
