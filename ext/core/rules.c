// SPDX-License-Identifier: LGPL-2.1-or-later
// The rules: which states of a struct page no kernel of a scheme permits, and which are worth
// a look.  A rule is a row: an id, who it is for, a predicate, and the words for a person.
// Deliberately page-local: what needs a second source (DAX entries, free lists) names that
// evidence and the level that it has without it.
//
// The order of the rows is part of the contract: the first that fires names the finding.
// Structure comes first (whose page is it?), then counts, then context, then information.
// Pagemap rules have no predicate here: their facts are gathered beside the registry.

#include <stdlib.h>
#include <string.h>

#include "zonedev.h"

const char *const zd_evidence_names[4] = {
	[ZD_EVIDENCE_NONE] = "none",
	[ZD_EVIDENCE_DAX_ENTRIES] = "DAX entries of inodes",
	[ZD_EVIDENCE_FREE_LIST] = "driver free list",
	[ZD_EVIDENCE_GEN_POOL] = "gen_pool bitmap",
};

enum { REFCOUNT_SATURATING = 0x40000000 };

// ---------------------------------------------------------------- small questions

static const struct zd_scheme_type *type_of(const struct zd_subject *s)
{
	return &s->scheme->type[s->pagemap->type];
}

static bool flag(const struct zd_subject *s, enum zd_flag flag)
{
	int bit = s->layout->flag[flag];

	return bit >= 0 && s->folio->flags >> bit & 1;
}

static bool unmapped(const struct zd_subject *s)
{
	return s->folio->mapcount == 0;
}

/** At the idle count and unmapped. */
static bool at_rest(const struct zd_subject *s)
{
	return s->folio->refcount == type_of(s)->idle && unmapped(s);
}

static bool maps_take_refs(const struct zd_subject *s)
{
	return type_of(s)->maps_take_refs || s->pagemap->foreign_maps;
}

/** No file: neither a mapping nor (where the scheme says so) a share count. */
static bool unassociated(const struct zd_subject *s)
{
	return !s->folio->mapping && !(s->scheme->shared == ZD_SHARED_SHARE && s->folio->share);
}

// ---------------------------------------------------------------- structure

static bool wrong_zone(const struct zd_subject *s)
{
	return s->layout->zone.width && s->folio->zone != s->layout->zone_device;
}

static bool wrong_pgmap(const struct zd_subject *s)
{
	return s->folio->word1 != s->pagemap->address;
}

static bool not_reserved(const struct zd_subject *s)
{
	return s->layout->flag[ZD_PG_RESERVED] >= 0 && !flag(s, ZD_PG_RESERVED);
}

/**
 * Splitting a large private folio clears it in all folios that come of the tails, for ever: PG_reserved is
 * in PAGE_FLAGS_CHECK_AT_PREP (__split_folio_to_order()), and zone_device_page_init() does not set it.
 */
static bool reserved_lost(const struct zd_subject *s)
{
	return not_reserved(s) && !(s->scheme->large_private && s->pagemap->type <= ZD_COHERENT);
}

static bool uninitialised(const struct zd_subject *s)
{
	return s->pattern == ZD_PATTERN_POISON ||
	       (!s->folio->tail && wrong_pgmap(s) && wrong_zone(s) && not_reserved(s));
}

static bool wrong_node(const struct zd_subject *s)
{
	return s->pagemap->node >= 0 && s->layout->node.width && s->folio->node != (uint32_t)s->pagemap->node;
}

static bool core_mm_flags(const struct zd_subject *s)
{
	// PG_swapcache is PG_owner_priv_1, which Xen uses for its own pages.
	return flag(s, ZD_PG_LRU) || (flag(s, ZD_PG_SWAPCACHE) && !s->pagemap->foreign_maps) ||
	       s->folio->has_type;
}

static bool foreign_tail(const struct zd_subject *s)
{
	return !s->belongs && !s->head_unknown;
}

/** What a freed large private folio leaves behind: legal until the page is used. */
static bool stale_tail(const struct zd_subject *s)
{
	return foreign_tail(s) && s->scheme->large_private && s->pagemap->type <= ZD_COHERENT &&
	       s->folio->head_valid && s->folio->refcount == 0;
}

static bool bad_tail(const struct zd_subject *s)
{
	return foreign_tail(s) && !stale_tail(s);
}

static bool head_inside_folio(const struct zd_subject *s)
{
	// Pages of a freed large private folio may be used one by one.
	bool freed = s->scheme->large_private && s->pagemap->type <= ZD_COHERENT && !s->inside_busy;

	return s->inside && !freed;
}

static bool tail_refcount(const struct zd_subject *s)
{
	return s->folio->refcount != 0;
}

static bool misaligned(const struct zd_subject *s)
{
	uint8_t order = s->folio->order;

	return order > ZD_ORDER_MAX || s->folio->pfn & ((UINT64_C(1) << order) - 1);
}

/** PG_head without an order; a freed large private folio may look like that. */
static bool head_without_order(const struct zd_subject *s)
{
	bool left_over = s->scheme->large_private && s->pagemap->type <= ZD_COHERENT && s->folio->refcount == 0;

	return flag(s, ZD_PG_HEAD) && s->folio->order == 0 && !left_over;
}

static bool order_not_shift(const struct zd_subject *s)
{
	return s->folio->order != s->pagemap->vmemmap_shift || misaligned(s) || head_without_order(s);
}

static bool order_not_zero(const struct zd_subject *s)
{
	return s->folio->order != 0 || head_without_order(s);
}

static bool order_not_zero_nor_pmd(const struct zd_subject *s)
{
	return (s->folio->order != 0 && s->folio->order != s->layout->pmd_order) || misaligned(s) ||
	       head_without_order(s);
}

static bool order_above_pmd(const struct zd_subject *s)
{
	return s->folio->order > s->layout->pmd_order || misaligned(s) || head_without_order(s);
}

// ---------------------------------------------------------------- counts

static bool refcount_out_of_range(const struct zd_subject *s)
{
	return s->folio->refcount < 0 || s->folio->refcount > REFCOUNT_SATURATING;
}

static bool mapcount_out_of_range(const struct zd_subject *s)
{
	// Of a large folio, the head's own counter as well as the folio's.
	return s->folio->mapcount < 0 || (s->folio->raw_mapcount < -1 && !s->folio->has_type);
}

static bool mapped_without_reference(const struct zd_subject *s)
{
	return s->folio->refcount == 0 && s->folio->mapcount > 0;
}

static bool refcount_below_mapcount(const struct zd_subject *s)
{
	return maps_take_refs(s) && s->folio->mapcount > 0 && s->folio->extra < 0;
}

static bool refcount_below_idle(const struct zd_subject *s)
{
	bool dying_page = s->pagemap->ref != ZD_REF_LIVE && s->scheme->zero_when_dying;

	return type_of(s)->idle == 1 && s->folio->refcount == 0 && !dying_page;
}

static bool unaccounted_mapcount(const struct zd_subject *s)
{
	return type_of(s)->never_mapcount && s->folio->mapcount > 0 && !s->pagemap->foreign_maps;
}

static bool mapped_without_association(const struct zd_subject *s)
{
	return s->folio->mapcount > 0 && unassociated(s);
}

/**
 * A mapping word that is neither NULL, nor "shared" where that is a word, nor a pointer where there are any;
 * or a pointer that was followed, and leads to no file.
 */
