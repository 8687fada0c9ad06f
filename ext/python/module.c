// SPDX-License-Identifier: LGPL-2.1-or-later
// The extension module zonedev._zonedev: types, functions and constants, nothing else.
// The binding parses, calls the core once and converts; its contract is _zonedev.pyi.

#include "module.h"

struct module_state *state_of(PyObject *module)
{
	return PyModule_GetState(module);
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **ret)
{
	*ret = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
	return *ret ? PyModule_AddType(module, *ret) : -1;
}

static PyObject *scheme_letters(void)
{
	const char *names[ZD_SCHEMES];

	scheme_names(names);
	return names_tuple(names, ZD_SCHEMES);
}

static int add_object(PyObject *module, const char *name, PyObject *object)
{
	int result = object ? PyModule_AddObjectRef(module, name, object) : -1;

	Py_XDECREF(object);
	return result;
}

static int module_exec(PyObject *module)
{
	struct module_state *state = state_of(module);

	if (add_type(module, &layout_spec, &state->layout_type) ||
	    add_type(module, &scheme_spec, &state->scheme_type) ||
	    add_type(module, &scan_spec, &state->scan_type) ||
	    add_type(module, &entries_spec, &state->entries_type) ||
	    add_type(module, &bits_spec, &state->bits_type) || add_type(module, &btf_spec, &state->btf_type) ||
	    add_type(module, &kallsyms_spec, &state->kallsyms_type) ||
	    add_type(module, &memory_spec, &state->memory_type) ||
	    PyModule_AddFunctions(module, table_methods) || PyModule_AddFunctions(module, inspect_methods) ||
	    PyModule_AddFunctions(module, btf_functions) || PyModule_AddFunctions(module, pointer_functions) ||
	    add_object(module, "TYPES", names_tuple(zd_type_names, ZD_TYPES)) ||
	    add_object(module, "CLASSES", names_tuple(zd_class_names, ZD_CLASSES)) ||
	    add_object(module, "SEVERITIES", names_tuple(zd_severity_names, ZD_SEVERITIES)) ||
	    add_object(module, "SCHEMES", scheme_letters()) ||
	    add_object(module, "MEMBERS", names_tuple(zd_member_names, ZD_MEMBERS)) ||
	    add_object(module, "METHODS", memory_method_names()) ||
	    add_object(module, "FLAGS", names_tuple(zd_flag_names, ZD_FLAG_COUNT)))
		return -1;
	return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct module_state *state = state_of(module);

	Py_VISIT(state->layout_type);
	Py_VISIT(state->scheme_type);
	Py_VISIT(state->scan_type);
	Py_VISIT(state->entries_type);
	Py_VISIT(state->btf_type);
	Py_VISIT(state->kallsyms_type);
	Py_VISIT(state->bits_type);
	Py_VISIT(state->memory_type);
	return 0;
}

static int module_clear(PyObject *module)
{
	struct module_state *state = state_of(module);

	Py_CLEAR(state->layout_type);
	Py_CLEAR(state->scheme_type);
	Py_CLEAR(state->scan_type);
	Py_CLEAR(state->entries_type);
	Py_CLEAR(state->btf_type);
	Py_CLEAR(state->kallsyms_type);
	Py_CLEAR(state->bits_type);
	Py_CLEAR(state->memory_type);
	return 0;
}

static PyModuleDef_Slot module_slots[] = {
	{ Py_mod_exec, module_exec },
	{ 0, NULL },
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "zonedev._zonedev",
	.m_doc = "The C core of zonedev: decode, schemes, rules, scan.",
	.m_size = sizeof(struct module_state),
	.m_slots = module_slots,
	.m_traverse = module_traverse,
	.m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__zonedev(void)
{
	return PyModuleDef_Init(&module_def);
}
