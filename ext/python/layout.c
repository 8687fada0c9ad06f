// SPDX-License-Identifier: LGPL-2.1-or-later
// Layout and Scheme objects: immutable wrappers of the core's tables for one kernel.

#include <stddef.h>

#include "module.h"

static int parse_field(PyObject *name, PyObject *value, struct zd_layout *layout)
{
	const char *key = PyUnicode_AsUTF8(name);
	unsigned char size, bits;
	unsigned short offset;
	int i;

	if (!key)
		return -1;
	i = find_name(zd_member_names, ZD_MEMBERS, key);
	if (i < 0) {
		PyErr_Format(PyExc_ValueError, "layout: no member %s", key);
		return -1;
	}
	if (!PyTuple_Check(value) || !PyArg_ParseTuple(value, "Hbb:field", &offset, &size, &bits)) {
		if (!PyErr_Occurred())
			PyErr_SetString(PyExc_TypeError, "a field is (offset, size, bits)");
		return -1;
	}
	layout->field[i] = (struct zd_field){ offset, size, bits };
	return 0;
}

static int parse_fields(PyObject *fields, struct zd_layout *layout)
{
	PyObject *name, *value;
	Py_ssize_t position = 0;

	while (PyDict_Next(fields, &position, &name, &value)) {
		if (parse_field(name, value, layout))
			return -1;
	}
	return 0;
}

/** Flags that the kernel lacks stay at -1; names that the core does not know are ignored. */
static int parse_flags(PyObject *flags, struct zd_layout *layout)
{
	for (int i = 0; i < ZD_FLAG_COUNT; i++) {
		PyObject *bit;
		long value;

		if (get(flags, zd_flag_names[i], &bit))
			return -1;
		value = bit ? PyLong_AsLong(bit) : -1;
		if (value == -1 && PyErr_Occurred())
			return -1;
		if (value < -1 || value > 63) {
			PyErr_Format(PyExc_ValueError, "layout: %s is bit %ld", zd_flag_names[i], value);
			return -1;
		}
		layout->flag[i] = value;
	}
	return 0;
}

static PyObject *layout_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "page_size",     "word_size",	"big_endian", "page_shift", "pmd_order",
				    "compound_mask", "page_type_limit", "fields",     "flags",	    "zone",
				    "node",	     "zone_device",	NULL };
	struct zd_layout layout = { 0 };
	int big_endian, compound_mask, limit;
	PyObject *fields, *flags;
	struct LayoutObject *self;
	struct zd_error *error;

	if (!PyArg_ParseTupleAndKeywords(
		    args, kwargs, "$O&O&pO&O&piO!O!(bb)(bb)O&:Layout", keywords, to_u32, &layout.page_size,
		    to_u8, &layout.word_size, &big_endian, to_u8, &layout.page_shift, to_u8, &layout.pmd_order,
		    &compound_mask, &limit, &PyDict_Type, &fields, &PyDict_Type, &flags, &layout.zone.shift,
		    &layout.zone.width, &layout.node.shift, &layout.node.width, to_u32, &layout.zone_device))
		return NULL;
	layout.big_endian = big_endian;
	layout.compound_mask = compound_mask;
	layout.page_type_limit = limit;
	if (parse_fields(fields, &layout) || parse_flags(flags, &layout))
		return NULL;
	error = zd_layout_check(&layout);
	if (error)
		return set_zd_error(error);
	self = (struct LayoutObject *)type->tp_alloc(type, 0);
	if (self)
		self->layout = layout;
	return (PyObject *)self;
}

static void plain_dealloc(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	type->tp_free(self);
	Py_DECREF(type);
}

static PyType_Slot layout_slots[] = {
	{ Py_tp_new, layout_new },
	{ Py_tp_dealloc, plain_dealloc },
	{ Py_tp_doc, "Where the members of struct page and struct folio lie in one kernel." },
	{ 0, NULL },
};