static bool wrong_mapping(const struct zd_subject *s)
{
	enum zd_shared shared = s->scheme->shared;
	bool shared_word = shared != ZD_SHARED_NONE && shared != ZD_SHARED_SHARE;

	if (type_of(s)->unassociated)
		return s->folio->mapping;
	if (s->files.mapping_no_file)
		return true;
	return s->folio->mapping && !(s->folio->mapping == 1 && shared_word) &&
	       !zd_mapping_is_pointer(s->layout, s->folio->mapping);
}

static bool pinned(const struct zd_subject *s)
{
	return s->folio->pin > 0;
}

static bool pinned_after_truncate(const struct zd_subject *s)
{
	return pinned(s) && unassociated(s) && !type_of(s)->unassociated;
}

static bool reference_on_free_folio(const struct zd_subject *s)
{
	return s->folio->refcount > type_of(s)->idle && unmapped(s) && !s->folio->mapping &&
	       !flag(s, ZD_PG_LOCKED);
}

static bool reference_on_pooled_page(const struct zd_subject *s)
{
	return reference_on_free_folio(s) && !s->driver.allocated;
}

static bool reference_on_unmapped_page(const struct zd_subject *s)
{
	return reference_on_free_folio(s) && s->driver.allocated;
}

static bool reference_on_free_dax_folio(const struct zd_subject *s)
{
	return reference_on_free_folio(s) && unassociated(s);
}

/** Free with the share word of its last file, or shared by files and held: the page cannot tell. */
static bool reference_on_stale_share(const struct zd_subject *s)
{
	bool claimed = s->files.complete && s->files.count;

	return zd_share_may_be_stale(s->folio, s->scheme) && s->folio->share && !claimed &&
	       reference_on_free_folio(s);
}

static bool reference_outlives_mapping(const struct zd_subject *s)
{
	return s->folio->refcount > type_of(s)->idle && unmapped(s) && !s->folio->mapping &&
	       !type_of(s)->unassociated;
}

static bool reference_on_unused_page(const struct zd_subject *s)
{
	return reference_outlives_mapping(s) && !s->pagemap->foreign_maps;
}

static bool free_or_allocated(const struct zd_subject *s)
{
	return at_rest(s) && type_of(s)->idle == 1 && !s->folio->mapping && !s->driver.listed;
}

static bool held_without_map(const struct zd_subject *s)
{
	return s->folio->plain > 0;
}

static bool associated_held_without_map(const struct zd_subject *s)
{
	return s->folio->plain > 0 && (!unassociated(s) || type_of(s)->unassociated);
}

// ---------------------------------------------------------------- what a free page carries

static bool stale_mapping(const struct zd_subject *s)
{
	return at_rest(s) && s->folio->mapping;
}

static bool dirty_free_state(const struct zd_subject *s)
{
	return at_rest(s) && (flag(s, ZD_PG_LOCKED) || flag(s, ZD_PG_ANON_EXCLUSIVE) ||
			      flag(s, ZD_PG_WRITEBACK) || s->folio->memcg_data);
}

static bool hwpoison(const struct zd_subject *s)
{
	return flag(s, ZD_PG_HWPOISON);
}

static bool hwpoison_in_use(const struct zd_subject *s)
{
	return hwpoison(s) && s->folio->refcount > type_of(s)->idle;
}

/**
 * device-dax gives a page the mapping of its dax_device and its place in there at the first fault, in all
 * kernels (dax_set_mapping()), and never takes them away; a new pagemap has new struct pages.
 */
static bool gen_mapping(const struct zd_subject *s)
{
	const struct zd_folio *folio = s->folio;

	return s->pagemap->dax_mapping && folio->mapping &&
	       (folio->mapping != s->pagemap->dax_mapping || folio->index != s->device_index);
}

static bool driver_data_missing(const struct zd_subject *s)
{
	return s->pagemap->driver_data && !s->folio->zone_device_data &&
	       zd_folio_has_user(s->folio, s->layout, s->scheme, s->pagemap);
}

// ---------------------------------------------------------------- what the driver says

static bool held_or_mapped(const struct zd_subject *s)
{
	return s->folio->refcount > type_of(s)->idle || s->folio->mapcount > 0;
}

static bool pool_versus_page(const struct zd_subject *s)
{
	return s->driver.pool_known && !s->driver.allocated && held_or_mapped(s);
}

static bool listed_in_use(const struct zd_subject *s)
{
	return s->driver.listed && held_or_mapped(s);
}

static bool listed_below_idle(const struct zd_subject *s)
{
	return s->driver.listed && !held_or_mapped(s) && s->folio->refcount < type_of(s)->idle;
}

// ---------------------------------------------------------------- what files say

/** The page says of itself that several files share it. */
static bool is_shared(const struct zd_subject *s)
{
	switch (s->scheme->shared) {
	case ZD_SHARED_MAPPING_INDEX:
	case ZD_SHARED_MAPPING_SHARE:
		return s->folio->mapping == 1;
	case ZD_SHARED_SHARE:
		return !s->folio->mapping && s->folio->share;
	default:
		return false;
	}
}

/** That no entry covers the page is known. */
static bool without_entry(const struct zd_subject *s)
{
	return s->files.complete && !s->files.count;
}

static bool mapping_without_entry(const struct zd_subject *s)
{
	return without_entry(s) && zd_mapping_is_pointer(s->layout, s->folio->mapping) &&
	       !s->files.mapping_unknown && !s->files.mapping_no_file;
}

/**
 * 6.0 and 6.1 mark a page as shared only when it is copied: a file that reads a block of another one
 * takes the association over, and the first of them to be truncated clears it.
 */
static bool association_taken_over(const struct zd_subject *s)
{
	bool lost = !s->folio->mapping || (s->files.count > 1 && s->files.match) || !s->files.complete;

	return s->scheme->shared == ZD_SHARED_MAPPING_INDEX && lost;
}

static bool several_owners(const struct zd_subject *s)
{
	return s->files.count > 1 && !is_shared(s) && !s->files.flux;
}

static bool multi_owner_unshared(const struct zd_subject *s)
{
	return several_owners(s) && !association_taken_over(s);
}

static bool multi_owner_taken_over(const struct zd_subject *s)
{
	return several_owners(s) && association_taken_over(s);
}

/** An entry covers the page, and the page names another file, another index, or none. */
static bool entry_disagrees(const struct zd_subject *s)
{
	return s->files.count > s->files.match && !is_shared(s) && !s->files.flux;
}

static bool entry_page_mismatch(const struct zd_subject *s)
{
	return entry_disagrees(s) && !association_taken_over(s);
}

static bool entry_page_taken_over(const struct zd_subject *s)
{
	return entry_disagrees(s) && association_taken_over(s);
}

/**
 * The last of the files that share a page takes the mark with it: dax_page_share_put() since 6.2.  In 6.0
 * and 6.1 dax_disassociate_entry() asks before it counts down, and leaves the mark behind with a count of 0.
 */
static bool shared_by_nobody(const struct zd_subject *s)
{
	return s->scheme->shared == ZD_SHARED_MAPPING_SHARE && s->folio->mapping == 1 && !s->folio->share;
}

static bool shared_counter_lost(const struct zd_subject *s)
{
	return s->scheme->shared == ZD_SHARED_MAPPING_INDEX && s->folio->mapping == 1 && !s->folio->index;
}

