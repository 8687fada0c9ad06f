/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * What the fuzz targets share.  A target is one file with LLVMFuzzerTestOneInput(), as libFuzzer calls it
 * (make fuzz, clang) or driver.c (a smoke run in the tests, any compiler).  It takes any bytes, and aborts
 * where an answer breaks a promise of the header that it tests; the sanitizers see to the rest.
 */
#ifndef ZONEDEV_FUZZ_H
#define ZONEDEV_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Abort, saying which promise was broken. */
#define PROMISE(condition)                                                                                     \
	do {                                                                                                   \
		if (!(condition)) {                                                                            \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #condition);                \
			abort();                                                                               \
		}                                                                                              \
	} while (0)

/** Bytes of an input that are still to be taken; what is not there any more is zero. */
struct input {
	const uint8_t *data;
	size_t size;
};

/** The next little-endian number of @size bytes. */
static inline uint64_t take(struct input *input, unsigned int size)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < size && input->size; i++) {
		value |= (uint64_t)*input->data++ << 8 * i;
		input->size--;
	}
	return value;
}

#endif
