// SPDX-License-Identifier: LGPL-2.1-or-later
// Entries objects: the files' view of FS_DAX pages.  Memory comes through a Python callable, so the
// GIL is held throughout; the object refuses calls from within that callable, and changes while a Scan
// uses it.

#include "../core/util.h"
#include "module.h"

enum { LISTED_MAX = 1 << 24 };

static PyObject *entries_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = { "layout", "scheme", "read", "node", "space", "inode", NULL };
	struct module_state *state = PyType_GetModuleState(type);
	struct zd_space_layout space;
	struct zd_inode_layout inode;
	struct zd_xa_layout xa = { 0 };
	struct LayoutObject *layout;
	struct SchemeObject *scheme;
	struct EntriesObject *self;
	struct zd_error *error;
	PyObject *read;

	if (!state ||
	    !PyArg_ParseTupleAndKeywords(
		    args, kwargs, "O!O!O$(O&O&O&O&O&O&O&O&)(O&O&O&O&O&)(O&O&O&O&):Entries", keywords,
		    state->layout_type, &layout, state->scheme_type, &scheme, &read, to_u16, &xa.node_size,
		    to_u16, &xa.slot_count, to_u16, &xa.shift, to_u16, &xa.offset, to_u16, &xa.count, to_u16,
		    &xa.parent, to_u16, &xa.array, to_u16, &xa.slots, to_u16, &space.size, to_u16, &space.host,
		    to_u16, &space.xarray, to_u16, &space.xa_head, to_u16, &space.lock, to_u16, &inode.size,
		    to_u16, &inode.sb_list, to_u16, &inode.mapping, to_u16, &inode.flags))
		return NULL;
	xa.word_size = layout->layout.word_size;
	xa.big_endian = layout->layout.big_endian;
	self = (struct EntriesObject *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	self->read = Py_NewRef(read);
	self->inode = inode;
	error = zd_entries_init(&self->entries, &layout->layout, scheme->scheme.shared, &xa, &space);
	if (error) {
		Py_DECREF(self);
		return set_zd_error(error);
	}
	return (PyObject *)self;
}

static void entries_dealloc(PyObject *object)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	PyTypeObject *type = Py_TYPE(object);

	PyObject_GC_UnTrack(object);
	zd_entries_deinit(&self->entries);
	Py_CLEAR(self->read);
	type->tp_free(object);
	Py_DECREF(type);
}

/** NULL where the walk left an exception or an error. */
static bool failed(struct zd_error *error)
{
	if (PyErr_Occurred()) {
		zd_error_destroy(error);
		return true;
	}
	if (error)
		set_zd_error(error);
	return error;
}

static PyObject *file_dict(const struct zd_file_tally *tally)
{
	const struct zd_xa_walk *walk = &tally->walk;

	return Py_BuildValue("{sKsKsKsKsKsKsKsKsNsNsKsKsKsKsz}", "entries", tally->entries, "pages",
			     tally->pages, "pmd", tally->pmd, "zero", tally->zero, "empty", tally->empty,
			     "locked", tally->locked, "outside", tally->outside, "misplaced", tally->misplaced,
			     "flux", PyBool_FromLong(tally->flux), "no_space", PyBool_FromLong(tally->no_space),
			     "nodes", walk->nodes, "unreadable", walk->unreadable, "corrupt", walk->corrupt,
			     "bad_node", walk->bad_node, "why", walk->why);
}

static PyObject *entries_range(PyObject *object, PyObject *args)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	struct zd_range range;

	if (walker_in_use(self, true) || !PyArg_ParseTuple(args, "O&O&O&:range", to_u64, &range.start_pfn,
							   to_u64, &range.end_pfn, to_u64, &range.memmap))
		return NULL;
	return none_or_error(zd_entries_add_range(&self->entries, &range));
}

