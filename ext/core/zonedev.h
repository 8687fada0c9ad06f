/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * The contract of the zonedev core: what a struct page of a ZONE_DEVICE pagemap is,
 * how it is decoded, which rule it breaks, and how a run of them is tallied.
 *
 * It owns decoding, schemes, rules, the scan, the tally and the cells.  It does no I/O, knows no
 * drgn and no Python, and reads no kernel header: where a member lies, which refcount
 * scheme a kernel follows and which bits mean what is data given by the caller.
 *
 * Invariants: bytes from a dump are never trusted (no offset, index or count taken from
 * them is used unchecked); every page given to a scan ends in exactly one class.
 *
 * Errors: functions that can fail return a struct zd_error *, NULL is success.
 * Threads: nothing is global but constant tables.  A struct zd_scan belongs to one thread
 * at a time; layouts and schemes are read-only once made and may be shared.
 *
 * Mirrors: include/linux/mm_types.h, include/linux/memremap.h, mm/memremap.c, fs/dax.c.
 */
#ifndef ZONEDEV_H
#define ZONEDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "error.h"
#include "words.h"

// ---------------------------------------------------------------- limits

enum {
	/** Largest sizeof(struct page) that a layout may have, in bytes. */
	ZD_PAGE_MAX = 128,
	/** Struct pages of one folio in which its own members may lie (head and three tails). */
	ZD_FOLIO_PAGES = 4,
	/** Highest order of a folio that is believed (1 << 30 pages). */
	ZD_ORDER_MAX = 30,
	/** Highest order of a PMD mapping, for where it is not known (64 KiB pages: 512 MiB). */
	ZD_PMD_ORDER_MAX = 13,
	/**
	 * Findings (runs) kept by one scan: information up to half of this, warnings up to three
	 * quarters, so that they leave room for errors.  More are counted in findings_dropped, and
	 * always in severities.
	 */
	ZD_FINDINGS_MAX = 1 << 18,
	/** Folios around the one that a walk is in whose tails are still known; corrupt ones may nest. */
	ZD_OUTER_MAX = 8,
	/** Distinct refcounts kept in one histogram; more are counted in "other". */
	ZD_REFCOUNTS_MAX = 4096,
	/** Cells of one range whose classes are counted by place, and pages of a cell as a power of two. */
	ZD_CELLS_MAX = 1 << 18,
	ZD_CELL_SHIFT_MAX = 63,
};

// ---------------------------------------------------------------- vocabulary

/** Memory types, in an order of our own: the kernel's enum memory_type shifts between versions. */
enum zd_type {
	ZD_PRIVATE,
	ZD_COHERENT,
	ZD_FS_DAX,
	ZD_GENERIC,
	ZD_PCI_P2PDMA,
	ZD_TYPES,
};

/** The classes of contract: every page has exactly one. */
enum zd_class {
	ZD_IDLE,
	ZD_BUSY,
	ZD_VIOLATION,
	ZD_NOT_CAPTURED,
	ZD_UNREADABLE,
	ZD_SKIPPED,
	ZD_CLASSES,
};

enum zd_severity { ZD_INFO, ZD_WARNING, ZD_ERROR, ZD_SEVERITIES };

/** Names as they stand in reports ("MEMORY_DEVICE_FS_DAX", "not-captured", "error"). */
extern const char *const zd_type_names[ZD_TYPES];
extern const char *const zd_class_names[ZD_CLASSES];
extern const char *const zd_severity_names[ZD_SEVERITIES];

// ---------------------------------------------------------------- layout

/** Members of struct page (below ZD_PAGE_MEMBERS) and of struct folio (from there on). */
enum zd_member {
	ZD_FLAGS,
	/** Word 1: dev_pagemap of a head, compound_head or compound_info of a tail. */
	ZD_PGMAP,
	ZD_ZONE_DEVICE_DATA,
	ZD_MAPPING,
	ZD_INDEX,
	/** The DAX share counter: the same word as the index, absent before 6.2. */
	ZD_SHARE,
	/** _mapcount, which page_type overlays. */
	ZD_MAPCOUNT,
	ZD_REFCOUNT,
	ZD_MEMCG_DATA,
	ZD_PAGE_MEMBERS,
	ZD_ORDER = ZD_PAGE_MEMBERS,
	ZD_LARGE_MAPCOUNT,
	ZD_PINCOUNT,
	ZD_MEMBERS,
};

extern const char *const zd_member_names[ZD_MEMBERS];

/**
 * Where a member lies.  @offset is in bytes from the start of the struct page, or for the
 * folio members from the start of the head's.  @size in bytes, 0: this kernel lacks it.
 * @bits: how many low bits count, 0 for all.
 */
