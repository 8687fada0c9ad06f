// SPDX-License-Identifier: LGPL-2.1-or-later
// The walk: bytes of struct pages in, a tally out.  It keeps the folio that it is in, decides
// each page's class, and books findings.  Predicates are rules.c's, numbers decode.c's.
//
// Most struct pages of a pagemap are byte-identical: those that show a template's words under
// its mask are counted without decoding.  A template holds every word that decode and rules
// look at for such a page, so that a match means "idle head (or tail of this folio), no finding".
// The slow path gives the same tally; a test compares them on random and mutated pages.

#include <stdlib.h>
#include <string.h>

#include "entries.h"
#include "pagebits.h"
#include "zonedev.h"

enum {
	ASSOCIATED_BLOCK = 64,
	// The mark of a page that belongs to one file, which agrees.
	ONE_ENTRY = 1 | ZD_MARK_MATCH,
	// Pages whose marks are looked at before their words: neither is to run far ahead of the other.
	MARKS_AHEAD = 128,
};

// ---------------------------------------------------------------- templates

/**
 * Demand that the member's bits under @mask equal @value.  A layout in which two demands meet is a strange
 * one, and which of them would hold nobody can say: its pages are decoded.
 */
static void template_demand(struct zd_template *template, const struct zd_layout *layout, enum zd_member member,
			    uint64_t value, uint64_t mask)
{
	const struct zd_field *field = &layout->field[member];
	uint8_t bytes[64] = { 0 }, masks[64] = { 0 };
	uint64_t words[ZD_WORDS], word_masks[ZD_WORDS];

	for (unsigned int i = 0; i < field->size; i++) {
		unsigned int shift = 8 * (layout->big_endian ? field->size - 1 - i : i);

		bytes[field->offset + i] = (value & mask) >> shift;
		masks[field->offset + i] = mask >> shift;
	}
	memcpy(words, bytes, sizeof(words));
	memcpy(word_masks, masks, sizeof(word_masks));
	for (int i = 0; i < ZD_WORDS; i++) {
		template->overlapping |= (template->words.mask[i] & word_masks[i]) != 0;
		template->words.want[i] |= words[i];
		template->words.mask[i] |= word_masks[i];
	}
}

static uint64_t bits_mask(struct zd_bits bits)
{
	return ((UINT64_C(1) << bits.width) - 1) << bits.shift;
}

static uint64_t flag_mask(const struct zd_layout *layout, enum zd_flag flag)
{
	return layout->flag[flag] < 0 ? 0 : UINT64_C(1) << layout->flag[flag];
}

/** Zone, node and PG_reserved: what heads and tails must show. */
static void demand_identity(const struct zd_scan *scan, struct zd_template *template, uint64_t clear_flags)
{
	const struct zd_layout *layout = scan->layout;
	uint64_t reserved = flag_mask(layout, ZD_PG_RESERVED);

	template_demand(template, layout, ZD_FLAGS, (uint64_t)layout->zone_device << layout->zone.shift,
			bits_mask(layout->zone));
	template_demand(template, layout, ZD_FLAGS, reserved, reserved);
	template_demand(template, layout, ZD_FLAGS, 0, clear_flags);
	if (layout->node.width && scan->pagemap.node >= 0)
		template_demand(template, layout, ZD_FLAGS, (uint64_t)scan->pagemap.node << layout->node.shift,
				bits_mask(layout->node));
}

/** The rules look at the mapping of device-dax pages. */
static bool knows_device(const struct zd_scan *scan)
{
	return scan->pagemap.type == ZD_GENERIC && scan->pagemap.dax_mapping &&
	       zd_layout_has(scan->layout, ZD_INDEX);
}

/** A head of order 0 in the state that @template names. */
static void make_head_template(const struct zd_scan *scan, struct zd_template *template)
{
	const struct zd_layout *layout = scan->layout;
	enum zd_type type = scan->pagemap.type;
	uint64_t clear = 0;

	for (int i = 0; i < ZD_FLAG_COUNT; i++) {
		if (i != ZD_PG_RESERVED)
			clear |= flag_mask(layout, i);
	}
	demand_identity(scan, template, clear);
	template_demand(template, layout, ZD_PGMAP, scan->pagemap.address, UINT64_MAX);
	template_demand(template, layout, ZD_MAPCOUNT, (uint32_t)(template->mapcount - 1), UINT32_MAX);
	template_demand(template, layout, ZD_REFCOUNT, (uint32_t) template->refcount, UINT32_MAX);
	if (template->indexed)
		template_demand(template, layout, ZD_MAPPING, scan->pagemap.dax_mapping, UINT64_MAX);
	if (template->associated)
		return;
	// device-dax pages keep the mapping of their first fault when they are free.
	bool keeps = type == ZD_GENERIC && !scan->scheme->type[type].entry_takes_ref && !knows_device(scan);

	template_demand(template, layout, ZD_MAPPING, 0, keeps ? 0 : UINT64_MAX);
	template_demand(template, layout, ZD_SHARE, 0, type == ZD_FS_DAX ? UINT64_MAX : 0);
	template_demand(template, layout, ZD_MEMCG_DATA, 0, UINT64_MAX);
}

