// SPDX-License-Identifier: LGPL-2.1-or-later
// The core's tables as Python data: rules, schemes, probes; and one struct page decoded.

#include "module.h"

static PyObject *name_list(const char *const *names, int count, uint64_t mask)
{
	PyObject *list = PyList_New(0);

	for (int i = 0; list && i < count; i++) {
		PyObject *name;

		if (!(mask >> i & 1))
			continue;
		name = PyUnicode_FromString(names[i]);
		if (!name || PyList_Append(list, name))
			Py_CLEAR(list);
		Py_XDECREF(name);
	}
	return list;
}

static PyObject *scheme_name_list(uint64_t mask)
{
	const char *names[ZD_SCHEMES];

	scheme_names(names);
	return name_list(names, ZD_SCHEMES, mask);
}

static PyObject *rule_dict(const struct zd_rule *rule)
{
	static const char *const scopes[] = { "head", "tail", "page", "pagemap" };
	PyObject *dict = PyDict_New();

	if (!dict)
		return NULL;
	if (put(dict, "id", PyUnicode_FromString(rule->id)) ||
	    put(dict, "number", PyUnicode_FromString(rule->number)) ||
	    put(dict, "scope", PyUnicode_FromString(scopes[rule->scope])) ||
	    put(dict, "severity", PyUnicode_FromString(zd_severity_names[rule->severity])) ||
	    put(dict, "evidence", PyUnicode_FromString(zd_evidence_names[rule->evidence])) ||
	    put(dict, "severity_unproven",
		PyUnicode_FromString(
			zd_severity_names[rule->evidence ? rule->severity_unproven : rule->severity])) ||
	    put(dict, "types", name_list(zd_type_names, ZD_TYPES, rule->types)) ||
	    put(dict, "schemes", scheme_name_list(rule->schemes)) ||
	    put(dict, "needs", name_list(zd_member_names, ZD_MEMBERS, rule->needs)) ||
	    put(dict, "requires_evidence",
		PyBool_FromLong(!!(rule->needs & (ZD_NEEDS_ENTRIES | ZD_NEEDS_DRIVER)))) ||
	    put(dict, "calibrated", PyBool_FromLong(rule->calibrated)) ||
	    put(dict, "predicate", PyUnicode_FromString(rule->predicate_text)) ||
	    put(dict, "meaning", PyUnicode_FromString(rule->meaning)) ||
	    put(dict, "bug_class", PyUnicode_FromString(rule->bug_class)) ||
	    put(dict, "near_miss", PyUnicode_FromString(rule->near_miss)))
		Py_CLEAR(dict);
	return dict;
}

static PyObject *rules(PyObject *module, PyObject *unused)
{
	PyObject *list = PyList_New(zd_rules_count);

	(void)module;
	(void)unused;
	for (size_t i = 0; list && i < zd_rules_count; i++) {
		PyObject *rule = rule_dict(&zd_rules[i]);

		if (!rule)
			Py_CLEAR(list);
		else
			PyList_SET_ITEM(list, i, rule);
	}
	return list;
}

static PyObject *why_not(PyObject *module, PyObject *args)
{
	struct module_state *state = state_of(module);
	struct LayoutObject *layout;
	struct SchemeObject *scheme;
	PyObject *list;

	if (!PyArg_ParseTuple(args, "O!O!:why_not", state->layout_type, &layout, state->scheme_type, &scheme))
		return NULL;
	list = PyList_New(zd_rules_count);
	for (size_t i = 0; list && i < zd_rules_count; i++) {
		const char *why = zd_rule_why_not(&zd_rules[i], &layout->layout, &scheme->scheme);
		PyObject *item = why ? PyUnicode_FromString(why) : Py_NewRef(Py_None);

		if (!item)
			Py_CLEAR(list);
		else
			PyList_SET_ITEM(list, i, item);
	}
	return list;
}

static PyObject *probes(PyObject *module, PyObject *unused)
{
	static const char *const kinds[] = { "member", "symbol", "function", "enumerator" };
	PyObject *list = PyList_New(ZD_PROBES);

	(void)module;
	(void)unused;
	for (int i = 0; list && i < ZD_PROBES; i++) {
		PyObject *probe = Py_BuildValue("(ss)", zd_probes[i].name, kinds[zd_probes[i].kind]);

		if (!probe)
			Py_CLEAR(list);
		else
			PyList_SET_ITEM(list, i, probe);
	}
	return list;
}