PyType_Spec layout_spec = {
	.name = "zonedev._zonedev.Layout",
	.basicsize = sizeof(struct LayoutObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = layout_slots,
};

// ---------------------------------------------------------------- Scheme

static int parse_evidence(PyObject *evidence, bool present[ZD_PROBES])
{
	for (int i = 0; i < ZD_PROBES; i++) {
		PyObject *value;
		int truth;

		if (get(evidence, zd_probes[i].name, &value))
			return -1;
		truth = value ? PyObject_IsTrue(value) : 0;
		if (truth < 0)
			return -1;
		present[i] = truth;
	}
	return 0;
}

static PyObject *scheme_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "evidence", NULL };
	bool present[ZD_PROBES];
	struct SchemeObject *self;
	PyObject *evidence;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!:Scheme", keywords, &PyDict_Type, &evidence) ||
	    parse_evidence(evidence, present))
		return NULL;
	self = (struct SchemeObject *)type->tp_alloc(type, 0);
	if (self)
		zd_scheme_detect(present, &self->scheme, &self->confidence, &self->decisive);
	return (PyObject *)self;
}

static PyObject *scheme_idle(PyObject *object, PyObject *argument)
{
	struct SchemeObject *self = (struct SchemeObject *)object;
	enum zd_type type;

	if (!to_type(argument, &type))
		return NULL;
	if (self->scheme.type[type].idle < 0)
		Py_RETURN_NONE;
	return PyLong_FromLong(self->scheme.type[type].idle);
}

/** The columns of a memory type, as struct zd_scheme_type has them. */
static PyObject *scheme_columns(PyObject *object, PyObject *argument)
{
	const struct zd_scheme_type *row;
	enum zd_type type;

	if (!to_type(argument, &type))
		return NULL;
	row = &((struct SchemeObject *)object)->scheme.type[type];
	return Py_BuildValue("{s:i,s:i,s:N,s:N,s:N,s:N}", "idle", row->idle, "mapped_base", row->mapped_base,
			     "maps_take_refs", PyBool_FromLong(row->maps_take_refs), "never_mapcount",
			     PyBool_FromLong(row->never_mapcount), "unassociated",
			     PyBool_FromLong(row->unassociated), "entry_takes_ref",
			     PyBool_FromLong(row->entry_takes_ref));
}

static PyObject *scheme_named(PyObject *class, PyObject *argument)
{
	const char *name = PyUnicode_AsUTF8(argument);
	struct SchemeObject *self;

	if (!name)
		return NULL;
	for (int i = 0; i < ZD_SCHEMES; i++) {
		if (strcmp(zd_schemes[i].name, name))
			continue;
		self = (struct SchemeObject *)((PyTypeObject *)class)->tp_alloc((PyTypeObject *)class, 0);
		if (self) {
			self->scheme = zd_schemes[i];
			self->confidence = ZD_CONFIDENCE_LOW;
		}
		return (PyObject *)self;
	}
	return PyErr_Format(PyExc_ValueError, "no scheme '%s'", name);
}

static struct SchemeObject *copy_scheme(const struct SchemeObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	struct SchemeObject *copy = (struct SchemeObject *)type->tp_alloc(type, 0);

	if (!copy)
		return NULL;
	copy->scheme = self->scheme;
	copy->confidence = self->confidence;
	copy->decisive = self->decisive;
	return copy;
}

static PyObject *scheme_with_init_mode(PyObject *object, PyObject *args)
{
	struct SchemeObject *copy;
	enum zd_type type;
	int busy;

	if (!PyArg_ParseTuple(args, "O&p:with_init_mode", to_type, &type, &busy))
		return NULL;
	copy = copy_scheme((struct SchemeObject *)object);
	if (copy)
		zd_scheme_set_init_mode(&copy->scheme, type, busy);
	return (PyObject *)copy;
}

static PyObject *scheme_drained(PyObject *object, PyObject *unused)
{
	struct SchemeObject *copy = copy_scheme((struct SchemeObject *)object);

	(void)unused;
	if (copy)
		zd_scheme_set_drained(&copy->scheme);
	return (PyObject *)copy;
}

static PyObject *scheme_calibrated(PyObject *object, PyObject *args)
{
	struct SchemeObject *copy;
	enum zd_type type;
	int idle;

	if (!PyArg_ParseTuple(args, "O&i:calibrated", to_type, &type, &idle))
		return NULL;
	if (idle < 0 || idle > 1) {
		PyErr_SetString(PyExc_ValueError, "an idle count is 0 or 1");
		return NULL;
	}
	copy = copy_scheme((struct SchemeObject *)object);
	if (!copy)
		return NULL;
	copy->confidence = ZD_CONFIDENCE_LOW;
	copy->scheme.type[type] = (struct zd_scheme_type){ .idle = idle, .mapped_base = idle };
	return (PyObject *)copy;
}