/** Which states of an order-0 head are told by their words alone, and what they are. */
static void choose_head_templates(struct zd_scan *scan)
{
	const struct zd_scheme_type *type = &scan->scheme->type[scan->pagemap.type];
	bool dax = scan->pagemap.type == ZD_FS_DAX;
	bool anon = scan->pagemap.type == ZD_PRIVATE || scan->pagemap.type == ZD_COHERENT;
	// A compound devmap has no such heads; where free pages hand over their reference, free is a finding.
	bool plain = type->idle >= 0 && scan->pagemap.vmemmap_shift == 0 && !scan->pagemap.foreign_maps;
	bool ambiguous = anon && type->idle == 1 && type->mapped_base == 0;
	// Where DAX makes no large folios, PMD entries lie on pages of order 0, and no rule looks at that.
	bool small = dax && scan->scheme->shared != ZD_SHARED_SHARE;
	uint8_t mark_mask = small ? (uint8_t)~ZD_MARK_PMD : UINT8_MAX;
	// Of a device-dax page that was mapped and is free.
	bool touched = knows_device(scan) && !type->entry_takes_ref;

	scan->head[ZD_TEMPLATE_IDLE] = (struct zd_template){
		.serves = plain && !ambiguous,
		.class = ZD_IDLE,
		.refcount = type->idle,
	};
	scan->head[ZD_TEMPLATE_CACHED] = (struct zd_template){
		.serves = plain && ((dax && !type->unassociated) || touched),
		.associated = true,
		.pointer = true,
		.indexed = touched,
		.class = touched ? ZD_IDLE : ZD_BUSY,
		.refcount = type->idle + type->entry_takes_ref,
		.mark = ONE_ENTRY,
	};
	scan->head[ZD_TEMPLATE_MAPPED] = (struct zd_template){
		.serves = plain && (dax || anon) && type->maps_take_refs,
		.associated = true,
		.pointer = dax,
		.data = anon && scan->pagemap.driver_data && zd_layout_has(scan->layout, ZD_ZONE_DEVICE_DATA),
		.class = ZD_BUSY,
		.refcount = type->mapped_base + 1,
		.mapcount = 1,
		.mark = dax ? ONE_ENTRY : 0,
	};
	for (int i = 0; i < ZD_TEMPLATES; i++) {
		scan->head[i].mark_mask = mark_mask;
		make_head_template(scan, &scan->head[i]);
	}
}

/** The tail template lacks the folio's own word, which demand_tail_word() adds. */
static void make_tail_template(struct zd_scan *scan)
{
	demand_identity(scan, &scan->tail, 0);
	template_demand(&scan->tail, scan->layout, ZD_REFCOUNT, 0, UINT32_MAX);
	template_demand(&scan->tail, scan->layout, ZD_PGMAP, 0, UINT64_MAX);
}

static void demand_tail_word(struct zd_scan *scan, const uint8_t *page)
{
	unsigned int word = scan->layout->field[ZD_PGMAP].offset / sizeof(uint64_t);

	memcpy(&scan->tail.words.want[word], page + word * sizeof(uint64_t), sizeof(uint64_t));
	scan->span.tail_word = true;
}

static bool is_word(const struct zd_layout *layout, enum zd_member member)
{
	const struct zd_field *field = &layout->field[member];

	return field->size == 8 && field->offset % 8 == 0 && !field->bits;
}

/** Make all templates; false where they would not be exact. */
static bool make_templates(struct zd_scan *scan)
{
	bool overlapping;

	choose_head_templates(scan);
	make_tail_template(scan);
	overlapping = scan->tail.overlapping;
	for (int i = 0; i < ZD_TEMPLATES; i++)
		overlapping |= scan->head[i].overlapping;
	return !overlapping;
}

/** Aligned 64-bit words at 64-bit members: what the templates are made for. */
static bool templates_serve(const struct zd_layout *layout)
{
	return zd_layout_is_native64(layout) && layout->zone.width && is_word(layout, ZD_PGMAP) &&
	       is_word(layout, ZD_MAPPING);
}

/** How many of the first @count pages have the template's mark; no page of a run without @marks has any. */
static uint64_t marked_run(const struct zd_template *template, const uint8_t *marks, uint64_t count)
{
	uint64_t i = 0;

	if (!marks)
		return template->mark ? 0 : count;
	while (i < count && (marks[i] & template->mark_mask) == template->mark)
		i++;
	return i;
}

/** What a template with a mapping demands beside fixed words, of the page @pfn. */
static bool has_own_words(const struct zd_scan *scan, const struct zd_template *template, const uint8_t *page,
			  uint64_t pfn)
{
	if (template->indexed && zd_load(scan->layout, page, ZD_INDEX) != pfn - scan->range.index_bias)
		return false;
	return !template->data || zd_load(scan->layout, page, ZD_ZONE_DEVICE_DATA);
}

/** How many of the first @count pages have a mapping, and what else the template demands beside fixed words. */
static uint64_t own_words_run(const struct zd_scan *scan, const struct zd_template *template,
			      const uint8_t *bytes, uint64_t pfn, uint64_t count)
{
	const struct zd_layout *layout = scan->layout;
	const uint8_t *at = bytes + layout->field[ZD_MAPPING].offset;
	bool more = template->indexed || template->data;
	uint64_t i = 0, mapping, last = 0;

	for (; i < count; i++, last = mapping) {
		memcpy(&mapping, at + i * 64, sizeof(mapping));
		// Neighbours have the same one, mostly.
		if (mapping != last && template->pointer && !zd_mapping_is_pointer(layout, mapping))
			break;
		if (!mapping || (more && !has_own_words(scan, template, bytes + i * 64, pfn + i)))
			break;
	}
	return i;
}

/** As zd_words_run(), for a template whose pages have a mapping; from @pfn on. */
static uint64_t associated_run(const struct zd_scan *scan, const struct zd_template *template,
			       const uint8_t *bytes, uint64_t pfn, uint64_t count)
{
	uint64_t i = 0, block, n;

	// As much at a time as stays in the nearest cache.
	do {
		block = count - i < ASSOCIATED_BLOCK ? count - i : ASSOCIATED_BLOCK;
		n = zd_words_run(&template->words, bytes + i * 64, block);
		n = own_words_run(scan, template, bytes + i * 64, pfn + i, n);
		i += n;
	} while (block && n == block);
	return i;
}

// ---------------------------------------------------------------- life cycle

/** Struct pages in one page of the vmemmap, 0 where they do not divide it. */
static uint64_t pages_per_frame(const struct zd_layout *layout)
{
	uint64_t frame = UINT64_C(1) << layout->page_shift;

	return frame % layout->page_size ? 0 : frame / layout->page_size;
}

