// SPDX-License-Identifier: LGPL-2.1-or-later
// Where a window on a file begins, and how large it is.

#include "view.h"

#include <stdlib.h>

#include "format.h"

enum {
	SIZE_FIRST = 2 * ZD_FRAME,
	GROWTH = 4,
};

void zd_view_deinit(struct zd_view *view)
{
	free(view->bytes);
}

/** How much to read at @offset: more where the last window ended or reaches to, little where it is elsewhere.
 */
static size_t next_size(const struct zd_view *view, uint64_t offset)
{
	if (!view->size || offset < view->offset || offset - view->offset > view->size)
		return SIZE_FIRST;
	return view->last < ZD_VIEW_MAX / GROWTH ? view->last * GROWTH : ZD_VIEW_MAX;
}

static const uint8_t *move(struct zd_view *view, const struct zd_memory *memory, uint64_t offset, size_t size)
{
	size_t ahead;

	view->last = next_size(view, offset);
	view->offset = offset;
	view->size = 0;
	ahead = size < view->last ? view->last : size;
	if (ahead > memory->file_size - offset)
		ahead = memory->file_size - offset;
	if (!view->bytes)
		view->bytes = malloc(ZD_VIEW_MAX);
	if (!view->bytes)
		return NULL;
	// What was not asked for may not be there.
	if (!zd_memory_pread(memory, view->bytes, ahead, offset)) {
		ahead = size;
		if (!zd_memory_pread(memory, view->bytes, ahead, offset))
			return NULL;
	}
	view->size = ahead;
	return view->bytes;
}

const uint8_t *zd_view_get(struct zd_view *view, const struct zd_memory *memory, uint64_t offset, size_t size)
{
	uint64_t into = offset - view->offset;

	if (offset >= view->offset && into <= view->size && size <= view->size - into)
		return view->bytes + into;
	if (size > ZD_VIEW_MAX || offset > memory->file_size || size > memory->file_size - offset)
		return NULL;
	return move(view, memory, offset, size);
}
