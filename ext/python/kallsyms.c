// SPDX-License-Identifier: LGPL-2.1-or-later
// Kallsyms objects: the symbols in a copy of a kernel's image.

#include "module.h"

static PyObject *kallsyms_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "image", "address", "known", "word_size", "big_endian", NULL };
	struct zd_image image = { .word_size = 8 };
	struct KallsymsObject *self;
	struct zd_error *error;
	const char *known_name;
	int big_endian = 0;
	uint64_t known;
	Py_buffer data;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*O&(sO&)|O&p:Kallsyms", keywords, &data, to_u64,
					 &image.address, &known_name, to_u64, &known, to_u8, &image.word_size,
					 &big_endian))
		return NULL;
	image.bytes = data.buf;
	image.size = data.len;
	image.big_endian = big_endian;
	self = (struct KallsymsObject *)type->tp_alloc(type, 0);
	if (!self) {
		PyBuffer_Release(&data);
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS;
	error = zd_kallsyms_create(&image, known_name, known, &self->kallsyms);
	Py_END_ALLOW_THREADS;
	PyBuffer_Release(&data);
	if (error) {
		Py_DECREF(self);
		return set_zd_error(error);
	}
	return (PyObject *)self;
}

static void kallsyms_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);

	zd_kallsyms_destroy(((struct KallsymsObject *)object)->kallsyms);
	type->tp_free(object);
	Py_DECREF(type);
}

/** (name, address, size, type) */
static PyObject *symbol_tuple(const struct zd_kallsyms *kallsyms, uint32_t i)
{
	struct zd_symbol symbol;

	zd_kallsyms_symbol(kallsyms, i, &symbol);
	return Py_BuildValue("(NKKN)",
			     PyUnicode_DecodeUTF8(symbol.name, strlen(symbol.name), "surrogateescape"),
			     (unsigned long long)symbol.address, (unsigned long long)symbol.size,
			     PyUnicode_FromOrdinal((unsigned char)symbol.type));
}

static PyObject *kallsyms_find(PyObject *object, PyObject *name)
{
	const struct zd_kallsyms *kallsyms = ((struct KallsymsObject *)object)->kallsyms;
	PyObject *bytes, *list;

	if (!PyUnicode_Check(name)) {
		PyErr_SetString(PyExc_TypeError, "a name is a str");
		return NULL;
	}
	bytes = PyUnicode_AsEncodedString(name, "utf-8", "surrogateescape");
	list = bytes ? PyList_New(0) : NULL;
	for (uint32_t i = 0; list; i++) {
		PyObject *symbol;

		i = zd_kallsyms_find(kallsyms, PyBytes_AS_STRING(bytes), i);
		if (i == zd_kallsyms_count(kallsyms))
			break;
		symbol = symbol_tuple(kallsyms, i);
		if (!symbol || PyList_Append(list, symbol))
			Py_CLEAR(list);
		Py_XDECREF(symbol);
	}
	Py_XDECREF(bytes);
	return list;
}

static PyObject *kallsyms_at(PyObject *object, PyObject *argument)
{
	const struct zd_kallsyms *kallsyms = ((struct KallsymsObject *)object)->kallsyms;
	uint64_t address;
	uint32_t i;

	if (!to_u64(argument, &address))
		return NULL;
	i = zd_kallsyms_at(kallsyms, address);
	if (i == zd_kallsyms_count(kallsyms))
		Py_RETURN_NONE;
	return symbol_tuple(kallsyms, i);
}

static Py_ssize_t kallsyms_length(PyObject *object)
{
	return zd_kallsyms_count(((struct KallsymsObject *)object)->kallsyms);
}

static PyObject *kallsyms_item(PyObject *object, Py_ssize_t i)
{
	if (i >= 0 && i < kallsyms_length(object))
		return symbol_tuple(((struct KallsymsObject *)object)->kallsyms, i);
	PyErr_SetString(PyExc_IndexError, "there is no such symbol");
	return NULL;
}

static PyObject *kallsyms_form(PyObject *object, void *unused)
{
	struct zd_kallsyms_form form = zd_kallsyms_form(((struct KallsymsObject *)object)->kallsyms);

	(void)unused;
	return Py_BuildValue("(sNb)", form.encoding, PyBool_FromLong(form.behind), form.align);
}

static PyGetSetDef kallsyms_getters[] = {
	{ "form", kallsyms_form, NULL, "(encoding, behind, align): how the tables say where a symbol lies",
	  NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyMethodDef kallsyms_methods[] = {
	{ "find", kallsyms_find, METH_O, "find(name) -> [(name, address, size, type)]" },
	{ "at", kallsyms_at, METH_O, "at(address) -> (name, address, size, type) or None" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot kallsyms_slots[] = {
	{ Py_tp_new, kallsyms_new },
	{ Py_tp_dealloc, kallsyms_dealloc },
	{ Py_tp_methods, kallsyms_methods },
	{ Py_tp_getset, kallsyms_getters },
	{ Py_sq_length, kallsyms_length },
	{ Py_sq_item, kallsyms_item },
	{ Py_tp_doc,
	  "Kallsyms(image, address, known, word_size=8, big_endian=False): symbols in a kernel's image." },
	{ 0, NULL },
};

PyType_Spec kallsyms_spec = {
	.name = "zonedev._zonedev.Kallsyms",
	.basicsize = sizeof(struct KallsymsObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = kallsyms_slots,
};
