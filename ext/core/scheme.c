// SPDX-License-Identifier: LGPL-2.1-or-later
// The refcount schemes as a table, and the decision which one a kernel follows.
// A scheme is told by types and symbols and never by a version number: distributions
// backport.  Asking the kernel is the caller's work; calibration is the scan's tally.
//
// History: 71389703839e (4.12, B), 5042db43cc26 (4.14, C), 27674ef6c73f (5.18, D), ef233450898f (6.1, E),
// 38607c62b34b and the series around it (6.15, G), large device-private folios (6.19, H).
// F1 and F2 are the series "Fix the DAX-gup mistake" of September and October 2022.

#include <string.h>

#include "zonedev.h"

const char *const zd_confidence_names[3] = { "low", "medium", "high" };
const char *const zd_shared_names[5] = {
	[ZD_SHARED_NONE] = "",
	[ZD_SHARED_MAPPING_INDEX] = "mapping == 1, counted in index",
	[ZD_SHARED_MAPPING_SHARE] = "mapping == 1, counted in share",
	[ZD_SHARED_SHARE] = "mapping == NULL, counted in share",
	[ZD_SHARED_UNKNOWN] = "",
};

#define UNKNOWN_TYPE                                                                                           \
	{                                                                                                      \
		.idle = -1                                                                                     \
	}
// A free page rests at 1; mappings are not counted, and a page does not know its file (apply_variations()).
#define ONE_NAMELESS                                                                                           \
	{                                                                                                      \
		.idle = 1, .mapped_base = 1, .never_mapcount = true, .unassociated = true                      \
	}
// A free page rests at 1; mappings are not counted.
#define ONE_UNMAPPED                                                                                           \
	{                                                                                                      \
		.idle = 1, .mapped_base = 1, .never_mapcount = true                                            \
	}
// A free page rests at 1; every map adds a reference and a mapcount.
#define ONE_MAPPED                                                                                             \
	{                                                                                                      \
		.idle = 1, .mapped_base = 1, .maps_take_refs = true                                            \
	}
// A free page rests at 0; every map adds a reference and a mapcount.
#define ZERO_MAPPED                                                                                            \
	{                                                                                                      \
		.idle = 0, .mapped_base = 0, .maps_take_refs = true                                            \
	}
// The reference of a free page is handed over to its first user.
#define ONE_HANDED_OVER                                                                                        \
	{                                                                                                      \
		.idle = 1, .mapped_base = 0, .maps_take_refs = true                                            \
	}
// Not mmappable and not counted.
#define ONE_PLAIN                                                                                              \
	{                                                                                                      \
		.idle = 1, .mapped_base = 1                                                                    \
	}
// Free at 0, and not counted when mapped.
#define ZERO_PLAIN                                                                                             \
	{                                                                                                      \
		.idle = 0, .mapped_base = 0                                                                    \
	}
// Free at 0; the DAX entry takes a reference, maps take none and are not counted.
#define ZERO_ENTRY                                                                                             \
	{                                                                                                      \
		.idle = 0, .mapped_base = 0, .never_mapcount = true, .entry_takes_ref = true                   \
	}