struct zd_field {
	uint16_t offset;
	uint8_t size;
	uint8_t bits;
};

/** Page flags that the rules look at; zd_flag_names holds the enumerators of enum pageflags. */
enum zd_flag {
	ZD_PG_LOCKED,
	ZD_PG_LRU,
	ZD_PG_HEAD,
	ZD_PG_RESERVED,
	ZD_PG_SWAPCACHE,
	ZD_PG_WRITEBACK,
	ZD_PG_ANON_EXCLUSIVE,
	ZD_PG_HWPOISON,
	ZD_FLAG_COUNT,
};

extern const char *const zd_flag_names[ZD_FLAG_COUNT];

/** A bit field of page->flags: shift and width; width 0 means that it is not known. */
struct zd_bits {
	uint8_t shift;
	uint8_t width;
};

/** How struct page lies in memory in one kernel.  Made by the caller, checked by zd_layout_check(). */
struct zd_layout {
	uint32_t page_size; /* sizeof(struct page) in bytes */
	uint8_t word_size;  /* 4 or 8 */
	bool big_endian;
	uint8_t page_shift;
	uint8_t pmd_order; /* order of a PMD mapping, 0: not known */
	/** Since 7.1 a tail's word may hold a mask instead of a pointer (compound_info). */
	bool compound_mask;
	/** A raw _mapcount below this (signed) is a page type; -128 before the PGTY_* types. */
	int32_t page_type_limit;
	struct zd_field field[ZD_MEMBERS];
	/** Bit number of each flag, -1 where the kernel has none. */
	int8_t flag[ZD_FLAG_COUNT];
	struct zd_bits zone, node;
	uint32_t zone_device; /* value of ZONE_DEVICE in the zone bits */
};

/**
 * Check a layout once, so that every later load is in bounds.
 * Errors: ZD_ERROR_INVALID naming the member.
 */
struct zd_error *zd_layout_check(const struct zd_layout *layout);

/** True where the layout has the member. */
static inline bool zd_layout_has(const struct zd_layout *layout, enum zd_member member)
{
	return layout->field[member].size != 0;
}

/** The member's value, zero extended; 0 where it is absent.  @page has page_size bytes
 * (for folio members: enough bytes to hold the member). */
uint64_t zd_load(const struct zd_layout *layout, const uint8_t *page, enum zd_member member);

/** A 32-bit member as the signed number that atomic_t is. */
int32_t zd_load_s32(const struct zd_layout *layout, const uint8_t *page, enum zd_member member);

/** The layout that the fast path serves: 64-bit, this machine's byte order, 64-byte struct page. */
bool zd_layout_is_native64(const struct zd_layout *layout);

// ---------------------------------------------------------------- schemes

/** Refcount schemes; the letters are those of the documentation. */
enum zd_scheme_id {
	ZD_SCHEME_A,
	ZD_SCHEME_B,
	ZD_SCHEME_C,
	ZD_SCHEME_D,
	ZD_SCHEME_E,
	ZD_SCHEME_F1,
	ZD_SCHEME_F2,
	ZD_SCHEME_G,
	ZD_SCHEME_H,
	ZD_SCHEME_UNKNOWN,
	ZD_SCHEMES,
};

/** How a DAX page says that several files share it. */
enum zd_shared {
	ZD_SHARED_NONE,		 /* not supported */
	ZD_SHARED_MAPPING_INDEX, /* mapping == 1, counter in index */
	ZD_SHARED_MAPPING_SHARE, /* mapping == 1, counter in share */
	ZD_SHARED_SHARE,	 /* mapping == NULL, share != 0 */
	ZD_SHARED_UNKNOWN,	 /* no telling: any of these may be legal */
};

/** What a scheme says of one memory type. */
struct zd_scheme_type {
	/** Refcount of a free folio; -1: the scheme does not know the type. */
	int8_t idle;
	/** Part of the refcount that a mapped folio keeps beside its maps. */
	int8_t mapped_base;
	/** Each page-table mapping holds a reference and counts in _mapcount. */
	bool maps_take_refs;
	/** Mappings of this type never count in _mapcount: a mapcount is a defect. */
	bool never_mapcount;
	/** Pages in use may lack a mapping: its absence says nothing.  On FS_DAX, its presence is a defect. */
	bool unassociated;
	/** The DAX entry that gives a page its mapping holds one reference on it. */
	bool entry_takes_ref;
};

