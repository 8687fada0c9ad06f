/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * BTF: the types that a kernel or a module describes itself with, out of bytes that cannot be trusted.
 *
 * It owns the format: header, all kinds of types, split BTF on a base, either byte order; names, members
 * and enumerators are found through an index.  It does no I/O (the caller brings the bytes) and makes no
 * objects of a debugger (zonedev/kernel/btf.py does).
 *
 * Invariant: zd_btf_create() checks every record, name, reference and cycle once, so that what is asked
 * later cannot fail, and a walk down from any type ends (ZD_BTF_HEIGHT_MAX, ZD_BTF_WEIGHT_MAX).
 *
 * Mirrors include/uapi/linux/btf.h, kernel/bpf/btf.c (btf_check_all_metas()).
 */
#ifndef ZONEDEV_BTF_H
#define ZONEDEV_BTF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum {
	/** Bytes that tell how long BTF is: the oldest header. */
	ZD_BTF_HEADER_SIZE = 24,
	/** Bytes of BTF, names and types of it and its base, that are believed. */
	ZD_BTF_SIZE_MAX = 1 << 28,
	ZD_BTF_TYPES_MAX = 1 << 24,
	/** Longest name in bytes: the kernel's KSYM_NAME_LEN. */
	ZD_BTF_NAME_MAX = 512,
	/** Levels below a type: members by value; and what a declaration is made of. */
	ZD_BTF_HEIGHT_MAX = 100,
	/** Types below a type on the same ways, each as often as a walk comes to it. */
	ZD_BTF_WEIGHT_MAX = 1 << 20,
};

/** As the format numbers them. */
enum zd_btf_kind {
	ZD_BTF_VOID,
	ZD_BTF_INT,
	ZD_BTF_PTR,
	ZD_BTF_ARRAY,
	ZD_BTF_STRUCT,
	ZD_BTF_UNION,
	ZD_BTF_ENUM,
	ZD_BTF_FWD,
	ZD_BTF_TYPEDEF,
	ZD_BTF_VOLATILE,
	ZD_BTF_CONST,
	ZD_BTF_RESTRICT,
	ZD_BTF_FUNC,
	ZD_BTF_FUNC_PROTO,
	ZD_BTF_VAR,
	ZD_BTF_DATASEC,
	ZD_BTF_FLOAT,
	ZD_BTF_DECL_TAG,
	ZD_BTF_TYPE_TAG,
	ZD_BTF_ENUM64,
	ZD_BTF_KINDS,
};

/** "void", "int", "ptr", ...; indexed by enum zd_btf_kind. */
extern const char *const zd_btf_kind_names[ZD_BTF_KINDS];

/** Bits of an INT's encoding. */
enum { ZD_BTF_SIGNED = 1, ZD_BTF_CHAR = 2, ZD_BTF_BOOL = 4 };

struct zd_btf;

/** A type; the names live as long as the struct zd_btf and its base do. */
struct zd_btf_type {
	enum zd_btf_kind kind;
	const char *name; /* "": it has none */
	/** Members, enumerators, parameters, or variables of a DATASEC. */
	uint32_t count;
	/** In bytes: INT, STRUCT, UNION, ENUM, ENUM64, FLOAT, DATASEC, and PTR. */
	uint32_t size;
	/** What it refers to: PTR, ARRAY (its elements), TYPEDEF, qualifiers, FUNC, FUNC_PROTO (the result),
	 * VAR, tags. */
	uint32_t type;
	uint32_t length;  /* of an ARRAY */
	uint8_t encoding; /* of an INT */
	uint8_t bits;	  /* of an INT; fewer than its bytes have: an old bit field */
	uint8_t bit_offset;
	/** ENUM, ENUM64: values are signed.  FWD: of a union.  STRUCT, UNION: members say how many bits they
	 * have. */
	bool flag;
};

/** A member of a STRUCT or UNION; @bit_size 0: no bit field. */
struct zd_btf_member {
	const char *name; /* "": an anonymous struct or union, or padding */
	uint32_t type;
	uint64_t bit_offset;
	uint32_t bit_size;
};

/** @value is sign-extended where the type's flag says signed. */
struct zd_btf_enumerator {
	const char *name;
	uint64_t value;
};

/** Type 0 without a name at the end: variable arguments. */
struct zd_btf_parameter {
	const char *name;
	uint32_t type;
};

/** A variable of a DATASEC; @type is a VAR. */
struct zd_btf_variable {
	uint32_t type, offset, size;
};

/**
 * How many bytes BTF takes whose header begins at @bytes (ZD_BTF_HEADER_SIZE of them), 0 where it does not
 * look like one.  For finding BTF in memory: it may still be refused.
 */
uint64_t zd_btf_size(const void *bytes);

/**
 * Check BTF and make it ready to be asked.  @bytes are copied.
 * @word_size: bytes of a pointer, 4 or 8.
 * @base: NULL, or what it is split from; must outlive it.
 * Errors: ZD_ERROR_FORMAT saying what is wrong with which type; no memory.
 */
struct zd_error *zd_btf_create(const void *bytes, size_t size, uint8_t word_size, const struct zd_btf *base,
			       struct zd_btf **ret);
void zd_btf_destroy(struct zd_btf *btf);

/** One more than the highest id; those from 0 (void) on are valid, the base's first. */
uint32_t zd_btf_count(const struct zd_btf *btf);
/** The first id that is its own, not its base's; 1 without a base. */
uint32_t zd_btf_first(const struct zd_btf *btf);

/** @id below zd_btf_count(), here and below; @i below the type's count, and the kind must fit. */
void zd_btf_type(const struct zd_btf *btf, uint32_t id, struct zd_btf_type *ret);
void zd_btf_member(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_member *ret);
void zd_btf_enumerator(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_enumerator *ret);
void zd_btf_parameter(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_parameter *ret);
void zd_btf_variable(const struct zd_btf *btf, uint32_t id, uint32_t i, struct zd_btf_variable *ret);

/** The type behind typedefs, qualifiers and type tags. */
uint32_t zd_btf_resolve(const struct zd_btf *btf, uint32_t id);

/** sizeof in bytes; 0 for what has none (void, functions, forward declarations), UINT64_MAX for what is larger.
 */
uint64_t zd_btf_sizeof(const struct zd_btf *btf, uint32_t id);

/**
 * The next type with this name and one of @kinds (a bit mask of 1 << kind) behind @after; 0: there is none.
 * Begin with @after 0.  Its own types come first, then the base's.
 */
uint32_t zd_btf_find(const struct zd_btf *btf, const char *name, uint32_t kinds, uint32_t after);

/**
 * A member of a STRUCT or UNION, also one of anonymous structs and unions within.  @ret has the offset in the
 * outer type.  False: it has none of this name.
 */
bool zd_btf_find_member(const struct zd_btf *btf, uint32_t id, const char *name, struct zd_btf_member *ret);

/** The ENUM or ENUM64 that has an enumerator of this name (own ones first), and its place there; 0: none. */
uint32_t zd_btf_find_enumerator(const struct zd_btf *btf, const char *name, uint32_t *i);

#endif