static PyObject *entries_add(PyObject *object, PyObject *argument)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	const struct zd_memory memory = { read_memory, self->read };
	struct zd_file_tally tally;
	struct zd_error *error;
	uint64_t mapping;

	if (walker_in_use(self, true) || !to_u64(argument, &mapping))
		return NULL;
	self->busy = true;
	error = zd_entries_add_file(&self->entries, &memory, mapping, &tally);
	self->busy = false;
	return failed(error) ? NULL : file_dict(&tally);
}

/** (index, pfn, order, flags) of an entry. */
static PyObject *entry_tuple(const struct zd_dax_entry *entry)
{
	char flags[5] = { 0 };
	size_t i = 0;

	if (entry->locked)
		flags[i++] = 'L';
	if (entry->pmd)
		flags[i++] = 'P';
	if (entry->zero)
		flags[i++] = 'Z';
	if (entry->empty)
		flags[i++] = 'E';
	return Py_BuildValue("(KKbs)", entry->index, entry->pfn, entry->order, flags);
}

/** Append to a list of bounded length, taking the reference of @item (NULL: an exception is set). */
static struct zd_error *append_new(PyObject *list, PyObject *item)
{
	struct zd_error *error = NULL;

	if (PyList_GET_SIZE(list) >= LISTED_MAX)
		error = zd_error_create(ZD_ERROR_INVALID, "more than %d entries or inodes", LISTED_MAX);
	else if (!item || PyList_Append(list, item))
		error = zd_error_no_memory();
	Py_XDECREF(item);
	return error;
}

struct listing {
	PyObject *list;
	const uint64_t *pfns; /* sorted; NULL: all entries */
	Py_ssize_t pfn_count;
};

static bool is_pfn_below(const void *element, const void *key)
{
	return *(const uint64_t *)element < *(const uint64_t *)key;
}

/** True where one of the wanted pfns lies in the entry. */
static bool is_wanted(const struct listing *listing, const struct zd_dax_entry *entry)
{
	Py_ssize_t i;

	if (!listing->pfns)
		return true;
	if (entry->zero || entry->empty)
		return false;
	i = zd_lower_bound(listing->pfns, listing->pfn_count, sizeof(*listing->pfns), &entry->pfn,
			   is_pfn_below);
	return i < listing->pfn_count && (listing->pfns[i] - entry->pfn) >> entry->order == 0;
}

static struct zd_error *append_entry(void *context, const struct zd_dax_entry *entry)
{
	struct listing *listing = context;

	return is_wanted(listing, entry) ? append_new(listing->list, entry_tuple(entry)) : NULL;
}

static int compare_pfns(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/** A sorted array of a sequence of pfns, for PyMem_Free(). */
static uint64_t *sorted_pfns(PyObject *pfns, Py_ssize_t *count)
{
	PyObject *sequence = PySequence_Fast(pfns, "pfns is a sequence");
	uint64_t *array;

	if (!sequence)
		return NULL;
	*count = PySequence_Fast_GET_SIZE(sequence);
	array = PyMem_Calloc(*count ? *count : 1, sizeof(*array));
	if (!array)
		PyErr_NoMemory();
	for (Py_ssize_t i = 0; array && i < *count; i++) {
		if (!to_u64(PySequence_Fast_GET_ITEM(sequence, i), &array[i])) {
			PyMem_Free(array);
			array = NULL;
		}
	}
	Py_DECREF(sequence);
	if (array)
		qsort(array, *count, sizeof(*array), compare_pfns);
	return array;
}

static PyObject *entries_of(PyObject *object, PyObject *args)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	const struct zd_memory memory = { read_memory, self->read };
	struct listing listing = { NULL, NULL, 0 };
	PyObject *pfns = Py_None, *result = NULL;
	struct zd_file_tally tally;
	uint64_t *sorted = NULL;
	struct zd_error *error;
	uint64_t mapping;

	if (walker_in_use(self, false) || !PyArg_ParseTuple(args, "O&|O:of", to_u64, &mapping, &pfns))
		return NULL;
	if (pfns != Py_None) {
		sorted = sorted_pfns(pfns, &listing.pfn_count);
		if (!sorted)
			return NULL;
		listing.pfns = sorted;
	}
	listing.list = PyList_New(0);
	if (listing.list) {
		self->busy = true;
		error = zd_entries_walk_file(&self->entries, &memory, mapping, append_entry, &listing, &tally);
		self->busy = false;
		if (!failed(error))
			result = Py_BuildValue("(ON)", listing.list, file_dict(&tally));
	}
	Py_XDECREF(listing.list);
	PyMem_Free(sorted);
	return result;
}