struct zd_scheme {
	enum zd_scheme_id id;
	const char *name;    /* "E" */
	const char *title;   /* one line */
	const char *kernels; /* "6.1 to 6.14" */
	/** Who holds dev_pagemap.ref, one line. */
	const char *pgmap_ref;
	struct zd_scheme_type type[ZD_TYPES];
	enum zd_shared shared;
	/** Refcount 0 is legal in a dying pagemap (every page's own reference is put at removal). */
	bool zero_when_dying;
	/** A final put leaves the share word behind on an order-0 FS_DAX folio (before dax_folio_reset_order).
	 */
	bool stale_share;
	/** Large device-private folios exist, and leave stale tail words when freed. */
	bool large_private;
	/** There are pins, each so many references of an order-0 folio; before, those were just references. */
	bool counts_pins;
	/** PRIVATE and COHERENT pages hold a pagemap reference only while in use. */
	bool private_refs_pgmap;
};

/** The table, indexed by enum zd_scheme_id. */
extern const struct zd_scheme zd_schemes[ZD_SCHEMES];

/** Words for enum zd_shared: where a shared DAX page says so. */
extern const char *const zd_shared_names[5];

/** What a probe asks the kernel's types and symbols for. */
enum zd_probe_kind { ZD_PROBE_MEMBER, ZD_PROBE_SYMBOL, ZD_PROBE_FUNCTION, ZD_PROBE_ENUMERATOR };

enum zd_probe_id {
	ZD_PROBE_FOLIO_PGMAP,
	ZD_PROBE_FOLIO_FREE,
	ZD_PROBE_PAGE_PGMAP,
	ZD_PROBE_INIT_MODE,
	ZD_PROBE_REQUEST_FOLIOS,
	ZD_PROBE_PUT_DEVMAP_PAGE_REFS,
	ZD_PROBE_PUT_DEVMAP_FOLIO_REFS,
	ZD_PROBE_ZONE_DEVICE_PAGE_INIT,
	ZD_PROBE_FREE_ZONE_DEVICE_PAGE,
	ZD_PROBE_INTERNAL_REF,
	ZD_PROBE_FREE_DEVMAP_MANAGED_PAGE,
	ZD_PROBE_PUT_DEVMAP_MANAGED_PAGE,
	ZD_PROBE_PUT_DEVMAP_MANAGED_PAGE2,
	ZD_PROBE_GET_ZONE_DEVICE_PAGE,
	ZD_PROBE_PGMAP_ARRAY,
	ZD_PROBE_PGMAP_RADIX,
	ZD_PROBE_MEMORY_TYPE,
	ZD_PROBE_PAGE_SHARE,
	ZD_PROBE_DAX_MAPPING_SET_COW,
	ZD_PROBE_DEVICE_COHERENT,
	ZD_PROBE_P2PMEM_ALLOC_MMAP,
	ZD_PROBE_DAX_FOLIO_RESET_ORDER,
	ZD_PROBE_DAX_ASSOCIATE_ENTRY,
	ZD_PROBE_HPAGE_PINNED_REFCOUNT,
	ZD_PROBE_FOLL_PIN_ACQUIRED,
	ZD_PROBES,
};

/** A row of evidence: @name is "struct.member" for members, else the name to look up. */
struct zd_probe {
	const char *name;
	enum zd_probe_kind kind;
};

extern const struct zd_probe zd_probes[ZD_PROBES];

enum zd_confidence { ZD_CONFIDENCE_LOW, ZD_CONFIDENCE_MEDIUM, ZD_CONFIDENCE_HIGH };

extern const char *const zd_confidence_names[3];

/**
 * Decide the scheme from evidence.  @present is indexed by enum zd_probe_id.
 * @ret is a copy of the table's row with the kernel's own variations applied (encoding of
 * shared pages, P2PDMA mappings, stale share).  @confidence is high where independent
 * evidence agrees, medium where it contradicts in part, low for an unknown scheme.
 * @decisive is the bit mask of the probes that the decision rests on.
 */
void zd_scheme_detect(const bool present[ZD_PROBES], struct zd_scheme *ret, enum zd_confidence *confidence,
		      uint64_t *decisive);

/**
 * Scheme F1 lets every pagemap choose (dev_pagemap.init_mode): pages of @type rest at 1 in one that is
 * @busy, else at 0.
 */
void zd_scheme_set_init_mode(struct zd_scheme *scheme, enum zd_type type, bool busy);

/**
 * Removal of a pagemap has put the reference that each of its pages was born with: pages rest one lower
 * than before, and what is above that is what removal waits for.  Changes only schemes in which removal
 * does so (zero_when_dying).
 */
