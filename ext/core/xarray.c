// SPDX-License-Identifier: LGPL-2.1-or-later
// The walk over an xarray: down from the head, one level at a time, no recursion.

#include <stdlib.h>
#include <string.h>

#include "util.h"
#include "xarray.h"

enum {
	// Internal entries have the low bits 10: pointers to nodes lie above this, siblings below that.
	NODE_MIN = 4096,
	SIBLING_MAX = ZD_XA_SLOTS_MAX << 2,
	// Nodes that lie this near to each other are read at once, with what lies between them.
	CLUSTER_GAP = 4096,
	CLUSTER_MAX = 1 << 16,
};

static bool is_inside(const struct zd_xa_layout *layout, uint32_t offset, uint32_t size)
{
	return offset + size <= layout->node_size;
}

struct zd_error *zd_xa_layout_check(const struct zd_xa_layout *layout)
{
	uint32_t word = layout->word_size, slots = layout->slot_count;

	if (layout->node_size > ZD_XA_NODE_MAX || slots < 4 || slots > ZD_XA_SLOTS_MAX || slots & (slots - 1) ||
	    (word != 4 && word != 8))
		return zd_error_create(ZD_ERROR_INVALID, "struct xa_node: %u bytes with %u slots of %u bytes",
				       layout->node_size, slots, word);
	if (!is_inside(layout, layout->shift, 1) || !is_inside(layout, layout->offset, 1) ||
	    !is_inside(layout, layout->count, 1) || !is_inside(layout, layout->parent, word) ||
	    !is_inside(layout, layout->array, word) || !is_inside(layout, layout->slots, slots * word))
		return zd_error_create(ZD_ERROR_INVALID, "struct xa_node: a member lies outside of it");
	return NULL;
}

uint64_t zd_xa_word(const struct zd_xa_layout *layout, const uint8_t *bytes)
{
	uint64_t word;

	// What nearly every kernel has, many times per node.
	if (layout->word_size == sizeof(word) &&
	    layout->big_endian == (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)) {
		memcpy(&word, bytes, sizeof(word));
		return word;
	}
	return zd_load_bytes(bytes, layout->word_size, layout->big_endian);
}

static bool is_node(uint64_t entry)
{
	return (entry & 3) == 2 && entry > NODE_MIN;
}

static bool is_sibling(uint64_t entry)
{
	return (entry & 3) == 2 && entry < SIBLING_MAX;
}

/** A node on the way down, and the slot that is next. */
struct level {
	uint64_t address, first; /* of the node; its first index */
	uint32_t slot;
	uint8_t shift;
	uint8_t bytes[ZD_XA_NODE_MAX];
	/** Child nodes that were read together, by slot, and which of them were. */
	uint8_t *children;
	uint64_t gathered;
};

/** A child node that a slot points to. */
struct child {
	uint64_t address;
	uint32_t slot;
};

struct walk {
	const struct zd_xa_layout *layout;
	const struct zd_memory *memory;
	uint64_t address; /* of the xarray */
	struct zd_xa_walk *ret;
	uint8_t bits;	  /* of the index that one level takes */
	uint8_t *cluster; /* CLUSTER_MAX bytes, once they are needed */
	unsigned int depth;
	struct level levels[ZD_XA_LEVELS_MAX];
};

static uint64_t load(const struct walk *walk, const struct level *level, uint32_t offset)
{
	return zd_xa_word(walk->layout, level->bytes + offset);
}

static uint64_t load_slot(const struct walk *walk, const struct level *level, uint32_t slot)
{
	return load(walk, level, walk->layout->slots + slot * walk->layout->word_size);
}

static void refuse(struct walk *walk, uint64_t address, const char *why)
{
	if (!walk->ret->why) {
		walk->ret->bad_node = address;
		walk->ret->why = why;
	}
}

