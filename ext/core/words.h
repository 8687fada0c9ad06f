/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * Which struct pages of 64 bytes show given words: the innermost loop of a scan.
 *
 * It owns the comparison, by the widest vectors that the processor has.  What the words mean, and which
 * pages may be told by them, is the scan's (scan.c).
 */
#ifndef ZONEDEV_WORDS_H
#define ZONEDEV_WORDS_H

#include <stdint.h>

enum { ZD_WORDS = 8 };

/** What the words of a struct page must be under a mask. */
struct zd_words {
	uint64_t want[ZD_WORDS], mask[ZD_WORDS];
};

/** How many of the first @count struct pages, which lie at any address, show the words. */
uint64_t zd_words_run(const struct zd_words *words, const uint8_t *pages, uint64_t count);

#endif