const struct zd_scheme zd_schemes[ZD_SCHEMES] = {
	[ZD_SCHEME_A] = {
		.id = ZD_SCHEME_A, .name = "A", .kernels = "4.5 to 4.11",
		.title = "idle at 1; every get_page() also takes a reference on the pagemap",
		.pgmap_ref = "1 + one per page reference beyond the idle one",
		.type = { UNKNOWN_TYPE, UNKNOWN_TYPE, ONE_NAMELESS, ONE_NAMELESS, UNKNOWN_TYPE },
	},
	[ZD_SCHEME_B] = {
		.id = ZD_SCHEME_B, .name = "B", .kernels = "4.12 to 4.13",
		.title = "idle at 1; each page holds one reference on the pagemap until its last put",
		.pgmap_ref = "1 + one per page",
		.type = { UNKNOWN_TYPE, UNKNOWN_TYPE, ONE_NAMELESS, ONE_NAMELESS, UNKNOWN_TYPE },
		.zero_when_dying = true,
	},
	[ZD_SCHEME_C] = {
		.id = ZD_SCHEME_C, .name = "C", .kernels = "4.14 to 5.17",
		.title = "typed pagemaps, all idle at 1; a private page is free when its count falls from 2 to 1",
		.pgmap_ref = "1 + one per page that is not at 0 + lookups + P2PDMA allocations",
		// COHERENT stands for MEMORY_DEVICE_PUBLIC (4.14 to 5.2).
		.type = { ONE_MAPPED, ONE_MAPPED, ONE_UNMAPPED, ONE_UNMAPPED, ONE_PLAIN },
		.zero_when_dying = true,
	},
	[ZD_SCHEME_D] = {
		.id = ZD_SCHEME_D, .name = "D", .kernels = "5.18 to 6.0",
		.title = "private and coherent pages are free at 1 and in use at 1; the others idle at 1",
		.pgmap_ref = "1 + one per (compound) page + lookups + P2PDMA allocations",
		.type = { ONE_HANDED_OVER, ONE_HANDED_OVER, ONE_UNMAPPED, ONE_UNMAPPED, ONE_PLAIN },
		.counts_pins = true,
	},
	[ZD_SCHEME_E] = {
		.id = ZD_SCHEME_E, .name = "E", .kernels = "6.1 to 6.14",
		.title = "private and coherent pages idle at 0; fsdax, generic and P2PDMA pages idle at 1",
		.pgmap_ref = "private, coherent: 1 + pages in use; others: 1 + one per (compound) page + lookups + P2PDMA allocations",
		.type = { ZERO_MAPPED, ZERO_MAPPED, ONE_UNMAPPED, ONE_UNMAPPED, ONE_PLAIN },
		.private_refs_pgmap = true, .counts_pins = true,
	},
	[ZD_SCHEME_F1] = {
		.id = ZD_SCHEME_F1, .name = "F1", .kernels = "never released (2022 series, init_mode)",
		.title = "fsdax and generic pages idle at 0, the others at 1, chosen by dev_pagemap.init_mode",
		.pgmap_ref = "1 + one per busy folio",
		.type = { ONE_HANDED_OVER, ONE_HANDED_OVER, ZERO_ENTRY, ZERO_ENTRY, ONE_PLAIN },
		.shared = ZD_SHARED_MAPPING_INDEX, .counts_pins = true,
	},
	[ZD_SCHEME_F2] = {
		.id = ZD_SCHEME_F2, .name = "F2", .kernels = "never released (2022 series)",
		.title = "all types idle at 0; the DAX entry owns a reference",
		.pgmap_ref = "1 + one per busy folio",
		.type = { ZERO_MAPPED, ZERO_MAPPED, ZERO_ENTRY, ZERO_ENTRY, ZERO_PLAIN },
		.shared = ZD_SHARED_MAPPING_INDEX, .private_refs_pgmap = true, .counts_pins = true,
	},
	[ZD_SCHEME_G] = {
		.id = ZD_SCHEME_G, .name = "G", .kernels = "6.15 to 6.18",
		.title = "all types idle at 0 but generic (1); each map takes a reference and counts",
		.pgmap_ref = "private, coherent: 1 + pages in use; others: 1 + one per (compound) page + lookups + P2PDMA allocations and maps",
		.type = { ZERO_MAPPED, ZERO_MAPPED, ZERO_MAPPED, ONE_MAPPED, ZERO_MAPPED },
		.shared = ZD_SHARED_SHARE, .private_refs_pgmap = true, .counts_pins = true,
	},
	[ZD_SCHEME_H] = {
		.id = ZD_SCHEME_H, .name = "H", .kernels = "6.19 and later",
		.title = "all types idle at 0 but generic (1); each map takes a reference and counts; large private folios",
		.pgmap_ref = "private, coherent: 1 + pages in use; others: 1 + one per (compound) page + lookups + P2PDMA allocations and maps",
		.type = { ZERO_MAPPED, ZERO_MAPPED, ZERO_MAPPED, ONE_MAPPED, ZERO_MAPPED },
		.shared = ZD_SHARED_SHARE, .large_private = true,
		.private_refs_pgmap = true, .counts_pins = true,
	},
	[ZD_SCHEME_UNKNOWN] = {
		.id = ZD_SCHEME_UNKNOWN, .name = "unknown", .kernels = "",
		.title = "no known scheme; idle counts are calibrated from the pages themselves",
		.pgmap_ref = "not known",
		.type = { UNKNOWN_TYPE, UNKNOWN_TYPE, UNKNOWN_TYPE, UNKNOWN_TYPE, UNKNOWN_TYPE },
		.shared = ZD_SHARED_UNKNOWN, .counts_pins = true,
	},
};

