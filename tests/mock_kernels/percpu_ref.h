/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * struct percpu_ref in its two shapes: with the count inside (before 5.10), and with the count in
 * percpu_ref_data (PERCPU_REF_DATA).
 *
 * Mirrors include/linux/percpu-refcount.h: while the per-CPU counters count, the atomic count has a bias.
 */
#ifndef MOCK_PERCPU_REF_H
#define MOCK_PERCPU_REF_H

#include "mock.h"

struct percpu_ref;
typedef void percpu_ref_func_t(struct percpu_ref *);

#ifdef PERCPU_REF_DATA
struct percpu_ref_data {
	atomic_long_t count;
	percpu_ref_func_t *release, *confirm_switch;
	bool force_atomic : 1;
	bool allow_reinit : 1;
	struct percpu_ref *ref;
};

struct percpu_ref {
	unsigned long percpu_count_ptr;
	struct percpu_ref_data *data;
};
#else
struct percpu_ref {
	atomic_long_t count;
	unsigned long percpu_count_ptr;
	percpu_ref_func_t *release, *confirm_switch;
	bool force_atomic : 1;
};
#endif

enum ref_state { REF_LIVE, REF_DYING };

enum { REF_ATOMIC = 1, REF_DEAD = 2 };

#define REF_BIAS (1UL << 63)

/* A function that is called when a reference is gone; that it has this name is all that matters. */
#define DEFINE_REF_RELEASE(name)                                                                               \
	static void name(struct percpu_ref *ref)                                                               \
	{                                                                                                      \
		ref->percpu_count_ptr = 0;                                                                     \
	}

static unsigned long percpu_used;

/* A live reference of some value: what one CPU took, another gave back. */
static unsigned long percpu_counters(long value)
{
	unsigned long at = percpu_used;

	percpu_used += sizeof(long);
	*(long *)(percpu_area[0] + at) = value - 1 + 1000;
	*(long *)(percpu_area[1] + at) = -1000;
	return PERCPU_BASE + at;
}

static void ref_init(struct percpu_ref *ref, percpu_ref_func_t *release, enum ref_state state, long value)
{
	unsigned long count = state == REF_LIVE ? REF_BIAS + 1 : (unsigned long)value;

	ref->percpu_count_ptr = percpu_counters(value) | (state == REF_LIVE ? 0 : REF_ATOMIC | REF_DEAD);
#ifdef PERCPU_REF_DATA
	ref->data = NEW(struct percpu_ref_data);
	ref->data->count.counter = (long)count;
	ref->data->release = K(release);
	ref->data->ref = K(ref);
	ref->data = K(ref->data);
#else
	ref->count.counter = (long)count;
	ref->release = K(release);
#endif
}

#endif
