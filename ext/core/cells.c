// SPDX-License-Identifier: LGPL-2.1-or-later
// Classes by place.  The class of a folio is known only when the walk leaves it, and folios may interrupt
// each other: until then the pages of each are counted in a slot, which moves to its class at once.

#include <stdlib.h>

#include "zonedev.h"

/** The pages [pfn, end), cell by cell; @pages of them lie in the one at hand. */
struct pieces {
	uint64_t pfn, end;
	uint64_t pages;
	size_t cell;
};

/** What is counted of the pages [pfn, end). */
static struct pieces pieces_of(const struct zd_cells *cells, uint64_t pfn, uint64_t end)
{
	return (struct pieces){
		.pfn = pfn > cells->start_pfn ? pfn : cells->start_pfn,
		.end = end < cells->end_pfn ? end : cells->end_pfn,
	};
}

static bool next_piece(const struct zd_cells *cells, struct pieces *at)
{
	uint64_t size = UINT64_C(1) << cells->shift;

	at->pfn += at->pages;
	if (at->pfn >= at->end)
		return false;
	at->cell = (at->pfn >> cells->shift) - (cells->start_pfn >> cells->shift);
	at->pages = size - (at->pfn & (size - 1));
	if (at->pages > at->end - at->pfn)
		at->pages = at->end - at->pfn;
	return true;
}

struct zd_error *zd_cells_init(struct zd_cells *cells, uint64_t start_pfn, uint64_t end_pfn, unsigned int shift)
{
	uint64_t count;

	*cells = (struct zd_cells){ .start_pfn = start_pfn, .end_pfn = end_pfn, .shift = shift };
	if (start_pfn >= end_pfn)
		return NULL;
	if (shift > ZD_CELL_SHIFT_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "cells of 1 << %u pages are too large", shift);
	count = ((end_pfn - 1) >> shift) - (start_pfn >> shift) + 1;
	if (count > ZD_CELLS_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "%llu cells are too many", (unsigned long long)count);
	cells->classes = calloc(count, sizeof(*cells->classes));
	cells->open = calloc(count, sizeof(*cells->open));
	cells->count = count;
	if (cells->classes && cells->open)
		return NULL;
	zd_cells_deinit(cells);
	return zd_error_no_memory();
}

void zd_cells_deinit(struct zd_cells *cells)
{
	free(cells->classes);
	free(cells->open);
	*cells = (struct zd_cells){ 0 };
}

void zd_cells_add(struct zd_cells *cells, enum zd_class class, uint64_t pfn, uint64_t count)
{
	struct pieces at = pieces_of(cells, pfn, pfn + count);

	while (cells->count && next_piece(cells, &at))
		cells->classes[at.cell][class] += at.pages;
}

void zd_cells_open(struct zd_cells *cells, size_t slot, uint64_t pfn, uint64_t count)
{
	struct pieces at = pieces_of(cells, pfn, pfn + count);

	while (cells->count && next_piece(cells, &at))
		cells->open[at.cell][slot] += at.pages;
}

void zd_cells_close(struct zd_cells *cells, size_t slot, enum zd_class class, uint64_t pfn, uint64_t end)
{
	struct pieces at = pieces_of(cells, pfn, end);

	while (cells->count && next_piece(cells, &at)) {
		cells->classes[at.cell][class] += cells->open[at.cell][slot];
		cells->open[at.cell][slot] = 0;
	}
}

void zd_cells_join(struct zd_cells *cells, const struct zd_cells *part)
{
	size_t first = (part->start_pfn >> cells->shift) - (cells->start_pfn >> cells->shift);

	for (size_t i = 0; i < part->count; i++) {
		for (size_t j = 0; j < ZD_CLASSES; j++)
			cells->classes[first + i][j] += part->classes[i][j];
		for (size_t j = 0; j <= ZD_OUTER_MAX; j++)
			cells->open[first + i][j] += part->open[i][j];
	}
}
