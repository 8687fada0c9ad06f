// SPDX-License-Identifier: LGPL-2.1-or-later
/**
 * @file
 *
 * A machine for C tests of scans: how its struct pages are laid out, and what must hold of each scan.
 */
#ifndef ZD_TESTS_MACHINE_H
#define ZD_TESTS_MACHINE_H

#include <string.h>

#include "../core/zonedev.h"

static const struct zd_layout amd64 = {
	.page_size = 64, .word_size = 8, .page_shift = 12, .pmd_order = 9, .compound_mask = true,
	.page_type_limit = -16777216,
	.field = {
		[ZD_FLAGS] = { 0, 8, 0 }, [ZD_PGMAP] = { 8, 8, 0 }, [ZD_ZONE_DEVICE_DATA] = { 16, 8, 0 },
		[ZD_MAPPING] = { 24, 8, 0 }, [ZD_INDEX] = { 32, 8, 0 }, [ZD_SHARE] = { 32, 8, 0 },
		[ZD_MAPCOUNT] = { 48, 4, 0 }, [ZD_REFCOUNT] = { 52, 4, 0 }, [ZD_MEMCG_DATA] = { 56, 8, 0 },
		[ZD_ORDER] = { 64, 8, 8 }, [ZD_LARGE_MAPCOUNT] = { 80, 4, 0 }, [ZD_PINCOUNT] = { 92, 4, 0 },
	},
	.flag = { 0, 5, 6, 13, 10, 15, 11, 21 },
	.zone = { 51, 3 }, .node = { 54, 10 }, .zone_device = 4,
};

/** True where the cells add up to the tally. */
static bool cells_add_up(const struct zd_scan *scan)
{
	uint64_t sums[ZD_CLASSES] = { 0 };

	for (size_t i = 0; i < scan->cells.count; i++) {
		for (int j = 0; j < ZD_CLASSES; j++)
			sums[j] += scan->cells.classes[i][j];
	}
	return !memcmp(sums, scan->tally.classes, sizeof(sums));
}

#endif
