/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * The one error idiom of the core: a function that can fail returns a struct zd_error *,
 * NULL is success, the caller owns the error.  Converting it into an exception is the
 * binding's work.
 */
#ifndef ZONEDEV_ERROR_H
#define ZONEDEV_ERROR_H

enum zd_error_code {
	ZD_ERROR_INVALID, /* an argument or a layout makes no sense */
	ZD_ERROR_NO_MEMORY,
	ZD_ERROR_IO,	 /* the operating system refused */
	ZD_ERROR_FORMAT, /* a file is not what it should be */
};

struct zd_error {
	enum zd_error_code code;
	char message[256];
};

/** A new error; when there is no memory for it, zd_error_no_memory(). */
struct zd_error *zd_error_create(enum zd_error_code code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** A static error that needs no memory. */
struct zd_error *zd_error_no_memory(void);

/** NULL and the static error are allowed. */
void zd_error_destroy(struct zd_error *error);

#endif