/** Why a node cannot be the child of @parent at its current slot (NULL: the top), or NULL. */
static const char *disbelieve(const struct walk *walk, const struct level *node, const struct level *parent)
{
	const struct zd_xa_layout *layout = walk->layout;
	uint32_t count = node->bytes[layout->count], filled = 0;

	if (load(walk, node, layout->array) != walk->address)
		return "the node belongs to no or to another tree";
	if (load(walk, node, layout->parent) != (parent ? parent->address : 0))
		return "the node names another parent";
	if (parent && node->bytes[layout->offset] != parent->slot)
		return "the node names another slot of its parent";
	if (parent ? node->shift != parent->shift - walk->bits : node->shift % walk->bits || node->shift >= 64)
		return "the node lies at a wrong level";
	for (uint32_t i = 0; i < layout->slot_count; i++)
		filled += load_slot(walk, node, i) != 0;
	return filled == count ? NULL : "the node does not hold as many entries as it counts";
}

// ---------------------------------------------------------------- children that are read together

static int compare_children(const void *a, const void *b)
{
	const struct child *x = a, *y = b;

	return (x->address > y->address) - (x->address < y->address);
}

/** The child nodes of @node by address; how many. */
static uint32_t list_children(const struct walk *walk, const struct level *node, struct child *ret)
{
	uint32_t count = 0;

	for (uint32_t slot = 0; slot < walk->layout->slot_count; slot++) {
		uint64_t entry = load_slot(walk, node, slot);

		if (is_node(entry))
			ret[count++] = (struct child){ entry & ~UINT64_C(3), slot };
	}
	qsort(ret, count, sizeof(*ret), compare_children);
	return count;
}

/** How many of the children, one at least, lie so near to the first that one read does. */
static uint32_t cluster_of(const struct walk *walk, const struct child *children, uint32_t count)
{
	uint32_t size = walk->layout->node_size, i = 1;

	while (i < count && children[i].address - children[i - 1].address >= size &&
	       children[i].address - children[i - 1].address <= size + CLUSTER_GAP &&
	       children[i].address - children[0].address <= CLUSTER_MAX - size)
		i++;
	return i;
}

/** Read a cluster of @count children; where that fails they are left to be read one by one. */
static void read_cluster(struct walk *walk, struct level *node, const struct child *children, uint32_t count)
{
	uint32_t size = walk->layout->node_size;
	uint64_t start = children[0].address;
	enum zd_read result = walk->memory->read(walk->memory->context, start, walk->cluster,
						 children[count - 1].address - start + size);

	walk->ret->stopped = result == ZD_READ_STOP;
	if (result != ZD_READ_DONE)
		return;
	for (uint32_t i = 0; i < count; i++) {
		memcpy(node->children + children[i].slot * size, walk->cluster + (children[i].address - start),
		       size);
		node->gathered |= UINT64_C(1) << children[i].slot;
	}
}

static struct zd_error *make_room(struct walk *walk, struct level *node)
{
	if (!walk->cluster)
		walk->cluster = malloc(CLUSTER_MAX);
	if (!node->children)
		node->children = malloc((size_t)walk->layout->slot_count * walk->layout->node_size);
	return walk->cluster && node->children ? NULL : zd_error_no_memory();
}

/**
 * Read the children of a node that lie near to each other at once, in the order of their addresses: a read
 * costs more than its bytes.  What is read early is not believed earlier: enter() looks at it.
 */
static struct zd_error *gather(struct walk *walk, struct level *node)
{
	struct child children[ZD_XA_SLOTS_MAX];
	struct zd_error *error = NULL;
	uint32_t count, size;

	node->gathered = 0;
	if (!node->shift)
		return NULL;
	count = list_children(walk, node, children);
	for (uint32_t i = 0; i < count && !error && !walk->ret->stopped; i += size) {
		size = cluster_of(walk, children + i, count - i);
		if (size == 1)
			continue;
		error = make_room(walk, node);
		if (!error)
			read_cluster(walk, node, children + i, size);
	}
	return error;
}

// ---------------------------------------------------------------- down and up

static enum zd_read read_node(struct walk *walk, const struct level *parent, struct level *node)
{
	uint32_t size = walk->layout->node_size;

	if (parent && parent->gathered >> parent->slot & 1) {
		memcpy(node->bytes, parent->children + parent->slot * size, size);
		return ZD_READ_DONE;
	}
	return walk->memory->read(walk->memory->context, node->address, node->bytes, size);
}

