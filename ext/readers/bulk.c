// SPDX-License-Identifier: LGPL-2.1-or-later
// The threads of zd_bulk_scan(), and what each does with a chunk of the vmemmap.
//
// A range is divided into parts at fixed addresses.  Each thread takes the next part and scans it by itself;
// parts are joined to the scan in their order.  One that turns out to depend on what lies before it (a folio
// reaches into it, say) is scanned once more, by the scan itself.  No more than a few parts wait for those
// before them.

#include "bulk.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	FRAMES = ZD_CHUNK / ZD_FRAME,
	LEVELS_MAX = 5,
	TABLE_BITS = 9,
	FRAME_BITS = 12,
	PRESENT = 1 << 0,
	LARGE = 1 << 7,
	WAITING_MAX = 2 * ZD_THREADS_MAX,
	POLL_NS = 50 * 1000 * 1000,
};

// Bits of an entry that are an address.
#define ADDRESS_MASK UINT64_C(0xffffffffff000)

/** A part of the range on its way. */
struct part {
	struct zd_scan scan;
	struct zd_error *error;
	uint64_t absent;
	bool begun, done;
};

struct job {
	const struct zd_bulk *bulk;
	struct zd_scan *scan;
	struct zd_scan model; /* the scan as it was: what parts are forked from while others are joined */
	uint64_t first_pfn, parts_count;
	bool direct; /* one thread: no parts */
	pthread_mutex_t lock;
	pthread_cond_t joined_more, finished;
	// All under the lock but stop and position, which are read without.
	uint64_t next, joined;
	unsigned int running;
	bool joining, ended, stop;
	uint64_t position;
	uint64_t absent;
	struct zd_error *error;
	struct part parts[WAITING_MAX];
};

struct worker {
	struct job *job;
	struct zd_cursor *data, *tables;
	/** The page table of each level that was looked at last, and where it lies. */
	uint64_t table[LEVELS_MAX][ZD_FRAME / 8];
	uint64_t table_at[LEVELS_MAX];
	bool table_valid[LEVELS_MAX];
	uint64_t frames[FRAMES];
	uint8_t states[FRAMES];
	/** The last frame of the chunk before, then those of this one. */
	uint8_t bytes[(1 + FRAMES) * ZD_FRAME];
};

// ---------------------------------------------------------------- translation

static bool load_table(struct worker *worker, unsigned int level, uint64_t at)
{
	uint8_t state;

	if (worker->table_valid[level] && worker->table_at[level] == at)
		return true;
	zd_cursor_forget(worker->tables);
	zd_cursor_load(worker->tables, &at, 1, (uint8_t *)worker->table[level], &state);
	worker->table_at[level] = at;
	worker->table_valid[level] = state == ZD_MEMORY_DATA;
	return worker->table_valid[level];
}

/**
 * The frame that an address, which begins a page, is mapped to, and in @left how many bytes from it on; false
 * where that is not certain.
 */
static bool translate(struct worker *worker, uint64_t address, uint64_t *ret, uint64_t *left)
{
	uint64_t at = worker->job->bulk->root;

	for (unsigned int level = worker->job->bulk->levels; level--;) {
		unsigned int shift = FRAME_BITS + TABLE_BITS * level;
		uint64_t entry, below = (UINT64_C(1) << shift) - 1;

		if (!load_table(worker, level, at))
			return false;
		entry = worker->table[level][address >> shift & ((1 << TABLE_BITS) - 1)];
		if (!(entry & PRESENT))
			return false;
		at = entry & ADDRESS_MASK;
		if (level && !(entry & LARGE))
			continue;
		*ret = (at & ~below) | (address & below);
		*left = below + 1 - (address & below);
		// Pages of 4 KiB, 2 MiB and 1 GiB.
		return level <= 2;
	}
	return false;
}

/** The frames that pages from @address on are mapped to. */
static bool translate_chunk(struct worker *worker, uint64_t address, size_t count)
{
	uint64_t frame, left;
	size_t i = 0;

	while (i < count) {
		if (!translate(worker, address + i * ZD_FRAME, &frame, &left))
			return false;
		for (; left && i < count; left -= ZD_FRAME, frame += ZD_FRAME)
			worker->frames[i++] = frame;
	}
	return true;
}

