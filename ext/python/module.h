/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * What the parts of the binding share: the module's state, argument converters and the one
 * place where a core error becomes a Python exception.
 */
#ifndef ZONEDEV_PYTHON_MODULE_H
#define ZONEDEV_PYTHON_MODULE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/btf.h"
#include "../core/entries.h"
#include "../core/kallsyms.h"
#include "../core/pagebits.h"
#include "../core/zonedev.h"
#include "../readers/memory.h"

#if PY_VERSION_HEX < 0x030a0000
// Python 3.9 lacks these two.
static inline PyObject *Py_NewRef(PyObject *object)
{
	Py_INCREF(object);
	return object;
}

static inline int PyModule_AddObjectRef(PyObject *module, const char *name, PyObject *object)
{
	Py_INCREF(object);
	if (!PyModule_AddObject(module, name, object))
		return 0;
	Py_DECREF(object);
	return -1;
}
#endif

struct module_state {
	PyTypeObject *layout_type;
	PyTypeObject *scheme_type;
	PyTypeObject *scan_type;
	PyTypeObject *entries_type;
	PyTypeObject *btf_type;
	PyTypeObject *kallsyms_type;
	PyTypeObject *bits_type;
	PyTypeObject *memory_type;
};

struct LayoutObject {
	PyObject_HEAD struct zd_layout layout;
};

struct SchemeObject {
	PyObject_HEAD struct zd_scheme scheme;
	enum zd_confidence confidence;
	uint64_t decisive;
};

/** What objects begin with that walk memory through a Python callable, and that Scan objects look at. */
#define WALKER_HEAD                                                                                            \
	PyObject_HEAD PyObject *read;                                                                          \
	Py_ssize_t scans; /* Scan objects that look at it */                                                   \
	bool busy;	  /* a walk goes on */

struct WalkerObject {
	WALKER_HEAD
};

struct EntriesObject {
	WALKER_HEAD struct zd_entries entries;
	struct zd_inode_layout inode;
};

struct BtfObject {
	PyObject_HEAD struct zd_btf *btf;
	PyObject *base; /* None, or the Btf that the other one needs */
};

struct KallsymsObject {
	PyObject_HEAD struct zd_kallsyms *kallsyms;
};

struct PageBitsObject {
	WALKER_HEAD struct zd_page_bits bits;
};

struct MemoryObject {
	PyObject_HEAD struct zd_memory *memory;
	int fd;
};

extern PyType_Spec layout_spec, scheme_spec, scan_spec, entries_spec, bits_spec, btf_spec, kallsyms_spec,
	memory_spec;
extern PyMethodDef inspect_methods[], table_methods[], btf_functions[], pointer_functions[];

struct module_state *state_of(PyObject *module);

/** Set the Python exception of a core error and free it; always returns NULL. */
PyObject *set_zd_error(struct zd_error *error);

/** None, or NULL with the exception of a core error. */
PyObject *none_or_error(struct zd_error *error);

/** "O&" converters: unsigned, range-checked; ValueError or OverflowError otherwise. */
int to_u64(PyObject *object, void *ret);
int to_u32(PyObject *object, void *ret);
int to_u16(PyObject *object, void *ret);
int to_u8(PyObject *object, void *ret);
/** "O&" converters: a name of the core's tables to its number. */
int to_type(PyObject *object, void *ret);
int to_class(PyObject *object, void *ret);

/** Index of @name in @names, -1 where it is absent (no exception is set). */
int find_name(const char *const *names, int count, const char *name);

/** A tuple of strings. */
PyObject *names_tuple(const char *const *names, int count);

/** A tuple of the compressions that Memory objects know. */
PyObject *memory_method_names(void);

/** The letters of the schemes, as a table of names. */
void scheme_names(const char *names[ZD_SCHEMES]);

/** dict[key] = value, taking the reference of @value; -1 on error (also when @value is NULL). */
int put(PyObject *dict, const char *key, PyObject *value);

/** dict[key], borrowed, or NULL where it is absent; -1 on error (PyDict_GetItemString() would hide it). */
int get(PyObject *dict, const char *key, PyObject **ret);

/** Slots of a walker: its callable may refer to it. */
int walker_traverse(PyObject *object, visitproc visit, void *arg);
int walker_clear(PyObject *object);

/** True (with an exception) while a walk goes on, or where a change is refused because a Scan reads. */
bool walker_in_use(void *walker, bool change);

/** A reference of a Scan's, during which the walker does not change; NULL: none.  Returns @walker. */
void *walker_hold(void *walker);
void walker_release(void *walker);

/**
 * struct zd_memory of a Python callable, @context: (address, size) -> bytes, or None where they cannot be
 * had.  An exception ends the walk, and is left set.
 */
enum zd_read read_memory(void *context, uint64_t address, void *buffer, size_t size);

/** A finding as a dict; rule ids in "rule" and "also". */
PyObject *finding_dict(const struct zd_finding *finding, uint32_t page_size);

/** "O&" converter: a dict of pagemap facts to a struct zd_pagemap. */
int to_pagemap(PyObject *object, void *ret);

#endif
