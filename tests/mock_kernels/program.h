/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fills an era's struct pages from its rows, and writes the core and the truth.
 *
 * An era includes this behind its struct page, dev_pagemap and enums, its registry, and its tables
 * devices[], states[] and evidence[] (what the scheme is told by, in words).  register_device() is the
 * registry's, or follows.  An era may define REFCOUNT (the member of struct page that counts), COMPOUND_DEVMAP
 * (compound pages with their order in the first tail), NEW_PAGEMAP (where the memory of a dev_pagemap comes
 * from) and REFERENCES_HELD (which of the sums below the pages hold of dev_pagemap.ref).
 * The truth repeats the rows.  Nothing here is computed by, or looked up in, the auditor.
 */
#ifndef MOCK_PROGRAM_H
#define MOCK_PROGRAM_H

#include "states.h"

#ifndef NEW_PAGEMAP
#define NEW_PAGEMAP(device) NEW(struct dev_pagemap)
#endif

#ifndef REFERENCES_HELD
#define REFERENCES_HELD pages_referenced
#endif

/* Fill device->pgmap, and enter it into the registry. */
static void register_device(struct device *device);

static size_t devices_count(void)
{
	return sizeof(devices) / sizeof(*devices);
}

static size_t states_count(void)
{
	return sizeof(states) / sizeof(*states);
}

/* ---- a file ---- */

struct file_system_type {
	const char *name;
};

struct super_block {
	char s_id[32];
	struct file_system_type *s_type;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
	struct address_space *i_mapping;
};

struct address_space {
	struct inode *host;
};

static struct file_system_type ext4_fs_type KERNEL = { (const char *)0 };
static char ext4_name[] KERNEL = "ext4";

static struct address_space *the_file(void)
{
	static struct address_space *mapping;
	struct super_block *sb;
	struct inode *inode;

	if (mapping)
		return mapping;
	mapping = NEW(struct address_space);
	inode = NEW(struct inode);
	sb = NEW(struct super_block);
	ext4_fs_type.name = K(ext4_name);
	strcpy(sb->s_id, "pmem0");
	sb->s_type = K(&ext4_fs_type);
	*inode = (struct inode){ .i_ino = 13, .i_sb = K(sb), .i_mapping = K(mapping) };
	mapping->host = K(inode);
	return mapping;
}

static u64 mapping_word(enum mapping mapping)
{
	static const u64 words[] = { [M_NULL] = 0, [M_SHARED] = 1, [M_POISON] = 0xdead000000000400 };

	if (mapping == M_FILE || mapping == M_ANON)
		return kaddr(the_file()) | (mapping == M_ANON);
	return words[mapping];
}

/* ---- struct pages ---- */

/* ZONE_DEVICE on node 0, with the node and zone bits at the top of the word. */
static unsigned long zone_flags(void)
{
	return (unsigned long)ZONE_DEVICE << (64 - 6 - 3) | 1UL << PG_reserved;
}

static void fill_page(struct page *page, const struct device *device, const struct state *state)
{
	page->flags = (zone_flags() | state->set) & ~state->clear;
	page->pgmap = state->pgmap ? (void *)state->pgmap : K((struct dev_pagemap *)device->pgmap);
	page->mapping = (void *)mapping_word(state->mapping);
	page->index = state->index;
	page->_mapcount.counter = state->maps - 1;
	page->REFCOUNT.counter = state->refcount;
}

#ifdef COMPOUND_DEVMAP
static void fill_tails(struct page *head, const struct device *device, const struct state *state)
{
	const struct state tail = { .refcount = 0 };

	head->flags |= 1UL << PG_head;
	for (unsigned long i = 1; i < 1UL << state->order; i++) {
		fill_page(&head[i], device, &tail);
		head[i].compound_head =
			kaddr(head) - kaddr(device->memmap) + VMEMMAP + device->pfn * sizeof(struct page) + 1;
	}
	head[1].compound_order = state->order;
	head[1].compound_dtor = 1;
	head[1].compound_mapcount.counter = -1;
	head[2].REFCOUNT.counter = state->tail_refcount;
}
#endif

static void fill_state(const struct device *device, const struct state *state)
{
	for (unsigned long i = 0; i < state->count; i += 1UL << state->order) {
		struct page *head = device->memmap + state->at + i;

		fill_page(head, device, state);
#ifdef COMPOUND_DEVMAP
		if (state->order)
			fill_tails(head, device, state);
#endif
	}
}

static bool is_filled(const struct state *state)
{
	bool alarms = state->severity && strcmp(state->severity, "info");

	return variant == BROKEN || !(alarms || state->broken_only);
}

static void fill_device(struct device *device)
{
	struct state rest = {
		.at = device->reserve,
		.count = device->pages - device->reserve,
		.order = device->shift,
		.refcount = device->idle,
	};

	fill_state(device, &rest);
	for (size_t i = 0; i < states_count(); i++) {
		if (&devices[states[i].device] == device && is_filled(&states[i]))
			fill_state(device, &states[i]);
	}
}

/* ---- who holds dev_pagemap.ref: one of these is an era's ---- */

/* Every folio, in use or not. */
__attribute__((unused)) static long folios_of(const struct device *device)
{
	return (long)((device->pages - device->reserve) >> device->shift);
}

/* Every page that is not at 0. */
__attribute__((unused)) static long pages_referenced(const struct device *device)
{
	long sum = 0;

	for (unsigned long i = device->reserve; i < device->pages; i++)
		sum += device->memmap[i].REFCOUNT.counter != 0;
	return sum;
}

/* Every reference on a page beyond the idle one. */
__attribute__((unused)) static long references_above_idle(const struct device *device)
{
	long sum = 0;

	for (unsigned long i = device->reserve; i < device->pages; i++)
		sum += device->memmap[i].REFCOUNT.counter - device->idle;
	return sum;
}