/** Go down to the node that @entry points to; it is left out where it cannot be had. */
static struct zd_error *enter(struct walk *walk, uint64_t entry, uint64_t first)
{
	struct level *parent = walk->depth ? &walk->levels[walk->depth - 1] : NULL;
	struct level *node = &walk->levels[walk->depth];
	const char *why;

	if (walk->depth == ZD_XA_LEVELS_MAX || walk->ret->nodes >= ZD_XA_NODES_MAX) {
		walk->ret->corrupt++;
		refuse(walk, entry & ~UINT64_C(3), "there are more nodes than a tree can have");
		return NULL;
	}
	node->address = entry & ~UINT64_C(3);
	node->first = first;
	node->slot = 0;
	walk->ret->nodes++;
	switch (read_node(walk, parent, node)) {
	case ZD_READ_STOP:
		walk->ret->stopped = true;
		return NULL;
	case ZD_READ_FAULT:
		walk->ret->unreadable++;
		refuse(walk, node->address, "the node cannot be read");
		return NULL;
	case ZD_READ_DONE:
		break;
	}
	node->shift = node->bytes[walk->layout->shift];
	why = disbelieve(walk, node, parent);
	if (why) {
		walk->ret->corrupt++;
		refuse(walk, node->address, why);
		return NULL;
	}
	walk->depth++;
	return gather(walk, node);
}

/** How many slots behind @slot go on with its entry. */
static uint32_t count_siblings(const struct walk *walk, const struct level *node, uint32_t slot)
{
	uint32_t i = slot + 1;

	while (i < walk->layout->slot_count) {
		uint64_t entry = load_slot(walk, node, i);

		if (!is_sibling(entry) || entry >> 2 != slot)
			break;
		i++;
	}
	return i - slot - 1;
}

/** One step: a value, a node entered or left, a slot passed over. */
static struct zd_error *step(struct walk *walk,
			     struct zd_error *(*visit)(void *context, const struct zd_xa_value *value),
			     void *context)
{
	struct level *node = &walk->levels[walk->depth - 1];
	uint32_t slot = node->slot;
	uint64_t index, entry;

	if (slot == walk->layout->slot_count) {
		walk->depth--;
		if (walk->depth)
			walk->levels[walk->depth - 1].slot++;
		return NULL;
	}
	entry = load_slot(walk, node, slot);
	index = node->first + ((uint64_t)slot << node->shift);
	if (node->shift && is_node(entry)) {
		unsigned int depth = walk->depth;
		struct zd_error *error = enter(walk, entry, index);

		// What was not entered is passed over.
		node->slot += walk->depth == depth;
		return error;
	}
	if (entry & 1) {
		struct zd_xa_value value = { index, entry >> 1, 1, node->shift };

		value.slots += count_siblings(walk, node, slot);
		node->slot += value.slots;
		return visit(context, &value);
	}
	node->slot++;
	return NULL;
}

struct zd_error *zd_xa_walk(const struct zd_xa_layout *layout, const struct zd_memory *memory, uint64_t address,
			    uint64_t head,
			    struct zd_error *(*visit)(void *context, const struct zd_xa_value *value),
			    void *context, struct zd_xa_walk *ret)
{
	struct zd_error *error = NULL;
	struct walk walk;

	memset(ret, 0, sizeof(*ret));
	walk.layout = layout;
	walk.memory = memory;
	walk.address = address;
	walk.ret = ret;
	walk.bits = __builtin_ctz(layout->slot_count);
	walk.cluster = NULL;
	walk.depth = 0;
	for (int i = 0; i < ZD_XA_LEVELS_MAX; i++)
		walk.levels[i].children = NULL;
	if (head & 1)
		return visit(context, &(struct zd_xa_value){ .value = head >> 1, .slots = 1 });
	if (is_node(head))
		error = enter(&walk, head, 0);
	while (walk.depth && !error && !ret->stopped)
		error = step(&walk, visit, context);
	for (int i = 0; i < ZD_XA_LEVELS_MAX; i++)
		free(walk.levels[i].children);
	free(walk.cluster);
	return error;
}