static PyObject *scheme_decisive(PyObject *object, void *closure)
{
	struct SchemeObject *self = (struct SchemeObject *)object;
	PyObject *list = PyList_New(0);

	(void)closure;
	for (int i = 0; list && i < ZD_PROBES; i++) {
		PyObject *name;

		if (!(self->decisive >> i & 1))
			continue;
		name = PyUnicode_FromString(zd_probes[i].name);
		if (!name || PyList_Append(list, name))
			Py_CLEAR(list);
		Py_XDECREF(name);
	}
	return list;
}

static PyObject *scheme_string(PyObject *object, void *closure)
{
	const struct zd_scheme *scheme = &((struct SchemeObject *)object)->scheme;

	return PyUnicode_FromString(*(const char *const *)((const char *)scheme + (size_t)closure));
}

static PyObject *scheme_bool(PyObject *object, void *closure)
{
	const struct zd_scheme *scheme = &((struct SchemeObject *)object)->scheme;

	return PyBool_FromLong(*(const bool *)((const char *)scheme + (size_t)closure));
}

static PyObject *scheme_confidence(PyObject *object, void *closure)
{
	(void)closure;
	return PyUnicode_FromString(zd_confidence_names[((struct SchemeObject *)object)->confidence]);
}

static PyObject *scheme_shared(PyObject *object, void *closure)
{
	(void)closure;
	return PyUnicode_FromString(zd_shared_names[((struct SchemeObject *)object)->scheme.shared]);
}

#define AT(member) ((void *)offsetof(struct zd_scheme, member))

static PyGetSetDef scheme_getset[] = {
	{ "id", scheme_string, NULL, "letter of the scheme", AT(name) },
	{ "title", scheme_string, NULL, "the scheme in one line", AT(title) },
	{ "kernels", scheme_string, NULL, "releases that follow it", AT(kernels) },
	{ "pgmap_ref", scheme_string, NULL, "who holds dev_pagemap.ref", AT(pgmap_ref) },
	{ "private_refs_pgmap", scheme_bool, NULL, NULL, AT(private_refs_pgmap) },
	{ "zero_when_dying", scheme_bool, NULL, NULL, AT(zero_when_dying) },
	{ "stale_share", scheme_bool, NULL, NULL, AT(stale_share) },
	{ "large_private", scheme_bool, NULL, NULL, AT(large_private) },
	{ "counts_pins", scheme_bool, NULL, "the refcount of an order-0 folio tells its pins",
	  AT(counts_pins) },
	{ "shared", scheme_shared, NULL, "how a DAX page says that files share it", NULL },
	{ "confidence", scheme_confidence, NULL, "low, medium or high", NULL },
	{ "decisive", scheme_decisive, NULL, "probes that the decision rests on", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyMethodDef scheme_methods[] = {
	{ "idle", scheme_idle, METH_O, "idle(type) -> int or None: refcount of a free folio" },
	{ "columns", scheme_columns, METH_O, "columns(type) -> dict: what the scheme says of a memory type" },
	{ "named", scheme_named, METH_O | METH_CLASS, "named(letter) -> Scheme: the row of the table" },
	{ "calibrated", scheme_calibrated, METH_VARARGS,
	  "calibrated(type, idle) -> Scheme with another idle count" },
	{ "drained", scheme_drained, METH_NOARGS,
	  "drained() -> Scheme of a pagemap whose pages' first references were put at removal" },
	{ "with_init_mode", scheme_with_init_mode, METH_VARARGS,
	  "with_init_mode(type, busy) -> Scheme as a pagemap with that dev_pagemap.init_mode has it" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot scheme_slots[] = {
	{ Py_tp_new, scheme_new },
	{ Py_tp_dealloc, plain_dealloc },
	{ Py_tp_getset, scheme_getset },
	{ Py_tp_methods, scheme_methods },
	{ Py_tp_doc, "Scheme(evidence: dict[str, bool]): the refcount scheme that the evidence tells." },
	{ 0, NULL },
};

PyType_Spec scheme_spec = {
	.name = "zonedev._zonedev.Scheme",
	.basicsize = sizeof(struct SchemeObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = scheme_slots,
};
