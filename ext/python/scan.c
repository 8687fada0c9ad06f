// SPDX-License-Identifier: LGPL-2.1-or-later
// Scan objects: one walk over the struct pages of a pagemap.  Bytes come in as buffers; they
// are decoded with the GIL released, so a Scan refuses to be used by two threads at once.

#include "module.h"

#include "../readers/bulk.h"

struct ScanObject {
	PyObject_HEAD struct zd_scan scan;
	struct LayoutObject *layout;
	struct SchemeObject *scheme;
	struct EntriesObject *entries;		   /* NULL: none */
	struct PageBitsObject *allocated, *listed; /* NULL: none */
	bool busy;
	uint64_t absent; /* pages of holes that read() has found */
};

/** "O&" converter: an object of the type or None (NULL) that nobody walks. */
struct walker_argument {
	PyTypeObject *type;
	void *walker;
};

static int to_walker(PyObject *object, void *ret)
{
	struct walker_argument *argument = ret;

	if (object == Py_None)
		return 1;
	if (!PyObject_TypeCheck(object, argument->type)) {
		PyErr_Format(PyExc_TypeError, "neither %s nor None", argument->type->tp_name);
		return 0;
	}
	argument->walker = object;
	return !walker_in_use(object, false);
}

static PyObject *scan_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "layout",  "scheme",    "pagemap", "merge", "fast",
				    "entries", "allocated", "listed",  NULL };
	struct module_state *state = PyType_GetModuleState(type);
	struct walker_argument entries = { NULL, NULL }, allocated = entries, listed = entries;
	struct zd_pagemap pagemap;
	struct LayoutObject *layout;
	struct SchemeObject *scheme;
	struct ScanObject *self;
	struct zd_error *error;
	int merge = 1, fast = 1;

	if (!state)
		return NULL;
	entries.type = state->entries_type;
	allocated.type = listed.type = state->bits_type;
	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O&|ppO&O&O&:Scan", keywords, state->layout_type,
					 &layout, state->scheme_type, &scheme, to_pagemap, &pagemap, &merge,
					 &fast, to_walker, &entries, to_walker, &allocated, to_walker, &listed))
		return NULL;
	self = (struct ScanObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	Py_INCREF(layout);
	Py_INCREF(scheme);
	self->layout = layout;
	self->scheme = scheme;
	error = zd_scan_init(&self->scan, &layout->layout, &scheme->scheme, &pagemap, merge, fast);
	if (error) {
		Py_DECREF(self);
		return set_zd_error(error);
	}
	self->entries = walker_hold(entries.walker);
	self->allocated = walker_hold(allocated.walker);
	self->listed = walker_hold(listed.walker);
	if (self->entries)
		zd_scan_set_entries(&self->scan, &self->entries->entries);
	zd_scan_set_driver(&self->scan, self->allocated ? &self->allocated->bits : NULL,
			   self->listed ? &self->listed->bits : NULL);
	return (PyObject *)self;
}

static void scan_dealloc(PyObject *object)
{
	struct ScanObject *self = (struct ScanObject *)object;
	PyTypeObject *type = Py_TYPE(object);

	zd_scan_deinit(&self->scan);
	Py_XDECREF(self->layout);
	Py_XDECREF(self->scheme);
	walker_release(self->entries);
	walker_release(self->allocated);
	walker_release(self->listed);
	type->tp_free(object);
	Py_DECREF(type);
}

/** True (with an exception) while another thread is inside the scan. */
static bool in_use(const struct ScanObject *self)
{
	if (self->busy)
		PyErr_SetString(PyExc_RuntimeError, "this scan is in use by another thread");
	return self->busy;
}

static PyObject *scan_begin(PyObject *object, PyObject *args)
{
	struct ScanObject *self = (struct ScanObject *)object;
	struct zd_range range = { 0 };

	if (in_use(self) || !PyArg_ParseTuple(args, "O&O&O&|O&:begin", to_u64, &range.start_pfn, to_u64,
					      &range.end_pfn, to_u64, &range.memmap, to_u64, &range.index_bias))
		return NULL;
	return none_or_error(zd_scan_begin(&self->scan, &range));
}

static PyObject *scan_count_cells(PyObject *object, PyObject *args)
{
	struct ScanObject *self = (struct ScanObject *)object;
	uint64_t start_pfn, end_pfn;
	uint8_t shift;

	if (in_use(self) ||
	    !PyArg_ParseTuple(args, "O&O&O&:count_cells", to_u64, &start_pfn, to_u64, &end_pfn, to_u8, &shift))
		return NULL;
	return none_or_error(zd_scan_count_cells(&self->scan, start_pfn, end_pfn, shift));
}

static PyObject *scan_cells(PyObject *object, PyObject *unused)
{
	struct ScanObject *self = (struct ScanObject *)object;
	const struct zd_cells *cells = &self->scan.cells;

	(void)unused;
	return in_use(self) ? NULL
			    : PyBytes_FromStringAndSize((const char *)cells->classes,
							cells->count * sizeof(*cells->classes));
}