// ---------------------------------------------------------------- one chunk

/** Frames of a chunk: @count struct pages from the next one of the scan on. */
struct chunk {
	struct zd_scan *scan;
	uint64_t count;
	size_t frames;
	uint64_t per_frame;
};

static uint8_t *place(struct worker *worker, size_t i)
{
	return worker->bytes + (1 + i) * ZD_FRAME;
}

/** Struct pages in the frames [first, end) of the chunk. */
static uint64_t pages_of(const struct chunk *chunk, size_t first, size_t end)
{
	uint64_t last = end * chunk->per_frame;

	return (last < chunk->count ? last : chunk->count) - first * chunk->per_frame;
}

/** Where the bytes of a frame are: its own place, or that of the last one before it that is not the same. */
static const uint8_t *bytes_of(struct worker *worker, size_t i)
{
	while (worker->states[i] == ZD_MEMORY_SAME) {
		if (!i--)
			return worker->bytes;
	}
	return place(worker, i);
}

/** Put the bytes of a frame to its place, too. */
static void copy_to_place(struct worker *worker, size_t i)
{
	if (worker->states[i] == ZD_MEMORY_SAME)
		memcpy(place(worker, i), bytes_of(worker, i), ZD_FRAME);
}

/** Where a run of frames of one state ends. */
static size_t run_end(const struct worker *worker, const struct chunk *chunk, size_t i)
{
	size_t end = i + 1;

	while (end < chunk->frames && worker->states[end] == worker->states[i])
		end++;
	return end;
}

/** Give the scan frames that repeat the one before @first; returns how many it took without decoding. */
static struct zd_error *give_same(struct worker *worker, const struct chunk *chunk, size_t first, size_t end,
				  size_t *ret)
{
	struct zd_error *error;
	uint64_t pages, whole = pages_of(chunk, first, end) / chunk->per_frame;

	error = zd_scan_repeat(chunk->scan, bytes_of(worker, first), chunk->per_frame, whole, &pages);
	*ret = pages / chunk->per_frame;
	return error;
}

/** Give the scan a chunk that is all there. */
static struct zd_error *give_whole(struct worker *worker, const struct chunk *chunk)
{
	struct zd_error *error = NULL;
	size_t end, i = 0, taken;

	while (!error && i < chunk->frames) {
		end = run_end(worker, chunk, i);
		if (worker->states[i] == ZD_MEMORY_SAME) {
			error = give_same(worker, chunk, i, end, &taken);
			i += taken;
			if (error || i == end)
				continue;
			copy_to_place(worker, i);
			worker->states[i] = ZD_MEMORY_DATA;
			end = i + 1;
		}
		// A head's own words may lie in the struct pages behind it.
		if (end < chunk->frames)
			copy_to_place(worker, end);
		error = zd_scan_pages_ahead(chunk->scan, place(worker, i), pages_of(chunk, i, end),
					    pages_of(chunk, i, end < chunk->frames ? end + 1 : chunk->frames));
		i = end;
	}
	return error;
}

/** Give the scan a chunk frame by frame. */
static struct zd_error *give_frames(struct worker *worker, const struct chunk *chunk, uint64_t *absent)
{
	struct zd_error *error = NULL;

	for (size_t i = 0; !error && i < chunk->frames; i++) {
		uint64_t pages = pages_of(chunk, i, i + 1);

		if (worker->states[i] == ZD_MEMORY_ABSENT) {
			error = zd_scan_hole(chunk->scan, pages, ZD_NOT_CAPTURED);
			*absent += pages;
		} else {
			error = zd_scan_pages(chunk->scan, bytes_of(worker, i), pages);
		}
	}
	return error;
}

/** Find the frames with the bytes of the one before: what was judged once need not be looked at word by word.
 */
