/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * DAX entries: which page of which file a block of memory belongs to, from the files' side.
 *
 * It owns the decoding of entries and one byte per page of the FS_DAX pagemaps (struct zd_entries):
 * how many entries cover the page, and whether one is what the page itself says.  It does not know
 * which files there are (the caller does), and does not judge (rules.c).
 *
 * Invariant: memory is bounded by the pages of the pagemaps, whatever the trees say: a byte per page, and
 * while a file is walked half a byte more, 32 MiB at least.  A tree that could not be read whole is counted,
 * so that "no entry" is never concluded from it.
 *
 * Mirrors fs/dax.c (dax_to_pfn(), dax_entry_order()), include/linux/fs.h.
 */
#ifndef ZONEDEV_ENTRIES_H
#define ZONEDEV_ENTRIES_H

#include "claims.h"
#include "window.h"

/** A DAX entry: pages [pfn, pfn + (1 << order)) are those of the file from @index on. */
struct zd_dax_entry {
	uint64_t index, pfn;
	uint8_t order;
	/** @zero: the zero page, @empty: no page yet; pfn says nothing then. */
	bool pmd, locked, zero, empty;
	/** The tree's slots and the entry's own size disagree. */
	bool misplaced;
};

/** Decode a value; @pmd_order is the order of a PMD entry. */
void zd_dax_entry_decode(const struct zd_xa_value *value, uint8_t pmd_order, struct zd_dax_entry *ret);

/** What is known of a page from the files: a byte of these. */
enum {
	/** How many entries cover it; ZD_MARK_COUNT: so many or more. */
	ZD_MARK_COUNT = 7,
	/** One of them is the file and index that the page itself names. */
	ZD_MARK_MATCH = 1 << 3,
	ZD_MARK_PMD = 1 << 4,
	ZD_MARK_LOCKED = 1 << 5,
	/** An entry's tree is being changed: nothing follows from what it and the page say. */
	ZD_MARK_FLUX = 1 << 6,
	/** An entry is locked, and nobody is there who could have locked it. */
	ZD_MARK_STUCK = 1 << 7,
};

/** What is known of a mapping word that pages carry and no file of a super block has. */
enum zd_mapping_kind {
	ZD_MAPPING_PLAIN,   /* nothing beside what the walks of files told */
	ZD_MAPPING_UNKNOWN, /* its tree could not be read, or is being changed */
	ZD_MAPPING_NO_FILE, /* it is no address_space of a DAX file */
};

/** Where the members of struct address_space lie, in bytes from its start. */
struct zd_space_layout {
	uint16_t size; /* as much of it as is read, up to ZD_SPACE_MAX */
	uint16_t host, xarray, xa_head;
	uint16_t lock; /* the 32 bits of the spinlock that are 0 while nobody holds it */
};

/** Where the members of struct inode lie, in bytes from its start. */
struct zd_inode_layout {
	uint16_t size; /* as much of it as is read, up to ZD_SPACE_MAX */
	uint16_t sb_list, mapping;
	uint16_t flags; /* 32 bits */
};

enum {
	ZD_SPACE_MAX = 2048,
	/** Locked entries, and entries outside of every range, that are kept one by one. */
	ZD_ENTRIES_KEPT = 256,
	/** Mapping words that are known to be odd. */
	ZD_MAPPINGS_MAX = 1 << 16,
	/** Blocks of a PMD's pages with a misfit (see zd_entries_misfit()); further ones are not kept. */
	ZD_MISFITS_MAX = 1 << 14,
	/** Pages that share one block of marks. */
	ZD_MARKS_PAGES = 1 << 16,
	/** S_DAX of inode.i_flags: a macro, the same in all kernels with DAX entries. */
	ZD_S_DAX = 1 << 13,
};

/** The files' view of one pagemap range; blocks without entries have no marks. */
struct zd_marks {
	struct zd_range range;
	/** Every file that may lie here was read whole: a page without an entry has none. */
	bool complete;
	uint8_t **blocks;
	size_t block_count;
};

/** An entry that is worth remembering. */
struct zd_kept_entry {
	uint64_t mapping;
	struct zd_dax_entry entry;
};

struct zd_kept {
	struct zd_kept_entry entries[ZD_ENTRIES_KEPT];
	size_t count; /* of them all; those beyond ZD_ENTRIES_KEPT are not kept */
};

struct zd_known_mapping {
	uint64_t mapping;
	enum zd_mapping_kind kind;
};

/** What the walk of one file met. */
struct zd_file_tally {
	uint64_t entries, pmd, zero, empty, locked;
	uint64_t pages;	    /* that entries cover, zero pages left out */
	uint64_t outside;   /* entries whose pfn is in no range */
	uint64_t misplaced; /* entries whose size and place disagree */
	bool flux;	    /* the tree was being changed */
	bool no_space;	    /* the address_space cannot be read, or is none */
	struct zd_xa_walk walk;
};