#ifdef DRIVERS
/* ---- what drivers keep ---- */

/* Per page whether the books of its driver call it used. */
static const bool *books_of(const struct device *device)
{
	static bool used[4096];

	for (unsigned long i = 0; i < device->pages; i++)
		used[i] = device->memmap[i].REFCOUNT.counter > device->idle ||
			  device->memmap[i]._mapcount.counter >= 0;
	for (size_t i = 0; i < states_count(); i++) {
		const struct state *state = &states[i];

		if (&devices[state->device] == device && is_filled(state) && state->books)
			memset(used + state->at, state->books == BOOKS_USED, state->count);
	}
	return used;
}
#endif

/* ---- pagemaps ---- */

static void add_memmap(struct device *device)
{
	size_t size = device->pages * sizeof(struct page);

	device->memmap = ram_alloc(size, PAGE_SIZE_);
	map_range(VMEMMAP + device->pfn * sizeof(struct page), device->memmap, size);
}

static void add_device(struct device *device)
{
	bool broken = variant == BROKEN;

	add_resource(device->name, device_resource(device));
	add_memmap(device);
	/* The pages name the pagemap, and its reference counts the pages. */
	device->pgmap = NEW_PAGEMAP(device);
	if (broken && device->dies) {
		device->ref_state = REF_DYING;
		device->idle = 0;
	}
	fill_device(device);
	/* Its own reference, which removal puts first, and those of the pages. */
	device->ref =
		(device->ref_state == REF_LIVE) + REFERENCES_HELD(device) + (broken ? device->ref_error : 0);
	register_device(device);
#ifdef DRIVERS
	keep_books(device, books_of(device));
#endif
}

/* ---- truth ---- */

static void print_string(FILE *file, const char *key, const char *value)
{
	fprintf(file, value ? "\"%s\": \"%s\", " : "\"%s\": null, ", key, value);
}

static void print_state(FILE *file, const struct state *state)
{
	const struct device *device = &devices[state->device];

	fprintf(file, "{\"pfn\": %lu, \"count\": %lu, \"order\": %u, ", device->pfn + state->at, state->count,
		state->order);
	print_string(file, "class", state->class);
	print_string(file, "rule", state->rule);
	print_string(file, "severity", state->severity);
	fprintf(file, "\"tail\": %d, \"why\": \"%s\"}", state->tail_refcount != 0, state->why);
}

static void print_device(FILE *file, const struct device *device)
{
	bool broken = variant == BROKEN;

	fprintf(file, "{\"start_pfn\": %lu, \"first_pfn\": %lu, \"end_pfn\": %lu, \"ref\": %ld, \"idle\": %d, ",
		device->pfn, device->pfn + device->reserve, end_pfn(device), device->ref, device->idle);
	print_string(file, "type", device->type);
	print_string(file, "name", device->name);
	print_string(file, "ref_state", device->ref_state == REF_LIVE ? "live" : "dying");
	print_string(file, "rest_class", device->rest_class ? device->rest_class : "idle");
	print_string(file, "rest_rule", device->rest_rule);
	print_string(file, "rule", broken ? device->pagemap_rule : NULL);
	print_string(file, "severity", broken ? device->pagemap_severity : NULL);
	fprintf(file, "\"address\": %llu}", (unsigned long long)kaddr(device->pgmap));
}

static void print_truth(FILE *file)
{
	const char *separator = "";

	fprintf(file, "{\"release\": \"%s\", \"scheme\": \"%s\", \"evidence\": [", RELEASE, SCHEME);
	for (size_t i = 0; evidence[i]; i++, separator = ", ")
		fprintf(file, "%s\"%s\"", separator, evidence[i]);
	fprintf(file, "],\n\"nodes\": [");
	separator = "";
	for (int i = 0; i < TREE_NODES_USED; i++, separator = ", ")
		fprintf(file, "%s{\"offset\": %llu, \"address\": %llu, \"slots\": %zu}", separator,
			(unsigned long long)core_offset(TREE_NODES[i]),
			(unsigned long long)kaddr(TREE_NODES[i]), offsetof(__typeof__(**TREE_NODES), slots));
	fprintf(file, "],\n\"pagemaps\": [\n");
	for (size_t i = 0; i < devices_count(); i++) {
		fprintf(file, i ? ",\n" : "");
		print_device(file, &devices[i]);
	}
	fprintf(file, "],\n\"states\": [\n");
	separator = "";
	for (size_t i = 0; i < states_count(); i++) {
		if (!is_filled(&states[i]))
			continue;
		fputs(separator, file);
		print_state(file, &states[i]);
		separator = ",\n";
	}
	fprintf(file, "]}\n");
}

/* ---- the program ---- */

static FILE *create(const char *directory, const char *name)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "wb");
	if (!file) {
		perror(path);
		exit(1);
	}
	return file;
}

static void finish(FILE *file)
{
	if (fclose(file)) {
		perror("mock");
		exit(1);
	}
}

/* program BUILD-ID healthy|broken DIRECTORY: writes DIRECTORY/vmcore and DIRECTORY/truth-states.json. */
int main(int argc, char **argv)
{
	FILE *file;

	if (argc != 4)
		return 2;
	variant = strcmp(argv[2], "broken") ? HEALTHY : BROKEN;
	setup_kernel();
	for (size_t i = 0; i < devices_count(); i++)
		add_device(&devices[i]);
	make_vmcoreinfo(argv[1]);
	file = create(argv[3], "vmcore");
	write_core(file);
	finish(file);
	file = create(argv[3], "truth-states.json");
	print_truth(file);
	finish(file);
	return 0;
}

#endif
