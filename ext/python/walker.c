// SPDX-License-Identifier: LGPL-2.1-or-later
// Objects that walk memory through a Python callable: the GIL is held throughout, calls from within that
// callable are refused, and so are changes while a Scan uses the object.

#include "module.h"

int walker_traverse(PyObject *object, visitproc visit, void *arg)
{
	Py_VISIT(((struct WalkerObject *)object)->read);
	Py_VISIT(Py_TYPE(object));
	return 0;
}

int walker_clear(PyObject *object)
{
	Py_CLEAR(((struct WalkerObject *)object)->read);
	return 0;
}

bool walker_in_use(void *walker, bool change)
{
	const struct WalkerObject *self = walker;

	if (self->busy)
		PyErr_Format(PyExc_RuntimeError, "this %s object is being walked", Py_TYPE(self)->tp_name);
	else if (change && self->scans)
		PyErr_Format(PyExc_RuntimeError, "this %s object is in use by a scan", Py_TYPE(self)->tp_name);
	else
		return false;
	return true;
}

void *walker_hold(void *walker)
{
	if (walker)
		((struct WalkerObject *)Py_NewRef(walker))->scans++;
	return walker;
}

void walker_release(void *walker)
{
	if (walker)
		((struct WalkerObject *)walker)->scans--;
	Py_XDECREF(walker);
}

enum zd_read read_memory(void *context, uint64_t address, void *buffer, size_t size)
{
	PyObject *bytes = PyObject_CallFunction(context, "Kn", (unsigned long long)address, (Py_ssize_t)size);
	enum zd_read result = ZD_READ_FAULT;

	if (!bytes)
		return ZD_READ_STOP;
	if (PyBytes_Check(bytes) && PyBytes_GET_SIZE(bytes) == (Py_ssize_t)size) {
		memcpy(buffer, PyBytes_AS_STRING(bytes), size);
		result = ZD_READ_DONE;
	} else if (bytes != Py_None) {
		PyErr_SetString(PyExc_TypeError, "read() gives as many bytes as it is asked for, or None");
		result = ZD_READ_STOP;
	}
	Py_DECREF(bytes);
	return result;
}