static void find_same(struct worker *worker, const struct chunk *chunk)
{
	const uint8_t *last = worker->bytes;

	for (size_t i = 0; i < chunk->frames; i++) {
		if (worker->states[i] == ZD_MEMORY_SAME)
			continue;
		if (!memcmp(place(worker, i), last, ZD_FRAME))
			worker->states[i] = ZD_MEMORY_SAME;
		else
			last = place(worker, i);
	}
}

/** Keep the last frame, which the first one of the next chunk may repeat. */
static void keep_last(struct worker *worker, const struct chunk *chunk)
{
	size_t last = chunk->frames - 1;
	const uint8_t *bytes;

	if (worker->states[last] > ZD_MEMORY_SAME)
		return;
	bytes = bytes_of(worker, last);
	if (bytes != worker->bytes)
		memcpy(worker->bytes, bytes, ZD_FRAME);
}

/** The next chunk up to @end_pfn; the scan does not move where anything is unsure. */
static struct zd_error *scan_chunk(struct worker *worker, struct zd_scan *scan, uint64_t end_pfn,
				   uint64_t *absent)
{
	const struct zd_bulk *bulk = worker->job->bulk;
	uint64_t size = scan->layout->page_size;
	uint64_t address = scan->range.memmap + (scan->next_pfn - scan->range.start_pfn) * size;
	struct chunk chunk = { .scan = scan, .per_frame = ZD_FRAME / size };
	struct zd_error *error;
	bool holes = false;

	chunk.count = (ZD_CHUNK - address % ZD_CHUNK) / size;
	if (chunk.count > end_pfn - scan->next_pfn)
		chunk.count = end_pfn - scan->next_pfn;
	chunk.frames = (chunk.count + chunk.per_frame - 1) / chunk.per_frame;
	if (!translate_chunk(worker, address, chunk.frames))
		return NULL;
	zd_cursor_load(worker->data, worker->frames, chunk.frames, place(worker, 0), worker->states);
	for (size_t i = 0; i < chunk.frames; i++) {
		if (worker->states[i] == ZD_MEMORY_UNSURE ||
		    (worker->states[i] == ZD_MEMORY_ABSENT && !bulk->absent_is_hole))
			return NULL;
		holes |= worker->states[i] == ZD_MEMORY_ABSENT;
	}
	if (!holes)
		find_same(worker, &chunk);
	error = holes ? give_frames(worker, &chunk, absent) : give_whole(worker, &chunk);
	keep_last(worker, &chunk);
	return error;
}

static void set_position(struct job *job)
{
	__atomic_store_n(&job->position, job->scan->next_pfn, __ATOMIC_RELAXED);
}

/** Scan up to @end_pfn, or to what is unsure, or until the job is stopped. */
static struct zd_error *scan_until(struct worker *worker, struct zd_scan *scan, uint64_t end_pfn,
				   uint64_t *absent)
{
	struct job *job = worker->job;
	struct zd_error *error = NULL;
	uint64_t before;

	zd_cursor_forget(worker->data);
	while (!error && scan->next_pfn < end_pfn && !__atomic_load_n(&job->stop, __ATOMIC_RELAXED)) {
		before = scan->next_pfn;
		error = scan_chunk(worker, scan, end_pfn, absent);
		if (scan->next_pfn == before)
			break;
		if (scan == job->scan)
			set_position(job);
	}
	return error;
}

// ---------------------------------------------------------------- parts

/** First pfn of a part. */
static uint64_t part_begin(const struct job *job, uint64_t i)
{
	const struct zd_range *range = &job->model.range;
	uint64_t size = job->model.layout->page_size;
	uint64_t first = range->memmap + (job->first_pfn - range->start_pfn) * size;

	if (!i)
		return job->first_pfn;
	return i == job->parts_count ? range->end_pfn : job->first_pfn + (i * ZD_PART - first % ZD_PART) / size;
}

