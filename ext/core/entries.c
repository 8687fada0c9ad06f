// SPDX-License-Identifier: LGPL-2.1-or-later
// DAX entries from the files' side: decode them, count them per page, compare them with the pages.

#include <stdlib.h>
#include <string.h>

#include "entries.h"
#include "util.h"

enum {
	// Flags of a DAX entry, below the pfn (fs/dax.c: DAX_LOCKED, ...).
	DAX_LOCKED = 1,
	DAX_PMD = 2,
	DAX_ZERO_PAGE = 4,
	DAX_EMPTY = 8,
	DAX_SHIFT = 4,
	// Struct pages that are read at once: so many bytes, and as many pages between two that are wanted.
	WINDOW_BYTES = 1 << 18,
	WINDOW_GAP = 128,
	// Claims that are compared at once: many, and more where there are more pages than this of each.
	CLAIMS_MIN = 1 << 20,
	PAGES_PER_CLAIM = 64,
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
	entries->window_limit = WINDOW_BYTES / layout->page_size;
	zd_claims_init(&entries->claims, CLAIMS_MIN);
	entries->window.bytes = malloc(WINDOW_BYTES);
	return entries->window.bytes ? NULL : zd_error_no_memory();
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
	for (size_t i = 0; i < entries->marks_count; i++) {
		free_blocks(&entries->marks[i]);
		entries->marks[i].complete = false;
	}
	entries->locked.count = entries->outside.count = 0;
	entries->misfits_count = 0;
	entries->window.pages = 0;
}

void zd_entries_deinit(struct zd_entries *entries)
{
	for (size_t i = 0; i < entries->marks_count; i++) {
		free_blocks(&entries->marks[i]);
		free(entries->marks[i].blocks);
	}
	free(entries->marks);
	free(entries->mappings);
	free(entries->misfits);
	zd_claims_deinit(&entries->claims);
	free(entries->window.bytes);
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
	if (entries->claims.limit < pages / PAGES_PER_CLAIM)
		entries->claims.limit = pages / PAGES_PER_CLAIM;
	return NULL;
}

// ---------------------------------------------------------------- marks

static bool ends_before(const void *element, const void *key)
{
	return ((const struct zd_marks *)element)->range.end_pfn <= *(const uint64_t *)key;
}

static struct zd_marks *find_range(const struct zd_entries *entries, uint64_t pfn)
{
	struct zd_marks *marks = entries->marks;
	size_t i = zd_lower_bound(marks, entries->marks_count, sizeof(*marks), &pfn, ends_before);

	return i < entries->marks_count && pfn >= marks[i].range.start_pfn ? &marks[i] : NULL;
}

/** zd_entries_marks(), to write. */
static uint8_t *find_marks(const struct zd_entries *entries, uint64_t pfn, uint64_t *run, bool *known)
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

