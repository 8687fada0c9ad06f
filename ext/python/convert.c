// SPDX-License-Identifier: LGPL-2.1-or-later
// Converters between Python objects and the core's numbers, names and errors.
// Every integer is range-checked here, so that the core never sees a truncated one.

#include "module.h"

PyObject *set_zd_error(struct zd_error *error)
{
	PyObject *type = PyExc_ValueError;

	if (error->code == ZD_ERROR_NO_MEMORY)
		type = PyExc_MemoryError;
	else if (error->code == ZD_ERROR_IO)
		type = PyExc_OSError;
	PyErr_SetString(type, error->message);
	zd_error_destroy(error);
	return NULL;
}

PyObject *none_or_error(struct zd_error *error)
{
	if (error)
		return set_zd_error(error);
	Py_RETURN_NONE;
}

static int to_unsigned(PyObject *object, unsigned long long limit, unsigned long long *ret)
{
	unsigned long long value = PyLong_AsUnsignedLongLong(object);

	if (value == (unsigned long long)-1 && PyErr_Occurred())
		return 0;
	if (value > limit) {
		PyErr_Format(PyExc_OverflowError, "%R is too large", object);
		return 0;
	}
	*ret = value;
	return 1;
}

int to_u64(PyObject *object, void *ret)
{
	unsigned long long value;

	if (!to_unsigned(object, UINT64_MAX, &value))
		return 0;
	*(uint64_t *)ret = value;
	return 1;
}

int to_u32(PyObject *object, void *ret)
{
	unsigned long long value;

	if (!to_unsigned(object, UINT32_MAX, &value))
		return 0;
	*(uint32_t *)ret = value;
	return 1;
}

int to_u16(PyObject *object, void *ret)
{
	unsigned long long value;

	if (!to_unsigned(object, UINT16_MAX, &value))
		return 0;
	*(uint16_t *)ret = value;
	return 1;
}

int to_u8(PyObject *object, void *ret)
{
	unsigned long long value;

	if (!to_unsigned(object, UINT8_MAX, &value))
		return 0;
	*(uint8_t *)ret = value;
	return 1;
}

int find_name(const char *const *names, int count, const char *name)
{
	for (int i = 0; i < count; i++) {
		if (!strcmp(names[i], name))
			return i;
	}
	return -1;
}

static int to_name(PyObject *object, const char *const *names, int count, const char *what)
{
	const char *name = PyUnicode_AsUTF8(object);
	int i = name ? find_name(names, count, name) : -1;

	if (name && i < 0)
		PyErr_Format(PyExc_ValueError, "%s: no such %s", name, what);
	return i;
}

int to_type(PyObject *object, void *ret)
{
	int i = to_name(object, zd_type_names, ZD_TYPES, "memory type");

	*(enum zd_type *)ret = i;
	return i >= 0;
}

int to_class(PyObject *object, void *ret)
{
	int i = to_name(object, zd_class_names, ZD_CLASSES, "class");

	*(enum zd_class *)ret = i;
	return i >= 0;
}

int to_pagemap(PyObject *object, void *ret)
{
	static char *keywords[] = { "address",	     "type",	     "ref",	     "vmemmap_shift",
				    "node",	     "foreign_maps", "deduplicated", "severity_cap",
				    "miscalibrated", "driver_data",  "dax_mapping",  NULL };
	static const char *const states[] = { "live", "dying", "dead" };
	struct zd_pagemap pagemap = { .node = -1, .severity_cap = ZD_ERROR };
	const char *ref = "live", *cap = "error";
	int foreign = 0, deduplicated = 0, miscalibrated = 0, data = 0, state, severity;
	PyObject *empty = PyTuple_New(0);
	int ok;

	if (!empty)
		return 0;
	if (!PyDict_Check(object)) {
		Py_DECREF(empty);
		PyErr_SetString(PyExc_TypeError, "a pagemap is a dict");
		return 0;
	}
	ok = PyArg_ParseTupleAndKeywords(empty, object, "O&O&|sO&ippsppO&:pagemap", keywords, to_u64,
					 &pagemap.address, to_type, &pagemap.type, &ref, to_u8,
					 &pagemap.vmemmap_shift, &pagemap.node, &foreign, &deduplicated, &cap,
					 &miscalibrated, &data, to_u64, &pagemap.dax_mapping);
	Py_DECREF(empty);
	if (!ok)
		return 0;
	state = find_name(states, 3, ref);
	severity = find_name(zd_severity_names, ZD_SEVERITIES, cap);
	if (state < 0 || severity < 0) {
		PyErr_SetString(PyExc_ValueError, "pagemap: unknown ref state or severity_cap");
		return 0;
	}
	pagemap.ref = state;
	pagemap.severity_cap = severity;
	pagemap.foreign_maps = foreign;
	pagemap.deduplicated = deduplicated;
	pagemap.miscalibrated = miscalibrated;
	pagemap.driver_data = data;
	*(struct zd_pagemap *)ret = pagemap;
	return 1;
}

