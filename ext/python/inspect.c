// SPDX-License-Identifier: LGPL-2.1-or-later
// The readers' look at files, as dicts; and which optional libraries were built in.

#include "module.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "../readers/inspect.h"

static PyObject *elf_info(PyObject *module, PyObject *path)
{
	struct zd_elf_info info;
	struct zd_error *error;
	PyObject *bytes;

	(void)module;
	if (!PyUnicode_FSConverter(path, &bytes))
		return NULL;
	error = zd_elf_inspect(PyBytes_AS_STRING(bytes), &info);
	Py_DECREF(bytes);
	if (error)
		return set_zd_error(error);
	return Py_BuildValue("{sNsNsisisKsKsy#s(KK)}", "core", PyBool_FromLong(info.core), "has_debug_info",
			     PyBool_FromLong(info.has_debug_info), "machine", (int)info.machine, "bits",
			     (int)info.bits, "file_size", (unsigned long long)info.file_size, "wanted_size",
			     (unsigned long long)info.wanted_size, "build_id", (const char *)info.build_id,
			     (Py_ssize_t)info.build_id_size, "btf", (unsigned long long)info.btf_offset,
			     (unsigned long long)info.btf_size);
}

static PyObject *kdump_info(PyObject *module, PyObject *path)
{
	struct zd_kdump_info info;
	struct zd_error *error;
	PyObject *bytes;

	(void)module;
	if (!PyUnicode_FSConverter(path, &bytes))
		return NULL;
	error = zd_kdump_inspect(PyBytes_AS_STRING(bytes), &info);
	Py_DECREF(bytes);
	if (error)
		return set_zd_error(error);
	return Py_BuildValue("{ssssss}", "format", info.format, "arch", info.arch, "release", info.release);
}

// What the handler writes: made beforehand, because a handler may do next to nothing.
static char sigbus_message[256];

static void die_of_sigbus(int number)
{
	(void)number;
	if (write(STDERR_FILENO, sigbus_message, strlen(sigbus_message)) < 0)
		_exit(2);
	_exit(2);
}

static PyObject *guard_sigbus(PyObject *module, PyObject *text)
{
	const char *message = PyUnicode_AsUTF8(text);
	struct sigaction action = { .sa_handler = die_of_sigbus };

	(void)module;
	if (!message)
		return NULL;
	snprintf(sigbus_message, sizeof(sigbus_message), "%s", message);
	if (sigaction(SIGBUS, &action, NULL))
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyObject *features(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return Py_BuildValue("{szsz}", "libelf", zd_elf_version(), "libkdumpfile", zd_kdump_version());
}

PyMethodDef inspect_methods[] = {
	{ "elf_info", elf_info, METH_O, "elf_info(path) -> dict: what an ELF file says of itself" },
	{ "kdump_info", kdump_info, METH_O, "kdump_info(path) -> dict: what libkdumpfile says of a dump" },
	{ "guard_sigbus", guard_sigbus, METH_O, "guard_sigbus(message): on SIGBUS write it and exit with 2" },
	{ "features", features, METH_NOARGS,
	  "features() -> dict: optional libraries and their versions, or None" },
	{ NULL, NULL, 0, NULL },
};
