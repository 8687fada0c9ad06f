/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Rows: the pagemaps of an era, the states of their struct pages, and what an audit must say of each.
 *
 * A row of states[] says what the pages hold and, stated by hand from the scheme's definition, their class
 * and the rule that must name them.  Rows whose severity is warning or error are filled into the "broken"
 * variant only; in the "healthy" one those pages rest.
 */
#ifndef MOCK_STATES_H
#define MOCK_STATES_H

#include "mock.h"
#include "percpu_ref.h"

enum mapping { M_NULL, M_FILE, M_ANON, M_SHARED, M_POISON };

/* What the books of a driver (drivers.h) call a page: what its counters say, or something else. */
enum books { BOOKS_RIGHT, BOOKS_FREE, BOOKS_USED };

enum variant { HEALTHY, BROKEN };

static enum variant variant;

/* A pagemap.  idle: the refcount that its pages rest at. */
struct device {
	const char *name;
	const char *type; /* as reports name it */
	int kernel_type;
	unsigned long pfn, pages, reserve;
	unsigned int shift;
	int idle;
	enum ref_state ref_state;
	/* What every resting page yields: class and (info) rule. */
	const char *rest_class, *rest_rule;
	/* "broken" only: added to dev_pagemap.ref; killed, and its pages at rest put to 0; what must be found.
	 */
	long ref_error;
	bool dies;
	const char *pagemap_rule, *pagemap_severity;
	/* Made here: */
	void *pgmap;
	struct page *memmap;
	long ref;
};

#define DEVICE(name_, type_, pfn_, pages_)                                                                     \
	.name = name_, .type = "MEMORY_DEVICE_" #type_, .pfn = pfn_, .pages = pages_
/* Where the kernel's name of the type is the reports'. */
#define TYPED_DEVICE(name_, type_, pfn_, pages_)                                                               \
	DEVICE(name_, type_, pfn_, pages_), .kernel_type = MEMORY_DEVICE_##type_
#define PAGEMAP_WARNING(id) .pagemap_rule = id, .pagemap_severity = "warning"
#define PAGEMAP_ERROR(id) .pagemap_rule = id, .pagemap_severity = "error"

static unsigned long end_pfn(const struct device *device)
{
	return device->pfn + device->pages;
}

static struct resource device_resource(const struct device *device)
{
	return (struct resource){ .start = device->pfn << 12, .end = (end_pfn(device) << 12) - 1 };
}

struct state {
	int device;
	unsigned long at, count; /* pages, from the device's first */
	unsigned int order;
	int refcount, maps;
	enum mapping mapping;
	unsigned long index;
	unsigned long set, clear; /* masks of flags */
	u64 pgmap;		  /* 0: its own */
	int tail_refcount;	  /* of the folio's third page */
	bool broken_only;	  /* legal, but not in the healthy variant */
	enum books books;
	const char *class, *rule, *severity, *why;
};

#define INFO(id) .rule = id, .severity = "info"
#define WARNING(id) .rule = id, .severity = "warning"
/* A page with an error is in no other class. */
#define ERROR(id) .class = "violation", .rule = id, .severity = "error"

#endif
