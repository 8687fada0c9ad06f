/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Looking at a file before drgn opens it: what it is, whether it is whole, which kernel build
 * it belongs to.  Struct pages are read through drgn's Program; these functions only give
 * better answers to "why can this not be opened" than a failed read would.
 *
 * Each library is optional at build time; without it the function fails with
 * ZD_ERROR_INVALID, and zd_elf_version() or zd_kdump_version() is NULL.
 */
#ifndef ZONEDEV_READERS_INSPECT_H
#define ZONEDEV_READERS_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../core/error.h"

enum { ZD_BUILD_ID_MAX = 64 };

/** What an ELF file says of itself. */
struct zd_elf_info {
	bool core;	     /* ET_CORE */
	bool has_debug_info; /* a section .debug_info */
	uint16_t machine;
	uint8_t bits; /* 32 or 64 */
	uint64_t file_size;
	uint64_t wanted_size; /* end of the last segment's bytes: more than file_size when cut off */
	uint8_t build_id[ZD_BUILD_ID_MAX];
	size_t build_id_size; /* 0: none */
	/** Where the section .BTF lies in the file, as the kernel has it; size 0: it is not there, or
	 * compressed. */
	uint64_t btf_offset, btf_size;
};

/** Version of elfutils' libelf, or NULL. */
const char *zd_elf_version(void);

/** Errors: cannot open (IO), not an ELF file or damaged (FORMAT). */
struct zd_error *zd_elf_inspect(const char *path, struct zd_elf_info *ret);

struct zd_kdump_info {
	char format[64]; /* "Compressed KDUMP" or the like */
	char arch[32];
	char release[128];
};

/** Version of libkdumpfile, or NULL. */
const char *zd_kdump_version(void);

/** Errors: cannot open (IO), not a format that libkdumpfile knows (FORMAT). */
struct zd_error *zd_kdump_inspect(const char *path, struct zd_kdump_info *ret);

#endif