PyObject *names_tuple(const char *const *names, int count)
{
	PyObject *tuple = PyTuple_New(count);

	for (int i = 0; tuple && i < count; i++) {
		PyObject *name = PyUnicode_FromString(names[i]);

		if (!name)
			Py_CLEAR(tuple);
		else
			PyTuple_SET_ITEM(tuple, i, name);
	}
	return tuple;
}

void scheme_names(const char *names[ZD_SCHEMES])
{
	for (int i = 0; i < ZD_SCHEMES; i++)
		names[i] = zd_schemes[i].name;
}

int put(PyObject *dict, const char *key, PyObject *value)
{
	int result = value ? PyDict_SetItemString(dict, key, value) : -1;

	Py_XDECREF(value);
	return result;
}

int get(PyObject *dict, const char *key, PyObject **ret)
{
	PyObject *name = PyUnicode_FromString(key);

	*ret = name ? PyDict_GetItemWithError(dict, name) : NULL;
	Py_XDECREF(name);
	return !*ret && PyErr_Occurred() ? -1 : 0;
}

/** Append @id to the list where it is not in it. */
static int append_once(PyObject *list, const char *id)
{
	PyObject *name = PyUnicode_FromString(id);
	int known = name ? PySequence_Contains(list, name) : -1;

	if (!known)
		known = PyList_Append(list, name);
	Py_XDECREF(name);
	return known < 0 ? -1 : 0;
}

/** Ids of the rows in @set, each once, without the one of @rule. */
static PyObject *also_list(struct zd_rule_set set, const char *rule)
{
	PyObject *list = PyList_New(0);
	unsigned int i;

	while (list && zd_rule_set_take(&set, &i)) {
		if (strcmp(zd_rules[i].id, rule) && append_once(list, zd_rules[i].id))
			Py_CLEAR(list);
	}
	return list;
}

PyObject *finding_dict(const struct zd_finding *finding, uint32_t page_size)
{
	const struct zd_rule *rule = &zd_rules[finding->rule];
	PyObject *dict = PyDict_New();

	if (!dict)
		return NULL;
	if (put(dict, "rule", PyUnicode_FromString(rule->id)) ||
	    put(dict, "severity", PyUnicode_FromString(zd_severity_names[finding->severity])) ||
	    put(dict, "also", also_list(finding->also, rule->id)) ||
	    put(dict, "pfn", PyLong_FromUnsignedLongLong(finding->pfn)) ||
	    put(dict, "count", PyLong_FromUnsignedLongLong(finding->count)) ||
	    put(dict, "pages", PyLong_FromUnsignedLongLong(finding->pages)) ||
	    put(dict, "folio_pfn", PyLong_FromUnsignedLongLong(finding->folio_pfn)) ||
	    put(dict, "folio_pages", PyLong_FromUnsignedLongLong(finding->folio_pages)) ||
	    put(dict, "order", PyLong_FromLong(finding->order)) ||
	    put(dict, "refcount", PyLong_FromLong(finding->refcount)) ||
	    put(dict, "mapcount", PyLong_FromLongLong(finding->mapcount)) ||
	    put(dict, "mapping", PyLong_FromUnsignedLongLong(finding->mapping)) ||
	    put(dict, "index", PyLong_FromUnsignedLongLong(finding->index)) ||
	    put(dict, "flags", PyLong_FromUnsignedLongLong(finding->flags)) ||
	    put(dict, "expected", PyLong_FromLong(finding->expected)) ||
	    put(dict, "raw", PyBytes_FromStringAndSize((const char *)finding->raw, page_size)))
		Py_CLEAR(dict);
	return dict;
}
