// SPDX-License-Identifier: LGPL-2.1-or-later
// ZD_NARROW: without the vectors that not every processor has, for tests.

#include "words.h"

#include <stdbool.h>
#include <string.h>

enum {
	PAGE = ZD_WORDS * sizeof(uint64_t),
	// One branch for so many pages.
	TOGETHER = 4,
};

static bool shows(const struct zd_words *words, const uint8_t *page)
{
	uint64_t shown[ZD_WORDS], difference = 0;

	memcpy(shown, page, sizeof(shown));
	for (int i = 0; i < ZD_WORDS; i++)
		difference |= (shown[i] ^ words->want[i]) & words->mask[i];
	return !difference;
}

/** Define zd_words_run() for pages TOGETHER at a time, by vectors of so many bytes. */
#define DEFINE_RUN(name, vector_bytes, attributes)                                                             \
	attributes static uint64_t name(const struct zd_words *words, const uint8_t *pages, uint64_t count)    \
	{                                                                                                      \
		typedef uint64_t vector __attribute__((vector_size(vector_bytes)));                            \
		typedef vector anywhere __attribute__((aligned(1), may_alias));                                \
		enum { VECTORS = PAGE / (vector_bytes), LANES = (vector_bytes) / 8 };                          \
		const anywhere *want = (const anywhere *)words->want;                                          \
		const anywhere *mask = (const anywhere *)words->mask;                                          \
		uint64_t i = 0;                                                                                \
                                                                                                               \
		for (; count - i >= TOGETHER; i += TOGETHER) {                                                 \
			const anywhere *shown = (const anywhere *)(pages + i * PAGE);                          \
			vector difference = { 0 };                                                             \
			uint64_t any = 0;                                                                      \
                                                                                                               \
			for (int j = 0; j < TOGETHER * VECTORS; j++)                                           \
				difference |= (shown[j] ^ want[j % VECTORS]) & mask[j % VECTORS];              \
			for (int j = 0; j < LANES; j++)                                                        \
				any |= difference[j];                                                          \
			if (any)                                                                               \
				break;                                                                         \
		}                                                                                              \
		return i;                                                                                      \
	}

DEFINE_RUN(run_by_16, 16, )
#if defined(__x86_64__) && !defined(ZD_NARROW)
#define HAVE_32
DEFINE_RUN(run_by_32, 32, __attribute__((target("avx2"))))
#endif

uint64_t zd_words_run(const struct zd_words *words, const uint8_t *pages, uint64_t count)
{
	uint64_t i;

#ifdef HAVE_32
	i = __builtin_cpu_supports("avx2") ? run_by_32(words, pages, count) : run_by_16(words, pages, count);
#else
	i = run_by_16(words, pages, count);
#endif
	while (i < count && shows(words, pages + i * PAGE))
		i++;
	return i;
}
