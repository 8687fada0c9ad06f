// SPDX-License-Identifier: LGPL-2.1-or-later
// DAX entries from the files' side: decode them, count them per page, compare them with the pages.

#include <stdlib.h>
#include <string.h>

#include "entries.h"

enum {
	// Flags of a DAX entry, below the pfn (fs/dax.c: DAX_LOCKED, ...).
	DAX_LOCKED = 1,
	DAX_PMD = 2,
	DAX_ZERO_PAGE = 4,
	DAX_EMPTY = 8,
	DAX_SHIFT = 4,
	// Struct pages that are read at once.
	WINDOW_BYTES = 4096,
	// So many inodes are more than a machine has memory for.
	INODES_MAX = 1 << 30,
};

static const uint64_t RANGE_PAGES_MAX = UINT64_C(1) << 40;

void zd_dax_entry_decode(const struct zd_xa_value *value, uint8_t pmd_order, struct zd_dax_entry *ret)
{
	uint64_t flags = value->value;

	*ret = (struct zd_dax_entry){
		.index = value->index,
		.pfn = value->value >> DAX_SHIFT,
		.order = flags & DAX_PMD ? pmd_order : 0,
		.pmd = flags & DAX_PMD,
		.locked = flags & DAX_LOCKED,
		.zero = flags & DAX_ZERO_PAGE,
		.empty = flags & DAX_EMPTY,
	};
	ret->misplaced = ret->order >= 64 || value->index & ((UINT64_C(1) << ret->order) - 1) ||
			 (uint64_t)value->slots << value->shift != UINT64_C(1) << ret->order;
}

// ---------------------------------------------------------------- life cycle

struct zd_error *zd_entries_init(struct zd_entries *entries, const struct zd_layout *layout,
				 enum zd_shared shared, const struct zd_xa_layout *xa,
				 const struct zd_space_layout *space)
{
	uint32_t word = xa->word_size;
	struct zd_error *error;

	memset(entries, 0, sizeof(*entries));
	error = zd_layout_check(layout);
	if (!error)
		error = zd_xa_layout_check(xa);
	if (error)
		return error;
	if (space->size > ZD_SPACE_MAX || space->host + word > space->size ||
	    space->xa_head + word > space->size || space->lock + UINT32_C(4) > space->size)
		return zd_error_create(ZD_ERROR_INVALID, "struct address_space: a member lies outside of it");
	entries->layout = *layout;
	entries->xa = *xa;
	entries->space = *space;
	entries->shared = shared;
	entries->window = malloc(WINDOW_BYTES);
	return entries->window ? NULL : zd_error_no_memory();
}

static void free_blocks(struct zd_marks *marks)
{
	for (size_t i = 0; i < marks->block_count; i++) {
		free(marks->blocks[i]);
		marks->blocks[i] = NULL;
	}
}

void zd_entries_clear(struct zd_entries *entries)
{
	for (size_t i = 0; i < entries->marks_count; i++)
		free_blocks(&entries->marks[i]);
	entries->locked.count = entries->outside.count = 0;
	entries->complete = false;
	entries->window_pages = 0;
}

void zd_entries_deinit(struct zd_entries *entries)
{
	for (size_t i = 0; i < entries->marks_count; i++) {
		free_blocks(&entries->marks[i]);
		free(entries->marks[i].blocks);
	}
	free(entries->marks);
	free(entries->mappings);
	free(entries->window);
	memset(entries, 0, sizeof(*entries));
}

struct zd_error *zd_entries_add_range(struct zd_entries *entries, const struct zd_range *range)
{
	const struct zd_marks *last = entries->marks_count ? &entries->marks[entries->marks_count - 1] : NULL;
	uint64_t pages = range->end_pfn - range->start_pfn;
	struct zd_marks *grown, marks = { .range = *range };

	if (range->end_pfn <= range->start_pfn || pages > RANGE_PAGES_MAX ||
	    (last && range->start_pfn < last->range.end_pfn))
		return zd_error_create(ZD_ERROR_INVALID, "range [%#llx, %#llx) makes no sense",
				       (unsigned long long)range->start_pfn,
				       (unsigned long long)range->end_pfn);
	grown = realloc(entries->marks, (entries->marks_count + 1) * sizeof(*grown));
	if (!grown)
		return zd_error_no_memory();
	entries->marks = grown;
	marks.block_count = (pages + ZD_MARKS_PAGES - 1) / ZD_MARKS_PAGES;
	marks.blocks = calloc(marks.block_count, sizeof(*marks.blocks));
	if (!marks.blocks)
		return zd_error_no_memory();
	entries->marks[entries->marks_count++] = marks;
	return NULL;
}

// ---------------------------------------------------------------- marks