/** True where there was a pass that a row cannot do without. */
static bool has_needed_evidence(const struct zd_scan *scan, const struct zd_rule *rule)
{
	if (rule->needs & ZD_NEEDS_ENTRIES && !scan->entries)
		return false;
	return !(rule->needs & ZD_NEEDS_DRIVER) ||
	       (rule->evidence == ZD_EVIDENCE_GEN_POOL ? scan->allocated : scan->listed);
}

/** From a fresh start: which rows are applied, to heads and to tails. */
static void choose_rules(struct zd_scan *scan)
{
	scan->head_rules.count = scan->tail_rules.count = 0;
	for (size_t i = 0; i < zd_rules_count && i < ZD_PAGE_RULES_MAX; i++) {
		const struct zd_rule *rule = &zd_rules[i];

		if (!zd_rule_applies(rule, scan->layout, scan->scheme, &scan->pagemap) ||
		    !has_needed_evidence(scan, rule))
			continue;
		if (rule->scope != ZD_SCOPE_TAIL)
			scan->head_rules.rows[scan->head_rules.count++] = i;
		if (rule->scope != ZD_SCOPE_HEAD)
			scan->tail_rules.rows[scan->tail_rules.count++] = i;
	}
}

static struct zd_error *check_pagemap(const struct zd_pagemap *pagemap, const struct zd_layout *layout)
{
	if ((unsigned int)pagemap->type >= ZD_TYPES)
		return zd_error_create(ZD_ERROR_INVALID, "pagemap %#llx: unknown memory type",
				       (unsigned long long)pagemap->address);
	if (pagemap->node >= 0 && layout->node.width && pagemap->node >> layout->node.width)
		return zd_error_create(ZD_ERROR_INVALID,
				       "pagemap %#llx: node %d does not fit into the node bits",
				       (unsigned long long)pagemap->address, pagemap->node);
	return NULL;
}

struct zd_error *zd_scan_init(struct zd_scan *scan, const struct zd_layout *layout,
			      const struct zd_scheme *scheme, const struct zd_pagemap *pagemap, bool merge,
			      bool fast)
{
	struct zd_error *error;

	memset(scan, 0, sizeof(*scan));
	error = zd_layout_check(layout);
	if (!error)
		error = check_pagemap(pagemap, layout);
	if (error)
		return error;
	scan->layout = layout;
	scan->scheme = scheme;
	scan->pagemap = *pagemap;
	scan->merge = merge;
	scan->fast = fast && templates_serve(layout) && make_templates(scan);
	scan->frame_pages = pagemap->deduplicated ? pages_per_frame(layout) : 0;
	choose_rules(scan);
	if (!scan->frame_pages)
		return NULL;
	scan->alias = malloc((size_t)1 << layout->page_shift);
	return scan->alias ? NULL : zd_error_no_memory();
}

static void set_evidence(struct zd_scan *scan, enum zd_evidence evidence, bool there)
{
	uint32_t bit = UINT32_C(1) << evidence;

	scan->evidence = there ? scan->evidence | bit : scan->evidence & ~bit;
}

void zd_scan_set_entries(struct zd_scan *scan, const struct zd_entries *entries)
{
	scan->entries = entries;
	choose_rules(scan);
}

void zd_scan_set_driver(struct zd_scan *scan, const struct zd_page_bits *allocated,
			const struct zd_page_bits *listed)
{
	scan->allocated = allocated;
	scan->listed = listed;
	set_evidence(scan, ZD_EVIDENCE_GEN_POOL, allocated);
	set_evidence(scan, ZD_EVIDENCE_FREE_LIST, listed);
	choose_rules(scan);
}

void zd_scan_deinit(struct zd_scan *scan)
{
	free(scan->alias);
	scan->alias = NULL;
	zd_cells_deinit(&scan->cells);
	zd_tally_deinit(&scan->tally);
}

/** The next @count pages are of @class. */
static void book_pages(struct zd_scan *scan, enum zd_class class, uint64_t count)
{
	scan->tally.classes[class] += count;
	if (scan->cells.count)
		zd_cells_add(&scan->cells, class, scan->next_pfn, count);
	scan->next_pfn += count;
}

/** The next @count pages are of the folio that the walk is in. */
static void add_to_span(struct zd_scan *scan, uint64_t count)
{
	scan->span.pages += count;
	if (scan->cells.count)
		zd_cells_open(&scan->cells, scan->span.slot, scan->next_pfn, count);
	scan->next_pfn += count;
}

/** Book a folio, with as many pages as it turned out to have up to @until. */
static void book_span(struct zd_scan *scan, const struct zd_span *span, uint64_t until)
{
	struct zd_tally *tally = &scan->tally;
	// Its pages, read or not: up to the page that begins something else.
	uint64_t end = span->end_pfn < until ? span->end_pfn : until;
	uint64_t extent = span->pages ? end - span->head_pfn - span->foreign : 0;

	tally->classes[span->class] += span->pages;
	if (span->pages && scan->cells.count)
		zd_cells_close(&scan->cells, span->slot, span->class, span->head_pfn, until);
	if (extent && span->severity >= 0)
		tally->severities[span->severity] += extent;
	if (span->referenced)
		tally->pages_referenced += extent;
	if (span->mapped)
		tally->pages_mapped += extent;
}

/** Book the folio that the walk was in. */
static void close_span(struct zd_scan *scan)
{
	book_span(scan, &scan->span, scan->next_pfn);
	memset(&scan->span, 0, sizeof(scan->span));
}

static void close_outer(struct zd_scan *scan, size_t keep)
{
	for (; scan->outer_count > keep; scan->outer_count--) {
		const struct zd_span *span = &scan->outer[scan->outer_count - 1];

		book_span(scan, span, span->left_pfn);
	}
}

static void close_spans(struct zd_scan *scan)
{
	close_span(scan);
	close_outer(scan, 0);
}

