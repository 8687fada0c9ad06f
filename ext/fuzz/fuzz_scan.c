// SPDX-License-Identifier: LGPL-2.1-or-later
// Fuzz target: layout, scheme, pagemap and struct pages of any bytes through check, decode, rules and scan.
// Promises: a layout that passes its check can be used; every page has one class; the paths with and
// without templates, and in pieces of any length that the contract allows, agree.
//
// The input is a struct head (scripts/fuzz_corpus.py writes it), then struct pages.

#include "fuzz_kernel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct head head;
	uint64_t count;

	take_head(&input, &head);
	if (!is_layout(&head.layout))
		return 0;
	count = input.size / head.layout.page_size;
	if (count > PAGES_MAX)
		count = PAGES_MAX;
	if (__builtin_add_overflow(head.range.start_pfn, count + head.seed % HOLE_MAX, &head.range.end_pfn) ||
	    head.range.memmap + (count + HOLE_MAX) * head.layout.page_size < head.range.memmap)
		return 0;
	scan_both(&head, input.data, count, NULL);
	return 0;
}