const struct zd_probe zd_probes[ZD_PROBES] = {
	[ZD_PROBE_FOLIO_PGMAP] = { "folio.pgmap", ZD_PROBE_MEMBER },
	[ZD_PROBE_FOLIO_FREE] = { "dev_pagemap_ops.folio_free", ZD_PROBE_MEMBER },
	[ZD_PROBE_PAGE_PGMAP] = { "page.pgmap", ZD_PROBE_MEMBER },
	[ZD_PROBE_INIT_MODE] = { "dev_pagemap.init_mode", ZD_PROBE_MEMBER },
	[ZD_PROBE_REQUEST_FOLIOS] = { "pgmap_request_folios", ZD_PROBE_SYMBOL },
	[ZD_PROBE_PUT_DEVMAP_PAGE_REFS] = { "__put_devmap_managed_page_refs", ZD_PROBE_SYMBOL },
	[ZD_PROBE_PUT_DEVMAP_FOLIO_REFS] = { "__put_devmap_managed_folio_refs", ZD_PROBE_SYMBOL },
	[ZD_PROBE_ZONE_DEVICE_PAGE_INIT] = { "zone_device_page_init", ZD_PROBE_SYMBOL },
	[ZD_PROBE_FREE_ZONE_DEVICE_PAGE] = { "free_zone_device_page", ZD_PROBE_SYMBOL },
	[ZD_PROBE_INTERNAL_REF] = { "dev_pagemap.internal_ref", ZD_PROBE_MEMBER },
	[ZD_PROBE_FREE_DEVMAP_MANAGED_PAGE] = { "free_devmap_managed_page", ZD_PROBE_SYMBOL },
	[ZD_PROBE_PUT_DEVMAP_MANAGED_PAGE] = { "put_devmap_managed_page", ZD_PROBE_SYMBOL },
	[ZD_PROBE_PUT_DEVMAP_MANAGED_PAGE2] = { "__put_devmap_managed_page", ZD_PROBE_SYMBOL },
	[ZD_PROBE_GET_ZONE_DEVICE_PAGE] = { "get_zone_device_page", ZD_PROBE_FUNCTION },
	[ZD_PROBE_PGMAP_ARRAY] = { "pgmap_array", ZD_PROBE_SYMBOL },
	[ZD_PROBE_PGMAP_RADIX] = { "pgmap_radix", ZD_PROBE_SYMBOL },
	[ZD_PROBE_MEMORY_TYPE] = { "dev_pagemap.type", ZD_PROBE_MEMBER },
	[ZD_PROBE_PAGE_SHARE] = { "page.share", ZD_PROBE_MEMBER },
	[ZD_PROBE_DAX_MAPPING_SET_COW] = { "dax_mapping_set_cow", ZD_PROBE_FUNCTION },
	[ZD_PROBE_DEVICE_COHERENT] = { "MEMORY_DEVICE_COHERENT", ZD_PROBE_ENUMERATOR },
	[ZD_PROBE_P2PMEM_ALLOC_MMAP] = { "p2pmem_alloc_mmap", ZD_PROBE_SYMBOL },
	[ZD_PROBE_DAX_FOLIO_RESET_ORDER] = { "dax_folio_reset_order", ZD_PROBE_SYMBOL },
	[ZD_PROBE_DAX_ASSOCIATE_ENTRY] = { "dax_associate_entry", ZD_PROBE_FUNCTION },
	[ZD_PROBE_HPAGE_PINNED_REFCOUNT] = { "page.hpage_pinned_refcount", ZD_PROBE_MEMBER },
	[ZD_PROBE_FOLL_PIN_ACQUIRED] = { "NR_FOLL_PIN_ACQUIRED", ZD_PROBE_ENUMERATOR },
};