void zd_scheme_set_drained(struct zd_scheme *scheme);

// ---------------------------------------------------------------- pagemaps

enum zd_ref_state { ZD_REF_LIVE, ZD_REF_DYING, ZD_REF_DEAD };

/** What the core must know of the pagemap whose pages it judges. */
struct zd_pagemap {
	uint64_t address; /* of the struct dev_pagemap */
	enum zd_type type;
	enum zd_ref_state ref;
	uint8_t vmemmap_shift;
	/** The node most of its pages lie on, which must fit into the node bits; -1: not known. */
	int32_t node;
	/** A caller outside of the DAX core maps these pages with references in every scheme (xen). */
	bool foreign_maps;
	/** Verified: struct pages behind the first two vmemmap pages of a compound are aliases. */
	bool deduplicated;
	/** Highest severity that findings of this pagemap may have (calibration). */
	enum zd_severity severity_cap;
	/** The calibrated count contradicts the scheme: rules that compare with it are off. */
	bool miscalibrated;
	/** Its driver sets zone_device_data of private and coherent pages in use: other pages show it. */
	bool driver_data;
	/** Of a device-dax pagemap: the address_space that its pages name once they were mapped; 0: not known.
	 */
	uint64_t dax_mapping;
};

/** A run of struct pages: pfns [start_pfn, end_pfn), the first page's struct at @memmap. */
struct zd_range {
	uint64_t start_pfn, end_pfn;
	uint64_t memmap;
	/** Where its pagemap has a dax_mapping: a page's pfn less its index in that. */
	uint64_t index_bias;
};

// ---------------------------------------------------------------- decoding

/** One struct page, and for a head its folio. */
struct zd_folio {
	uint64_t pfn;
	uint64_t flags, word1, mapping, index, share, zone_device_data, memcg_data;
	int32_t refcount;
	int32_t raw_mapcount;
	/** Number of maps (contract: mc); 0 when a page type overlays the counter. */
	int64_t mapcount;
	int64_t pincount; /* of a large folio, else 0 */
	uint32_t zone, node;
	uint8_t order; /* 0 unless PG_head */
	bool tail;
	/** The order member or one of the folio's counters could not be read: order and counters are 0. */
	bool partial;
	bool has_type; /* a page type in _mapcount */
	/** Tails: the head's pfn; valid only if head_valid. */
	uint64_t head_pfn;
	bool head_valid;
	/** Contract: refcount == base + maps + extra; extra == plain + pins (in references). */
	int32_t base;
	int64_t extra, plain, pin;
};

/** The content of the bytes as a whole. */
enum zd_pattern { ZD_PATTERN_DATA, ZD_PATTERN_ZERO, ZD_PATTERN_POISON };

/** Look whether a struct page is all zeroes, or all 0xff or 0xfd. */
enum zd_pattern zd_page_pattern(const struct zd_layout *layout, const uint8_t *page);

/**
 * Decode one struct page.
 * @bytes: at least one struct page; @available: how many struct pages follow from it
 * (a head's folio members may lie in up to three tails).
 * @range: where the page belongs; pfn must lie inside.
 */
void zd_folio_decode(const struct zd_layout *layout, const struct zd_scheme *scheme,
		     const struct zd_pagemap *pagemap, const struct zd_range *range, uint64_t pfn,
		     const uint8_t *bytes, size_t available, struct zd_folio *ret);

/** True where a head's state says that it is in use (contract, class busy). */
bool zd_folio_is_busy(const struct zd_folio *folio, const struct zd_scheme *scheme,
		      const struct zd_pagemap *pagemap);

/** True for a private or coherent folio that has a user: mapped, or held and not just allocated (PG_locked). */
bool zd_folio_has_user(const struct zd_folio *folio, const struct zd_layout *layout,
		       const struct zd_scheme *scheme, const struct zd_pagemap *pagemap);

/** True where the share word of a DAX folio may be its last file's, so that it proves nothing. */
bool zd_share_may_be_stale(const struct zd_folio *folio, const struct zd_scheme *scheme);

/** True where a DAX mapping word is a pointer that may be followed: no tags, no poison. */
bool zd_mapping_is_pointer(const struct zd_layout *layout, uint64_t mapping);

/**
 * True where the head (or tail) is known to be a page of this pagemap: ZONE_DEVICE and its word.
 * Never where the zone bits are not known.
 */
bool zd_folio_is_identified(const struct zd_folio *folio, const struct zd_layout *layout,
			    const struct zd_pagemap *pagemap);

// ---------------------------------------------------------------- rules

