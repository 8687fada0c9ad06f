/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * A bounded walk over a struct xarray in memory that cannot be trusted.
 *
 * It owns the shape of nodes; what the entries mean is the caller's (entries.h).  It does no I/O:
 * bytes come through a callback.
 *
 * Invariant: a node is believed only where it names the xarray, its parent and its place there, and
 * lies one level below.  So each node is reached once, from one place: a tree of garbage ends.  Nodes
 * that lie near to each other are read at once, and believed no more for that.
 *
 * Mirrors include/linux/xarray.h, lib/xarray.c.
 */
#ifndef ZONEDEV_XARRAY_H
#define ZONEDEV_XARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum zd_read {
	ZD_READ_DONE,
	ZD_READ_FAULT, /* the memory cannot be had: a fact, not an error */
	ZD_READ_STOP,  /* the caller wants the walk to end, and knows why */
};

/** Where bytes come from: @size bytes at a kernel's @address into @buffer. */
struct zd_memory {
	enum zd_read (*read)(void *context, uint64_t address, void *buffer, size_t size);
	void *context;
};

enum {
	/** Largest sizeof(struct xa_node) in bytes, and most slots of a node. */
	ZD_XA_NODE_MAX = 1024,
	ZD_XA_SLOTS_MAX = 64,
	/** Levels of a tree whose indices have 64 bits and whose nodes have 4 slots. */
	ZD_XA_LEVELS_MAX = 32,
	/** A walk that has read so many nodes gives up (more than 4 billion entries). */
	ZD_XA_NODES_MAX = 1 << 26,
};

/** Where the members of struct xa_node lie, in bytes; made by the caller, see zd_xa_layout_check(). */
struct zd_xa_layout {
	uint16_t node_size, slot_count;
	uint16_t shift, offset, count; /* one byte each */
	uint16_t parent, array, slots; /* words */
	uint8_t word_size;
	bool big_endian;
};

/** Errors: ZD_ERROR_INVALID where a member lies outside of the node, or the slots are no power of two. */
struct zd_error *zd_xa_layout_check(const struct zd_xa_layout *layout);

/** A word of the kernel's. */
uint64_t zd_xa_word(const struct zd_xa_layout *layout, const uint8_t *bytes);

/** A value entry: xa_to_value() of it, and the indices [index, index + (slots << shift)) that it fills. */
struct zd_xa_value {
	uint64_t index, value;
	uint32_t slots;
	uint8_t shift;
};

/** What a walk met beside values. */
struct zd_xa_walk {
	uint64_t nodes;
	uint64_t unreadable, corrupt; /* nodes */
	/** Address of the first such node, and what is wrong with it; NULL: all are well. */
	uint64_t bad_node;
	const char *why;
	bool stopped; /* ZD_READ_STOP */
};

/**
 * Give every value entry of the xarray at @address to @visit, in the order of the indices.
 * @head is its xa_head.  Subtrees that cannot be read or believed are left out and counted.
 * Takes up to one node per slot and level of memory.  Errors: those of @visit; no memory.
 */
struct zd_error *zd_xa_walk(const struct zd_xa_layout *layout, const struct zd_memory *memory, uint64_t address,
			    uint64_t head,
			    struct zd_error *(*visit)(void *context, const struct zd_xa_value *value),
			    void *context, struct zd_xa_walk *ret);

#endif