/** The next page is a head: the folio that the walk was in is over, or interrupted. */
static void leave_span(struct zd_scan *scan)
{
	size_t count = scan->outer_count;

	while (count && scan->outer[count - 1].claim_pfn <= scan->next_pfn)
		count--;
	close_outer(scan, count);
	if (scan->next_pfn >= scan->span.claim_pfn || count == ZD_OUTER_MAX) {
		close_span(scan);
		return;
	}
	scan->span.left_pfn = scan->next_pfn;
	scan->outer[scan->outer_count++] = scan->span;
}

/** A slot of the cells' open folios that none of the interrupted ones has. */
static uint8_t free_slot(const struct zd_scan *scan)
{
	uint32_t used = 0;

	for (size_t i = 0; i < scan->outer_count; i++)
		used |= UINT32_C(1) << scan->outer[i].slot;
	return __builtin_ctz(~used);
}

/** True where a tail names this folio's head, and its order reaches so far. */
static bool span_has(const struct zd_span *span, const struct zd_folio *tail)
{
	return tail->head_valid && tail->head_pfn == span->head_pfn && tail->pfn < span->claim_pfn;
}

/** The next page is a tail: if an interrupted folio goes on with it, the walk is in that one again. */
static void return_to_outer(struct zd_scan *scan, const struct zd_folio *tail)
{
	size_t i = scan->outer_count;

	if (span_has(&scan->span, tail))
		return;
	while (i && !span_has(&scan->outer[i - 1], tail))
		i--;
	if (!i)
		return;
	close_span(scan);
	close_outer(scan, i);
	scan->span = scan->outer[--scan->outer_count];
	scan->span.foreign += scan->next_pfn - scan->span.left_pfn;
	scan->span.tail_word = false;
}

struct zd_error *zd_scan_begin(struct zd_scan *scan, const struct zd_range *range)
{
	uint64_t pages = range->end_pfn - range->start_pfn;
	uint64_t size;

	if (range->start_pfn > range->end_pfn ||
	    __builtin_mul_overflow(pages, scan->layout->page_size, &size) ||
	    range->memmap + size < range->memmap)
		return zd_error_create(ZD_ERROR_INVALID, "pagemap %#llx: range [%#llx, %#llx) makes no sense",
				       (unsigned long long)scan->pagemap.address,
				       (unsigned long long)range->start_pfn,
				       (unsigned long long)range->end_pfn);
	close_spans(scan);
	zd_cells_deinit(&scan->cells);
	scan->range = *range;
	scan->next_pfn = scan->known_from = range->start_pfn;
	scan->asked_from = UINT64_MAX;
	scan->alias_valid = false;
	// Each pagemap has files of its own.
	set_evidence(scan, ZD_EVIDENCE_DAX_ENTRIES,
		     scan->entries && zd_entries_complete(scan->entries, range->start_pfn));
	return NULL;
}

struct zd_error *zd_scan_count_cells(struct zd_scan *scan, uint64_t start_pfn, uint64_t end_pfn,
				     unsigned int shift)
{
	if (start_pfn < scan->range.start_pfn || end_pfn > scan->range.end_pfn)
		return zd_error_create(ZD_ERROR_INVALID, "scan of pagemap %#llx: cells outside of the range",
				       (unsigned long long)scan->pagemap.address);
	zd_cells_deinit(&scan->cells);
	return zd_cells_init(&scan->cells, start_pfn, end_pfn, shift);
}

static struct zd_error *check_count(const struct zd_scan *scan, uint64_t count)
{
	if (count > scan->range.end_pfn - scan->next_pfn)
		return zd_error_create(ZD_ERROR_INVALID, "scan of pagemap %#llx: more pages than the range has",
				       (unsigned long long)scan->pagemap.address);
	return NULL;
}

struct zd_error *zd_scan_end(struct zd_scan *scan)
{
	close_spans(scan);
	if (scan->next_pfn != scan->range.end_pfn)
		return zd_error_create(
			ZD_ERROR_INVALID, "scan of pagemap %#llx: pages from pfn %#llx on are missing",
			(unsigned long long)scan->pagemap.address, (unsigned long long)scan->next_pfn);
	return NULL;
}

/** Pages that say nothing: what lies before them is no evidence for what comes after. */
static void add_unknown(struct zd_scan *scan, uint64_t count, enum zd_class class)
{
	book_pages(scan, class, count);
	// What is skipped is known to hold no head.
	if (class != ZD_SKIPPED)
		scan->known_from = scan->next_pfn;
}

struct zd_error *zd_scan_hole(struct zd_scan *scan, uint64_t count, enum zd_class class)
{
	struct zd_error *error = check_count(scan, count);

	if (!error)
		add_unknown(scan, count, class);
	return error;
}

// ---------------------------------------------------------------- findings

/** First pfn behind what a head's order claims. */
static uint64_t claim_of(const struct zd_scan *scan, const struct zd_folio *folio)
{
	uint64_t left = scan->range.end_pfn - folio->pfn;

	return folio->order <= ZD_ORDER_MAX && left >> folio->order ? folio->pfn + (UINT64_C(1) << folio->order)
								    : scan->range.end_pfn;
}

/** Pages that a head claims, as far as a folio of its kind can reach. */
static uint64_t folio_pages(const struct zd_scan *scan, const struct zd_folio *folio)
{
	uint64_t left = scan->range.end_pfn - folio->pfn;
	uint8_t limit = scan->layout->pmd_order ? scan->layout->pmd_order : ZD_PMD_ORDER_MAX;
	uint8_t order = folio->order;

	if (scan->pagemap.type == ZD_GENERIC && scan->pagemap.vmemmap_shift > limit)
		limit = scan->pagemap.vmemmap_shift;
	if (order > limit || order > ZD_ORDER_MAX)
		order = 0;
	return left >> order ? UINT64_C(1) << order : left;
}

static int32_t expected_refcount(const struct zd_scan *scan, const struct zd_folio *folio)
{
	const struct zd_scheme_type *type = &scan->scheme->type[scan->pagemap.type];
	bool maps_count = type->maps_take_refs || scan->pagemap.foreign_maps;
	int64_t maps = maps_count && folio->mapcount > 0 ? folio->mapcount : 0;

	if (folio->tail)
		return 0;
	// No refcount is that high: a count of maps that leads there says nothing.
	return folio->base + (folio->base + maps > INT32_MAX ? 0 : maps);
}