/** What a rule is applied to; to heads, where its row names nothing else. */
enum zd_scope { ZD_SCOPE_HEAD, ZD_SCOPE_TAIL, ZD_SCOPE_PAGE, ZD_SCOPE_PAGEMAP };

/** Evidence outside of the struct page that would settle a rule. */
enum zd_evidence {
	ZD_EVIDENCE_NONE,
	ZD_EVIDENCE_DAX_ENTRIES,
	ZD_EVIDENCE_FREE_LIST,
	ZD_EVIDENCE_GEN_POOL,
};

extern const char *const zd_evidence_names[4];

struct zd_entries;   /* entries.h */
struct zd_page_bits; /* pagebits.h */

/** What a pass over the DAX entries of all files tells of a page; all false without one. */
struct zd_files {
	bool known;    /* there was a pass */
	bool complete; /* and it saw every entry that there is of this pagemap */
	/** Entries that cover the page; many: so many or more. */
	uint8_t count;
	bool many;
	bool match; /* one of them is the file and index that the page itself names */
	bool pmd;
	bool locked; /* an entry is locked, by somebody ... */
	bool stuck;  /* ... who is not there */
	bool flux;   /* entries or page are being changed */
	bool misfit; /* a large folio: an entry leads to a part of it, or begins in its middle */
	/** What the page's mapping word was found to be, where no file of a super block has it. */
	bool mapping_unknown, mapping_no_file;
};

/** What the page's driver says of it; all false where it was not asked. */
struct zd_driver {
	bool pool_known; /* the bitmap of the pool that the page belongs to was read ... */
	bool allocated;	 /* ... and the page is handed out */
	bool listed;	 /* the page is linked on a list of free ones */
};

/** Everything a predicate may look at. */
struct zd_subject {
	const struct zd_layout *layout;
	const struct zd_scheme *scheme;
	const struct zd_pagemap *pagemap;
	const struct zd_folio *folio;
	enum zd_pattern pattern;
	/** Walking upward: the page lies inside the span of the folio that the walk is in ... */
	bool inside;
	/** ... which is in use, ... */
	bool inside_busy;
	/** A tail: its word names a head whose order reaches so far. */
	bool belongs;
	/** A tail whose head was not read: nothing can be said of the two together. */
	bool head_unknown;
	/** Where the page lies in the file of its device, if its pagemap has a dax_mapping. */
	uint64_t device_index;
	struct zd_files files;
	struct zd_driver driver;
};

/** What a rule may need of a layout beside members (zd_rule::needs). */
enum {
	ZD_NEEDS_ZONE = 1 << 23,
	ZD_NEEDS_NODE = 1 << 24,
	ZD_NEEDS_RESERVED = 1 << 25,
	ZD_NEEDS_PMD = 1 << 26,
	/** The share word, in schemes that tell by it which pages are of no file. */
	ZD_NEEDS_SHARERS = 1 << 27,
	/** A pass over DAX entries: without one the row is not applied. */
	ZD_NEEDS_ENTRIES = 1 << 28,
	/** A scheme that counts pins. */
	ZD_NEEDS_PINS = 1 << 29,
	/** What the driver says of the page (zd_rule::evidence): without it the row is not applied. */
	ZD_NEEDS_DRIVER = 1 << 30,
};

/**
 * One rule for a set of types and schemes.  Rows that share an id are one rule, which
 * varies with them; they need not stand together.  Order matters: the first row that fires
 * names the finding, the others stand in "also".
 */
struct zd_rule {
	const char *id;	    /* stable for ever */
	const char *number; /* of the catalogue, "R01" */
	enum zd_scope scope;
	enum zd_severity severity;
	/** The evidence that settles it, and the level as long as that is missing. */
	enum zd_evidence evidence;
	enum zd_severity severity_unproven;
	uint32_t types;	  /* bit mask of enum zd_type */
	uint32_t schemes; /* bit mask of enum zd_scheme_id */
	uint32_t needs;	  /* bit mask of enum zd_member; a missing one: not applicable */
	/** The rule compares with the idle count: off when calibration contradicts the scheme. */
	bool calibrated;
	bool (*predicate)(const struct zd_subject *subject); /* NULL for pagemap rules */
	const char *predicate_text;
	const char *meaning; /* what the finding says, for a person in a hurry */
	const char *bug_class;
	const char *near_miss; /* the closest state that does not fire */
};

extern const struct zd_rule zd_rules[];
extern const size_t zd_rules_count;

enum {
	ZD_RULE_WORDS = 2,
	/** Rows with a predicate are among the first so many. */
	ZD_PAGE_RULES_MAX = 64 * ZD_RULE_WORDS,
};

