// SPDX-License-Identifier: LGPL-2.1-or-later
// Btf objects: types out of a kernel's or a module's BTF, as numbers and names.

#include "module.h"

static PyObject *btf_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "data", "word_size", "base", NULL };
	struct module_state *state = PyType_GetModuleState(type);
	PyObject *base = Py_None;
	struct zd_error *error;
	struct BtfObject *self;
	uint8_t word_size = 8;
	Py_buffer data;

	if (!state ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "y*|O&O:Btf", keywords, &data, to_u8, &word_size, &base))
		return NULL;
	self = NULL;
	if (base != Py_None && !PyObject_TypeCheck(base, state->btf_type))
		PyErr_SetString(PyExc_TypeError, "base is a Btf or None");
	else
		self = (struct BtfObject *)type->tp_alloc(type, 0);
	if (!self) {
		PyBuffer_Release(&data);
		return NULL;
	}
	self->base = Py_NewRef(base);
	error = zd_btf_create(data.buf, data.len, word_size,
			      base == Py_None ? NULL : ((struct BtfObject *)base)->btf, &self->btf);
	PyBuffer_Release(&data);
	if (error) {
		Py_DECREF(self);
		return set_zd_error(error);
	}
	return (PyObject *)self;
}

static void btf_dealloc(PyObject *object)
{
	struct BtfObject *self = (struct BtfObject *)object;
	PyTypeObject *type = Py_TYPE(object);

	zd_btf_destroy(self->btf);
	Py_XDECREF(self->base);
	type->tp_free(object);
	Py_DECREF(type);
}

/** Names are bytes of the dump: what is no UTF-8 is kept apart (surrogateescape), so that it can be asked for.
 */
static PyObject *text(const char *name)
{
	return PyUnicode_DecodeUTF8(name, strlen(name), "surrogateescape");
}

/** "O&" converter: an id that there is. */
static int to_id(const struct BtfObject *self, PyObject *object, uint32_t *ret)
{
	if (!to_u32(object, ret))
		return 0;
	if (*ret < zd_btf_count(self->btf))
		return 1;
	PyErr_Format(PyExc_IndexError, "there is no type %R", object);
	return 0;
}

/** The bytes of a name; NULL with an exception. */
static PyObject *name_bytes(PyObject *name)
{
	if (PyUnicode_Check(name))
		return PyUnicode_AsEncodedString(name, "utf-8", "surrogateescape");
	PyErr_SetString(PyExc_TypeError, "a name is a str");
	return NULL;
}

static PyObject *item(const struct zd_btf *btf, uint32_t id, const struct zd_btf_type *type, uint32_t i)
{
	struct zd_btf_enumerator enumerator;
	struct zd_btf_parameter parameter;
	struct zd_btf_variable variable;
	struct zd_btf_member member;

	switch (type->kind) {
	case ZD_BTF_STRUCT:
	case ZD_BTF_UNION:
		zd_btf_member(btf, id, i, &member);
		return Py_BuildValue("(NIKI)", text(member.name), member.type,
				     (unsigned long long)member.bit_offset, member.bit_size);
	case ZD_BTF_ENUM:
	case ZD_BTF_ENUM64:
		zd_btf_enumerator(btf, id, i, &enumerator);
		return Py_BuildValue(type->flag ? "(NL)" : "(NK)", text(enumerator.name),
				     (unsigned long long)enumerator.value);
	case ZD_BTF_FUNC_PROTO:
		zd_btf_parameter(btf, id, i, &parameter);
		return Py_BuildValue("(NI)", text(parameter.name), parameter.type);
	default:
		zd_btf_variable(btf, id, i, &variable);
		return Py_BuildValue("(III)", variable.type, variable.offset, variable.size);
	}
}

static PyObject *items(const struct zd_btf *btf, uint32_t id, const struct zd_btf_type *type)
{
	PyObject *list = PyList_New(type->count);

	for (uint32_t i = 0; list && i < type->count; i++) {
		PyObject *one = item(btf, id, type, i);

		if (one)
			PyList_SET_ITEM(list, i, one);
		else
			Py_CLEAR(list);
	}
	return list;
}

static PyObject *btf_type(PyObject *object, PyObject *argument)
{
	struct BtfObject *self = (struct BtfObject *)object;
	struct zd_btf_type type;
	uint32_t id;

	if (!to_id(self, argument, &id))
		return NULL;
	zd_btf_type(self->btf, id, &type);
	return Py_BuildValue("{sssNsIsIsIsbsbsbsNsN}", "kind", zd_btf_kind_names[type.kind], "name",
			     text(type.name), "size", type.size, "type", type.type, "length", type.length,
			     "encoding", type.encoding, "bits", type.bits, "bit_offset", type.bit_offset,
			     "flag", PyBool_FromLong(type.flag), "items", items(self->btf, id, &type));
}

/** A bit mask of kinds out of a sequence of their names. */
static bool to_kinds(PyObject *names, uint32_t *ret)
{
	PyObject *sequence = PySequence_Fast(names, "kinds is a sequence of names");
	bool ok = sequence;

	*ret = 0;
	for (Py_ssize_t i = 0; ok && i < PySequence_Fast_GET_SIZE(sequence); i++) {
		const char *name = PyUnicode_AsUTF8(PySequence_Fast_GET_ITEM(sequence, i));
		int kind = name ? find_name(zd_btf_kind_names, ZD_BTF_KINDS, name) : -1;

		ok = kind >= 0;
		if (ok)
			*ret |= UINT32_C(1) << kind;
		else if (name)
			PyErr_Format(PyExc_ValueError, "%s: no kind of type", name);
	}
	Py_XDECREF(sequence);
	return ok;
}

