/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * An input as a file with a path, for targets that look at files.  The file lies in memory.
 */
#ifndef ZONEDEV_FUZZ_FILE_H
#define ZONEDEV_FUZZ_FILE_H

// memfd_create() is one of its own.
#define _GNU_SOURCE

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"

/** Make the file; returns its descriptor, and its path in @path.  Close the descriptor to be rid of it. */
static inline int file_of(const uint8_t *data, size_t size, char path[64])
{
	int fd = memfd_create("input", MFD_CLOEXEC);

	PROMISE(fd >= 0);
	PROMISE(write(fd, data, size) == (ssize_t)size);
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return fd;
}

#endif