const uint8_t *zd_entries_marks(const struct zd_entries *entries, uint64_t pfn, uint64_t *run, bool *known)
{
	return find_marks(entries, pfn, run, known);
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
		uint8_t *marks = find_marks(entries, pfn, &run, &known);

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

static bool is_mapping_below(const void *element, const void *key)
{
	return ((const struct zd_known_mapping *)element)->mapping < *(const uint64_t *)key;
}

/** Where a mapping stands, or would. */
static size_t find_mapping(const struct zd_entries *entries, uint64_t mapping)
{
	return zd_lower_bound(entries->mappings, entries->mappings_count, sizeof(*entries->mappings), &mapping,
			      is_mapping_below);
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

// ---------------------------------------------------------------- completeness, misfits

struct zd_error *zd_entries_set_complete(struct zd_entries *entries, uint64_t pfn, bool complete)
{
	struct zd_marks *marks = find_range(entries, pfn);

	if (!marks)
		return zd_error_create(ZD_ERROR_INVALID, "pfn %#llx lies in no range", (unsigned long long)pfn);
	marks->complete = complete;
	return NULL;
}

bool zd_entries_complete(const struct zd_entries *entries, uint64_t pfn)
{
	const struct zd_marks *marks = find_range(entries, pfn);

	return marks && marks->complete;
}

static uint64_t block_of(const struct zd_entries *entries, uint64_t pfn)
{
	return pfn >> entries->layout.pmd_order << entries->layout.pmd_order;
}

static bool is_block_below(const void *element, const void *key)
{
	return *(const uint64_t *)element < *(const uint64_t *)key;
}

/** Where a block with a misfit stands, or would. */
static size_t find_misfit(const struct zd_entries *entries, uint64_t block)
{
	return zd_lower_bound(entries->misfits, entries->misfits_count, sizeof(*entries->misfits), &block,
			      is_block_below);
}

bool zd_entries_misfit(const struct zd_entries *entries, uint64_t pfn)
{
	uint64_t block = block_of(entries, pfn);
	size_t i = find_misfit(entries, block);

	return i < entries->misfits_count && entries->misfits[i] == block;
}

static struct zd_error *add_misfit(struct zd_entries *entries, uint64_t pfn)
{
	size_t i = find_misfit(entries, block_of(entries, pfn)), count = entries->misfits_count;
	uint64_t *grown;

	if (count == ZD_MISFITS_MAX || zd_entries_misfit(entries, pfn))
		return NULL;
	// Room for a power of two.
	if (!(count & (count - 1))) {
		grown = realloc(entries->misfits, (count ? count * 2 : 1) * sizeof(*grown));
		if (!grown)
			return zd_error_no_memory();
		entries->misfits = grown;
	}
	memmove(&entries->misfits[i + 1], &entries->misfits[i], (count - i) * sizeof(*grown));
	entries->misfits[i] = block_of(entries, pfn);
	entries->misfits_count++;
	return NULL;
}

// ---------------------------------------------------------------- what the page itself says

struct file_walk {
	struct zd_entries *entries;
	const struct zd_memory *memory;
	uint64_t mapping;
	struct zd_file_tally *tally;
	struct zd_error *(*visit)(void *context, const struct zd_dax_entry *entry);
	void *context;
	uint8_t pmd_order;
};

static uint64_t claim_pages(const struct file_walk *walk, const struct zd_claim *claim)
{
	return UINT64_C(1) << (claim->word & ZD_CLAIM_PMD ? walk->pmd_order : 0);
}

/** Whether the claim is of a folio, which has one mapping, and its tails belong to it. */
static bool is_of_folio(const struct file_walk *walk, const struct zd_claim *claim)
{
	return walk->entries->shared == ZD_SHARED_SHARE &&
	       !(zd_claim_pfn(claim) & (claim_pages(walk, claim) - 1));
}

/** The pages of a claim whose struct pages are looked at. */
static uint64_t pages_to_read(const struct file_walk *walk, const struct zd_claim *claim)
{
	return is_of_folio(walk, claim) ? 1 : claim_pages(walk, claim);
}

/**
 * How many struct pages to read from @pfn on, a page of @claim: as many as are wanted by this claim and those
 * that follow on it (before @end), as long as they lie near to each other.
 */
static uint64_t reach(const struct file_walk *walk, const struct zd_claim *claim, const struct zd_claim *end,
		      uint64_t pfn, uint64_t most)
{
	uint64_t until = zd_claim_pfn(claim) + pages_to_read(walk, claim);

	for (claim++; claim < end && until - pfn < most && zd_claim_pfn(claim) <= until + WINDOW_GAP; claim++) {
		uint64_t last = zd_claim_pfn(claim) + pages_to_read(walk, claim);

		until = last > until ? last : until;
	}
	return until - pfn < most ? until - pfn : most;
}

/**
 * The struct page of @pfn of @range, and in the window those that are wanted next; NULL where it cannot be
 * read, or the walk is to stop.  Where not all of them are there, it is read by itself, and what follows with
 * care: twice as many pages with each read that succeeds.
 */
static const uint8_t *struct_page(const struct file_walk *walk, const struct zd_range *range, uint64_t pfn,
				  const struct zd_claim *claim, const struct zd_claim *end)
{
	struct zd_entries *entries = walk->entries;
	struct zd_window *window = &entries->window;
	uint32_t size = entries->layout.page_size;
	uint64_t most = WINDOW_BYTES / size, left = range->end_pfn - pfn, pages;
	const uint8_t *page = zd_window_page(window, size, pfn);
	enum zd_read result;

	if (page)
		return page;
	pages = reach(walk, claim, end, pfn, left < entries->window_limit ? left : entries->window_limit);
	result = zd_window_read(window, walk->memory, range, size, pfn, pages);
	if (result == ZD_READ_DONE && entries->window_limit < most)
		entries->window_limit = entries->window_limit * 2 < most ? entries->window_limit * 2 : most;
	if (result == ZD_READ_FAULT) {
		entries->window_limit = 1;
		if (pages > 1)
			result = zd_window_read(window, walk->memory, range, size, pfn, 1);
	}
	walk->tally->walk.stopped |= result == ZD_READ_STOP;
	return zd_window_page(window, size, pfn);
}

static bool is_tail(const struct zd_entries *entries, const uint8_t *page)
{
	return zd_load(&entries->layout, page, ZD_PGMAP) & 1;
}

static bool names_file(const struct zd_entries *entries, const uint8_t *page, uint64_t mapping, uint64_t index)
{
	const struct zd_layout *layout = &entries->layout;

	return !is_tail(entries, page) && zd_load(layout, page, ZD_MAPPING) == mapping &&
	       zd_load(layout, page, ZD_INDEX) == index;
}

/** Whether page @i of a claim says that its folio is larger than the claim, or begins before it. */
static bool is_misfit(const struct file_walk *walk, const struct zd_claim *claim, uint64_t i,
		      const uint8_t *page)
{
	const struct zd_layout *layout = &walk->entries->layout;
	int head = layout->flag[ZD_PG_HEAD];

	// Who holds a lock may be about to split or to join the folio.
	if (walk->entries->shared != ZD_SHARED_SHARE || walk->tally->flux || claim->word & ZD_CLAIM_LOCKED)
		return false;
	if (claim->word & ZD_CLAIM_PMD)
		return !i && is_tail(walk->entries, page);
	return is_tail(walk->entries, page) || (head >= 0 && zd_load(layout, page, ZD_FLAGS) >> head & 1);
}

// ---------------------------------------------------------------- one file

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

/** Mark page @i of a claim. */
static struct zd_error *mark_page(const struct file_walk *walk, struct zd_marks *marks,
				  const struct zd_claim *claim, const struct zd_claim *end, uint64_t i)
{
	struct zd_entries *entries = walk->entries;
	uint64_t pfn = zd_claim_pfn(claim) + i;
	uint8_t *mark = mark_of(marks, pfn);
	uint8_t bits = (claim->word & ZD_CLAIM_PMD ? ZD_MARK_PMD : 0) |
		       (claim->word & ZD_CLAIM_LOCKED ? ZD_MARK_LOCKED : 0) |
		       (walk->tally->flux ? ZD_MARK_FLUX : 0);
	struct zd_error *error = NULL;
	const uint8_t *page;

	if (!mark)
		return zd_error_no_memory();
	if (i && is_of_folio(walk, claim)) {
		*mark = counted(*mark, bits | ZD_MARK_MATCH);
		return NULL;
	}
	page = struct_page(walk, &marks->range, pfn, claim, end);
	if (page && names_file(entries, page, walk->mapping, claim->index + i))
		bits |= ZD_MARK_MATCH;
	if (page && is_misfit(walk, claim, i, page))
		error = add_misfit(entries, pfn);
	*mark = counted(*mark, bits);
	return error;
}

static bool is_in(const struct zd_marks *marks, uint64_t pfn)
{
	return marks && pfn >= marks->range.start_pfn && pfn < marks->range.end_pfn;
}

/** Mark the pages of all claims of the file, and forget them. */
static struct zd_error *settle_claims(const struct file_walk *walk)
{
	struct zd_claims *claims = &walk->entries->claims;
	struct zd_error *error = zd_claims_sort(claims);
	const struct zd_claim *end = claims->list + claims->count;
	struct zd_marks *marks = NULL;

	for (const struct zd_claim *claim = claims->list; claim < end && !error; claim++) {
		uint64_t pages = claim_pages(walk, claim);

		for (uint64_t i = 0; i < pages && !error && !walk->tally->walk.stopped; i++) {
			if (!is_in(marks, zd_claim_pfn(claim) + i))
				marks = find_range(walk->entries, zd_claim_pfn(claim) + i);
			if (!marks)
				break;
			error = mark_page(walk, marks, claim, end, i);
		}
	}
	zd_claims_clear(claims);
	return error;
}

/** Whether a page of an entry lies in no range. */
static bool is_outside(const struct zd_entries *entries, const struct zd_dax_entry *entry)
{
	uint64_t pfn = entry->pfn, end = pfn + (UINT64_C(1) << entry->order);

	while (pfn < end) {
		const struct zd_marks *marks = find_range(entries, pfn);

		if (!marks)
			return true;
		pfn = marks->range.end_pfn;
	}
	return false;
}

static struct zd_error *claim_entry(void *context, const struct zd_dax_entry *entry)
{
	struct file_walk *walk = context;
	struct zd_entries *entries = walk->entries;
	struct zd_claim claim = { entry->pfn << ZD_CLAIM_SHIFT | (entry->pmd ? ZD_CLAIM_PMD : 0) |
					  (entry->locked ? ZD_CLAIM_LOCKED : 0),
				  entry->index };
	struct zd_error *error;

	if (entry->locked)
		keep(&entries->locked, walk->mapping, entry);
	if (entry->zero || entry->empty)
		return NULL;
	if (is_outside(entries, entry)) {
		keep(&entries->outside, walk->mapping, entry);
		walk->tally->outside++;
		// Nothing of it is there to be marked.
		if (!find_range(entries, entry->pfn))
			return NULL;
	}
	error = zd_claims_add(&entries->claims, &claim);
	return !error && zd_claims_full(&entries->claims) ? settle_claims(walk) : error;
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
	struct file_walk walk = { entries, memory, mapping, ret, claim_entry, NULL, entries->layout.pmd_order };
	struct zd_error *error;

	walk.context = &walk;
	error = walk_file(&walk);
	if (!error && !ret->walk.stopped)
		return settle_claims(&walk);
	zd_claims_clear(&entries->claims);
	return error;
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

static struct zd_error *check_inode(const struct zd_xa_layout *xa, const struct zd_inode_layout *layout)
{
	struct zd_error *error = zd_xa_layout_check(xa);
	uint32_t word = xa->word_size;

	if (error)
		return error;
	if (layout->size > ZD_SPACE_MAX || layout->sb_list + 2 * word > layout->size ||
	    layout->mapping + word > layout->size || layout->flags + UINT32_C(4) > layout->size)
		return zd_error_create(ZD_ERROR_INVALID, "struct inode: a member lies outside of it");
	return NULL;
}

/** Read the inode of a list node; false where the walk ends with it. */
static bool read_inode(const struct zd_xa_layout *xa, const struct zd_inode_layout *layout,
		       const struct zd_memory *memory, uint64_t node, uint64_t previous, uint8_t *inode,
		       struct zd_inode_walk *ret)
{
	switch (memory->read(memory->context, node - layout->sb_list, inode, layout->size)) {
	case ZD_READ_STOP:
		ret->stopped = true;
		return false;
	case ZD_READ_FAULT:
		end_early(ret, node, "an inode cannot be read");
		return false;
	case ZD_READ_DONE:
		break;
	}
	if (zd_xa_word(xa, inode + layout->sb_list + xa->word_size) != previous)
		end_early(ret, node, "an inode of the list does not name the one before it");
	else if (ret->inodes >= INODES_MAX)
		end_early(ret, node, "there are more inodes than a machine can have");
	return !ret->why;
}

struct zd_error *zd_inodes_walk(const struct zd_xa_layout *xa, const struct zd_inode_layout *layout,
				const struct zd_memory *memory, uint64_t head,
				struct zd_error *(*visit)(void *context, uint64_t inode, uint64_t mapping),
				void *context, struct zd_inode_walk *ret)
{
	struct zd_error *error = check_inode(xa, layout);
	uint64_t previous = head, node;
	uint8_t inode[ZD_SPACE_MAX];

	memset(ret, 0, sizeof(*ret));
	if (error)
		return error;
	node = first_node(xa, memory, head, ret);
	while (node != head && !error && read_inode(xa, layout, memory, node, previous, inode, ret)) {
		ret->inodes++;
		if (zd_load_bytes(inode + layout->flags, 4, xa->big_endian) & ZD_S_DAX) {
			ret->dax++;
			error = visit(context, node - layout->sb_list, zd_xa_word(xa, inode + layout->mapping));
		}
		previous = node;
		node = zd_xa_word(xa, inode + layout->sb_list);
	}
	return error;
}
