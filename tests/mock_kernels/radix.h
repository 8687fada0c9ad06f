/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The radix tree that registries were before the xarray (up to 4.19), with what its users put in.
 *
 * Mirrors include/linux/radix-tree.h and lib/radix-tree.c of 4.7 to 4.19: a pointer to a node has bit 0
 * set, a sibling points at the slot of its own node that holds the entry.  With RADIX_BY_HEIGHT, 4.5: a
 * node says how high it lies in "path", the root how high the tree is, and slots hold bare pointers.
 */
#ifndef MOCK_RADIX_H
#define MOCK_RADIX_H

#include "mock.h"

enum { RADIX_SHIFT = 6, RADIX_SLOTS = 1 << RADIX_SHIFT, RADIX_NODES_MAX = 64 };

struct radix_tree_node {
#ifdef RADIX_BY_HEIGHT
	unsigned int path;
	unsigned int count;
#else
	unsigned char shift;
	unsigned char offset;
	unsigned char count;
	unsigned char exceptional;
#endif
	struct radix_tree_node *parent;
	void *private_data;
	struct list_head private_list;
	void *slots[RADIX_SLOTS];
	unsigned long tags[3][1];
};

struct radix_tree_root {
#ifdef RADIX_BY_HEIGHT
	unsigned int height;
#endif
	unsigned int gfp_mask;
	struct radix_tree_node *rnode;
};

/* For the truth: where the nodes are, the root's first. */
static struct radix_tree_node *radix_nodes[RADIX_NODES_MAX];
static int radix_nodes_used;

static void *radix_entry(const struct radix_tree_node *node, bool root)
{
#ifdef RADIX_BY_HEIGHT
	if (!root)
		return (void *)kaddr(node);
#endif
	(void)root;
	return (void *)(kaddr(node) | 1);
}

static struct radix_tree_node *radix_node(const void *entry)
{
	return at_kaddr((u64)entry & ~1UL);
}

static struct radix_tree_node *radix_new(unsigned int shift)
{
	struct radix_tree_node *node = NEW(struct radix_tree_node);

#ifdef RADIX_BY_HEIGHT
	node->path = shift / RADIX_SHIFT + 1;
#else
	node->shift = shift;
#endif
	radix_nodes[radix_nodes_used++] = node;
	return node;
}

static unsigned int radix_shift(const struct radix_tree_node *node)
{
#ifdef RADIX_BY_HEIGHT
	return (node->path - 1) * RADIX_SHIFT;
#else
	return node->shift;
#endif
}

static void radix_set_root(struct radix_tree_root *root, struct radix_tree_node *node)
{
	root->rnode = radix_entry(node, true);
#ifdef RADIX_BY_HEIGHT
	root->height = radix_shift(node) / RADIX_SHIFT + 1;
#endif
}

/* Make the tree high enough for an index. */
static void radix_grow(struct radix_tree_root *root, unsigned long last)
{
	if (!root->rnode) {
		unsigned int shift = 0;

		while (last >> shift >= RADIX_SLOTS)
			shift += RADIX_SHIFT;
		radix_set_root(root, radix_new(shift));
	}
	while (last >> radix_shift(radix_node(root->rnode)) >= RADIX_SLOTS) {
		struct radix_tree_node *old = radix_node(root->rnode);
		struct radix_tree_node *top = radix_new(radix_shift(old) + RADIX_SHIFT);

		top->slots[0] = radix_entry(old, false);
		top->count = 1;
		old->parent = K(top);
		radix_set_root(root, top);
	}
}

/* Store an item at 1 << order indices, as __radix_tree_insert() does. */
static void radix_insert(struct radix_tree_root *root, unsigned long index, unsigned int order, void *item)
{
	unsigned int level = order / RADIX_SHIFT * RADIX_SHIFT, slot;
	struct radix_tree_node *node;

	radix_grow(root, index | ((1UL << order) - 1));
	node = radix_node(root->rnode);
	while (radix_shift(node) > level) {
		slot = index >> radix_shift(node) & (RADIX_SLOTS - 1);
		if (!node->slots[slot]) {
			struct radix_tree_node *child = radix_new(radix_shift(node) - RADIX_SHIFT);

			child->parent = K(node);
			node->slots[slot] = radix_entry(child, false);
			node->count++;
		}
		node = radix_node(node->slots[slot]);
	}
	slot = index >> level & (RADIX_SLOTS - 1);
	node->slots[slot] = item;
	for (unsigned int i = 1; i < 1U << (order - level); i++)
		node->slots[slot + i] = (void *)(kaddr(&node->slots[slot]) | 1);
	node->count += 1U << (order - level);
}

/* The chunks of powers of two that a range of pfns is made of (4.14 to 4.19). */
__attribute__((unused)) static void radix_insert_range(struct radix_tree_root *root, unsigned long pfn,
						       unsigned long end, void *item)
{
	while (pfn < end) {
		unsigned int order = (unsigned int)__builtin_ctzl(pfn);

		while (1UL << order > end - pfn)
			order--;
		radix_insert(root, pfn, order, item);
		pfn += 1UL << order;
	}
}

/* One entry for every section that the range touches (before 4.14, and hmm_devmem_radix). */
__attribute__((unused)) static void radix_insert_sections(struct radix_tree_root *root, unsigned long pfn,
							  unsigned long end, void *item)
{
	enum { PFN_SECTION_SHIFT = SECTION_SHIFT - 12 };

	for (unsigned long i = pfn >> PFN_SECTION_SHIFT; i <= (end - 1) >> PFN_SECTION_SHIFT; i++)
		radix_insert(root, i, 0, item);
}

#define TREE_NODES radix_nodes
#define TREE_NODES_USED radix_nodes_used

#endif