static uint64_t count_parts(const struct job *job)
{
	const struct zd_range *range = &job->model.range;
	uint64_t size = job->model.layout->page_size;
	uint64_t first = range->memmap + (job->first_pfn - range->start_pfn) * size;
	uint64_t length = (range->end_pfn - job->first_pfn) * size;

	return (first % ZD_PART + length + ZD_PART - 1) / ZD_PART;
}

static struct part *waiting(struct job *job, uint64_t i)
{
	return &job->parts[i % WAITING_MAX];
}

/** Under the lock: end the job with an error. */
static void fail(struct job *job, struct zd_error *error)
{
	if (job->error)
		zd_error_destroy(error);
	else
		job->error = error;
	job->ended = true;
	__atomic_store_n(&job->stop, true, __ATOMIC_RELAXED);
}

/** Make the next part one with the scan; without the lock, by one thread at a time. */
static struct zd_error *join_part(struct worker *worker, struct part *part, uint64_t end_pfn)
{
	struct job *job = worker->job;
	struct zd_error *error = part->error;

	part->error = NULL;
	if (!error && zd_scan_can_join(job->scan, &part->scan)) {
		error = zd_scan_join(job->scan, &part->scan);
		job->absent += part->absent;
		set_position(job);
	} else if (!error) {
		error = scan_until(worker, job->scan, end_pfn, &job->absent);
	}
	zd_scan_deinit(&part->scan);
	part->begun = false;
	return error;
}

/** Under the lock: join what can be joined. */
static void join_parts(struct worker *worker)
{
	struct job *job = worker->job;

	while (!job->joining && !job->ended && job->joined < job->next && waiting(job, job->joined)->done) {
		struct part *part = waiting(job, job->joined);
		uint64_t end_pfn = part_begin(job, job->joined + 1);
		struct zd_error *error;

		job->joining = true;
		pthread_mutex_unlock(&job->lock);
		error = join_part(worker, part, end_pfn);
		pthread_mutex_lock(&job->lock);
		job->joining = false;
		part->done = false;
		job->joined++;
		if (error) {
			fail(job, error);
		} else if (job->scan->next_pfn < end_pfn) {
			job->ended = true;
			__atomic_store_n(&job->stop, true, __ATOMIC_RELAXED);
		}
		pthread_cond_broadcast(&job->joined_more);
	}
}

/** Under the lock: the next part, when there is room for it; false where there is none. */
static bool take_part(struct job *job, uint64_t *ret)
{
	while (!job->stop && job->next < job->parts_count && job->next - job->joined >= 2 * job->bulk->threads)
		pthread_cond_wait(&job->joined_more, &job->lock);
	if (job->stop || job->next >= job->parts_count)
		return false;
	*ret = job->next++;
	return true;
}

static void scan_part(struct worker *worker, uint64_t i)
{
	struct job *job = worker->job;
	struct part *part = waiting(job, i);
	uint64_t end_pfn = part_begin(job, i + 1);

	part->absent = 0;
	part->begun = true;
	part->error = zd_scan_fork(&job->model, part_begin(job, i), end_pfn, &part->scan);
	if (!part->error)
		part->error = scan_until(worker, &part->scan, end_pfn, &part->absent);
}

// ---------------------------------------------------------------- threads

static struct zd_error *create_worker(struct job *job, struct worker **ret)
{
	struct worker *worker = calloc(1, sizeof(*worker));
	struct zd_error *error;

	*ret = worker;
	if (!worker)
		return zd_error_no_memory();
	worker->job = job;
	error = zd_cursor_create(job->bulk->memory, &worker->data);
	return error ? error : zd_cursor_create(job->bulk->memory, &worker->tables);
}

static void destroy_worker(struct worker *worker)
{
	if (!worker)
		return;
	zd_cursor_destroy(worker->data);
	zd_cursor_destroy(worker->tables);
	free(worker);
}

/** One thread: scan without parts. */
static struct zd_error *run_direct(struct worker *worker)
{
	struct job *job = worker->job;

	return scan_until(worker, job->scan, job->scan->range.end_pfn, &job->absent);
}