/** The highest severity among the rows that fired, -1 where none did. */
static int worst(const struct zd_scan *scan, struct zd_rule_set fired)
{
	int severity = -1;
	unsigned int i;

	while (zd_rule_set_take(&fired, &i)) {
		int one = zd_rule_severity(&zd_rules[i], scan->scheme, &scan->pagemap, scan->evidence);

		if (one > severity)
			severity = one;
	}
	return severity;
}

/** Book that @rule fired, and @also with it. */
static struct zd_error *book_finding(struct zd_scan *scan, const struct zd_subject *subject,
				     const uint8_t *bytes, unsigned int rule, struct zd_rule_set also,
				     enum zd_severity severity)
{
	const struct zd_folio *folio = subject->folio;
	struct zd_finding finding = {
		.pfn = folio->pfn,
		.count = 1,
		.pages = folio_pages(scan, folio),
		.folio_pfn = folio->pfn,
		.folio_pages = folio_pages(scan, folio),
		.rule = rule,
		.also = also,
		.severity = severity,
		.order = folio->order,
		.flags = folio->flags,
		.mapping = folio->mapping,
		.index = folio->index,
		.refcount = folio->refcount,
		.mapcount = folio->mapcount,
		.expected = expected_refcount(scan, folio),
	};

	memcpy(finding.raw, bytes, scan->layout->page_size);
	if (subject->belongs) {
		finding.folio_pfn = scan->span.head_pfn;
		finding.folio_pages = scan->span.end_pfn - scan->span.head_pfn;
	}
	// A head's severity is booked with its folio; a tail counts by itself, unless its folio does.
	if (folio->tail && (!subject->belongs || scan->span.severity < (int)severity))
		scan->tally.severities[severity]++;
	return zd_tally_add_finding(&scan->tally, &finding, scan->merge);
}

// ---------------------------------------------------------------- one page at a time

static bool inside_span(const struct zd_scan *scan)
{
	return scan->next_pfn < scan->span.end_pfn;
}

/** What files say of a page. */
static struct zd_files files_of(const struct zd_scan *scan, const struct zd_folio *folio)
{
	struct zd_files files = { 0 };
	enum zd_mapping_kind kind;
	const uint8_t *marks;
	uint64_t run;

	if (!scan->entries)
		return files;
	marks = zd_entries_marks(scan->entries, folio->pfn, &run, &files.known);
	if (!files.known)
		return files;
	kind = zd_entries_kind(scan->entries, folio->mapping);
	files.complete = scan->evidence >> ZD_EVIDENCE_DAX_ENTRIES & 1;
	files.mapping_unknown = kind == ZD_MAPPING_UNKNOWN;
	files.mapping_no_file = kind == ZD_MAPPING_NO_FILE;
	files.misfit = folio->order && zd_entries_misfit(scan->entries, folio->pfn);
	if (!marks)
		return files;
	files.count = *marks & ZD_MARK_COUNT;
	files.many = files.count == ZD_MARK_COUNT;
	files.match = *marks & ZD_MARK_MATCH;
	files.pmd = *marks & ZD_MARK_PMD;
	files.stuck = *marks & ZD_MARK_STUCK;
	files.locked = *marks & ZD_MARK_LOCKED;
	// Whoever holds the lock of an entry may be about to change it.
	files.flux = *marks & ZD_MARK_FLUX || (files.locked && !files.stuck);
	return files;
}

/** What the driver says of a page. */
static struct zd_driver driver_of(const struct zd_scan *scan, uint64_t pfn)
{
	return (struct zd_driver){
		.pool_known = scan->allocated && zd_page_bits_has(scan->allocated, pfn),
		.allocated = scan->allocated && zd_page_bits_test(scan->allocated, pfn),
		.listed = scan->listed && zd_page_bits_test(scan->listed, pfn),
	};
}

/** What predicates may look at, for the page at hand. */
static struct zd_subject subject_of(struct zd_scan *scan, const struct zd_folio *folio, enum zd_pattern pattern)
{
	struct zd_subject subject = {
		.layout = scan->layout,
		.scheme = scan->scheme,
		.pagemap = &scan->pagemap,
		.folio = folio,
		.pattern = pattern,
		.inside = inside_span(scan),
		.inside_busy = scan->span.busy,
		.device_index = folio->pfn - scan->range.index_bias,
	};

	subject.files = files_of(scan, folio);
	subject.driver = driver_of(scan, folio->pfn);
	subject.belongs = folio->tail && span_has(&scan->span, folio);
	if (folio->tail && !subject.belongs && folio->head_valid && folio->head_pfn >= scan->known_from &&
	    folio->head_pfn < scan->asked_from)
		scan->asked_from = folio->head_pfn;
	subject.head_unknown = folio->tail && !subject.belongs && pattern == ZD_PATTERN_DATA &&
			       folio->head_valid && folio->head_pfn < scan->known_from;
	return subject;
}

/** Judge a page: book its finding, return the severity or -1. */
static struct zd_error *judge(struct zd_scan *scan, const struct zd_subject *subject, const uint8_t *bytes,
			      int *ret)
{
	struct zd_rule_set fired =
		zd_rules_judge(subject, subject->folio->tail ? &scan->tail_rules : &scan->head_rules);
	unsigned int first;

	*ret = worst(scan, fired);
	if (!zd_rule_set_take(&fired, &first))
		return NULL;
	return book_finding(scan, subject, bytes, first, fired, *ret);
}

static enum zd_class class_of(const struct zd_scan *scan, const struct zd_subject *subject, int severity)
{
	const struct zd_folio *folio = subject->folio;
	// A share word may be stale: whether files share the page, they say.
	bool shared = scan->scheme->shared == ZD_SHARED_SHARE && !folio->mapping && folio->share;

