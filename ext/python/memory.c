// SPDX-License-Identifier: LGPL-2.1-or-later
// Memory objects: the physical memory of a dump that a descriptor is open on.  Scan.read() reads it (scan.c).

#include "module.h"

#include <unistd.h>

#include "../readers/memory.h"

static PyObject *memory_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "fd", NULL };
	struct MemoryObject *self;
	struct zd_error *error;
	int fd;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i:Memory", keywords, &fd))
		return NULL;
	self = (struct MemoryObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->fd = dup(fd);
	if (self->fd < 0) {
		Py_DECREF(self);
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	Py_BEGIN_ALLOW_THREADS;
	error = zd_memory_open(self->fd, &self->memory);
	Py_END_ALLOW_THREADS;
	if (!error)
		return (PyObject *)self;
	Py_DECREF(self);
	return set_zd_error(error);
}

static void memory_dealloc(PyObject *object)
{
	struct MemoryObject *self = (struct MemoryObject *)object;
	PyTypeObject *type = Py_TYPE(object);

	zd_memory_destroy(self->memory);
	if (self->fd >= 0)
		close(self->fd);
	type->tp_free(object);
	Py_DECREF(type);
}

static PyObject *memory_format(PyObject *object, void *unused)
{
	(void)unused;
	return PyUnicode_FromString(zd_memory_format(((struct MemoryObject *)object)->memory));
}

static PyObject *memory_has_virtual(PyObject *object, PyObject *args)
{
	uint64_t start, end;

	if (!PyArg_ParseTuple(args, "O&O&:has_virtual", to_u64, &start, to_u64, &end))
		return NULL;
	return PyBool_FromLong(zd_memory_has_virtual(((struct MemoryObject *)object)->memory, start, end));
}

/** The bytes of a frame, None for one that is absent; ValueError. */
static PyObject *frame_bytes(uint8_t state, const uint8_t *bytes)
{
	if (state == ZD_MEMORY_DATA)
		return PyBytes_FromStringAndSize((const char *)bytes, ZD_FRAME);
	if (state == ZD_MEMORY_ABSENT)
		Py_RETURN_NONE;
	PyErr_SetString(PyExc_ValueError, "what the dump has of this frame is not certain");
	return NULL;
}

static PyObject *memory_frame(PyObject *object, PyObject *argument)
{
	struct MemoryObject *self = (struct MemoryObject *)object;
	uint8_t bytes[ZD_FRAME], state = ZD_MEMORY_UNSURE;
	struct zd_cursor *cursor;
	struct zd_error *error;
	uint64_t address;

	if (!to_u64(argument, &address))
		return NULL;
	error = zd_cursor_create(self->memory, &cursor);
	if (error)
		return set_zd_error(error);
	if (address % ZD_FRAME == 0)
		zd_cursor_load(cursor, &address, 1, bytes, &state);
	zd_cursor_destroy(cursor);
	return frame_bytes(state, bytes);
}

static PyGetSetDef memory_properties[] = {
	{ "format", memory_format, NULL, "elf or kdump", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyMethodDef memory_methods[] = {
	{ "has_virtual", memory_has_virtual, METH_VARARGS,
	  "has_virtual(start, end) -> bool: the file says what lies at some of these virtual addresses" },
	{ "frame", memory_frame, METH_O, "frame(address) -> bytes, or None where the dump has not the frame" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot memory_slots[] = {
	{ Py_tp_new, memory_new },
	{ Py_tp_dealloc, memory_dealloc },
	{ Py_tp_methods, memory_methods },
	{ Py_tp_getset, memory_properties },
	{ Py_tp_doc, "Memory(fd): the physical memory of a dump." },
	{ 0, NULL },
};

PyType_Spec memory_spec = {
	.name = "zonedev._zonedev.Memory",
	.basicsize = sizeof(struct MemoryObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = memory_slots,
};

PyObject *memory_method_names(void)
{
	const char *names[16];
	int count = 0;

	while (count < 16 && (names[count] = zd_memory_method(count)))
		count++;
	return names_tuple(names, count);
}