/** The rows to apply to a page, in their order. */
struct zd_rule_list {
	uint8_t rows[ZD_PAGE_RULES_MAX];
	uint8_t count;
};

/** The rows that fired, as bits. */
struct zd_rule_set {
	uint64_t words[ZD_RULE_WORDS];
};

static inline void zd_rule_set_add(struct zd_rule_set *set, unsigned int rule)
{
	set->words[rule / 64] |= UINT64_C(1) << rule % 64;
}

/** Take the first row out of the set; false where there is none. */
static inline bool zd_rule_set_take(struct zd_rule_set *set, unsigned int *ret)
{
	for (unsigned int i = 0; i < ZD_RULE_WORDS; i++) {
		if (!set->words[i])
			continue;
		*ret = 64 * i + __builtin_ctzll(set->words[i]);
		set->words[i] &= set->words[i] - 1;
		return true;
	}
	return false;
}

static inline bool zd_rule_set_equal(const struct zd_rule_set *one, const struct zd_rule_set *other)
{
	return !memcmp(one->words, other->words, sizeof(one->words));
}

/** Why a row is not applicable to the kernel: a static string, or NULL when it is. */
const char *zd_rule_why_not(const struct zd_rule *rule, const struct zd_layout *layout,
			    const struct zd_scheme *scheme);

/** True where a row with a predicate can apply to pages of the pagemap; whether there was a pass is not asked.
 */
bool zd_rule_applies(const struct zd_rule *rule, const struct zd_layout *layout, const struct zd_scheme *scheme,
		     const struct zd_pagemap *pagemap);

/** The rows of the list that fire. */
struct zd_rule_set zd_rules_judge(const struct zd_subject *subject, const struct zd_rule_list *list);

/**
 * The severity of row @rule here: unproven level, caps of scheme and calibration applied.
 * @evidence: bit mask of enum zd_evidence, what there is of it.
 */
enum zd_severity zd_rule_severity(const struct zd_rule *rule, const struct zd_scheme *scheme,
				  const struct zd_pagemap *pagemap, uint32_t evidence);

// ---------------------------------------------------------------- tally

/** A run of identical findings: @count folios from @pfn, 1 << order pages apart. */
struct zd_finding {
	uint64_t pfn, count;
	uint64_t pages;			 /* of the run, within its range */
	uint64_t folio_pfn, folio_pages; /* the folio that the first page belongs to */
	struct zd_rule_set also;	 /* further rows that fired */
	uint64_t flags, mapping, index;
	uint64_t index_step; /* what the index grows by from folio to folio of the run */
	int64_t mapcount;
	int32_t refcount, expected;
	uint8_t rule; /* row of zd_rules */
	uint8_t severity, order;
	uint8_t raw[ZD_PAGE_MAX]; /* the first page's bytes, page_size of them */
};

struct zd_refcount {
	int32_t refcount;
	uint64_t heads;
};

struct zd_tally {
	uint64_t classes[ZD_CLASSES];	    /* pages */
	uint64_t severities[ZD_SEVERITIES]; /* pages with a finding of that level */
	struct zd_refcount *refcounts;	    /* heads by refcount, ascending */
	size_t refcounts_count, refcounts_capacity;
	uint64_t refcounts_other; /* heads whose refcount found no room */
	/** Idle-looking heads (unmapped, no mapping, unlocked) with refcount 0, 1, another. */
	uint64_t idle_looking[3];
	/** Private and coherent folios in use that lack their driver's data, or have it. */
	uint64_t driver_data[2];
	/** Pages of folios with refcount > 0; heads with refcount above idle; mapped pages. */
	uint64_t pages_referenced, heads_above_idle, pages_mapped;
	struct zd_finding *findings;
	size_t findings_count, findings_capacity;
	uint64_t findings_dropped; /* runs that found no room, in any severity */
};

void zd_tally_deinit(struct zd_tally *tally);

/** Add @heads heads of one refcount to the histogram.  Errors: no memory. */
struct zd_error *zd_tally_add_refcount(struct zd_tally *tally, int32_t refcount, uint64_t heads);

/** Add one finding, as a new run or (information, or if @merge) to the last one that it continues. */
struct zd_error *zd_tally_add_finding(struct zd_tally *tally, const struct zd_finding *finding, bool merge);

/**
 * True where zd_tally_join() makes of @tally what adding everything that @part was made of, in its order, would
 * have made of it.  Not so where a limit is met, or a run of findings would be divided otherwise.
 */
bool zd_tally_can_join(const struct zd_tally *tally, const struct zd_tally *part, bool merge);