	if (severity == ZD_ERROR)
		return ZD_VIOLATION;
	if (zd_folio_is_busy(folio, scan->scheme, &scan->pagemap) || (shared && subject->files.count))
		return ZD_BUSY;
	return zd_folio_is_identified(folio, scan->layout, &scan->pagemap) ? ZD_IDLE : ZD_UNREADABLE;
}

static void add_idle_looking(struct zd_tally *tally, int32_t refcount, uint64_t heads)
{
	tally->idle_looking[refcount == 0 ? 0 : refcount == 1 ? 1 : 2] += heads;
}

/** What calibration and the pagemap rules want to know of all heads. */
static struct zd_error *count_head(struct zd_scan *scan, const struct zd_folio *folio)
{
	const struct zd_scheme_type *type = &scan->scheme->type[scan->pagemap.type];
	struct zd_tally *tally = &scan->tally;
	bool locked = folio->flags & flag_mask(scan->layout, ZD_PG_LOCKED);
	// The mapping of a device-dax page outlives its last user.
	bool unclaimed = !folio->mapping || scan->pagemap.type == ZD_GENERIC;

	if (type->idle >= 0 && folio->refcount > type->idle)
		tally->heads_above_idle++;
	if (zd_folio_has_user(folio, scan->layout, scan->scheme, &scan->pagemap))
		tally->driver_data[folio->zone_device_data != 0]++;
	if (folio->mapcount == 0 && unclaimed && !locked)
		add_idle_looking(tally, folio->refcount, 1);
	return zd_tally_add_refcount(tally, folio->refcount, 1);
}

static struct zd_error *scan_head(struct zd_scan *scan, const struct zd_folio *folio, const uint8_t *bytes,
				  enum zd_pattern pattern)
{
	const struct zd_subject subject = subject_of(scan, folio, pattern);
	struct zd_error *error;
	enum zd_class class;
	int severity;

	error = judge(scan, &subject, bytes, &severity);
	if (!error && pattern == ZD_PATTERN_DATA)
		error = count_head(scan, folio);
	if (error)
		return error;
	class = class_of(scan, &subject, severity);
	leave_span(scan);
	scan->span = (struct zd_span){
		.head_pfn = folio->pfn,
		.claim_pfn = claim_of(scan, folio),
		.end_pfn = folio->pfn + folio_pages(scan, folio),
		.class = class,
		.severity = severity,
		.busy = class != ZD_IDLE,
		.referenced = folio->refcount > 0 && pattern == ZD_PATTERN_DATA,
		.mapped = folio->mapcount > 0,
		.slot = free_slot(scan),
	};
	add_to_span(scan, 1);
	return NULL;
}

/** The class of a tail without its folio. */
static enum zd_class class_of_lone_tail(const struct zd_scan *scan, const struct zd_subject *subject,
					int severity)
{
	const struct zd_folio *folio = subject->folio;

	if (severity == ZD_ERROR)
		return ZD_VIOLATION;
	if (subject->head_unknown)
		return ZD_NOT_CAPTURED;
	// Left over of a freed large private folio; every other one is not known to be free.
	if (scan->scheme->large_private && scan->pagemap.type <= ZD_COHERENT && folio->head_valid &&
	    folio->refcount == 0 && zd_folio_is_identified(folio, scan->layout, &scan->pagemap))
		return ZD_IDLE;
	return ZD_UNREADABLE;
}

static struct zd_error *scan_tail(struct zd_scan *scan, const struct zd_folio *folio, const uint8_t *bytes,
				  enum zd_pattern pattern)
{
	struct zd_subject subject;
	struct zd_error *error;
	int severity;

	return_to_outer(scan, folio);
	subject = subject_of(scan, folio, pattern);
	error = judge(scan, &subject, bytes, &severity);
	if (error)
		return error;
	if (!subject.belongs) {
		book_pages(scan, class_of_lone_tail(scan, &subject, severity), 1);
		return NULL;
	}
	if (scan->next_pfn >= scan->span.end_pfn)
		scan->span.end_pfn = scan->next_pfn + 1;
	if (severity == ZD_ERROR)
		scan->span.class = ZD_VIOLATION;
	else if (severity < 0 && scan->fast)
		demand_tail_word(scan, bytes);
	add_to_span(scan, 1);
	return NULL;
}

/** One struct page, decoded.  @available struct pages lie at @bytes. */
static struct zd_error *scan_page(struct zd_scan *scan, const uint8_t *bytes, uint64_t available)
{
	enum zd_pattern pattern = zd_page_pattern(scan->layout, bytes);
	struct zd_folio folio;

	if (pattern == ZD_PATTERN_ZERO) {
		add_unknown(scan, 1, ZD_NOT_CAPTURED);
		return NULL;
	}
	zd_folio_decode(scan->layout, scan->scheme, &scan->pagemap, &scan->range, scan->next_pfn, bytes,
			available < ZD_FOLIO_PAGES ? available : ZD_FOLIO_PAGES, &folio);
	if (folio.partial &&
	    (!zd_layout_has(scan->layout, ZD_ORDER) || available < scan->range.end_pfn - scan->next_pfn)) {
		add_unknown(scan, 1, ZD_NOT_CAPTURED);
		return NULL;
	}
	// A folio for which the range has no room: its order is wrong, whatever it is.
	if (folio.partial)
		folio.order = ZD_ORDER_MAX + 1;
	return folio.tail ? scan_tail(scan, &folio, bytes, pattern) : scan_head(scan, &folio, bytes, pattern);
}

// ---------------------------------------------------------------- many pages at a time

