// SPDX-License-Identifier: LGPL-2.1-or-later
// Dump files of other formats than ELF through libkdumpfile: what a file is and whose.
// Only calls that exist unchanged in 0.5.0 and later are used.

#include <errno.h>
#include <string.h>

#include "inspect.h"

#ifdef HAVE_LIBKDUMPFILE

#include <fcntl.h>
#include <libkdumpfile/kdumpfile.h>
#include <stdio.h>
#include <unistd.h>

#define STRING_(x) #x
#define STRING(x) STRING_(x)

const char *zd_kdump_version(void)
{
	return STRING(KDUMPFILE_VER_MAJOR) "." STRING(KDUMPFILE_VER_MINOR) "." STRING(KDUMPFILE_VER_MICRO);
}

static void copy_attribute(kdump_ctx_t *context, const char *key, char *ret, size_t size)
{
	kdump_attr_t attribute = { .type = KDUMP_STRING };

	if (kdump_get_attr(context, key, &attribute) == KDUMP_OK && attribute.type == KDUMP_STRING)
		snprintf(ret, size, "%s", attribute.val.string);
}

struct zd_error *zd_kdump_inspect(const char *path, struct zd_kdump_info *ret)
{
	struct zd_error *error = NULL;
	kdump_ctx_t *context;
	int fd;

	memset(ret, 0, sizeof(*ret));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return zd_error_create(ZD_ERROR_IO, "%s: %s", path, strerror(errno));
	context = kdump_new();
	if (!context) {
		close(fd);
		return zd_error_no_memory();
	}
	if (kdump_open_fd(context, fd) == KDUMP_OK) {
		copy_attribute(context, KDUMP_ATTR_FILE_FORMAT, ret->format, sizeof(ret->format));
		copy_attribute(context, KDUMP_ATTR_ARCH_NAME, ret->arch, sizeof(ret->arch));
		copy_attribute(context, "linux.uts.release", ret->release, sizeof(ret->release));
	} else {
		error = zd_error_create(ZD_ERROR_FORMAT, "%s: %s", path, kdump_get_err(context));
	}
	kdump_free(context);
	close(fd);
	return error;
}

#else

const char *zd_kdump_version(void)
{
	return NULL;
}

struct zd_error *zd_kdump_inspect(const char *path, struct zd_kdump_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	return zd_error_create(ZD_ERROR_INVALID, "%s: built without libkdumpfile", path);
}

#endif