/** Add a part to what comes before it; only where zd_tally_can_join().  Errors: no memory. */
struct zd_error *zd_tally_join(struct zd_tally *tally, const struct zd_tally *part, bool merge);

// ---------------------------------------------------------------- cells

/**
 * Pages per class by place: the pfns [start_pfn, end_pfn) in cells of 1 << shift pages, aligned to their size,
 * so that the first and the last one may be cut off.  Without cells (count 0) nothing is counted.
 * Invariant: once no folio is open, the cells add up, class by class, to what the tally says of these pages.
 */
struct zd_cells {
	uint64_t start_pfn, end_pfn;
	unsigned int shift;
	size_t count;
	uint64_t (*classes)[ZD_CLASSES];
	/** Pages of the folio that the walk is in, and of those that it interrupts, by their slot. */
	uint64_t (*open)[ZD_OUTER_MAX + 1];
};

/** Errors: too many cells, or too large ones; no memory.  Use zd_cells_deinit(). */
struct zd_error *zd_cells_init(struct zd_cells *cells, uint64_t start_pfn, uint64_t end_pfn,
			       unsigned int shift);
void zd_cells_deinit(struct zd_cells *cells);

/** Pages [pfn, pfn + count) are of @class; pages that are not counted are left out, here and below. */
void zd_cells_add(struct zd_cells *cells, enum zd_class class, uint64_t pfn, uint64_t count);

/** Pages [pfn, pfn + count) are of the folio in @slot, whose class is told later. */
void zd_cells_open(struct zd_cells *cells, size_t slot, uint64_t pfn, uint64_t count);

/** The pages of the folio in @slot, which lie in [pfn, end), are of @class. */
void zd_cells_close(struct zd_cells *cells, size_t slot, enum zd_class class, uint64_t pfn, uint64_t end);

/** Add those of a part: cells of the same size, of pages that @cells has. */
void zd_cells_join(struct zd_cells *cells, const struct zd_cells *part);

// ---------------------------------------------------------------- scan

/**
 * Words that a struct page must show under a mask to need no decoding, and what it then is.
 * A template is exact: whatever decode and rules would look at stands in it.
 */
struct zd_template {
	struct zd_words words;
	bool serves;	  /* for this layout, scheme and type */
	bool overlapping; /* two demands meet in one bit: not exact */
	bool associated;  /* the mapping must not be NULL ... */
	bool pointer;	  /* ... and a pointer */
	bool indexed;	  /* the index must be that of the page in its device's file */
	bool data;	  /* zone_device_data must not be NULL */
	enum zd_class class;
	int32_t refcount;
	int32_t mapcount; /* number of maps */
	uint8_t mark;	  /* of its page under mark_mask, where there was a pass over DAX entries */
	uint8_t mark_mask;
};

/** Templates of order-0 heads: free; in a file and unmapped; mapped once. */
enum { ZD_TEMPLATE_IDLE, ZD_TEMPLATE_CACHED, ZD_TEMPLATE_MAPPED, ZD_TEMPLATES };

/** The folio that the walk is in: [head, head + 1 << order). */
struct zd_span {
	uint64_t head_pfn, end_pfn;
	/** First pfn that its order does not claim: behind end_pfn if it is one that no such folio has. */
	uint64_t claim_pfn;
	/** Where the walk went on to a page that is not its own, and how many such pages it holds. */
	uint64_t left_pfn, foreign;
	uint64_t pages; /* of it seen so far: its head and tails */
	enum zd_class class;
	int severity; /* of the finding on its head, -1: none */
	bool busy, referenced, mapped;
	bool tail_word; /* the tail template holds this folio's word */
	uint8_t slot;	/* of zd_cells::open; of all spans at a time, each has another one */
};

/**
 * A walk over the struct pages of one pagemap, upward.  Give it every pfn of every range once,
 * as bytes (zd_scan_pages) or as a hole (zd_scan_hole).  Plain bytes may come in pieces of
 * any length, but folios are read best when pieces begin at multiples of ZD_FOLIO_PAGES.
 */