struct zd_entries {
	struct zd_layout layout;
	struct zd_xa_layout xa;
	struct zd_space_layout space;
	enum zd_shared shared;
	struct zd_marks *marks;
	size_t marks_count;
	struct zd_kept locked, outside;
	struct zd_known_mapping *mappings; /* sorted */
	size_t mappings_count;
	uint64_t *misfits; /* first pfns of blocks of 1 << layout.pmd_order pages, sorted */
	size_t misfits_count;
	/** What was read of one file, and is not compared yet. */
	struct zd_claims claims;
	/** The last struct pages that were read. */
	struct zd_window window;
	uint64_t window_limit; /* pages that the next read takes at most */
};

/** @layout is copied.  Use zd_entries_deinit() also after an error.  Errors: a layout that is none. */
struct zd_error *zd_entries_init(struct zd_entries *entries, const struct zd_layout *layout,
				 enum zd_shared shared, const struct zd_xa_layout *xa,
				 const struct zd_space_layout *space);
void zd_entries_deinit(struct zd_entries *entries);

/** Add a range of an FS_DAX pagemap; rising and disjoint.  Errors: it is not; no memory. */
struct zd_error *zd_entries_add_range(struct zd_entries *entries, const struct zd_range *range);

/** Forget all entries, keep ranges and mappings. */
void zd_entries_clear(struct zd_entries *entries);

/**
 * Walk the entries of the file whose struct address_space lies at @mapping, and mark their pages.
 * Struct pages are read to compare them, many entries at a time and in the order of memory.  What cannot be
 * read is counted in @ret.  Errors: no memory.
 */
struct zd_error *zd_entries_add_file(struct zd_entries *entries, const struct zd_memory *memory,
				     uint64_t mapping, struct zd_file_tally *ret);

/** The entries of one file, each given to @visit; nothing is marked.  Errors: those of @visit. */
struct zd_error *
zd_entries_walk_file(const struct zd_entries *entries, const struct zd_memory *memory, uint64_t mapping,
		     struct zd_error *(*visit)(void *context, const struct zd_dax_entry *entry), void *context,
		     struct zd_file_tally *ret);

/**
 * Say what was found of the locked entries that cover pages [pfn, pfn + pages): nobody is there who holds
 * the lock (@stuck), or somebody may be, who is about to change them.
 */
void zd_entries_judge_lock(struct zd_entries *entries, uint64_t pfn, uint64_t pages, bool stuck);

/**
 * Say whether every file that may have entries in the range around @pfn was read whole; false, as long as
 * nothing is said.  Errors: ZD_ERROR_INVALID where @pfn lies in no range.
 */
struct zd_error *zd_entries_set_complete(struct zd_entries *entries, uint64_t pfn, bool complete);
bool zd_entries_complete(const struct zd_entries *entries, uint64_t pfn);

/**
 * Whether an entry leads into the block of 1 << layout.pmd_order pages around @pfn, and to another place or
 * with another size than a folio of that block can have: the entry of a page, to a page of a larger folio;
 * that of a PMD, to a tail.  Looked at where a folio carries the association (ZD_SHARED_SHARE).
 */
bool zd_entries_misfit(const struct zd_entries *entries, uint64_t pfn);

/** Say what a mapping word is.  Errors: too many, no memory. */
struct zd_error *zd_entries_know(struct zd_entries *entries, uint64_t mapping, enum zd_mapping_kind kind);
enum zd_mapping_kind zd_entries_kind(const struct zd_entries *entries, uint64_t mapping);

/**
 * The marks from @pfn on, one byte per page; @run is how many they are, also where NULL is returned: no
 * page of the run has an entry.  @known is false for pages outside of every range.
 */
const uint8_t *zd_entries_marks(const struct zd_entries *entries, uint64_t pfn, uint64_t *run, bool *known);

/** What a walk of a super block's inodes met. */
struct zd_inode_walk {
	uint64_t inodes, dax;
	/** Address of the list node at which the walk ended too early, and why; NULL: it did not. */
	uint64_t bad_node;
	const char *why;
	bool stopped;
};

/**
 * Give the DAX inodes of a list (inode.i_sb_list) to @visit: address and i_mapping.
 * Each node must name the one before it, so that a list of garbage ends.  Errors: those of @visit.
 */
struct zd_error *zd_inodes_walk(const struct zd_xa_layout *xa, const struct zd_inode_layout *layout,
				const struct zd_memory *memory, uint64_t head,
				struct zd_error *(*visit)(void *context, uint64_t inode, uint64_t mapping),
				void *context, struct zd_inode_walk *ret);

#endif