static PyObject *folio_dict(const struct zd_folio *folio, enum zd_pattern pattern)
{
	static const char *const patterns[] = { "data", "zero", "poison" };
	PyObject *dict = PyDict_New();

	if (!dict)
		return NULL;
	if (put(dict, "pfn", PyLong_FromUnsignedLongLong(folio->pfn)) ||
	    put(dict, "pattern", PyUnicode_FromString(patterns[pattern])) ||
	    put(dict, "tail", PyBool_FromLong(folio->tail)) ||
	    put(dict, "head_pfn",
		folio->tail && folio->head_valid ? PyLong_FromUnsignedLongLong(folio->head_pfn)
						 : Py_NewRef(Py_None)) ||
	    put(dict, "partial", PyBool_FromLong(folio->partial)) ||
	    put(dict, "order", PyLong_FromLong(folio->order)) ||
	    put(dict, "flags", PyLong_FromUnsignedLongLong(folio->flags)) ||
	    put(dict, "word1", PyLong_FromUnsignedLongLong(folio->word1)) ||
	    put(dict, "mapping", PyLong_FromUnsignedLongLong(folio->mapping)) ||
	    put(dict, "index", PyLong_FromUnsignedLongLong(folio->index)) ||
	    put(dict, "share", PyLong_FromUnsignedLongLong(folio->share)) ||
	    put(dict, "zone_device_data", PyLong_FromUnsignedLongLong(folio->zone_device_data)) ||
	    put(dict, "memcg_data", PyLong_FromUnsignedLongLong(folio->memcg_data)) ||
	    put(dict, "refcount", PyLong_FromLong(folio->refcount)) ||
	    put(dict, "raw_mapcount", PyLong_FromLong(folio->raw_mapcount)) ||
	    put(dict, "mapcount", PyLong_FromLongLong(folio->mapcount)) ||
	    put(dict, "has_type", PyBool_FromLong(folio->has_type)) ||
	    put(dict, "pincount", PyLong_FromLongLong(folio->pincount)) ||
	    put(dict, "zone", PyLong_FromUnsignedLong(folio->zone)) ||
	    put(dict, "node", PyLong_FromUnsignedLong(folio->node)) ||
	    put(dict, "base", PyLong_FromLong(folio->base)) ||
	    put(dict, "extra", PyLong_FromLongLong(folio->extra)) ||
	    put(dict, "plain", PyLong_FromLongLong(folio->plain)) ||
	    put(dict, "pin", PyLong_FromLongLong(folio->pin)))
		Py_CLEAR(dict);
	return dict;
}

static PyObject *decode(PyObject *module, PyObject *args)
{
	struct module_state *state = state_of(module);
	struct LayoutObject *layout;
	struct SchemeObject *scheme;
	struct zd_pagemap pagemap;
	struct zd_range range = { 0 };
	struct zd_folio folio;
	PyObject *result = NULL;
	Py_buffer view;
	uint64_t pfn;

	if (!PyArg_ParseTuple(args, "O!O!O&(O&O&O&)O&y*:decode", state->layout_type, &layout,
			      state->scheme_type, &scheme, to_pagemap, &pagemap, to_u64, &range.start_pfn,
			      to_u64, &range.end_pfn, to_u64, &range.memmap, to_u64, &pfn, &view))
		return NULL;
	if ((size_t)view.len < layout->layout.page_size || pfn < range.start_pfn || pfn >= range.end_pfn) {
		PyErr_SetString(PyExc_ValueError, "decode: the pfn or the buffer lies outside of the range");
	} else {
		size_t available = view.len / layout->layout.page_size;

		zd_folio_decode(&layout->layout, &scheme->scheme, &pagemap, &range, pfn, view.buf, available,
				&folio);
		result = folio_dict(&folio, zd_page_pattern(&layout->layout, view.buf));
	}
	PyBuffer_Release(&view);
	return result;
}

static PyObject *flags_of(PyObject *module, PyObject *args)
{
	struct module_state *state = state_of(module);
	struct LayoutObject *layout;
	PyObject *result;
	Py_buffer view;

	if (!PyArg_ParseTuple(args, "O!y*:flags_of", state->layout_type, &layout, &view))
		return NULL;
	result = PyList_New(0);
	for (Py_ssize_t i = 0; result && i + layout->layout.page_size <= view.len;
	     i += layout->layout.page_size) {
		PyObject *flags = PyLong_FromUnsignedLongLong(
			zd_load(&layout->layout, (const uint8_t *)view.buf + i, ZD_FLAGS));

		if (!flags || PyList_Append(result, flags))
			Py_CLEAR(result);
		Py_XDECREF(flags);
	}
	PyBuffer_Release(&view);
	return result;
}

PyMethodDef table_methods[] = {
	{ "rules", rules, METH_NOARGS, "rules() -> list of dicts: the rows in their order" },
	{ "why_not", why_not, METH_VARARGS,
	  "why_not(layout, scheme) -> list: per row None, or why it is not applicable" },
	{ "probes", probes, METH_NOARGS, "probes() -> list of (name, kind): what Scheme() asks a kernel for" },
	{ "decode", decode, METH_VARARGS,
	  "decode(layout, scheme, pagemap, (start_pfn, end_pfn, memmap), pfn, buffer) -> dict: one struct "
	  "page" },
	{ "flags_of", flags_of, METH_VARARGS, "flags_of(layout, buffer) -> list of int: the flags words" },
	{ NULL, NULL, 0, NULL },
};