struct zd_scan {
	const struct zd_layout *layout;
	const struct zd_scheme *scheme;
	struct zd_pagemap pagemap;
	struct zd_range range;
	struct zd_tally tally;
	struct zd_cells cells;
	struct zd_span span;
	/** Folios that another head interrupted, outermost first: their tails may go on behind it. */
	struct zd_span outer[ZD_OUTER_MAX];
	size_t outer_count;
	struct zd_template head[ZD_TEMPLATES], tail;
	struct zd_rule_list head_rules, tail_rules; /* rows that can apply */
	const struct zd_entries *entries;	    /* NULL: no pass */
	/** Pages that a pool has handed out, and free ones that are listed; NULL: no pass. */
	const struct zd_page_bits *allocated, *listed;
	uint32_t evidence; /* bit mask of enum zd_evidence, for the range at hand */
	uint64_t next_pfn;
	uint64_t known_from; /* every page from here to next_pfn was read */
	uint64_t asked_from; /* the lowest head, known_from or above, that a tail outside of its folio named */
	/** Struct pages in one page of a deduplicated vmemmap, else 0. */
	uint64_t frame_pages;
	/** The second vmemmap page of the current compound, which later ones alias. */
	uint8_t *alias;
	uint64_t alias_head;
	bool alias_valid;
	bool merge; /* merge identical warnings and errors into runs, as information always is */
	bool fast;  /* templates serve this layout */
};

/**
 * @layout and @scheme must outlive the scan; @pagemap is copied.  Use zd_scan_deinit().
 * @merge: false keeps one finding per folio (live kernels look at each twice).
 * @fast: false forbids the template path (for tests of its equivalence).
 * Errors: invalid layout, no memory.
 */
struct zd_error *zd_scan_init(struct zd_scan *scan, const struct zd_layout *layout,
			      const struct zd_scheme *scheme, const struct zd_pagemap *pagemap, bool merge,
			      bool fast);
void zd_scan_deinit(struct zd_scan *scan);

/** Judge with what files say of the pages; before the first range.  @entries must outlive the scan. */
void zd_scan_set_entries(struct zd_scan *scan, const struct zd_entries *entries);

/**
 * Judge with what the driver says of the pages; before the first range.  @allocated: the pages that its
 * pool has handed out, @listed: those on its lists of free ones; NULL: not known.  Both must outlive the scan.
 */
void zd_scan_set_driver(struct zd_scan *scan, const struct zd_page_bits *allocated,
			const struct zd_page_bits *listed);

/** Begin a range.  Errors: start > end, pagemap's pages would overflow. */
struct zd_error *zd_scan_begin(struct zd_scan *scan, const struct zd_range *range);

/**
 * Count the classes of the pages [start_pfn, end_pfn) of the range by place, too, in cells of 1 << @shift
 * pages; right after zd_scan_begin(), for this range.  They are whole after zd_scan_end(). Errors: not in the
 * range, as zd_cells_init().
 */
struct zd_error *zd_scan_count_cells(struct zd_scan *scan, uint64_t start_pfn, uint64_t end_pfn,
				     unsigned int shift);

/** The next @count struct pages of the range.  Errors: more than the range has, no memory. */
struct zd_error *zd_scan_pages(struct zd_scan *scan, const uint8_t *bytes, uint64_t count);

/** As zd_scan_pages(); @ahead struct pages, of the range and @count or more, lie at @bytes to be looked at. */
struct zd_error *zd_scan_pages_ahead(struct zd_scan *scan, const uint8_t *bytes, uint64_t count,
				     uint64_t ahead);

/**
 * The next @times * @count struct pages are the @count ones at @bytes again and again: those that are known to
 * need no decoding are booked.
 * @ret: how many, a multiple of @count; the others, if any, are to be given to zd_scan_pages() first.
 * Errors: more than the range has, no memory.
 */
struct zd_error *zd_scan_repeat(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t times,
				uint64_t *ret);

/**
 * A scan of the part [first_pfn, end_pfn) of the range, for another thread.  It judges as if no folio
 * reached into the part and all pages before it were read; zd_scan_can_join() tells whether that was so.
 * @ret is to be given to zd_scan_deinit() in any case.  Errors: not in the range, no memory.
 */
struct zd_error *zd_scan_fork(const struct zd_scan *scan, uint64_t first_pfn, uint64_t end_pfn,
			      struct zd_scan *ret);

/** True where @part, which begins where @scan has come to, can be joined; if not, its pages are to be scanned
 * again.
 */
bool zd_scan_can_join(const struct zd_scan *scan, const struct zd_scan *part);

/** Make @scan as if it had scanned the pages of @part itself; only where zd_scan_can_join().  Errors: no
 * memory. */
struct zd_error *zd_scan_join(struct zd_scan *scan, struct zd_scan *part);

/** The next @count pages could not be had, or are not to be looked at: they are of @class. */
struct zd_error *zd_scan_hole(struct zd_scan *scan, uint64_t count, enum zd_class class);

/** End the range: the last folio is booked.  Errors: pages missing. */
struct zd_error *zd_scan_end(struct zd_scan *scan);

#endif