static bool share_without_entry(const struct zd_subject *s)
{
	return s->scheme->shared == ZD_SHARED_SHARE && is_shared(s) && without_entry(s);
}

/** What the final put leaves behind before dax_folio_reset_order(). */
static bool share_left_behind(const struct zd_subject *s)
{
	return share_without_entry(s) && s->scheme->stale_share && !s->folio->order;
}

static bool share_leaked(const struct zd_subject *s)
{
	return share_without_entry(s) && !share_left_behind(s);
}

/** The counter of 6.0 and 6.1 is off by one on the way down; a stale one is never right again. */
static bool share_versus_entries(const struct zd_subject *s)
{
	bool counts = s->scheme->shared == ZD_SHARED_MAPPING_SHARE ||
		      (s->scheme->shared == ZD_SHARED_SHARE && !s->scheme->stale_share);

	if (!counts || !s->files.complete || s->files.flux || !is_shared(s) || !s->folio->share)
		return false;
	return s->files.many ? s->folio->share < s->files.count : s->folio->share != s->files.count;
}

static bool entry_order(const struct zd_subject *s)
{
	bool large = s->folio->order == s->layout->pmd_order;

	if (s->files.flux)
		return false;
	// dax_associate_entry() warns of a sharer whose entry has another order than the folio.
	if (s->files.misfit)
		return true;
	if (s->files.pmd)
		return !large;
	return large && s->files.complete && unassociated(s);
}

static bool entry_stuck(const struct zd_subject *s)
{
	return s->files.stuck;
}

static bool entry_locked(const struct zd_subject *s)
{
	return s->files.locked && !s->files.stuck;
}

// ---------------------------------------------------------------- the table

#define T(name) (UINT32_C(1) << ZD_##name)
#define ALL_TYPES ((UINT32_C(1) << ZD_TYPES) - 1)
#define PRIV_COH (T(PRIVATE) | T(COHERENT))
#define S(letter) (UINT32_C(1) << ZD_SCHEME_##letter)
#define ALL_SCHEMES ((UINT32_C(1) << ZD_SCHEMES) - 1)
#define KNOWN_SCHEMES (ALL_SCHEMES & ~S(UNKNOWN))
#define A_TO_E (S(A) | S(B) | S(C) | S(D) | S(E))
#define GH (S(G) | S(H))
#define EGH (S(E) | GH)
#define M(member) (UINT32_C(1) << ZD_##member)
#define NEEDS(what) ((uint32_t)ZD_NEEDS_##what)
// Files of these hold pfns in an xarray.
#define WITH_ENTRIES (S(C) | S(D) | S(E) | S(F1) | S(F2) | GH)

// A row in few lines: the rule, for whom it is, when it fires; of heads, where it names no other scope.
#define RULE(name, catalogue) .id = (name), .number = (catalogue)
#define WITHOUT(source, level) .evidence = ZD_EVIDENCE_##source, .severity_unproven = ZD_##level
#define FOR(these_types, these_schemes) .types = (these_types), .schemes = (these_schemes)
#define WHEN(function, words) .predicate = function, .predicate_text = words

// What the rows of one rule share.
#define BAD_HEAD RULE("bad-head", "R26")
#define WRONG_ORDER RULE("wrong-order", "R28"), .severity = ZD_ERROR
#define REFCOUNT_BELOW_IDLE                                                                                    \
	RULE("refcount-below-idle", "R06"),                                                                    \
		.severity = ZD_ERROR, .calibrated = true,                                                      \
		.meaning = "the last reference of a page that must keep one was put",                          \
		.near_miss = "refcount 1"
#define COMPOUND_WHERE(who)                                                                                    \
	WRONG_ORDER, WHEN(order_not_zero, "order != 0, or PG_head without an order"),                          \
		.meaning = "a compound folio where " who " makes none", .bug_class = "corrupt flags or order", \
		.near_miss = "order 0"
#define SHARED_STATE RULE("shared-state", "R34")
#define MULTI_OWNER_UNSHARED RULE("multi-owner-unshared", "R36"), .needs = NEEDS(ENTRIES)
#define ENTRY_PAGE_MISMATCH RULE("entry-page-mismatch", "R33"), .needs = NEEDS(ENTRIES)
#define PINNED_AFTER_TRUNCATE                                                                                  \
	RULE("pinned-after-truncate", "R12"), .calibrated = true, .near_miss = "pins > 0 with a mapping"
#define REFERENCE_ON_FREE_FOLIO RULE("reference-on-free-folio", "R01"), .calibrated = true
#define FREE_LIST_NONIDLE RULE("free-list-nonidle", "R15"), .needs = NEEDS(DRIVER), .calibrated = true
#define STALE_MAPPING                                                                                          \
	RULE("stale-mapping", "R30"),                                                                          \
		WHEN(stale_mapping, "refcount == idle, mapcount == 0 and mapping != NULL"), .calibrated = true
#define REFERENCE_OUTLIVES_MAPPING                                                                             \
	RULE("reference-outlives-mapping", "R02"), .severity = ZD_WARNING, .calibrated = true
#define DAX_LOCK_STUCK RULE("dax-lock-stuck", "R38"), FOR(T(FS_DAX), WITH_ENTRIES), .needs = NEEDS(ENTRIES)
#define HWPOISON RULE("hwpoison", "R41")
#define HELD_WITHOUT_MAP                                                                                       \
	RULE("held-without-map", "R10"), .severity = ZD_INFO, .calibrated = true,                              \
					 .bug_class = "none, or a leaked reference"
#define REF_BELOW_BIAS                                                                                         \
	RULE("ref-below-bias", "P02"),                                                                         \
		.scope = ZD_SCOPE_PAGEMAP, .severity = ZD_ERROR,                                               \
		.meaning = "too many references on the pagemap were put: it may be torn down under its pages", \
		.bug_class = "extra put, premature teardown"