static struct zd_error *append_inode(void *context, uint64_t inode, uint64_t mapping)
{
	return append_new(context,
			  Py_BuildValue("(KK)", (unsigned long long)inode, (unsigned long long)mapping));
}

static PyObject *entries_inodes(PyObject *object, PyObject *argument)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	const struct zd_memory memory = { read_memory, self->read };
	PyObject *list, *result = NULL;
	struct zd_inode_walk walk;
	struct zd_error *error;
	uint64_t head;

	if (walker_in_use(self, false) || !to_u64(argument, &head))
		return NULL;
	list = PyList_New(0);
	if (!list)
		return NULL;
	self->busy = true;
	error = zd_inodes_walk(&self->entries.xa, &self->inode, &memory, head, append_inode, list, &walk);
	self->busy = false;
	if (!failed(error))
		result = Py_BuildValue("(O{sKsKsKsz})", list, "inodes", walk.inodes, "dax", walk.dax,
				       "bad_node", walk.bad_node, "why", walk.why);
	Py_DECREF(list);
	return result;
}

static PyObject *kept_list(const struct zd_kept *kept)
{
	size_t count = kept->count < ZD_ENTRIES_KEPT ? kept->count : ZD_ENTRIES_KEPT;
	PyObject *list = PyList_New(0);

	for (size_t i = 0; list && i < count; i++) {
		PyObject *pair = Py_BuildValue("(KN)", (unsigned long long)kept->entries[i].mapping,
					       entry_tuple(&kept->entries[i].entry));

		if (!pair || PyList_Append(list, pair))
			Py_CLEAR(list);
		Py_XDECREF(pair);
	}
	return list;
}

static PyObject *entries_kept(PyObject *object, PyObject *unused)
{
	struct EntriesObject *self = (struct EntriesObject *)object;

	(void)unused;
	if (walker_in_use(self, false))
		return NULL;
	return Py_BuildValue("{sNsn sNsn}", "locked", kept_list(&self->entries.locked), "locked_count",
			     (Py_ssize_t)self->entries.locked.count, "outside",
			     kept_list(&self->entries.outside), "outside_count",
			     (Py_ssize_t)self->entries.outside.count);
}

static PyObject *entries_lock_is(PyObject *object, PyObject *args)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	uint64_t pfn, pages;
	int stuck;

	if (walker_in_use(self, true) ||
	    !PyArg_ParseTuple(args, "O&O&p:lock_is", to_u64, &pfn, to_u64, &pages, &stuck))
		return NULL;
	zd_entries_judge_lock(&self->entries, pfn, pages, stuck);
	Py_RETURN_NONE;
}

static PyObject *entries_know(PyObject *object, PyObject *args)
{
	static const char *const names[] = { "plain", "unknown", "no-file" };
	struct EntriesObject *self = (struct EntriesObject *)object;
	uint64_t mapping;
	const char *name;
	int kind;

	if (walker_in_use(self, true) || !PyArg_ParseTuple(args, "O&s:know", to_u64, &mapping, &name))
		return NULL;
	kind = find_name(names, 3, name);
	if (kind < 0)
		return PyErr_Format(PyExc_ValueError, "%s: no kind of mapping", name);
	return none_or_error(zd_entries_know(&self->entries, mapping, kind));
}

/** Say the same of every range. */
static struct zd_error *set_all_complete(struct zd_entries *entries, bool complete)
{
	struct zd_error *error = NULL;

	for (size_t i = 0; i < entries->marks_count && !error; i++)
		error = zd_entries_set_complete(entries, entries->marks[i].range.start_pfn, complete);
	return error;
}

