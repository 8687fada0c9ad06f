// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: files, xarrays and lists of inodes of any bytes, then the pages that their entries name.
// Promises: walks end, give indices in rising order, and say the same twice; no page has a mark without an
// entry; a scan with the marks gives every page one class, with and without templates.
//
// The input is a struct head (fuzz_kernel.h), a struct files, then pieces of memory until its end: address,
// length, bytes.  What lies in no piece cannot be read.

#include "fuzz_kernel.h"

enum {
	PIECES_MAX = 256,
	RANGE_PAGES_MAX = 1024,
	// Far more reads than any walk over so little memory needs.
	READS_MAX = 1 << 20,
};

/** All that an input says before its memory. */
struct files {
	struct zd_xa_layout xa;
	struct zd_space_layout space;
	struct zd_inode_layout inode;
	uint16_t pages; /* of the range */
	uint64_t mapping, list;
	uint16_t stop_at;
	bool stuck, complete;
};

struct piece {
	uint64_t address;
	size_t size;
	const uint8_t *bytes;
};

struct memory {
	struct piece pieces[PIECES_MAX];
	size_t count;
	uint64_t bytes, reads, stop_at;
};

static void take_files(struct input *input, const struct zd_layout *layout, struct files *files)
{
	memset(files, 0, sizeof(*files));
	files->xa = (struct zd_xa_layout){ .node_size = take(input, 2), .slot_count = take(input, 2) };
	files->xa.shift = take(input, 2);
	files->xa.offset = take(input, 2);
	files->xa.count = take(input, 2);
	files->xa.parent = take(input, 2);
	files->xa.array = take(input, 2);
	files->xa.slots = take(input, 2);
	files->xa.word_size = layout->word_size;
	files->xa.big_endian = layout->big_endian;
	files->space.size = take(input, 2);
	files->space.host = take(input, 2);
	files->space.xarray = take(input, 2);
	files->space.xa_head = take(input, 2);
	files->space.lock = take(input, 2);
	files->inode.size = take(input, 2);
	files->inode.sb_list = take(input, 2);
	files->inode.mapping = take(input, 2);
	files->inode.flags = take(input, 2);
	files->pages = take(input, 2) % RANGE_PAGES_MAX + 1;
	files->mapping = take(input, 8);
	files->list = take(input, 8);
	files->stop_at = take(input, 2);
	files->stuck = take(input, 1) & 1;
	files->complete = take(input, 1) & 1;
}

static void take_memory(struct input *input, struct memory *memory)
{
	memory->count = 0;
	memory->bytes = 0;
	while (input->size && memory->count < PIECES_MAX) {
		struct piece *piece = &memory->pieces[memory->count++];

		piece->address = take(input, 8);
		piece->size = take(input, 2);
		if (piece->size > input->size)
			piece->size = input->size;
		piece->bytes = input->data;
		input->data += piece->size;
		input->size -= piece->size;
		memory->bytes += piece->size;
	}
}

static enum zd_read read_memory(void *context, uint64_t address, void *buffer, size_t size)
{
	struct memory *memory = context;

	PROMISE(memory->reads++ < READS_MAX);
	if (memory->stop_at && memory->reads >= memory->stop_at)
		return ZD_READ_STOP;
	for (size_t i = 0; i < memory->count; i++) {
		const struct piece *piece = &memory->pieces[i];

		if (address - piece->address < piece->size &&
		    size <= piece->size - (address - piece->address)) {
			memcpy(buffer, piece->bytes + (address - piece->address), size);
			return ZD_READ_DONE;
		}
	}
	return ZD_READ_FAULT;
}

/** Indices so far of a walk. */
struct order {
	uint64_t values, last;
};

static struct zd_error *check_value(void *context, const struct zd_xa_value *value)
{
	struct order *order = context;

	PROMISE(!order->values || value->index > order->last);
	PROMISE(value->slots);
	order->values++;
	order->last = value->index;
	return NULL;
}

static struct zd_error *check_entry(void *context, const struct zd_dax_entry *entry)
{
	struct order *order = context;

	PROMISE(!entry->misplaced);
	PROMISE(!order->values || entry->index > order->last);
	order->values++;
	order->last = entry->index;
	return NULL;
}

static struct zd_error *check_inode(void *context, uint64_t inode, uint64_t mapping)
{
	uint64_t *inodes = context;

	(void)inode;
	(void)mapping;
	++*inodes;
	return NULL;
}

static void check_walk(const struct zd_xa_walk *walk)
{
	PROMISE(walk->nodes >= walk->unreadable + walk->corrupt || walk->nodes >= ZD_XA_NODES_MAX ||
		walk->corrupt);
	PROMISE(!!walk->why == (walk->unreadable + walk->corrupt > 0));
}

