// SPDX-License-Identifier: LGPL-2.1-or-later
// PageBits objects: what drivers say of their pages.  Memory comes through a Python callable, so the GIL
// is held throughout; the object refuses calls from within that callable, and changes while a Scan uses it.

#include "module.h"

static PyObject *bits_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "layout", "read", NULL };
	struct module_state *state = PyType_GetModuleState(type);
	struct LayoutObject *layout;
	struct PageBitsObject *self;
	struct zd_error *error;
	PyObject *read;

	if (!state || !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:PageBits", keywords, state->layout_type,
						   &layout, &read))
		return NULL;
	self = (struct PageBitsObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->read = Py_NewRef(read);
	error = zd_page_bits_init(&self->bits, &layout->layout);
	if (error) {
		Py_DECREF(self);
		return set_zd_error(error);
	}
	return (PyObject *)self;
}

static void bits_dealloc(PyObject *object)
{
	struct PageBitsObject *self = (struct PageBitsObject *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	zd_page_bits_deinit(&self->bits);
	Py_CLEAR(self->read);
	type->tp_free(object);
	Py_DECREF(type);
}

static PyObject *bits_range(PyObject *object, PyObject *args)
{
	struct PageBitsObject *self = (struct PageBitsObject *)object;
	struct zd_range range;
	struct zd_error *error;

	if (walker_in_use(self, true) || !PyArg_ParseTuple(args, "O&O&O&:range", to_u64, &range.start_pfn,
							   to_u64, &range.end_pfn, to_u64, &range.memmap))
		return NULL;
	error = zd_page_bits_add_range(&self->bits, &range);
	if (error)
		return set_zd_error(error);
	Py_RETURN_NONE;
}

static PyObject *bits_set(PyObject *object, PyObject *args)
{
	struct PageBitsObject *self = (struct PageBitsObject *)object;
	uint64_t pfn, count;
	Py_buffer view;

	if (walker_in_use(self, true) ||
	    !PyArg_ParseTuple(args, "O&y*O&:set", to_u64, &pfn, &view, to_u64, &count))
		return NULL;
	if (count > (uint64_t)view.len * 8 || pfn + count < pfn) {
		PyBuffer_Release(&view);
		PyErr_SetString(PyExc_ValueError, "the buffer does not hold so many bits");
		return NULL;
	}
	zd_page_bits_set(&self->bits, pfn, view.buf, count);
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

static PyObject *bits_walk(PyObject *object, PyObject *argument)
{
	struct PageBitsObject *self = (struct PageBitsObject *)object;
	struct zd_memory memory = { read_memory, self->read };
	struct zd_chain chain;
	uint64_t head;

	if (walker_in_use(self, true) || !to_u64(argument, &head))
		return NULL;
	self->busy = true;
	zd_page_bits_walk(&self->bits, &memory, head, &chain);
	self->busy = false;
	if (PyErr_Occurred())
		return NULL;
	return Py_BuildValue("{sKszsK}", "pages", (unsigned long long)chain.pages, "why", chain.why, "link",
			     (unsigned long long)chain.link);
}

static PyObject *bits_test(PyObject *object, PyObject *argument)
{
	struct PageBitsObject *self = (struct PageBitsObject *)object;
	uint64_t pfn;

	if (walker_in_use(self, false) || !to_u64(argument, &pfn))
		return NULL;
	if (!zd_page_bits_has(&self->bits, pfn))
		Py_RETURN_NONE;
	return PyBool_FromLong(zd_page_bits_test(&self->bits, pfn));
}

static PyObject *bits_count(PyObject *object, PyObject *unused)
{
	struct PageBitsObject *self = (struct PageBitsObject *)object;

	(void)unused;
	return walker_in_use(self, false) ? NULL : PyLong_FromUnsignedLongLong(self->bits.set);
}

static PyMethodDef bits_methods[] = {
	{ "range", bits_range, METH_VARARGS, "range(start_pfn, end_pfn, memmap): a range of pages" },
	{ "set", bits_set, METH_VARARGS, "set(pfn, bitmap, count): the bits of pages, lowest first" },
	{ "walk", bits_walk, METH_O, "walk(head) -> dict: set the bits of the pages of a list" },
	{ "test", bits_test, METH_O, "test(pfn) -> bool or None: a page's bit" },
	{ "count", bits_count, METH_NOARGS, "count() -> int: bits that are set" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot bits_slots[] = {
	{ Py_tp_new, bits_new },
	{ Py_tp_dealloc, bits_dealloc },
	{ Py_tp_traverse, walker_traverse },
	{ Py_tp_clear, walker_clear },
	{ Py_tp_methods, bits_methods },
	{ Py_tp_doc, "PageBits(layout, read): one bit per page, what its driver says of it." },
	{ 0, NULL },
};

PyType_Spec bits_spec = {
	.name = "zonedev._zonedev.PageBits",
	.basicsize = sizeof(struct PageBitsObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = bits_slots,
};