static struct zd_marks *find_range(const struct zd_entries *entries, uint64_t pfn)
{
	size_t low = 0, high = entries->marks_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (pfn < entries->marks[middle].range.start_pfn)
			high = middle;
		else if (pfn >= entries->marks[middle].range.end_pfn)
			low = middle + 1;
		else
			return &entries->marks[middle];
	}
	return NULL;
}

const uint8_t *zd_entries_marks(const struct zd_entries *entries, uint64_t pfn, uint64_t *run, bool *known)
{
	const struct zd_marks *marks = find_range(entries, pfn);
	uint64_t offset, left;

	*known = marks;
	*run = 1;
	if (!marks)
		return NULL;
	offset = pfn - marks->range.start_pfn;
	left = marks->range.end_pfn - pfn;
	*run = ZD_MARKS_PAGES - offset % ZD_MARKS_PAGES;
	if (*run > left)
		*run = left;
	return marks->blocks[offset / ZD_MARKS_PAGES]
		       ? marks->blocks[offset / ZD_MARKS_PAGES] + offset % ZD_MARKS_PAGES
		       : NULL;
}

/** The mark of a page of @marks, to write; NULL: no memory. */
static uint8_t *mark_of(struct zd_marks *marks, uint64_t pfn)
{
	uint64_t offset = pfn - marks->range.start_pfn;
	uint8_t **block = &marks->blocks[offset / ZD_MARKS_PAGES];

	if (!*block) {
		*block = malloc(ZD_MARKS_PAGES);
		if (!*block)
			return NULL;
		memset(*block, 0, ZD_MARKS_PAGES);
	}
	return *block + offset % ZD_MARKS_PAGES;
}

void zd_entries_judge_lock(struct zd_entries *entries, uint64_t pfn, uint64_t pages, bool stuck)
{
	while (pages) {
		bool known;
		uint64_t run;
		uint8_t *marks = (uint8_t *)zd_entries_marks(entries, pfn, &run, &known);

		if (run > pages)
			run = pages;
		for (uint64_t i = 0; marks && i < run; i++) {
			if (!(marks[i] & ZD_MARK_LOCKED))
				continue;
			marks[i] |= stuck ? ZD_MARK_STUCK : ZD_MARK_FLUX;
			if (!stuck)
				marks[i] &= ~ZD_MARK_LOCKED;
		}
		pfn += run;
		pages -= run;
	}
}

// ---------------------------------------------------------------- odd mappings