static PyObject *entries_complete(PyObject *object, PyObject *args)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	PyObject *pfn_object = Py_None;
	struct zd_error *error;
	uint64_t pfn;
	int complete;

	if (walker_in_use(self, true) || !PyArg_ParseTuple(args, "p|O:complete", &complete, &pfn_object) ||
	    (pfn_object != Py_None && !to_u64(pfn_object, &pfn)))
		return NULL;
	error = pfn_object == Py_None ? set_all_complete(&self->entries, complete)
				      : zd_entries_set_complete(&self->entries, pfn, complete);
	if (error)
		return set_zd_error(error);
	Py_RETURN_NONE;
}

static PyObject *entries_clear(PyObject *object, PyObject *unused)
{
	struct EntriesObject *self = (struct EntriesObject *)object;

	(void)unused;
	if (walker_in_use(self, true))
		return NULL;
	zd_entries_clear(&self->entries);
	Py_RETURN_NONE;
}

static PyObject *entries_mark(PyObject *object, PyObject *argument)
{
	struct EntriesObject *self = (struct EntriesObject *)object;
	const uint8_t *marks;
	uint64_t pfn, run;
	bool known;

	if (walker_in_use(self, false) || !to_u64(argument, &pfn))
		return NULL;
	marks = zd_entries_marks(&self->entries, pfn, &run, &known);
	if (!known)
		Py_RETURN_NONE;
	return Py_BuildValue("{sisNsNsNsNsN}", "count", marks ? *marks & ZD_MARK_COUNT : 0, "match",
			     PyBool_FromLong(marks && *marks & ZD_MARK_MATCH), "pmd",
			     PyBool_FromLong(marks && *marks & ZD_MARK_PMD), "locked",
			     PyBool_FromLong(marks && *marks & ZD_MARK_LOCKED), "flux",
			     PyBool_FromLong(marks && *marks & ZD_MARK_FLUX), "stuck",
			     PyBool_FromLong(marks && *marks & ZD_MARK_STUCK));
}

static PyMethodDef entries_methods[] = {
	{ "range", entries_range, METH_VARARGS, "range(start_pfn, end_pfn, memmap): a range of FS_DAX pages" },
	{ "inodes", entries_inodes, METH_O,
	  "inodes(head) -> ([(inode, mapping)], dict): DAX inodes of a list" },
	{ "add", entries_add, METH_O, "add(mapping) -> dict: mark the pages of a file's entries" },
	{ "of", entries_of, METH_VARARGS,
	  "of(mapping, pfns=None) -> ([(index, pfn, order, flags)], dict): the entries of a file" },
	{ "kept", entries_kept, METH_NOARGS,
	  "kept() -> dict: locked entries, and those outside of all ranges" },
	{ "lock_is", entries_lock_is, METH_VARARGS, "lock_is(pfn, pages, stuck): what was found of a lock" },
	{ "know", entries_know, METH_VARARGS, "know(mapping, kind): plain, unknown or no-file" },
	{ "complete", entries_complete, METH_VARARGS,
	  "complete(bool, pfn=None): whether every file was read whole that may lie in a range, or in any" },
	{ "clear", entries_clear, METH_NOARGS, "clear(): forget all entries" },
	{ "mark", entries_mark, METH_O, "mark(pfn) -> dict or None: what the files say of a page" },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot entries_slots[] = {
	{ Py_tp_new, entries_new },
	{ Py_tp_dealloc, entries_dealloc },
	{ Py_tp_traverse, walker_traverse },
	{ Py_tp_clear, walker_clear },
	{ Py_tp_methods, entries_methods },
	{ Py_tp_doc, "Entries(layout, scheme, read, *, node, space, inode): the files' view of FS_DAX pages." },
	{ 0, NULL },
};

PyType_Spec entries_spec = {
	.name = "zonedev._zonedev.Entries",
	.basicsize = sizeof(struct EntriesObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = entries_slots,
};