/** Book @count order-0 heads that show @template: what scan_head() would do for each. */
static struct zd_error *add_head_run(struct zd_scan *scan, const struct zd_template *template,
				     const uint8_t *bytes, uint64_t count)
{
	struct zd_tally *tally = &scan->tally;
	bool has_user = template->mapcount && scan->pagemap.type <= ZD_COHERENT;

	leave_span(scan);
	memset(&scan->span, 0, sizeof(scan->span));
	if (template->refcount > 0)
		tally->pages_referenced += count;
	if (template->refcount > scan->scheme->type[scan->pagemap.type].idle)
		tally->heads_above_idle += count;
	if (template->mapcount)
		tally->pages_mapped += count;
	for (uint64_t i = 0; has_user && i < count; i++)
		tally->driver_data[zd_load(scan->layout, bytes + i * 64, ZD_ZONE_DEVICE_DATA) != 0]++;
	if (template->class == ZD_IDLE)
		add_idle_looking(tally, template->refcount, count);
	book_pages(scan, template->class, count);
	return zd_tally_add_refcount(tally, template->refcount, count);
}

/** How many of @count pages from @pfn on show the template's words. */
static uint64_t worded_run(const struct zd_scan *scan, const struct zd_template *template, const uint8_t *bytes,
			   uint64_t pfn, uint64_t count)
{
	return template->associated ? associated_run(scan, template, bytes, pfn, count)
				    : zd_words_run(&template->words, bytes, count);
}

/**
 * How many show its words, and have its mark where there was a pass over DAX entries.  @bytes: NULL where the
 * words are known to be its.
 */
static uint64_t told_run(const struct zd_scan *scan, const struct zd_template *template, const uint8_t *bytes,
			 uint64_t count)
{
	uint64_t pfn = scan->next_pfn, end = scan->next_pfn + count, ahead, run;

	if (!scan->entries)
		return bytes ? worded_run(scan, template, bytes, pfn, count) : count;
	do {
		bool known;
		const uint8_t *marks = zd_entries_marks(scan->entries, pfn, &ahead, &known);

		if (marks && ahead > MARKS_AHEAD)
			ahead = MARKS_AHEAD;
		if (ahead > end - pfn)
			ahead = end - pfn;
		run = known ? marked_run(template, marks, ahead) : ahead;
		if (bytes)
			run = worded_run(scan, template,
					 bytes + (pfn - scan->next_pfn) * scan->layout->page_size, pfn, run);
		pfn += run;
	} while (run == ahead && pfn < end);
	return pfn - scan->next_pfn;
}

/** Of @count pages those before one that is listed as free: in use, it is a finding. */
static uint64_t unlisted(const struct zd_scan *scan, const struct zd_template *template, uint64_t count)
{
	if (!scan->listed || template->class != ZD_BUSY)
		return count;
	return zd_page_bits_clear_run(scan->listed, scan->next_pfn, count < MARKS_AHEAD ? count : MARKS_AHEAD);
}

/** Order-0 heads that a template tells: the first template that fits takes as many as it can. */
static struct zd_error *scan_head_run(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t *ret)
{
	*ret = 0;
	for (int i = 0; i < ZD_TEMPLATES; i++) {
		const struct zd_template *template = &scan->head[i];

		if (!template->serves)
			continue;
		*ret = told_run(scan, template, bytes, unlisted(scan, template, count));
		if (*ret)
			return add_head_run(scan, template, bytes, *ret);
	}
	return NULL;
}

/** Keep the folio's second vmemmap page, which the later ones alias, when it lies here whole. */
static void keep_alias(struct zd_scan *scan, const uint8_t *bytes, uint64_t count)
{
	uint64_t frame = scan->frame_pages;

	if (!frame || !inside_span(scan) || count < frame || scan->next_pfn - scan->span.head_pfn != frame)
		return;
	memcpy(scan->alias, bytes, frame * scan->layout->page_size);
	scan->alias_head = scan->span.head_pfn;
	scan->alias_valid = true;
}

/** True where the next page lies behind the second vmemmap page of a deduplicated compound. */
static bool may_alias(const struct zd_scan *scan)
{
	return scan->alias_valid && inside_span(scan) && scan->alias_head == scan->span.head_pfn &&
	       scan->next_pfn - scan->span.head_pfn >= 2 * scan->frame_pages;
}

/**
 * How many of the next pages are aliases of struct pages already judged: they lie behind the
 * second vmemmap page of a deduplicated compound, and show the very bytes of their twin.
 */
static uint64_t alias_run(const struct zd_scan *scan, const uint8_t *bytes, uint64_t count)
{
	uint64_t frame = scan->frame_pages;
	uint64_t size = scan->layout->page_size;
	uint64_t first = scan->next_pfn - scan->span.head_pfn;
	uint64_t i = 0;

	if (!may_alias(scan))
		return 0;
	if (count > scan->span.end_pfn - scan->next_pfn)
		count = scan->span.end_pfn - scan->next_pfn;
	while (i < count && !memcmp(bytes + i * size, scan->alias + (first + i) % frame * size, size))
		i++;
	return i;
}

/** Tails of the folio that the walk is in. */
static uint64_t scan_tail_run(struct zd_scan *scan, const uint8_t *bytes, uint64_t count)
{
	uint64_t frame = scan->frame_pages;
	uint64_t left = scan->span.end_pfn - scan->next_pfn;
	uint64_t run;

	if (!scan->span.tail_word)
		return 0;
	// Stop where the second vmemmap page, which others alias, or another alias may begin.
	if (frame && left > frame)
		left = frame - (scan->next_pfn - scan->span.head_pfn) % frame;
	if (may_alias(scan))
		left = 1;
	run = zd_words_run(&scan->tail.words, bytes, count < left ? count : left);
	add_to_span(scan, run);
	return run;
}

/** How many of the next pages need no decoding; they are booked. */
static struct zd_error *scan_run(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t *ret)
{
	*ret = alias_run(scan, bytes, count);
	if (*ret) {
		book_pages(scan, ZD_SKIPPED, *ret);
		return NULL;
	}
	if (!scan->fast)
		return NULL;
	if (!inside_span(scan))
		return scan_head_run(scan, bytes, count, ret);
	*ret = scan_tail_run(scan, bytes, count);
	return NULL;
}

struct zd_error *zd_scan_pages_ahead(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t ahead)
{
	struct zd_error *error = check_count(scan, ahead);
	uint64_t done;