static PyObject *btf_find(PyObject *object, PyObject *args)
{
	struct BtfObject *self = (struct BtfObject *)object;
	PyObject *name, *kinds, *bytes, *list;
	uint32_t mask, id = 0;

	if (!PyArg_ParseTuple(args, "OO:find", &name, &kinds) || !to_kinds(kinds, &mask))
		return NULL;
	bytes = name_bytes(name);
	list = bytes ? PyList_New(0) : NULL;
	while (list && (id = zd_btf_find(self->btf, PyBytes_AS_STRING(bytes), mask, id))) {
		PyObject *number = PyLong_FromUnsignedLong(id);

		if (!number || PyList_Append(list, number))
			Py_CLEAR(list);
		Py_XDECREF(number);
	}
	Py_XDECREF(bytes);
	return list;
}

static PyObject *btf_member(PyObject *object, PyObject *args)
{
	struct BtfObject *self = (struct BtfObject *)object;
	PyObject *number, *name, *bytes;
	struct zd_btf_member member;
	uint32_t id;
	bool found;

	if (!PyArg_ParseTuple(args, "OO:member", &number, &name) || !to_id(self, number, &id))
		return NULL;
	bytes = name_bytes(name);
	if (!bytes)
		return NULL;
	found = zd_btf_find_member(self->btf, id, PyBytes_AS_STRING(bytes), &member);
	Py_DECREF(bytes);
	if (!found)
		Py_RETURN_NONE;
	return Py_BuildValue("(IKI)", member.type, (unsigned long long)member.bit_offset, member.bit_size);
}

static PyObject *btf_enumerator(PyObject *object, PyObject *name)
{
	struct BtfObject *self = (struct BtfObject *)object;
	PyObject *bytes = name_bytes(name);
	uint32_t id, i;

	if (!bytes)
		return NULL;
	id = zd_btf_find_enumerator(self->btf, PyBytes_AS_STRING(bytes), &i);
	Py_DECREF(bytes);
	if (!id)
		Py_RETURN_NONE;
	return Py_BuildValue("(II)", id, i);
}

static PyObject *btf_resolve(PyObject *object, PyObject *argument)
{
	struct BtfObject *self = (struct BtfObject *)object;
	uint32_t id;

	if (!to_id(self, argument, &id))
		return NULL;
	return PyLong_FromUnsignedLong(zd_btf_resolve(self->btf, id));
}

static PyObject *btf_sizeof(PyObject *object, PyObject *argument)
{
	struct BtfObject *self = (struct BtfObject *)object;
	uint32_t id;

	if (!to_id(self, argument, &id))
		return NULL;
	return PyLong_FromUnsignedLongLong(zd_btf_sizeof(self->btf, id));
}

static PyObject *btf_first(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLong(zd_btf_first(((struct BtfObject *)object)->btf));
}

static Py_ssize_t btf_length(PyObject *object)
{
	return zd_btf_count(((struct BtfObject *)object)->btf);
}

static PyObject *size_of_btf(PyObject *module, PyObject *argument)
{
	uint64_t size = 0;
	Py_buffer data;

	(void)module;
	if (PyObject_GetBuffer(argument, &data, PyBUF_SIMPLE))
		return NULL;
	if (data.len >= ZD_BTF_HEADER_SIZE)
		size = zd_btf_size(data.buf);
	PyBuffer_Release(&data);
	return PyLong_FromUnsignedLongLong(size);
}

PyMethodDef btf_functions[] = {
	{ "btf_size", size_of_btf, METH_O, "btf_size(header) -> int: bytes of BTF that begins so, 0 for none" },
	{ NULL, NULL, 0, NULL },
};

static PyMethodDef btf_methods[] = {
	{ "type", btf_type, METH_O, "type(id) -> dict: what is known of a type" },
	{ "find", btf_find, METH_VARARGS, "find(name, kinds) -> [id]: types of that name" },
	{ "member", btf_member, METH_VARARGS, "member(id, name) -> (type, bit_offset, bit_size) or None" },
	{ "enumerator", btf_enumerator, METH_O, "enumerator(name) -> (id, place) or None" },
	{ "resolve", btf_resolve, METH_O, "resolve(id) -> id: behind typedefs and qualifiers" },
	{ "sizeof", btf_sizeof, METH_O, "sizeof(id) -> int: bytes, 0 where it has no size" },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef btf_getters[] = {
	{ "first", btf_first, NULL, "the first id that is not the base's", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot btf_slots[] = {
	{ Py_tp_new, btf_new },
	{ Py_tp_dealloc, btf_dealloc },
	{ Py_tp_methods, btf_methods },
	{ Py_tp_getset, btf_getters },
	{ Py_sq_length, btf_length },
	{ Py_tp_doc,
	  "Btf(data, word_size=8, base=None): types out of BTF; len() is one more than the last id." },
	{ 0, NULL },
};

PyType_Spec btf_spec = {
	.name = "zonedev._zonedev.Btf",
	.basicsize = sizeof(struct BtfObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = btf_slots,
};
