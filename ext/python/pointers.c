// SPDX-License-Identifier: LGPL-2.1-or-later
// find_pointers(): words of a buffer that point to some struct pages.

#include "../core/pointers.h"
#include "module.h"

// Of an array that is allocated for each call.
enum { LIMIT_MAX = 1 << 20 };

static PyObject *list_of(const struct zd_pointer *array, size_t count)
{
	PyObject *list = PyList_New((Py_ssize_t)count);

	for (size_t i = 0; list && i < count; i++) {
		PyObject *item = Py_BuildValue("(KKi)", (unsigned long long)array[i].offset,
					       (unsigned long long)array[i].index, array[i].tag);

		if (item)
			PyList_SET_ITEM(list, (Py_ssize_t)i, item);
		else
			Py_CLEAR(list);
	}
	return list;
}

static PyObject *search(const struct zd_pointers *what, const Py_buffer *view, uint32_t limit)
{
	// One element more than 0: malloc(0) may be NULL.
	struct zd_pointer *array = PyMem_RawMalloc(((size_t)limit + 1) * sizeof(*array));
	struct zd_pointers_found found;
	PyObject *list;

	if (!array)
		return PyErr_NoMemory();
	Py_BEGIN_ALLOW_THREADS;
	zd_pointers_find(what, view->buf, (size_t)view->len, array, limit, &found);
	Py_END_ALLOW_THREADS;
	list = list_of(array, found.count);
	PyMem_RawFree(array);
	return list ? Py_BuildValue("(NK)", list, (unsigned long long)found.more) : NULL;
}

static PyObject *find_pointers(PyObject *module, PyObject *args)
{
	struct zd_pointers what;
	struct zd_error *error;
	PyObject *result;
	Py_buffer view;
	uint32_t limit;
	int big_endian;

	(void)module;
	if (!PyArg_ParseTuple(args, "y*O&O&O&O&pO&:find_pointers", &view, to_u64, &what.lo, to_u64, &what.hi,
			      to_u32, &what.step, to_u8, &what.word_size, &big_endian, to_u32, &limit))
		return NULL;
	what.big_endian = big_endian;
	error = zd_pointers_check(&what);
	if (error) {
		result = set_zd_error(error);
	} else if (limit > LIMIT_MAX) {
		PyErr_Format(PyExc_ValueError, "at most %d pointers are told at once", LIMIT_MAX);
		result = NULL;
	} else {
		result = search(&what, &view, limit);
	}
	PyBuffer_Release(&view);
	return result;
}

PyMethodDef pointer_functions[] = {
	{ "find_pointers", find_pointers, METH_VARARGS,
	  "find_pointers(buffer, lo, hi, step, word_size, big_endian, limit) -> (list, int)" },
	{ NULL, NULL, 0, NULL },
};