#define P(name) (UINT64_C(1) << ZD_PROBE_##name)
#define OLD_PUT (P(PUT_DEVMAP_PAGE_REFS) | P(PUT_DEVMAP_FOLIO_REFS))
// Shared DAX pages came in 6.0 (6061b69b9a55), and so did coherent memory (f25cbb7a95a2): without DWARF the
// inline function is not to be seen, and its absence says nothing.
#define COW (P(DAX_MAPPING_SET_COW) | P(DEVICE_COHERENT))
// Pins are counted since 3faa52c03f44 (5.7), a macro; the same series brought 47e29d32afba (the counter of
// compound pages, up to 5.17) and 1970dc6f5226 (the statistics).
#define PINS (P(HPAGE_PINNED_REFCOUNT) | P(FOLL_PIN_ACQUIRED))

/** A decision: all of @all, one of @any (if not empty), none of @none.  First match wins. */
struct decision {
	enum zd_scheme_id scheme;
	uint64_t all, any, none;
};

static const struct decision decisions[] = {
	{ ZD_SCHEME_A, P(GET_ZONE_DEVICE_PAGE), 0, P(PGMAP_ARRAY) },
	{ ZD_SCHEME_F1, P(INIT_MODE), 0, 0 },
	{ ZD_SCHEME_F2, P(REQUEST_FOLIOS), 0, 0 },
	// A partial backport may have the member without the fsdax conversion: no old puts.
	{ ZD_SCHEME_H, P(FOLIO_PGMAP) | P(FOLIO_FREE), 0, OLD_PUT },
	{ ZD_SCHEME_G, P(FOLIO_PGMAP), 0, OLD_PUT | P(FOLIO_FREE) },
	{ ZD_SCHEME_E, P(ZONE_DEVICE_PAGE_INIT), 0, P(FOLIO_PGMAP) },
	{ ZD_SCHEME_D, P(FREE_ZONE_DEVICE_PAGE), 0, P(FOLIO_PGMAP) },
	{ ZD_SCHEME_C, 0,
	  P(INTERNAL_REF) | P(FREE_DEVMAP_MANAGED_PAGE) | P(PUT_DEVMAP_MANAGED_PAGE) |
		  P(PUT_DEVMAP_MANAGED_PAGE2),
	  P(FOLIO_PGMAP) },
	// 4.14 to 4.19 whatever their configuration: pagemaps of types, in a radix tree.
	{ ZD_SCHEME_C, P(PGMAP_RADIX) | P(MEMORY_TYPE), 0, P(FOLIO_PGMAP) },
	{ ZD_SCHEME_B, P(PGMAP_RADIX), 0, P(MEMORY_TYPE) | P(FOLIO_PGMAP) },
};

/** Probes whose presence speaks against a scheme that was decided: confidence is medium. */
static const uint64_t contradictions[ZD_SCHEMES] = {
	[ZD_SCHEME_C] = P(PAGE_SHARE),
	[ZD_SCHEME_D] = P(PAGE_SHARE) | P(INTERNAL_REF),
	[ZD_SCHEME_E] = P(INTERNAL_REF) | P(FREE_DEVMAP_MANAGED_PAGE) | P(DAX_FOLIO_RESET_ORDER),
	[ZD_SCHEME_G] = P(PAGE_PGMAP) | P(INTERNAL_REF),
	[ZD_SCHEME_H] = P(PAGE_PGMAP) | P(INTERNAL_REF) | P(FREE_DEVMAP_MANAGED_PAGE),
};

