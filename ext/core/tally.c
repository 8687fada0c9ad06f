// SPDX-License-Identifier: LGPL-2.1-or-later
// The books of one scan: pages per class, heads per refcount, findings as runs.
// Bounded: distinct refcounts and runs have limits, and what finds no room is counted.

#include <stdlib.h>
#include <string.h>

#include "util.h"
#include "zonedev.h"

const char *const zd_class_names[ZD_CLASSES] = {
	[ZD_IDLE] = "idle",
	[ZD_BUSY] = "busy",
	[ZD_VIOLATION] = "violation",
	[ZD_NOT_CAPTURED] = "not-captured",
	[ZD_UNREADABLE] = "unreadable",
	[ZD_SKIPPED] = "skipped",
};

const char *const zd_severity_names[ZD_SEVERITIES] = {
	[ZD_INFO] = "info",
	[ZD_WARNING] = "warning",
	[ZD_ERROR] = "error",
};

void zd_tally_deinit(struct zd_tally *tally)
{
	free(tally->refcounts);
	free(tally->findings);
	memset(tally, 0, sizeof(*tally));
}

/** Make room for one more element; the array doubles. */
static struct zd_error *reserve(void **array, size_t *capacity, size_t count, size_t size)
{
	size_t wanted = *capacity ? *capacity * 2 : 16;
	void *grown;

	if (count < *capacity)
		return NULL;
	grown = realloc(*array, wanted * size);
	if (!grown)
		return zd_error_no_memory();
	*array = grown;
	*capacity = wanted;
	return NULL;
}

static bool is_refcount_below(const void *element, const void *key)
{
	return ((const struct zd_refcount *)element)->refcount < *(const int32_t *)key;
}

struct zd_error *zd_tally_add_refcount(struct zd_tally *tally, int32_t refcount, uint64_t heads)
{
	size_t i = zd_lower_bound(tally->refcounts, tally->refcounts_count, sizeof(*tally->refcounts),
				  &refcount, is_refcount_below);
	struct zd_error *error;

	if (i < tally->refcounts_count && tally->refcounts[i].refcount == refcount) {
		tally->refcounts[i].heads += heads;
		return NULL;
	}
	if (tally->refcounts_count == ZD_REFCOUNTS_MAX) {
		tally->refcounts_other += heads;
		return NULL;
	}
	error = reserve((void **)&tally->refcounts, &tally->refcounts_capacity, tally->refcounts_count,
			sizeof(*tally->refcounts));
	if (error)
		return error;
	memmove(&tally->refcounts[i + 1], &tally->refcounts[i],
		(tally->refcounts_count - i) * sizeof(*tally->refcounts));
	tally->refcounts[i] = (struct zd_refcount){ refcount, heads };
	tally->refcounts_count++;
	return NULL;
}

static uint64_t folio_pages(const struct zd_finding *finding)
{
	return finding->order > ZD_ORDER_MAX ? 1 : UINT64_C(1) << finding->order;
}

/** True where the index of @next goes on as the run's does: constant, or counting pages of a file. */
static bool index_continues(const struct zd_finding *run, const struct zd_finding *next)
{
	if (run->count == 1)
		return next->index == run->index || next->index == run->index + folio_pages(run);
	return next->index == run->index + run->count * run->index_step;
}

/** True where @next is the folio behind @run and looks the same. */
static bool continues(const struct zd_finding *run, const struct zd_finding *next)
{
	return next->rule == run->rule && next->severity == run->severity &&
	       zd_rule_set_equal(&next->also, &run->also) && next->order == run->order &&
	       next->pfn == run->pfn + run->count * folio_pages(run) && next->refcount == run->refcount &&
	       next->mapcount == run->mapcount && next->mapping == run->mapping && next->flags == run->flags &&
	       next->expected == run->expected && index_continues(run, next);
}

/** Runs that findings of a severity may fill: information leaves room for warnings, these for errors. */
static size_t room_for(uint8_t severity)
{
	static const size_t room[ZD_SEVERITIES] = {
		[ZD_INFO] = ZD_FINDINGS_MAX / 2,
		[ZD_WARNING] = ZD_FINDINGS_MAX / 4 * 3,
		[ZD_ERROR] = ZD_FINDINGS_MAX,
	};

	return room[severity];
}