static void check_tree(const struct files *files, struct memory *memory)
{
	const struct zd_memory reader = { read_memory, memory };
	struct zd_xa_walk first, second;
	struct order order = { 0 }, again = { 0 };
	uint8_t head[8] = { 0 };
	uint64_t address = files->mapping + files->space.xarray;

	read_memory(memory, files->mapping + files->space.xa_head, head, files->xa.word_size);
	memory->reads = 0;
	PROMISE(!zd_xa_walk(&files->xa, &reader, address, zd_xa_word(&files->xa, head), check_value, &order,
			    &first));
	check_walk(&first);
	memory->reads = 0;
	PROMISE(!zd_xa_walk(&files->xa, &reader, address, zd_xa_word(&files->xa, head), check_value, &again,
			    &second));
	PROMISE(order.values == again.values && order.last == again.last);
	PROMISE(first.nodes == second.nodes && first.corrupt == second.corrupt &&
		first.unreadable == second.unreadable && first.stopped == second.stopped);
}

/** Pages with a mark; those outside of the range have none. */
static uint64_t count_marks(const struct zd_entries *entries, const struct zd_range *range)
{
	uint64_t marked = 0, run;
	bool known;

	for (uint64_t pfn = range->start_pfn; pfn < range->end_pfn; pfn += run) {
		const uint8_t *marks = zd_entries_marks(entries, pfn, &run, &known);

		PROMISE(known && run && run <= range->end_pfn - pfn);
		for (uint64_t i = 0; marks && i < run; i++)
			marked += (marks[i] & ZD_MARK_COUNT) != 0;
	}
	PROMISE(!zd_entries_marks(entries, range->end_pfn, &run, &known) && !known);
	return marked;
}

static void check_file(struct zd_entries *entries, const struct files *files, struct memory *memory,
		       const struct zd_range *range)
{
	const struct zd_memory reader = { read_memory, memory };
	struct zd_file_tally marked, walked;
	struct order order = { 0 };

	memory->reads = 0;
	PROMISE(!zd_entries_walk_file(entries, &reader, files->mapping, check_entry, &order, &walked));
	PROMISE(order.values <= walked.entries);
	PROMISE(!count_marks(entries, range));
	memory->reads = 0;
	PROMISE(!zd_entries_add_file(entries, &reader, files->mapping, &marked));
	check_walk(&marked.walk);
	PROMISE(count_marks(entries, range) <= marked.pages);
	// The struct pages are read beside the tree: where reading stops, the two stop at different places.
	if (!memory->stop_at)
		PROMISE(marked.entries == walked.entries && marked.pages == walked.pages &&
			marked.locked == walked.locked && marked.walk.nodes == walked.walk.nodes);
	zd_entries_judge_lock(entries, range->start_pfn, files->pages, files->stuck);
	PROMISE(!zd_entries_know(entries, files->mapping, ZD_MAPPING_UNKNOWN));
	PROMISE(zd_entries_kind(entries, files->mapping) == ZD_MAPPING_UNKNOWN);
}

static void check_list(const struct files *files, struct memory *memory)
{
	const struct zd_memory reader = { read_memory, memory };
	struct zd_inode_walk walk;
	struct zd_error *error;
	uint64_t dax = 0;

	memory->reads = 0;
	error = zd_inodes_walk(&files->xa, &files->inode, &reader, files->list, check_inode, &dax, &walk);
	if (error) {
		PROMISE(error->code == ZD_ERROR_INVALID && error->message[0]);
		zd_error_destroy(error);
		return;
	}
	PROMISE(dax == walk.dax && walk.dax <= walk.inodes);
	// Every inode lies at an address of its own.
	PROMISE(walk.inodes <= memory->bytes);
}

/** The struct pages of the range that lie in one piece, judged with the marks. */
static void check_pages(struct head *head, const struct zd_entries *entries, struct memory *memory)
{
	uint64_t pages = head->range.end_pfn - head->range.start_pfn;
	uint8_t *bytes = malloc(pages * head->layout.page_size);

	PROMISE(bytes);
	memory->stop_at = 0;
	if (read_memory(memory, head->range.memmap, bytes, pages * head->layout.page_size) == ZD_READ_DONE)
		scan_both(head, bytes, pages, entries);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct memory memory;
	struct input input = { data, size };
	struct zd_entries entries;
	struct zd_error *error;
	struct files files;
	struct head head;

	take_head(&input, &head);
	if (!is_layout(&head.layout))
		return 0;
	take_files(&input, &head.layout, &files);
	take_memory(&input, &memory);
	memory.stop_at = files.stop_at;
	if (__builtin_add_overflow(head.range.start_pfn, files.pages, &head.range.end_pfn) ||
	    head.range.end_pfn == UINT64_MAX ||
	    head.range.memmap + files.pages * head.layout.page_size < head.range.memmap)
		return 0;
	error = zd_entries_init(&entries, &head.layout, head.scheme.shared, &files.xa, &files.space);
	if (!error)
		error = zd_entries_add_range(&entries, &head.range);
	if (error) {
		PROMISE(error->code == ZD_ERROR_INVALID && error->message[0]);
		zd_error_destroy(error);
	} else {
		check_tree(&files, &memory);
		check_file(&entries, &files, &memory, &head.range);
		check_list(&files, &memory);
		PROMISE(!zd_entries_set_complete(&entries, head.range.start_pfn, files.complete));
		PROMISE(zd_entries_complete(&entries, head.range.start_pfn) == files.complete);
		check_pages(&head, &entries, &memory);
	}
	zd_entries_deinit(&entries);
	return 0;
}