	while (!error && count) {
		keep_alias(scan, bytes, count);
		error = scan_run(scan, bytes, count, &done);
		if (!error && !done) {
			error = scan_page(scan, bytes, ahead);
			done = 1;
		}
		bytes += done * scan->layout->page_size;
		count -= done;
		ahead -= done;
	}
	return error;
}

struct zd_error *zd_scan_pages(struct zd_scan *scan, const uint8_t *bytes, uint64_t count)
{
	return zd_scan_pages_ahead(scan, bytes, count, count);
}

/** Book what repeats the vmemmap page that the walk keeps as aliased; returns pages. */
static uint64_t repeat_alias(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t total)
{
	uint64_t frame = scan->frame_pages, left;

	if (!may_alias(scan) || count != frame || (scan->next_pfn - scan->span.head_pfn) % frame ||
	    memcmp(bytes, scan->alias, frame * scan->layout->page_size) != 0)
		return 0;
	left = (scan->span.end_pfn - scan->next_pfn) / frame * frame;
	total = total < left ? total : left;
	book_pages(scan, ZD_SKIPPED, total);
	return total;
}

/** Book tails of the folio that the walk is in; returns pages. */
static uint64_t repeat_tails(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t total)
{
	uint64_t left = (scan->span.end_pfn - scan->next_pfn) / count * count;

	if (scan->frame_pages || !scan->span.tail_word || zd_words_run(&scan->tail.words, bytes, count) < count)
		return 0;
	total = total < left ? total : left;
	add_to_span(scan, total);
	return total;
}

/** Book free heads; @ret: pages. */
static struct zd_error *repeat_heads(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t total,
				     uint64_t *ret)
{
	// The one template that looks at nothing but fixed words and marks.
	const struct zd_template *idle = &scan->head[ZD_TEMPLATE_IDLE];

	if (!idle->serves || zd_words_run(&idle->words, bytes, count) < count)
		return NULL;
	*ret = told_run(scan, idle, NULL, total) / count * count;
	return *ret ? add_head_run(scan, idle, bytes, *ret) : NULL;
}

struct zd_error *zd_scan_repeat(struct zd_scan *scan, const uint8_t *bytes, uint64_t count, uint64_t times,
				uint64_t *ret)
{
	uint64_t left = scan->range.end_pfn - scan->next_pfn;
	uint64_t total;

	*ret = 0;
	if (!count || __builtin_mul_overflow(count, times, &total) || total > left)
		return check_count(scan, left + 1);
	*ret = repeat_alias(scan, bytes, count, total);
	if (*ret || !scan->fast)
		return NULL;
	if (!inside_span(scan))
		return repeat_heads(scan, bytes, count, total, ret);
	*ret = repeat_tails(scan, bytes, count, total);
	return NULL;
}

// ---------------------------------------------------------------- a range in parts

/** Cells for the pages [first_pfn, end_pfn) where @scan has some. */
static struct zd_error *fork_cells(const struct zd_cells *cells, uint64_t first_pfn, uint64_t end_pfn,
				   struct zd_cells *ret)
{
	if (!cells->count)
		return NULL;
	return zd_cells_init(ret, first_pfn > cells->start_pfn ? first_pfn : cells->start_pfn,
			     end_pfn < cells->end_pfn ? end_pfn : cells->end_pfn, cells->shift);
}

struct zd_error *zd_scan_fork(const struct zd_scan *scan, uint64_t first_pfn, uint64_t end_pfn,
			      struct zd_scan *ret)
{
	struct zd_error *error;

	*ret = *scan;
	memset(&ret->tally, 0, sizeof(ret->tally));
	memset(&ret->cells, 0, sizeof(ret->cells));
	memset(&ret->span, 0, sizeof(ret->span));
	ret->outer_count = 0;
	ret->alias = NULL;
	ret->alias_valid = false;
	ret->next_pfn = first_pfn;
	ret->known_from = scan->range.start_pfn;
	ret->asked_from = UINT64_MAX;
	if (first_pfn < scan->range.start_pfn || first_pfn > scan->range.end_pfn)
		return check_count(scan, UINT64_MAX);
	error = fork_cells(&scan->cells, first_pfn, end_pfn, &ret->cells);
	if (error || !scan->frame_pages)
		return error;
	ret->alias = malloc((size_t)1 << scan->layout->page_shift);
	return ret->alias ? NULL : zd_error_no_memory();
}

/** True where no folio reaches over the page that the walk has come to. */
static bool is_between_folios(const struct zd_scan *scan)
{
	if (scan->span.end_pfn > scan->next_pfn || scan->span.claim_pfn > scan->next_pfn)
		return false;
	for (size_t i = 0; i < scan->outer_count; i++) {
		if (scan->outer[i].end_pfn > scan->next_pfn || scan->outer[i].claim_pfn > scan->next_pfn)
			return false;
	}
	return true;
}

bool zd_scan_can_join(const struct zd_scan *scan, const struct zd_scan *part)
{
	// The part took every head before it for known.
	bool misled = scan->known_from > scan->range.start_pfn && part->asked_from < scan->known_from;

	return is_between_folios(scan) && !misled && zd_tally_can_join(&scan->tally, &part->tally, scan->merge);
}

struct zd_error *zd_scan_join(struct zd_scan *scan, struct zd_scan *part)
{
	uint8_t *alias = scan->alias;

	close_spans(scan);
	scan->span = part->span;
	memcpy(scan->outer, part->outer, sizeof(scan->outer));
	scan->outer_count = part->outer_count;
	scan->tail = part->tail;
	scan->next_pfn = part->next_pfn;
	if (part->known_from > scan->range.start_pfn)
		scan->known_from = part->known_from;
	scan->alias = part->alias;
	scan->alias_head = part->alias_head;
	scan->alias_valid = part->alias_valid;
	part->alias = alias;
	zd_cells_join(&scan->cells, &part->cells);
	return zd_tally_join(&scan->tally, &part->tally, scan->merge);
}
