// SPDX-License-Identifier: LGPL-2.1-or-later
// Errors as values.  The error for "no memory" is static, so that reporting it cannot fail.

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "error.h"

static struct zd_error no_memory = { ZD_ERROR_NO_MEMORY, "out of memory" };

struct zd_error *zd_error_no_memory(void)
{
	return &no_memory;
}

struct zd_error *zd_error_create(enum zd_error_code code, const char *format, ...)
{
	struct zd_error *error = malloc(sizeof(*error));
	va_list arguments;

	if (!error)
		return zd_error_no_memory();
	error->code = code;
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return error;
}

void zd_error_destroy(struct zd_error *error)
{
	if (error != &no_memory)
		free(error);
}
