// SPDX-License-Identifier: LGPL-2.1-or-later
/**
 * @file
 *
 * What the C tests share: a check that says where it failed, and calls that fail when told to. For one source
 * file of a program, which is linked with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc.
 */
#ifndef ZD_TESTS_CHECK_H
#define ZD_TESTS_CHECK_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;

#define CHECK(condition)                                                                                       \
	do {                                                                                                   \
		if (!(condition)) {                                                                            \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
			failures++;                                                                            \
		}                                                                                              \
	} while (0)

/** What can fail: the number of the call that does, 0 for none, and calls so far. */
struct fault {
	unsigned long fail_at, calls;
};

static struct fault allocation;

static bool must_fail(struct fault *fault)
{
	return fault->fail_at && __atomic_add_fetch(&fault->calls, 1, __ATOMIC_RELAXED) == fault->fail_at;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
	return must_fail(&allocation) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return must_fail(&allocation) ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return must_fail(&allocation) ? NULL : __real_realloc(old, size);
}

#endif