static PyObject *scan_pages(PyObject *object, PyObject *buffer)
{
	struct ScanObject *self = (struct ScanObject *)object;
	uint32_t size = self->layout->layout.page_size;
	struct zd_error *error;
	Py_buffer view;

	if (in_use(self) || PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE))
		return NULL;
	if (view.len % size) {
		PyBuffer_Release(&view);
		PyErr_SetString(PyExc_ValueError, "the buffer does not hold whole struct pages");
		return NULL;
	}
	self->busy = true;
	Py_BEGIN_ALLOW_THREADS error = zd_scan_pages(&self->scan, view.buf, view.len / size);
	Py_END_ALLOW_THREADS self->busy = false;
	PyBuffer_Release(&view);
	return none_or_error(error);
}

static PyObject *scan_hole(PyObject *object, PyObject *args)
{
	struct ScanObject *self = (struct ScanObject *)object;
	enum zd_class class;
	uint64_t count;

	if (in_use(self) || !PyArg_ParseTuple(args, "O&O&:hole", to_u64, &count, to_class, &class))
		return NULL;
	return none_or_error(zd_scan_hole(&self->scan, count, class));
}

/** What a poll of read() needs. */
struct reading {
	PyThreadState *thread;
	PyObject *progress; /* NULL: none */
	uint64_t told;
};

/** Tell of the progress, and look for signals; false with an exception where one came. */
static bool go_on(void *context, uint64_t pages)
{
	struct reading *reading = context;
	PyObject *result;
	bool good;

	PyEval_RestoreThread(reading->thread);
	good = !PyErr_CheckSignals();
	if (good && reading->progress && pages > reading->told) {
		result = PyObject_CallFunction(reading->progress, "K",
					       (unsigned long long)(pages - reading->told));
		good = result;
		Py_XDECREF(result);
		reading->told = pages;
	}
	reading->thread = PyEval_SaveThread();
	return good;
}

static PyObject *read_bulk(struct ScanObject *self, struct zd_bulk *bulk, PyObject *progress)
{
	struct reading reading = { .progress = progress == Py_None ? NULL : progress };
	uint64_t first = self->scan.next_pfn, absent;
	struct zd_error *error;

	bulk->poll = go_on;
	bulk->context = &reading;
	self->busy = true;
	reading.thread = PyEval_SaveThread();
	error = zd_bulk_scan(bulk, &self->scan, &absent);
	PyEval_RestoreThread(reading.thread);
	self->busy = false;
	self->absent += absent;
	if (PyErr_Occurred()) {
		zd_error_destroy(error);
		return NULL;
	}
	return error ? set_zd_error(error)
		     : PyLong_FromUnsignedLongLong(self->scan.next_pfn - first - reading.told);
}

static PyObject *scan_read(PyObject *object, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "memory", "root", "levels", "threads", "holes", "progress", NULL };
	struct ScanObject *self = (struct ScanObject *)object;
	struct module_state *state = PyType_GetModuleState(Py_TYPE(object));
	struct MemoryObject *memory;
	PyObject *progress = Py_None, *result;
	struct zd_bulk bulk = { 0 };
	int holes = 0;

	if (!state || in_use(self) ||
	    !PyArg_ParseTupleAndKeywords(args, kwargs, "O!O&O&O&|pO:read", keywords, state->memory_type,
					 &memory, to_u64, &bulk.root, to_u32, &bulk.levels, to_u32,
					 &bulk.threads, &holes, &progress))
		return NULL;
	bulk.memory = memory->memory;
	bulk.absent_is_hole = holes;
	Py_INCREF(memory);
	result = read_bulk(self, &bulk, progress);
	Py_DECREF(memory);
	return result;
}

static PyObject *scan_absent(PyObject *object, PyObject *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(((struct ScanObject *)object)->absent);
}

static PyObject *scan_end(PyObject *object, PyObject *unused)
{
	struct ScanObject *self = (struct ScanObject *)object;

	(void)unused;
	return in_use(self) ? NULL : none_or_error(zd_scan_end(&self->scan));
}

static PyObject *counts_dict(const char *const *names, const uint64_t *counts, int count)
{
	PyObject *dict = PyDict_New();

	for (int i = 0; dict && i < count; i++) {
		if (put(dict, names[i], PyLong_FromUnsignedLongLong(counts[i])))
			Py_CLEAR(dict);
	}
	return dict;
}

static PyObject *refcounts_dict(const struct zd_tally *tally)
{
	PyObject *dict = PyDict_New();

	for (size_t i = 0; dict && i < tally->refcounts_count; i++) {
		PyObject *key = PyLong_FromLong(tally->refcounts[i].refcount);
		PyObject *value = PyLong_FromUnsignedLongLong(tally->refcounts[i].heads);

		if (!key || !value || PyDict_SetItem(dict, key, value))
			Py_CLEAR(dict);
		Py_XDECREF(key);
		Py_XDECREF(value);
	}
	return dict;
}