/** Under the lock. */
static void run_parts(struct worker *worker)
{
	struct job *job = worker->job;
	uint64_t i;

	while (take_part(job, &i)) {
		pthread_mutex_unlock(&job->lock);
		scan_part(worker, i);
		pthread_mutex_lock(&job->lock);
		waiting(job, i)->done = true;
		join_parts(worker);
	}
}

static void *run(void *context)
{
	struct job *job = context;
	struct worker *worker;
	struct zd_error *error = create_worker(job, &worker);

	if (!error && job->direct)
		error = run_direct(worker);
	pthread_mutex_lock(&job->lock);
	if (error)
		fail(job, error);
	else if (!job->direct)
		run_parts(worker);
	if (!--job->running)
		pthread_cond_signal(&job->finished);
	pthread_cond_broadcast(&job->joined_more);
	pthread_mutex_unlock(&job->lock);
	destroy_worker(worker);
	return NULL;
}

/** Wait for all threads, and ask now and then whether to go on. */
static void wait_for(struct job *job)
{
	const struct zd_bulk *bulk = job->bulk;
	struct timespec until;
	bool stopped = false;

	pthread_mutex_lock(&job->lock);
	while (job->running) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += POLL_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (pthread_cond_timedwait(&job->finished, &job->lock, &until) != ETIMEDOUT || !bulk->poll ||
		    stopped)
			continue;
		pthread_mutex_unlock(&job->lock);
		stopped = !bulk->poll(bulk->context,
				      __atomic_load_n(&job->position, __ATOMIC_RELAXED) - job->first_pfn);
		pthread_mutex_lock(&job->lock);
		if (!stopped)
			continue;
		__atomic_store_n(&job->stop, true, __ATOMIC_RELAXED);
		pthread_cond_broadcast(&job->joined_more);
	}
	pthread_mutex_unlock(&job->lock);
}

static void init_job(struct job *job)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&job->lock, NULL);
	pthread_cond_init(&job->joined_more, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&job->finished, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static void deinit_job(struct job *job)
{
	for (int i = 0; i < WAITING_MAX; i++) {
		zd_error_destroy(job->parts[i].error);
		if (job->parts[i].begun)
			zd_scan_deinit(&job->parts[i].scan);
	}
	pthread_cond_destroy(&job->finished);
	pthread_cond_destroy(&job->joined_more);
	pthread_mutex_destroy(&job->lock);
}

static struct zd_error *run_threads(struct job *job)
{
	pthread_t threads[ZD_THREADS_MAX];
	unsigned int count = 0, wanted = job->direct ? 1 : job->bulk->threads;

	pthread_mutex_lock(&job->lock);
	while (count < wanted && !pthread_create(&threads[count], NULL, run, job))
		count++;
	job->running = count;
	pthread_mutex_unlock(&job->lock);
	if (!count)
		return zd_error_create(ZD_ERROR_IO, "no thread can be started");
	wait_for(job);
	for (unsigned int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return job->error;
}

struct zd_error *zd_bulk_scan(const struct zd_bulk *bulk, struct zd_scan *scan, uint64_t *absent)
{
	struct zd_error *error;
	struct job *job;

	*absent = 0;
	if (!scan->layout->page_size || ZD_FRAME % scan->layout->page_size || !bulk->threads ||
	    bulk->threads > ZD_THREADS_MAX || bulk->levels < 4 || bulk->levels > LEVELS_MAX ||
	    (scan->range.memmap + (scan->next_pfn - scan->range.start_pfn) * scan->layout->page_size) %
		    ZD_FRAME)
		return zd_error_create(ZD_ERROR_INVALID, "struct pages do not lie as they are read in bulk");
	job = calloc(1, sizeof(*job));
	if (!job)
		return zd_error_no_memory();
	job->bulk = bulk;
	job->scan = scan;
	job->model = *scan;
	job->first_pfn = job->position = scan->next_pfn;
	job->parts_count = count_parts(job);
	job->direct = bulk->threads == 1 || job->parts_count <= 1;
	init_job(job);
	error = run_threads(job);
	*absent = job->absent;
	deinit_job(job);
	free(job);
	return error;
}