const struct zd_rule zd_rules[] = {
	// Whose page is it?
	{ RULE("uninitialised", "R25"), .scope = ZD_SCOPE_PAGE, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(uninitialised,
	       "all bytes 0xff or all 0xfd; or wrong-pgmap, wrong-zone and not-reserved together"),
	  .meaning = "the struct page was never initialised, or its memmap is not in use",
	  .bug_class = "memmap_init missed the page; stale struct pages of a compound devmap",
	  .near_miss = "all bytes zero: that is memory which the dump does not hold (class not-captured)" },
	{ RULE("wrong-zone", "R21"), .scope = ZD_SCOPE_PAGE, .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  .needs = NEEDS(ZONE), WHEN(wrong_zone, "the zone bits of flags are not ZONE_DEVICE"),
	  .meaning = "the page does not belong to ZONE_DEVICE: uninitialised, or onlined as another zone",
	  .bug_class = "uninitialised or re-onlined page",
	  .near_miss = "the same flags with the zone bits of ZONE_DEVICE" },
	{ RULE("wrong-pgmap", "R20"), .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(wrong_pgmap, "the pgmap word of a head is not the pagemap that covers the page"),
	  .meaning = "the pagemap pointer of the page was overwritten or belongs to another pagemap",
	  .bug_class = "page->lru used on a device page; stale memmap; overlapping remap",
	  .near_miss = "a tail, whose word names its head instead" },
	{ RULE("core-mm-flags", "R24"), .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(core_mm_flags, "PG_lru or PG_swapcache is set, or _mapcount holds a page type"),
	  .meaning = "the page entered the LRU, the swap cache, the buddy or slab allocator",
	  .bug_class = "device page handed to the core allocator or reclaim",
	  .near_miss = "PG_dirty, PG_referenced or PG_uptodate, which drivers and fault paths may set" },
	{ BAD_HEAD, .scope = ZD_SCOPE_TAIL, .severity = ZD_INFO, FOR(PRIV_COH, S(H)),
	  WHEN(stale_tail, "a tail whose head lies below it in the range but does not span it, refcount 0"),
	  .meaning = "left-over tail of a freed large folio; re-initialised when it is allocated again",
	  .bug_class = "none: legal until the page is used",
	  .near_miss = "the same with a refcount, or with a head outside of the range: an error" },
	{ BAD_HEAD, .scope = ZD_SCOPE_TAIL, .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(bad_tail, "a tail whose head is outside of the range, lacks PG_head or is too small to span it"),
	  .meaning = "the page says that it is a tail, but no folio before it spans it",
	  .bug_class = "corrupt compound page, missed reset of a split folio",
	  .near_miss = "the last page of a folio; the left-over tail of a freed large private folio (6.19 and "
		       "later)" },
	{ BAD_HEAD, .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(head_inside_folio, "a page inside the span of a folio that is not a tail of it"),
	  .meaning = "the folio before it claims this page, but the page does not know it",
	  .bug_class = "corrupt compound page; tail re-initialised while its folio lives",
	  .near_miss = "the first page behind the span" },
	{ WRONG_ORDER, FOR(T(GENERIC), ALL_SCHEMES), .needs = M(ORDER),
	  WHEN(order_not_shift, "order != dev_pagemap.vmemmap_shift, or the head is not aligned to it"),
	  .meaning = "the folio's order is not the one that the pagemap was made with",
	  .bug_class = "uninitialised compound, corrupt order",
	  .near_miss = "order 0 where vmemmap_shift is 0" },
	{ COMPOUND_WHERE("this kernel"), FOR(T(FS_DAX), A_TO_E | S(F1) | S(F2)) },
	{ WRONG_ORDER, FOR(T(FS_DAX), GH), .needs = M(ORDER) | NEEDS(PMD),
	  WHEN(order_not_zero_nor_pmd,
	       "order is neither 0 nor that of a PMD, the head is not aligned, or PG_head without an order"),
	  .meaning = "a folio of a size that DAX does not make", .bug_class = "missing order reset, bad split",
	  .near_miss = "the folio of a PMD entry" },
	{ COMPOUND_WHERE("P2PDMA"), FOR(T(PCI_P2PDMA), ALL_SCHEMES) },
	{ COMPOUND_WHERE("this kernel"), FOR(PRIV_COH, KNOWN_SCHEMES & ~S(H)) },
	{ WRONG_ORDER, FOR(PRIV_COH, S(H)), .needs = M(ORDER) | NEEDS(PMD),
	  WHEN(order_above_pmd, "order above that of a PMD, or the head is not aligned"),
	  .meaning = "a folio larger than a driver may make, or at a wrong place",
	  .bug_class = "missing order reset, bad split", .near_miss = "the folio of a PMD" },
	{ RULE("tail-refcount", "R14"), .scope = ZD_SCOPE_TAIL, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, ALL_SCHEMES), WHEN(tail_refcount, "_refcount of a tail is not 0"),
	  .meaning = "somebody took or returned a reference on a tail instead of its head",
	  .bug_class = "get or put on a tail; missed reset when a PMD folio was split; stray write",
	  .near_miss = "an alias of the same struct page (dedup-alias)" },
	{ RULE("dedup-alias", "R27"), .scope = ZD_SCOPE_TAIL, .severity = ZD_INFO, FOR(T(GENERIC), ALL_SCHEMES),
	  .predicate_text =
		  "a struct page that shares its memory with one already read (vmemmap dedup); never a finding",
	  .meaning = "class skipped: the same struct page was judged at its first place", .bug_class = "none",
	  .near_miss = "other bytes than its twin: judged by itself" },

	// Counts that no sequence of the scheme leads to.
	{ RULE("refcount-out-of-range", "R05"), .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(refcount_out_of_range, "refcount < 0 or refcount > 0x40000000"),
	  .meaning = "more references were put than taken, or the counter overflowed",
	  .bug_class = "over-put; reference flood (overflow by attack or loop)", .near_miss = "refcount 0" },
	{ RULE("mapcount-out-of-range", "-"), .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(mapcount_out_of_range,
	       "_mapcount < -1 without a page type; of a large folio, _large_mapcount too"),
	  .meaning = "more maps were removed than made", .bug_class = "double unmap, stray write",
	  .near_miss = "_mapcount == -1, which means unmapped" },
	{ RULE("mapped-without-reference", "R03"), .severity = ZD_ERROR, FOR(ALL_TYPES, ALL_SCHEMES),
	  WHEN(mapped_without_reference, "refcount == 0 and mapcount > 0"),
	  .meaning = "the page is mapped, but nothing holds it: it may be reused under its users",
	  .bug_class = "reference missing on map, over-put, use after free of a mapped block",
	  .near_miss = "refcount == mapcount" },
	{ RULE("refcount-below-mapcount", "R04"), .severity = ZD_ERROR, FOR(ALL_TYPES, KNOWN_SCHEMES),
	  .calibrated = true,
	  WHEN(refcount_below_mapcount, "maps take references, mapcount > 0 and refcount < base + mapcount"),
	  .meaning = "fewer references than maps: the next unmap frees a page that is still mapped",
	  .bug_class = "lost or over-put reference", .near_miss = "refcount == base + mapcount" },
	{ REFCOUNT_BELOW_IDLE, FOR(T(FS_DAX) | T(GENERIC) | T(PCI_P2PDMA), KNOWN_SCHEMES & ~S(F2)),
	  WHEN(refcount_below_idle,
	       "refcount == 0 where free pages rest at 1 (legal in a dying pagemap of schemes B and C)"),
	  .bug_class = "over-put; silent for fsdax before 6.15" },
	{ REFCOUNT_BELOW_IDLE, FOR(PRIV_COH, S(C)),
	  WHEN(refcount_below_idle, "refcount == 0 in a pagemap that is not dying"), .bug_class = "over-put" },
	{ RULE("unaccounted-mapcount", "R07"), .severity = ZD_ERROR,
	  FOR(T(FS_DAX) | T(GENERIC), A_TO_E | S(F1) | S(F2)),
	  WHEN(unaccounted_mapcount,
	       "mapcount > 0 where maps of this type are not counted (Xen's pages excepted)"),
	  .meaning = "a mapping was counted that this kernel never counts",
	  .bug_class = "reverse mapping taken on a devmap page, stray write", .near_miss = "_mapcount == -1" },
	{ RULE("wrong-mapping", "R31"), .severity = ZD_ERROR, FOR(T(FS_DAX), ALL_SCHEMES),
	  WHEN(wrong_mapping, "mapping is no pointer: tag bits, poison or a small number (1 is legal where it "
			      "says \"shared\": 6.0 to 6.14); before 4.17, any mapping; or, where DAX entries "
			      "speak against it, a pointer that leads to no DAX inode"),
	  .meaning =
		  "the mapping word cannot be a file's: it was overwritten, or belongs to another kind of page",
	  .bug_class = "anonymous mapping on a DAX page, freed page, stray write",
	  .near_miss = "the address_space of a file, also of one that is being evicted" },
	{ RULE("mapped-without-association", "-"), .severity = ZD_ERROR, FOR(T(FS_DAX), GH), .needs = M(SHARE),
	  WHEN(mapped_without_association, "mapcount > 0, mapping == NULL and share == 0"),
	  .meaning = "the page is mapped, but belongs to no file: truncate cannot find it",
	  .bug_class = "association lost while mapped", .near_miss = "mapping == NULL with share >= 1" },
	{ SHARED_STATE, .severity = ZD_ERROR, FOR(T(FS_DAX), S(D) | S(E)), .needs = M(SHARE),
	  WHEN(shared_by_nobody, "6.2 to 6.14: mapping == 1 and share == 0"),
	  .meaning = "the page says that files share it, and counts none",
	  .bug_class = "lost share get, put twice",
	  .near_miss = "mapping == 1 with share 1: one sharer is left" },
	{ MULTI_OWNER_UNSHARED, .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, ERROR), FOR(T(FS_DAX), WITH_ENTRIES),
	  WHEN(multi_owner_unshared,
	       "two or more DAX entries cover the page, and it does not say that it is shared"),
	  .meaning = "two places of files write to one block, and only one of them is told when it is freed",
	  .bug_class = "block allocated twice by the file system, or a shared one not marked",
	  .near_miss = "the same on a page that says it is shared" },
	{ ENTRY_PAGE_MISMATCH, .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, ERROR), FOR(T(FS_DAX), WITH_ENTRIES),
	  WHEN(entry_page_mismatch,
	       "a DAX entry covers the page, and the page is not shared and names another file, another index "
	       "or none; or an entry names a pfn outside of every pagemap"),
	  .meaning = "a file maps this block, but the page does not belong to that place of that file",
	  .bug_class = "cross-linked block, wrong index, association lost",
	  .near_miss = "mapping and index of the entry; a locked entry, which is being changed" },
	{ RULE("mapping-without-entry", "R32"), .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, WARNING),
	  FOR(T(FS_DAX), WITH_ENTRIES), .needs = NEEDS(ENTRIES),
	  WHEN(mapping_without_entry, "mapping names a DAX file, and no entry of any file covers the page"),
	  .meaning = "the page says that it belongs to a file which does not know it: the block was freed",
	  .bug_class = "missed disassociation; the file system freed a block that is still associated",
	  .near_miss = "an entry of that file at that index" },
	{ SHARED_STATE, .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, WARNING), FOR(T(FS_DAX), GH),
	  .needs = M(SHARE) | NEEDS(ENTRIES),
	  WHEN(share_leaked, "mapping == NULL and share != 0, and no entry of any file covers the page"),
	  .meaning = "the page says that files share it, and none does", .bug_class = "reflink share leaked",
	  .near_miss = "the same with an entry; of order 0 before 7.1, where the last put leaves it (info)" },
	{ RULE("pinned-private", "R13"), .severity = ZD_ERROR, FOR(T(PRIVATE), KNOWN_SCHEMES),
	  .calibrated = true, .needs = NEEDS(PINS),
	  WHEN(pinned, "refcount - mapcount >= 1024 (large folio: pincount > 0)"),
	  .meaning = "DMA pin on a device-private page, which must migrate before it is pinned",
	  .bug_class = "get_user_pages on a device-private page", .near_miss = "refcount - mapcount == 1023" },
	{ PINNED_AFTER_TRUNCATE, .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, ERROR),
	  FOR(T(FS_DAX), GH | S(F1) | S(F2)), .needs = NEEDS(SHARERS) | NEEDS(PINS),
	  WHEN(pinned_after_truncate, "pins > 0, mapping == NULL and share == 0"),
	  .meaning = "DMA into a block that no file owns: the file system may hand it out again",
	  .bug_class = "layout not broken before truncate, missed unpin" },
	{ FREE_LIST_NONIDLE, .severity = ZD_ERROR, WITHOUT(FREE_LIST, ERROR),
	  FOR(PRIV_COH | T(GENERIC), KNOWN_SCHEMES),
	  WHEN(listed_in_use, "on its driver's list of free pages, and refcount > idle or mapcount > 0"),
	  .meaning = "the driver will hand this page out again, and somebody still uses it",
	  .bug_class = "freed while it was mapped or held; freed twice",
	  .near_miss = "the same on a page that is not listed; a listed one at its idle count" },
	{ RULE("pool-vs-pages", "P10"), .severity = ZD_ERROR, WITHOUT(GEN_POOL, ERROR),
	  FOR(T(PCI_P2PDMA), KNOWN_SCHEMES), .needs = NEEDS(DRIVER), .calibrated = true,
	  WHEN(pool_versus_page, "its gen_pool bit is clear, and refcount > idle or mapcount > 0"),
	  .meaning = "the page is back in its device's pool while it is in use: it will be handed out twice",
	  .bug_class = "freed to the pool while referenced; count left behind by a failed mmap",
	  .near_miss = "the same with its bit set; a clear bit at the idle count" },
	{ REFERENCE_ON_FREE_FOLIO, .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, ERROR),
	  FOR(T(FS_DAX), GH | S(F1) | S(F2)), .needs = NEEDS(SHARERS),
	  WHEN(reference_on_free_dax_folio,
	       "refcount >= 1, mapcount == 0, mapping == NULL, share == 0, not locked"),
	  .meaning = "a free page still has references: they were leaked, and its next user inherits them",
	  .bug_class = "leaked reference; count set by code of an older scheme",
	  .near_miss = "the same with a mapping: held by a fault or an I/O in flight" },
	{ STALE_MAPPING, .severity = ZD_ERROR, FOR(PRIV_COH, S(C) | EGH | S(F2)),
	  .meaning = "the page is free but still names its last user",
	  .bug_class = "freed without clearing; still on the reverse map", .near_miss = "mapping == NULL" },
	{ STALE_MAPPING, .severity = ZD_ERROR, FOR(T(FS_DAX) | T(GENERIC), S(F1) | S(F2)),
	  .meaning = "the page is free but still names its file, whose DAX entry would hold a reference",
	  .bug_class = "the entry's reference was put twice; freed without clearing",
	  .near_miss = "refcount == idle + 1 with a mapping: the entry's own reference" },
	{ STALE_MAPPING, .severity = ZD_ERROR, FOR(T(PCI_P2PDMA), KNOWN_SCHEMES),
	  .meaning = "P2PDMA pages never have a mapping", .bug_class = "stray write; page of another user",
	  .near_miss = "mapping == NULL" },

	// What a defect leaves behind, but a legal sequence can reach as well.
	{ STALE_MAPPING, .severity = ZD_WARNING, FOR(PRIV_COH, S(D) | S(F1)),
	  .meaning = "free or in use (both rest at 1), unmapped, and with a mapping",
	  .bug_class = "freed without clearing", .near_miss = "mapping == NULL" },
	{ PINNED_AFTER_TRUNCATE, .severity = ZD_WARNING, WITHOUT(DAX_ENTRIES, WARNING), FOR(T(FS_DAX), A_TO_E),
	  .needs = NEEDS(PINS), WHEN(pinned_after_truncate, "pins > 0 and mapping == NULL"),
	  .meaning =
		  "DMA into a block that no file owns; before 6.15 truncate passed over pins of unmapped files",
	  .bug_class = "truncate of a pinned, unmapped file; missed unpin" },
	// free_zone_device_page() of these lets the driver list the page before it sets the count again.
	{ FREE_LIST_NONIDLE, .severity = ZD_WARNING, WITHOUT(FREE_LIST, WARNING), FOR(PRIV_COH, S(D) | S(F1)),
	  WHEN(listed_below_idle, "on its driver's list of free pages, refcount < idle and mapcount == 0"),
	  .meaning = "a free page lacks the reference that it rests at: its next user will put one too many",
	  .bug_class = "over-put; or caught between the driver's list and the reset of the count",
	  .near_miss = "refcount 1" },
	{ REFERENCE_ON_FREE_FOLIO, .severity = ZD_WARNING, WITHOUT(FREE_LIST, WARNING),
	  FOR(PRIV_COH, EGH | S(F2)),
	  WHEN(reference_on_free_folio, "refcount >= 1, mapcount == 0, mapping == NULL, not locked"),
	  .meaning = "nobody maps the page, yet it is held: leaked, in migration, or kept by its driver",
	  .bug_class = "leaked reference", .near_miss = "PG_locked: allocated, not mapped yet" },
	{ REFERENCE_ON_FREE_FOLIO, .severity = ZD_ERROR, WITHOUT(GEN_POOL, WARNING),
	  FOR(T(PCI_P2PDMA), GH | S(F2)),
	  WHEN(reference_on_pooled_page,
	       "refcount >= 1, mapcount == 0, mapping == NULL, and its gen_pool bit is clear"),
	  .meaning = "nobody maps the page, yet it is held: leaked, or an I/O that outlives its map",
	  .bug_class = "leaked reference",
	  .near_miss = "refcount == mapcount; a page that its pool has handed out (warning)" },
	{ REFERENCE_ON_FREE_FOLIO, .severity = ZD_WARNING, WITHOUT(GEN_POOL, WARNING),
	  FOR(T(PCI_P2PDMA), GH | S(F2)), .needs = NEEDS(DRIVER),
	  WHEN(reference_on_unmapped_page,
	       "refcount >= 1, mapcount == 0, mapping == NULL, and its gen_pool bit is set"),
	  .meaning = "nobody maps the page, yet it is held: leaked, or an I/O that outlives its map",
	  .bug_class = "leaked reference: the page never comes back to its pool",
	  .near_miss = "refcount == mapcount; its gen_pool bit set with refcount 0: handed out to a driver" },
	{ REFERENCE_ON_FREE_FOLIO, .severity = ZD_ERROR, WITHOUT(DAX_ENTRIES, WARNING), FOR(T(FS_DAX), GH),
	  WHEN(reference_on_stale_share,
	       "before 7.1: order 0, refcount >= 1, mapcount == 0, mapping == NULL, share != 0, not locked; "
	       "with a pass over DAX entries: and none covers the page"),
	  .meaning = "held without a file that claims it: leaked, or (where entries were not read) an extent "
		     "that several files share",
	  .bug_class = "leaked reference; the share word of a free page is stale in these kernels",
	  .near_miss = "the same with dax_folio_reset_order() in the kernel, or of a PMD entry's folio: shared "
		       "(held-without-map)" },
	{ REFERENCE_OUTLIVES_MAPPING, WITHOUT(DAX_ENTRIES, WARNING), FOR(T(FS_DAX), A_TO_E),
	  WHEN(reference_outlives_mapping, "refcount > 1 and mapping == NULL"),
	  .meaning = "a block that no file owns is still referenced: leaked, or pinned across a truncate "
		     "(which passes over unmapped files before 6.15)",
	  .bug_class = "pin that outlives truncate, missed unpin, layout not broken",
	  .near_miss = "refcount > 1 with a mapping, or before 4.17, when no page had one (held-without-map)" },
	{ REFERENCE_OUTLIVES_MAPPING, FOR(T(GENERIC), A_TO_E | GH | S(F1) | S(F2)),
	  WHEN(reference_on_unused_page,
	       "refcount > 1, mapcount == 0 and mapping == NULL (Xen's pages excepted)"),
	  .meaning = "the page is referenced, but no process ever faulted it in",
	  .bug_class = "leaked reference of a kernel user", .near_miss = "refcount > 1 with a mapping" },
	{ MULTI_OWNER_UNSHARED, .severity = ZD_WARNING, WITHOUT(DAX_ENTRIES, WARNING),
	  FOR(T(FS_DAX), S(D) | S(E) | S(F1) | S(F2)),
	  WHEN(multi_owner_taken_over, "6.0, 6.1 and the series of 2022: two or more DAX entries cover the "
				       "page, which names one of them, or none"),
	  .meaning = "files share the block, and the page knows one of them: these kernels mark it only when "
		     "it is copied",
	  .bug_class =
		  "known defect of 6.0 and 6.1 (reflinked files that are read), or a block allocated twice",
	  .near_miss = "the same where the page names a third file (error)" },
	{ ENTRY_PAGE_MISMATCH, .severity = ZD_WARNING, WITHOUT(DAX_ENTRIES, WARNING),
	  FOR(T(FS_DAX), S(D) | S(E) | S(F1) | S(F2)),
	  WHEN(entry_page_taken_over,
	       "6.0, 6.1 and the series of 2022: a DAX entry covers the page, which names no file, or "
	       "another one that has an entry, too"),
	  .meaning = "a file maps this block, and the page lost it to another file of a shared extent",
	  .bug_class = "known defect of 6.0 and 6.1 (reflinked files that are read), or a lost association",
	  .near_miss = "the page names a file without an entry, or another index (error)" },
	{ RULE("share-vs-entries", "R35"), .severity = ZD_WARNING, WITHOUT(DAX_ENTRIES, WARNING),
	  FOR(T(FS_DAX), S(D) | S(E) | GH), .needs = M(SHARE) | NEEDS(ENTRIES),
	  WHEN(share_versus_entries,
	       "shared, and share is not the number of DAX entries that cover the page (not 6.15 to 7.0)"),
	  .meaning = "the page counts other sharers than there are: it is freed too early or never",
	  .bug_class = "lost share get or put", .near_miss = "share == number of entries" },
	{ RULE("entry-order-vs-folio", "R37"), .severity = ZD_WARNING, WITHOUT(DAX_ENTRIES, WARNING),
	  FOR(T(FS_DAX), GH), .needs = M(ORDER) | NEEDS(PMD) | NEEDS(ENTRIES),
	  WHEN(entry_order, "a PMD entry covers the page, whose folio is not of that order; or an entry leads "
			    "to a part of a large folio; or a folio of that order without a file has no PMD "
			    "entry"),
	  .meaning = "the folio and the entry that it was made for do not have the same size",
	  .bug_class = "missed split or reset",
	  .near_miss =
		  "a PMD entry on a folio of its order; a locked entry of a part, which is being changed" },
	{ DAX_LOCK_STUCK, .severity = ZD_WARNING, WITHOUT(DAX_ENTRIES, WARNING),
	  WHEN(entry_stuck,
	       "the DAX entry of the page is locked, and no task's stack names its file's tree or the "
	       "page; or one that has no page yet, or the zero page"),
	  .meaning = "every fault on this page of the file waits for ever",
	  .bug_class = "lost wake-up, leaked lock", .near_miss = "a task is there that may hold the lock" },
	{ RULE("gen-mapping", "R40"), .severity = ZD_WARNING, FOR(T(GENERIC), ALL_SCHEMES), .needs = M(INDEX),
	  WHEN(gen_mapping, "mapping is neither NULL nor that of the page's dax_device, or index is not the "
			    "page's place in that (where struct dev_dax can be read)"),
	  .meaning = "the page was mapped as another one than it is: memory_failure() looks for its users in "
		     "the wrong place",
	  .bug_class = "wrong alignment in dax_set_mapping() (CVE-2024-50022); a stray write",
	  .near_miss = "mapping and index that the first fault left on a page that is free again" },
	{ RULE("wrong-node", "R22"), .scope = ZD_SCOPE_PAGE, .severity = ZD_WARNING,
	  FOR(ALL_TYPES, ALL_SCHEMES), .needs = NEEDS(NODE),
	  WHEN(wrong_node, "the node bits of flags differ from those of most of the pagemap's first pages"),
	  .meaning = "the page lies on another node than its pagemap",
	  .bug_class = "bad node at remap, partial initialisation", .near_miss = "the pagemap's own node" },
	{ RULE("not-reserved", "R23"), .scope = ZD_SCOPE_PAGE, .severity = ZD_WARNING,
	  FOR(ALL_TYPES, ALL_SCHEMES), .needs = NEEDS(RESERVED),
	  WHEN(reserved_lost, "PG_reserved is clear (6.19 and later: not private and coherent pages)"),
	  .meaning = "nothing in the kernel clears it on such a device page",
	  .bug_class = "foreign owner, uninitialised page",
	  .near_miss = "PG_reserved set; a private page of a large folio that was split (6.19 and later)" },
	{ RULE("dirty-free-state", "R39"), .severity = ZD_WARNING, FOR(PRIV_COH, S(C) | EGH | S(F2)),
	  .calibrated = true,
	  WHEN(dirty_free_state, "idle with PG_locked, PG_anon_exclusive or PG_writeback, or with memcg_data"),
	  .meaning = "the page is free but carries the state of its last user",
	  .bug_class = "missed unlock or uncharge", .near_miss = "PG_dirty or PG_uptodate" },
	{ HWPOISON, .severity = ZD_WARNING, FOR(ALL_TYPES, KNOWN_SCHEMES), .calibrated = true,
	  WHEN(hwpoison_in_use, "PG_hwpoison is set and refcount > idle"),
	  .meaning = "memory with an uncorrected error is still in use",
	  .bug_class = "media error; poisoned page not isolated",
	  .near_miss = "PG_hwpoison on an idle page (info)" },

	// Legal, and worth seeing.
	{ HWPOISON, .severity = ZD_INFO, FOR(ALL_TYPES, ALL_SCHEMES), WHEN(hwpoison, "PG_hwpoison is set"),
	  .meaning = "the memory behind the page has an uncorrected error", .bug_class = "media error",
	  .near_miss = "PG_hwpoison clear" },
	{ SHARED_STATE, .severity = ZD_INFO, FOR(T(FS_DAX), S(D) | S(E)), .needs = M(INDEX),
	  WHEN(shared_counter_lost, "6.0 and 6.1: mapping == 1 and index == 0"),
	  .meaning = "the page says that files share it, and counts none",
	  .bug_class = "none by itself: the counter of 6.0 and 6.1 is off by one on the way down",
	  .near_miss = "mapping == 1 with index 1" },
	{ SHARED_STATE, .severity = ZD_INFO, WITHOUT(DAX_ENTRIES, INFO), FOR(T(FS_DAX), GH),
	  .needs = M(SHARE) | NEEDS(ENTRIES),
	  WHEN(share_left_behind,
	       "before 7.1: order 0, mapping == NULL and share != 0, and no entry of any file covers the page"),
	  .meaning = "the last put of these kernels leaves the index of its file in that word",
	  .bug_class = "none by itself; a shared extent that is laid on it counts wrong for ever",
	  .near_miss = "the same with dax_folio_reset_order() in the kernel (error)" },
	{ DAX_LOCK_STUCK, .severity = ZD_INFO, WITHOUT(DAX_ENTRIES, INFO),
	  WHEN(entry_locked,
	       "the DAX entry of the page is locked, and the stacks of tasks are not in the dump"),
	  .meaning = "a fault on this page is under way, or hangs: who holds the lock cannot be told",
	  .bug_class = "none, or a leaked lock", .near_miss = "an entry that is not locked" },
	{ RULE("free-or-allocated", "R08"), .severity = ZD_INFO, WITHOUT(FREE_LIST, INFO),
	  FOR(PRIV_COH, S(D) | S(F1)), .calibrated = true,
	  WHEN(free_or_allocated,
	       "refcount == 1, mapcount == 0, mapping == NULL, and not on its driver's list of free pages"),
	  .meaning = "free and allocated look the same in this scheme; only the driver's free list tells",
	  .bug_class = "none", .near_miss = "a mapcount or a mapping: in use; on the list: free" },
	{ RULE("dma-pinned", "R11"), .severity = ZD_INFO, FOR(ALL_TYPES & ~T(PRIVATE), KNOWN_SCHEMES),
	  .calibrated = true, .needs = NEEDS(PINS),
	  WHEN(pinned, "extra >= 1024 (order 0) or pincount > 0 (large folio)"), .meaning = "pinned for DMA",
	  .bug_class = "none, or a missed unpin", .near_miss = "extra == 1023" },
	{ RULE("zdd", "R42"), .severity = ZD_INFO, FOR(PRIV_COH, KNOWN_SCHEMES), .calibrated = true,
	  .needs = M(ZONE_DEVICE_DATA),
	  WHEN(driver_data_missing, "zone_device_data == NULL and mapped, or refcount > idle and not locked; "
				    "where most pages in use of the pagemap have it"),
	  .meaning = "the page is in use, and its driver does not know by whom",
	  .bug_class = "allocation that was not initialised",
	  .near_miss = "a driver that leaves it NULL on all pages; PG_locked" },
	{ HELD_WITHOUT_MAP, FOR(T(FS_DAX), KNOWN_SCHEMES),
	  WHEN(associated_held_without_map,
	       "plain > 0 and the page belongs to a file, or cannot tell (before 4.17)"),
	  .meaning = "references beyond the maps and pins: an I/O in flight, a pipe, or a leak",
	  .near_miss = "refcount == base + maps + pins" },
	{ HELD_WITHOUT_MAP, FOR(T(GENERIC), KNOWN_SCHEMES), WHEN(held_without_map, "plain > 0"),
	  .meaning = "references beyond the maps and pins: an I/O in flight, a pipe, or a leak",
	  .near_miss = "refcount == base + maps + pins" },
	{ HELD_WITHOUT_MAP, FOR(T(PCI_P2PDMA), GH), WHEN(held_without_map, "plain > 0"),
	  .meaning = "references beyond the maps: an I/O in flight, or a leak",
	  .near_miss = "refcount == mapcount" },

	// Rules on a whole pagemap.
	{ RULE("pgmap-sanity", "P06"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, ALL_SCHEMES),
	  .predicate_text =
		  "unknown type; private or coherent without ops, free callback, owner (private: "
		  "migrate_to_ram); several ranges with an altmap; an altmap that takes every page or is "
		  "overdrawn; start > end; not aligned to a subsection; nr_range == 0 is info (being added)",
	  .meaning = "the struct dev_pagemap contradicts itself", .bug_class = "corruption, driver bug",
	  .near_miss = "FS_DAX or GENERIC without ops" },
	{ RULE("dead-in-registry", "P04"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, ALL_SCHEMES),
	  .predicate_text = "the percpu_ref was exited, or is dead at 0, and the pagemap is still registered",
	  .meaning = "the pagemap is torn down but still found by its pfns",
	  .bug_class = "stale registry entry", .near_miss = "dying with references left: removal is waiting" },
	{ RULE("registry-coverage", "P05"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, ALL_SCHEMES),
	  .predicate_text =
		  "a pfn of a range loads another pagemap or none, also of a pagemap that only its pages "
		  "name; an index outside of every range; ranges overlap",
	  .meaning = "the registry and the pagemap's ranges disagree",
	  .bug_class = "double remap, leaked index", .near_miss = "one pagemap with several ranges" },
	{ REF_BELOW_BIAS, FOR(T(FS_DAX) | T(GENERIC) | T(PCI_P2PDMA), S(D) | EGH),
	  .predicate_text = "live, and dev_pagemap.ref < 1 + number of (compound) pages",
	  .near_miss = "ref == 1 + number of (compound) pages" },
	{ REF_BELOW_BIAS, FOR(PRIV_COH, S(D)),
	  .predicate_text = "live, and dev_pagemap.ref < 1 + number of pages, whether they are in use or not",
	  .near_miss = "ref == 1 + number of pages" },
	{ RULE("dying-busy", "P03"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, KNOWN_SCHEMES),
	  .predicate_text = "the pagemap is dying and pages are above their idle count (B and C: above 0, once "
			    "removal has put the reference that each was born with)",
	  .meaning = "removal waits for these pages (private, coherent, P2PDMA; every type before 5.18), or "
		     "will not wait and frees them under their users (fsdax, generic)",
	  .bug_class = "driver unbind hangs, or use after free", .near_miss = "dying with every page idle" },
	{ RULE("ref-versus-pages", "P01"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_WARNING,
	  FOR(ALL_TYPES, S(A) | S(B) | S(C) | EGH),
	  .predicate_text = "private, coherent (E, G, H): ref - 1 != pages with references; private, generic, "
			    "P2PDMA (C), every type (B): ref - 1 < pages with references; A: ref - 1 < "
			    "references on pages beyond the idle one",
	  .meaning = "the pagemap's count and its pages disagree: a reference was lost or leaked",
	  .bug_class = "pagemap reference lost or leaked per page; before 4.12, a page reference taken without "
		       "one on the pagemap",
	  .near_miss = "ref == 1 + what the pages hold" },
	{ RULE("idle-count-mismatch", "R09"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_WARNING,
	  FOR(ALL_TYPES, KNOWN_SCHEMES),
	  .predicate_text = "most idle-looking heads of a memory type rest at another count than the scheme's",
	  .meaning = "wrong scheme, a backport, or a mass leak: rules that compare with the idle count are off "
		     "for this type",
	  .bug_class = "detection, backport, mass leak", .near_miss = "less than half of the heads" },
	{ RULE("memmap-missing", "P07"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_ERROR,
	  FOR(ALL_TYPES, ALL_SCHEMES),
	  .predicate_text = "live, and a pfn of its ranges lies in a section without a memmap, or the bit of "
			    "its subsection is clear",
	  .meaning = "the kernel believes that these pages have no struct page: pfn_valid() fails in a range "
		     "that is in use",
	  .bug_class = "partial teardown; a neighbour's removal took a section along",
	  .near_miss = "a section that no range reaches into" },
	{ RULE("altmap-overrun", "P08"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_WARNING,
	  FOR(ALL_TYPES, ALL_SCHEMES),
	  .predicate_text = "the percpu_ref was exited, and the altmap still has pages out (one that takes "
			    "every page, or is overdrawn, is pgmap-sanity)",
	  .meaning = "pages of the device that held its memmap were not given back at removal",
	  .bug_class = "memmap leak", .near_miss = "a live pagemap with its memmap in the altmap" },
	{ RULE("memmap-unreadable", "P09"), .scope = ZD_SCOPE_PAGEMAP, .severity = ZD_INFO,
	  FOR(ALL_TYPES, ALL_SCHEMES), .predicate_text = "struct pages of the pagemap could not be read",
	  .meaning = "these pages were not judged: their memmap lies on the device or was left out of the dump",
	  .bug_class = "none: a limit of the dump", .near_miss = "the skipped head of an altmap" },
};

const size_t zd_rules_count = sizeof(zd_rules) / sizeof(*zd_rules);

const char *zd_rule_why_not(const struct zd_rule *rule, const struct zd_layout *layout,
			    const struct zd_scheme *scheme)
{
	if (!(rule->schemes >> scheme->id & 1))
		return "not a rule of this scheme";
	for (int i = 0; i < ZD_MEMBERS; i++) {
		if (rule->needs >> i & 1 && !zd_layout_has(layout, i))
			return "this kernel lacks a member that the rule needs";
	}
	if (rule->needs & ZD_NEEDS_ZONE && !layout->zone.width)
		return "the zone bits of page flags are not known";
	if (rule->needs & ZD_NEEDS_NODE && !layout->node.width)
		return "the node bits of page flags are not known, or there is one node";
	if (rule->needs & ZD_NEEDS_RESERVED && layout->flag[ZD_PG_RESERVED] < 0)
		return "this kernel has no PG_reserved";
	if (rule->needs & ZD_NEEDS_PINS && !scheme->counts_pins)
		return "this kernel does not count pins (before 5.7)";
	if (rule->needs & ZD_NEEDS_SHARERS && scheme->shared == ZD_SHARED_SHARE &&
	    !zd_layout_has(layout, ZD_SHARE))
		return "this kernel lacks a member that the rule needs";
	if (rule->needs & ZD_NEEDS_PMD && !layout->pmd_order)
		return "the order of a PMD is not known on this architecture";
	return NULL;
}

bool zd_rule_applies(const struct zd_rule *rule, const struct zd_layout *layout, const struct zd_scheme *scheme,
		     const struct zd_pagemap *pagemap)
{
	bool calibrated = scheme->type[pagemap->type].idle >= 0 && !pagemap->miscalibrated;

	return rule->predicate && rule->types >> pagemap->type & 1 && (calibrated || !rule->calibrated) &&
	       !zd_rule_why_not(rule, layout, scheme);
}

struct zd_rule_set zd_rules_judge(const struct zd_subject *subject, const struct zd_rule_list *list)
{
	struct zd_rule_set fired = { 0 };

	for (size_t i = 0; i < list->count; i++) {
		if (zd_rules[list->rows[i]].predicate(subject))
			zd_rule_set_add(&fired, list->rows[i]);
	}
	return fired;
}

enum zd_severity zd_rule_severity(const struct zd_rule *rule, const struct zd_scheme *scheme,
				  const struct zd_pagemap *pagemap, uint32_t evidence)
{
	bool proven = !rule->evidence || evidence >> rule->evidence & 1;
	enum zd_severity severity = proven ? rule->severity : rule->severity_unproven;
	enum zd_severity cap = pagemap->severity_cap;

	if (scheme->id == ZD_SCHEME_UNKNOWN && cap > ZD_WARNING)
		cap = ZD_WARNING;
	return severity < cap ? severity : cap;
}