struct zd_error *zd_tally_add_finding(struct zd_tally *tally, const struct zd_finding *finding, bool merge)
{
	struct zd_finding *last = tally->findings_count ? &tally->findings[tally->findings_count - 1] : NULL;
	struct zd_error *error;

	if ((merge || finding->severity == ZD_INFO) && last && continues(last, finding)) {
		last->index_step = (finding->index - last->index) / last->count;
		last->count++;
		last->pages += finding->pages;
		return NULL;
	}
	if (tally->findings_count >= room_for(finding->severity)) {
		tally->findings_dropped++;
		return NULL;
	}
	error = reserve((void **)&tally->findings, &tally->findings_capacity, tally->findings_count,
			sizeof(*tally->findings));
	if (error)
		return error;
	tally->findings[tally->findings_count++] = *finding;
	return NULL;
}

/** True where a run of findings goes on with the next tally's first one. */
static bool goes_on(const struct zd_tally *tally, const struct zd_finding *next, bool merge)
{
	return (merge || next->severity == ZD_INFO) && tally->findings_count &&
	       continues(&tally->findings[tally->findings_count - 1], next);
}

/** What the index of @last grows by if @next goes on with it. */
static uint64_t step_to(const struct zd_finding *last, const struct zd_finding *next)
{
	return (next->index - last->index) / last->count;
}

bool zd_tally_can_join(const struct zd_tally *tally, const struct zd_tally *part, bool merge)
{
	const struct zd_finding *first = part->findings;

	// Which refcounts find room is a matter of which come first.
	if (part->refcounts_other || (tally->refcounts_count < ZD_REFCOUNTS_MAX &&
				      tally->refcounts_count + part->refcounts_count > ZD_REFCOUNTS_MAX))
		return false;
	// A run whose first folio belongs to the one before, and the others do not.
	return !part->findings_count || first->count == 1 || !goes_on(tally, first, merge) ||
	       first->index_step == step_to(&tally->findings[tally->findings_count - 1], first);
}

/** Append a run; one that finds no room would not have become one. */
static struct zd_error *append_run(struct zd_tally *tally, const struct zd_finding *run)
{
	struct zd_error *error;

	if (tally->findings_count >= room_for(run->severity)) {
		tally->findings_dropped += run->count;
		return NULL;
	}
	error = reserve((void **)&tally->findings, &tally->findings_capacity, tally->findings_count,
			sizeof(*tally->findings));
	if (!error)
		tally->findings[tally->findings_count++] = *run;
	return error;
}

static struct zd_error *join_findings(struct zd_tally *tally, const struct zd_tally *part, bool merge)
{
	struct zd_error *error = NULL;
	size_t i = 0;

	if (part->findings_count && goes_on(tally, part->findings, merge)) {
		struct zd_finding *last = &tally->findings[tally->findings_count - 1];

		last->index_step = step_to(last, part->findings);
		last->count += part->findings[0].count;
		last->pages += part->findings[0].pages;
		i = 1;
	}
	for (; !error && i < part->findings_count; i++)
		error = append_run(tally, &part->findings[i]);
	tally->findings_dropped += part->findings_dropped;
	return error;
}

static void add_counts(uint64_t *counts, const uint64_t *more, size_t count)
{
	for (size_t i = 0; i < count; i++)
		counts[i] += more[i];
}

struct zd_error *zd_tally_join(struct zd_tally *tally, const struct zd_tally *part, bool merge)
{
	struct zd_error *error = NULL;

	add_counts(tally->classes, part->classes, ZD_CLASSES);
	add_counts(tally->severities, part->severities, ZD_SEVERITIES);
	add_counts(tally->idle_looking, part->idle_looking, 3);
	add_counts(tally->driver_data, part->driver_data, 2);
	tally->refcounts_other += part->refcounts_other;
	tally->pages_referenced += part->pages_referenced;
	tally->heads_above_idle += part->heads_above_idle;
	tally->pages_mapped += part->pages_mapped;
	for (size_t i = 0; !error && i < part->refcounts_count; i++)
		error = zd_tally_add_refcount(tally, part->refcounts[i].refcount, part->refcounts[i].heads);
	return error ? error : join_findings(tally, part, merge);
}