static uint64_t probe_mask(const bool present[ZD_PROBES])
{
	uint64_t mask = 0;

	for (int i = 0; i < ZD_PROBES; i++)
		mask |= (uint64_t)present[i] << i;
	return mask;
}

static bool decides(const struct decision *decision, uint64_t mask)
{
	return (mask & decision->all) == decision->all && (!decision->any || mask & decision->any) &&
	       !(mask & decision->none);
}

/**
 * Which pages in use may lack a mapping.  fsdax keeps a page's file since d2c997c0f145 (4.17); device-dax
 * since 2232c6382a45 (4.19), which modules hide: the radix tree stands for all kernels up to there.
 */
static void apply_associations(uint64_t mask, struct zd_scheme *scheme)
{
	bool radix = mask & P(PGMAP_RADIX);

	scheme->type[ZD_FS_DAX].unassociated = radix && !(mask & P(DAX_ASSOCIATE_ENTRY));
	scheme->type[ZD_GENERIC].unassociated = radix;
}

/** What varies within a scheme. */
static void apply_variations(uint64_t mask, struct zd_scheme *scheme)
{
	switch (scheme->id) {
	case ZD_SCHEME_A:
	case ZD_SCHEME_B:
		if (mask & P(DAX_ASSOCIATE_ENTRY))
			scheme->type[ZD_FS_DAX].unassociated = false;
		break;
	case ZD_SCHEME_C:
		apply_associations(mask, scheme);
		scheme->counts_pins = mask & PINS;
		break;
	case ZD_SCHEME_D:
	case ZD_SCHEME_E:
		if (mask & P(PAGE_SHARE))
			scheme->shared = ZD_SHARED_MAPPING_SHARE;
		else if (mask & COW || scheme->id == ZD_SCHEME_E)
			scheme->shared = ZD_SHARED_MAPPING_INDEX;
		if (mask & P(P2PMEM_ALLOC_MMAP))
			scheme->type[ZD_PCI_P2PDMA] = (struct zd_scheme_type)ONE_HANDED_OVER;
		break;
	case ZD_SCHEME_G:
	case ZD_SCHEME_H:
		scheme->stale_share = !(mask & P(DAX_FOLIO_RESET_ORDER));
		break;
	default:
		break;
	}
}

void zd_scheme_set_init_mode(struct zd_scheme *scheme, enum zd_type type, bool busy)
{
	struct zd_scheme_type *row = &scheme->type[type];

	row->idle = busy;
	// Drivers of private memory hand a page's first reference over to its user.
	row->mapped_base = row->maps_take_refs ? 0 : row->idle;
}

void zd_scheme_set_drained(struct zd_scheme *scheme)
{
	if (!scheme->zero_when_dying)
		return;
	for (int type = 0; type < ZD_TYPES; type++) {
		struct zd_scheme_type *row = &scheme->type[type];

		row->idle -= row->idle > 0;
		row->mapped_base -= row->mapped_base > 0;
	}
}

void zd_scheme_detect(const bool present[ZD_PROBES], struct zd_scheme *ret, enum zd_confidence *confidence,
		      uint64_t *decisive)
{
	uint64_t mask = probe_mask(present);
	enum zd_scheme_id id = ZD_SCHEME_UNKNOWN;

	*decisive = 0;
	for (size_t i = 0; i < sizeof(decisions) / sizeof(*decisions); i++) {
		if (!decides(&decisions[i], mask))
			continue;
		id = decisions[i].scheme;
		*decisive = decisions[i].all | decisions[i].any | decisions[i].none;
		break;
	}
	*ret = zd_schemes[id];
	apply_variations(mask, ret);
	if (id == ZD_SCHEME_UNKNOWN)
		*confidence = ZD_CONFIDENCE_LOW;
	else if (mask & contradictions[id])
		*confidence = ZD_CONFIDENCE_MEDIUM;
	else
		*confidence = ZD_CONFIDENCE_HIGH;
}
