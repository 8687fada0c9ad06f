/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * kallsyms: the symbols that a kernel keeps of itself, found in a copy of its image that cannot be trusted.
 *
 * It owns finding the tables and their formats of all kernels since 4.20.  It needs no help but the address of
 * one symbol: VMCOREINFO names the tables only since commit f09bddbd8661 ("vmcoreinfo: add kallsyms_num_syms
 * symbol") (in v6.0).  It does no I/O.
 *
 * Invariant: tables are believed only where they agree: the index of the tokens with the tokens, every marker
 * with the names, and the address of the known symbol.
 *
 * Mirrors scripts/kallsyms.c, kernel/kallsyms.c.
 */
#ifndef ZONEDEV_KALLSYMS_H
#define ZONEDEV_KALLSYMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum {
	ZD_KALLSYMS_MAX = 1 << 22, /* symbols */
	/** Longest name with its type, in bytes. */
	ZD_KALLSYMS_NAME_MAX = 512,
};

/** A part of a kernel's image: @size bytes that lie at the kernel's @address. */
struct zd_image {
	const uint8_t *bytes;
	size_t size;
	uint64_t address; /* a multiple of 8 */
	uint8_t word_size;
	bool big_endian;
};

/** A symbol; @type is the letter of nm(1).  @size in bytes: up to the next one, which may be too much. */
struct zd_symbol {
	const char *name;
	uint64_t address, size;
	char type;
};

/** How the tables say where a symbol lies. */
struct zd_kallsyms_form {
	/** "place": relative to the entry itself; "base": to a word behind the entries; "per-cpu": the same,
	 * but positive entries are absolute; "absolute": words. */
	const char *encoding;
	/** The table of addresses stands behind the tokens, not before the names. */
	bool behind;
	/** Tables begin at multiples of this. */
	uint8_t align;
};

struct zd_kallsyms;

/**
 * Find the tables in an image that has all of them.  @name and @address: a symbol that is known.
 * Nothing of @image is kept.  Errors: ZD_ERROR_FORMAT where they are not found; no memory.
 */
struct zd_error *zd_kallsyms_create(const struct zd_image *image, const char *name, uint64_t address,
				    struct zd_kallsyms **ret);
void zd_kallsyms_destroy(struct zd_kallsyms *kallsyms);

uint32_t zd_kallsyms_count(const struct zd_kallsyms *kallsyms);

/** How the kernel has them; for who writes them again. */
struct zd_kallsyms_form zd_kallsyms_form(const struct zd_kallsyms *kallsyms);

/** Symbol @i, below the count. */
void zd_kallsyms_symbol(const struct zd_kallsyms *kallsyms, uint32_t i, struct zd_symbol *ret);

/** The next symbol of this name, from @i on; begin with @i 0.  The count: there is none. */
uint32_t zd_kallsyms_find(const struct zd_kallsyms *kallsyms, const char *name, uint32_t i);

/** The last symbol at or below @address; the count: there is none. */
uint32_t zd_kallsyms_at(const struct zd_kallsyms *kallsyms, uint64_t address);

#endif