/** Where a mapping stands, or would. */
static size_t find_mapping(const struct zd_entries *entries, uint64_t mapping)
{
	size_t low = 0, high = entries->mappings_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (entries->mappings[middle].mapping < mapping)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

enum zd_mapping_kind zd_entries_kind(const struct zd_entries *entries, uint64_t mapping)
{
	size_t i = find_mapping(entries, mapping);

	if (i < entries->mappings_count && entries->mappings[i].mapping == mapping)
		return entries->mappings[i].kind;
	return ZD_MAPPING_PLAIN;
}

struct zd_error *zd_entries_know(struct zd_entries *entries, uint64_t mapping, enum zd_mapping_kind kind)
{
	size_t i = find_mapping(entries, mapping);
	struct zd_known_mapping *grown;

	if (i < entries->mappings_count && entries->mappings[i].mapping == mapping) {
		entries->mappings[i].kind = kind;
		return NULL;
	}
	if (entries->mappings_count == ZD_MAPPINGS_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "more than %d odd mappings", ZD_MAPPINGS_MAX);
	grown = realloc(entries->mappings, (entries->mappings_count + 1) * sizeof(*grown));
	if (!grown)
		return zd_error_no_memory();
	memmove(&grown[i + 1], &grown[i], (entries->mappings_count - i) * sizeof(*grown));
	grown[i] = (struct zd_known_mapping){ mapping, kind };
	entries->mappings = grown;
	entries->mappings_count++;
	return NULL;
}

// ---------------------------------------------------------------- what the page itself says

static enum zd_read read_pages(struct zd_entries *entries, const struct zd_memory *memory,
			       const struct zd_range *range, uint64_t pfn, uint64_t pages)
{
	uint32_t size = entries->layout.page_size;
	uint64_t address = range->memmap + (pfn - range->start_pfn) * size;
	enum zd_read result = memory->read(memory->context, address, entries->window, pages * size);

	entries->window_pfn = pfn;
	entries->window_pages = result == ZD_READ_DONE ? pages : 0;
	return result;
}

/** The struct page of a pfn of @range; NULL where it cannot be read, or @stop is set. */
static const uint8_t *struct_page(struct zd_entries *entries, const struct zd_memory *memory,
				  const struct zd_range *range, uint64_t pfn, bool *stop)
{
	uint32_t size = entries->layout.page_size, room = WINDOW_BYTES / size;
	uint64_t first = pfn - (pfn - range->start_pfn) % room;
	uint64_t pages = range->end_pfn - first < room ? range->end_pfn - first : room;
	// Where one page follows on another, more will.
	bool follows = pfn == first || pfn == entries->last_pfn + 1;
	enum zd_read result = ZD_READ_DONE;

	entries->last_pfn = pfn;
	if (pfn - entries->window_pfn >= entries->window_pages) {
		result = read_pages(entries, memory, range, follows ? first : pfn, follows ? pages : 1);
		// Not all of them may be there.
		if (result == ZD_READ_FAULT && follows)
			result = read_pages(entries, memory, range, pfn, 1);
	}
	*stop = result == ZD_READ_STOP;
	return result == ZD_READ_DONE ? entries->window + (pfn - entries->window_pfn) * size : NULL;
}

static bool names_file(const struct zd_entries *entries, const uint8_t *page, uint64_t mapping, uint64_t index)
{
	const struct zd_layout *layout = &entries->layout;

	return !(zd_load(layout, page, ZD_PGMAP) & 1) && zd_load(layout, page, ZD_MAPPING) == mapping &&
	       zd_load(layout, page, ZD_INDEX) == index;
}

// ---------------------------------------------------------------- one file

struct file_walk {
	struct zd_entries *entries;
	const struct zd_memory *memory;
	uint64_t mapping;
	struct zd_file_tally *tally;
	struct zd_error *(*visit)(void *context, const struct zd_dax_entry *entry);
	void *context;
	uint8_t pmd_order;
};

static void keep(struct zd_kept *kept, uint64_t mapping, const struct zd_dax_entry *entry)
{
	if (kept->count < ZD_ENTRIES_KEPT)
		kept->entries[kept->count] = (struct zd_kept_entry){ mapping, *entry };
	kept->count++;
}

/** Add one to the count of a mark, with the bits of the entry. */
static uint8_t counted(uint8_t mark, uint8_t bits)
{
	return (mark | bits) + ((mark & ZD_MARK_COUNT) < ZD_MARK_COUNT);
}

/** Mark page @i of an entry; false where the walk is to end. */
static struct zd_error *mark_page(struct file_walk *walk, struct zd_marks *marks,
				  const struct zd_dax_entry *entry, uint64_t i)
{
	struct zd_entries *entries = walk->entries;
	uint8_t *mark = mark_of(marks, entry->pfn + i);
	uint8_t bits = (entry->pmd ? ZD_MARK_PMD : 0) | (entry->locked ? ZD_MARK_LOCKED : 0) |
		       (walk->tally->flux ? ZD_MARK_FLUX : 0);
	const uint8_t *page;

	if (!mark)
		return zd_error_no_memory();
	// A folio has one mapping, and its tails belong to it.
	if (i && entries->shared == ZD_SHARED_SHARE) {
		*mark = counted(*mark, bits | ZD_MARK_MATCH);
		return NULL;
	}
	page = struct_page(entries, walk->memory, &marks->range, entry->pfn + i, &walk->tally->walk.stopped);
	if (page && names_file(entries, page, walk->mapping, entry->index + i))
		bits |= ZD_MARK_MATCH;
	*mark = counted(*mark, bits);
	return NULL;
}

static struct zd_error *mark_entry(void *context, const struct zd_dax_entry *entry)
{
	struct file_walk *walk = context;
	struct zd_error *error = NULL;

	if (entry->locked)
		keep(&walk->entries->locked, walk->mapping, entry);
	for (uint64_t i = 0; !error && i >> entry->order == 0 && !walk->tally->walk.stopped; i++) {
		struct zd_marks *marks = find_range(walk->entries, entry->pfn + i);

		if (marks) {
			error = mark_page(walk, marks, entry, i);
			continue;
		}
		keep(&walk->entries->outside, walk->mapping, entry);
		walk->tally->outside++;
		break;
	}
	return error;
}

static struct zd_error *take_value(void *context, const struct zd_xa_value *value)
{
	struct file_walk *walk = context;
	struct zd_file_tally *tally = walk->tally;
	struct zd_dax_entry entry;

	zd_dax_entry_decode(value, walk->pmd_order, &entry);
	tally->entries++;
	tally->pmd += entry.pmd;
	tally->zero += entry.zero;
	tally->empty += entry.empty;
	tally->locked += entry.locked;
	// What fills another place than its size says is no entry to go by.
	if (entry.misplaced) {
		tally->misplaced++;
		return NULL;
	}
	if (!entry.zero && !entry.empty)
		tally->pages += UINT64_C(1) << entry.order;
	else if (!walk->visit || walk->visit == mark_entry)
		return NULL;
	return walk->visit(walk->context, &entry);
}

static struct zd_error *walk_file(struct file_walk *walk)
{
	const struct zd_space_layout *layout = &walk->entries->space;
	const struct zd_xa_layout *xa = &walk->entries->xa;
	struct zd_file_tally *tally = walk->tally;
	uint8_t space[ZD_SPACE_MAX];
	uint32_t lock;

	memset(tally, 0, sizeof(*tally));
	switch (walk->memory->read(walk->memory->context, walk->mapping, space, layout->size)) {
	case ZD_READ_STOP:
		tally->walk.stopped = true;
		return NULL;
	case ZD_READ_FAULT:
		tally->no_space = true;
		return NULL;
	case ZD_READ_DONE:
		break;
	}
	// Of a file, every address_space names its inode: without, it is lost memory.
	tally->no_space = !zd_xa_word(xa, space + layout->host);
	memcpy(&lock, space + layout->lock, sizeof(lock));
	tally->flux = lock;
	if (tally->no_space)
		return NULL;
	return zd_xa_walk(xa, walk->memory, walk->mapping + layout->xarray,
			  zd_xa_word(xa, space + layout->xa_head), take_value, walk, &tally->walk);
}

struct zd_error *zd_entries_add_file(struct zd_entries *entries, const struct zd_memory *memory,
				     uint64_t mapping, struct zd_file_tally *ret)
{
	struct file_walk walk = { entries, memory, mapping, ret, mark_entry, NULL, entries->layout.pmd_order };

	walk.context = &walk;
	return walk_file(&walk);
}

struct zd_error *
zd_entries_walk_file(const struct zd_entries *entries, const struct zd_memory *memory, uint64_t mapping,
		     struct zd_error *(*visit)(void *context, const struct zd_dax_entry *entry), void *context,
		     struct zd_file_tally *ret)
{
	struct file_walk walk = { (struct zd_entries *)entries, memory, mapping, ret, visit, context,
				  entries->layout.pmd_order };

	return walk_file(&walk);
}

// ---------------------------------------------------------------- inodes

static void end_early(struct zd_inode_walk *walk, uint64_t node, const char *why)
{
	walk->bad_node = node;
	walk->why = why;
}

/** The node behind a list head. */
static uint64_t first_node(const struct zd_xa_layout *xa, const struct zd_memory *memory, uint64_t head,
			   struct zd_inode_walk *ret)
{
	uint8_t bytes[8];
	uint64_t node;

	switch (memory->read(memory->context, head, bytes, xa->word_size)) {
	case ZD_READ_STOP:
		ret->stopped = true;
		return head;
	case ZD_READ_FAULT:
		end_early(ret, head, "the list's head cannot be read");
		return head;
	case ZD_READ_DONE:
		break;
	}
	node = zd_xa_word(xa, bytes);
	if (node)
		return node;
	end_early(ret, head, "the list's head is empty memory");
	return head;
}

struct zd_error *zd_inodes_walk(const struct zd_xa_layout *xa, const struct zd_inode_layout *layout,
				const struct zd_memory *memory, uint64_t head,
				struct zd_error *(*visit)(void *context, uint64_t inode, uint64_t mapping),
				void *context, struct zd_inode_walk *ret)
{
	uint64_t previous = head, node;
	uint8_t inode[ZD_SPACE_MAX];
	struct zd_error *error = zd_xa_layout_check(xa);
	uint32_t word = xa->word_size, flags;

	memset(ret, 0, sizeof(*ret));
	if (error)
		return error;
	if (layout->size > ZD_SPACE_MAX || layout->sb_list + 2 * word > layout->size ||
	    layout->mapping + word > layout->size || layout->flags + UINT32_C(4) > layout->size)
		return zd_error_create(ZD_ERROR_INVALID, "struct inode: a member lies outside of it");
	node = first_node(xa, memory, head, ret);
	while (node != head && !error) {
		enum zd_read result =
			memory->read(memory->context, node - layout->sb_list, inode, layout->size);

		ret->stopped = result == ZD_READ_STOP;
		if (result == ZD_READ_FAULT)
			end_early(ret, node, "an inode cannot be read");
		else if (zd_xa_word(xa, inode + layout->sb_list + word) != previous)
			end_early(ret, node, "an inode of the list does not name the one before it");
		else if (ret->inodes >= INODES_MAX)
			end_early(ret, node, "there are more inodes than a machine can have");
		if (result == ZD_READ_STOP || ret->why)
			break;
		ret->inodes++;
		memcpy(&flags, inode + layout->flags, sizeof(flags));
		if (xa->big_endian != (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__))
			flags = __builtin_bswap32(flags);
		if (flags & ZD_S_DAX) {
			ret->dax++;
			error = visit(context, node - layout->sb_list, zd_xa_word(xa, inode + layout->mapping));
		}
		previous = node;
		node = zd_xa_word(xa, inode + layout->sb_list);
	}
	return error;
}
