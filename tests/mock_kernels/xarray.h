/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The xarray that registries are since 4.20, with entries that span any run of indices.
 *
 * Mirrors include/linux/xarray.h: a pointer to a node has the low bits 10, a sibling is the number of the
 * slot that holds the entry in the same form.
 */
#ifndef MOCK_XARRAY_H
#define MOCK_XARRAY_H

#include "mock.h"

enum { XA_SHIFT = 6, XA_SLOTS = 1 << XA_SHIFT, XA_NODES_MAX = 64 };

struct xarray;

struct xa_node {
	unsigned char shift;
	unsigned char offset;
	unsigned char count;
	unsigned char nr_values;
	struct xa_node *parent;
	struct xarray *array;
	struct list_head private_list;
	void *slots[XA_SLOTS];
	unsigned long tags[3][1];
};

struct xarray {
	unsigned int xa_lock;
	unsigned int xa_flags;
	void *xa_head;
};

static struct xa_node *xa_nodes[XA_NODES_MAX];
static int xa_nodes_used;

static struct xa_node *xa_new(struct xarray *array, unsigned int shift)
{
	struct xa_node *node = NEW(struct xa_node);

	node->shift = shift;
	node->array = K(array);
	xa_nodes[xa_nodes_used++] = node;
	return node;
}

static struct xa_node *xa_node_at(const void *entry)
{
	return at_kaddr((u64)entry - 2);
}

static void *xa_entry(const struct xa_node *node)
{
	return (void *)(kaddr(node) + 2);
}

static struct xa_node *xa_child(struct xarray *array, struct xa_node *node, unsigned int slot)
{
	if (!node->slots[slot]) {
		struct xa_node *child = xa_new(array, node->shift - XA_SHIFT);

		child->parent = K(node);
		child->offset = slot;
		node->slots[slot] = xa_entry(child);
		node->count++;
	}
	return xa_node_at(node->slots[slot]);
}

/* The largest level whose entries fit into [index, last]. */
static unsigned int xa_level(unsigned long index, unsigned long last)
{
	unsigned int shift = 0;

	while (!(index & ((1UL << (shift + XA_SHIFT)) - 1)) && index + (1UL << (shift + XA_SHIFT)) - 1 <= last)
		shift += XA_SHIFT;
	return shift;
}

/* Store an item at [index, last], as xa_store_range() does: with as many siblings as fit into a node. */
static void xa_store_range(struct xarray *array, unsigned long index, unsigned long last, void *item)
{
	enum { TOP = 4 * XA_SHIFT };

	if (!array->xa_head)
		array->xa_head = xa_entry(xa_new(array, TOP));
	while (index <= last) {
		unsigned int shift = xa_level(index, last), slot, first;
		struct xa_node *node = xa_node_at(array->xa_head);

		while (node->shift > shift)
			node = xa_child(array, node, index >> node->shift & (XA_SLOTS - 1));
		first = slot = index >> shift & (XA_SLOTS - 1);
		for (; slot < XA_SLOTS && index + (1UL << shift) - 1 <= last; slot++) {
			node->slots[slot] = slot == first ? item : (void *)(u64)(first << 2 | 2);
			node->count++;
			index += 1UL << shift;
		}
	}
}

#define TREE_NODES xa_nodes
#define TREE_NODES_USED xa_nodes_used

#endif