static PyObject *findings_list(const struct zd_tally *tally, uint32_t page_size)
{
	PyObject *list = PyList_New(tally->findings_count);

	for (size_t i = 0; list && i < tally->findings_count; i++) {
		PyObject *finding = finding_dict(&tally->findings[i], page_size);

		if (!finding)
			Py_CLEAR(list);
		else
			PyList_SET_ITEM(list, i, finding);
	}
	return list;
}

static PyObject *scan_left(PyObject *object, PyObject *unused)
{
	struct ScanObject *self = (struct ScanObject *)object;

	(void)unused;
	return in_use(self) ? NULL
			    : PyLong_FromUnsignedLongLong(self->scan.range.end_pfn - self->scan.next_pfn);
}

static PyObject *scan_classes(PyObject *object, PyObject *unused)
{
	struct ScanObject *self = (struct ScanObject *)object;

	(void)unused;
	return in_use(self) ? NULL : counts_dict(zd_class_names, self->scan.tally.classes, ZD_CLASSES);
}

static PyObject *scan_result(PyObject *object, PyObject *unused)
{
	static const char *const idle_names[] = { "0", "1", "other" };
	static const char *const data_names[] = { "missing", "set" };
	struct ScanObject *self = (struct ScanObject *)object;
	const struct zd_tally *tally = &self->scan.tally;
	PyObject *dict;

	(void)unused;
	if (in_use(self))
		return NULL;
	dict = PyDict_New();
	if (!dict)
		return NULL;
	if (put(dict, "classes", counts_dict(zd_class_names, tally->classes, ZD_CLASSES)) ||
	    put(dict, "severities", counts_dict(zd_severity_names, tally->severities, ZD_SEVERITIES)) ||
	    put(dict, "refcounts", refcounts_dict(tally)) ||
	    put(dict, "refcounts_other", PyLong_FromUnsignedLongLong(tally->refcounts_other)) ||
	    put(dict, "idle_looking", counts_dict(idle_names, tally->idle_looking, 3)) ||
	    put(dict, "driver_data", counts_dict(data_names, tally->driver_data, 2)) ||
	    put(dict, "pages_referenced", PyLong_FromUnsignedLongLong(tally->pages_referenced)) ||
	    put(dict, "heads_above_idle", PyLong_FromUnsignedLongLong(tally->heads_above_idle)) ||
	    put(dict, "pages_mapped", PyLong_FromUnsignedLongLong(tally->pages_mapped)) ||
	    put(dict, "findings", findings_list(tally, self->layout->layout.page_size)) ||
	    put(dict, "findings_dropped", PyLong_FromUnsignedLongLong(tally->findings_dropped)))
		Py_CLEAR(dict);
	return dict;
}

static PyMethodDef scan_methods[] = {
	{ "begin", scan_begin, METH_VARARGS,
	  "begin(start_pfn, end_pfn, memmap, index_bias=0): the next range" },
	{ "count_cells", scan_count_cells, METH_VARARGS,
	  "count_cells(start_pfn, end_pfn, shift): right after begin(): count classes by place, too" },
	{ "cells", scan_cells, METH_NOARGS, "cells() -> bytes: pages per cell and class, after end()" },
	{ "pages", scan_pages, METH_O, "pages(buffer): the next struct pages; releases the GIL" },
	{ "read", (PyCFunction)(void (*)(void))scan_read, METH_VARARGS | METH_KEYWORDS,
	  "read(memory, root, levels, threads, holes=False, progress=None) -> int: go on with a dump's "
	  "memory" },
	{ "absent", scan_absent, METH_NOARGS, "absent() -> int: pages of holes that read() has found" },
	{ "hole", scan_hole, METH_VARARGS, "hole(count, class): pages that could not be had" },
	{ "end", scan_end, METH_NOARGS, "end(): the range is done; ValueError when pages are missing" },
	{ "left", scan_left, METH_NOARGS, "left() -> int: pages of the range that are still missing" },
	{ "classes", scan_classes, METH_NOARGS, "classes() -> dict: pages per class so far" },
	{ "result", scan_result, METH_NOARGS, "result() -> dict: the tally so far" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot scan_slots[] = {
	{ Py_tp_new, scan_new },
	{ Py_tp_dealloc, scan_dealloc },
	{ Py_tp_methods, scan_methods },
	{ Py_tp_doc,
	  "Scan(layout, scheme, pagemap, merge=True, fast=True, entries=None, allocated=None, listed=None): a "
	  "walk over one pagemap." },
	{ 0, NULL },
};

PyType_Spec scan_spec = {
	.name = "zonedev._zonedev.Scan",
	.basicsize = sizeof(struct ScanObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = scan_slots,
};
