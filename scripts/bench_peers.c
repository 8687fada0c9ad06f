// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What zonedev is measured beside, in C: the same struct pages summed in memory, decompressed, or read with
 * libkdumpfile.
 *
 * usage: bench_peers MODE FILE THREADS [CACHE] <SEGMENTS      -> "SECONDS BYTES"
 *
 * MODE:     sum         of words of the file mapped into memory, its pages mapped before the clock starts
 *           map         the same, mapped and unmapped by the clock
 *           read        the same, read with pread() into a buffer that stays in the cache
 *           decompress  pages of a kdump-compressed file, into a page that stays in the cache
 *           physical    kdump_read() of physical memory, CACHE pages in the cache (0: as it comes), a context a
 * thread virtual     the same of virtual memory SEGMENTS: a line each: virtual address, physical address,
 * offset in an ELF file, bytes
 *
 * Compiled by scripts/bench with -DHAVE_... for the libraries that there are.  A mode that lacks its library
 * exits with 3.  Trusts the file: for files that the benchmark has made.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef HAVE_ZLIB
#include <zlib.h>
#endif
#ifdef HAVE_LZO
#include <lzo/lzo1x.h>
#endif
#ifdef HAVE_SNAPPY
#include <snappy-c.h>
#endif
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif
#ifdef HAVE_KDUMPFILE
#include <libkdumpfile/kdumpfile.h>
#endif

enum { FRAME = 4096, BLOCK = 2 << 20, READ = 256 << 10, LACKING = 3 };

struct segment {
	uint64_t virtual, physical, offset, size;
};

/** A page of a kdump-compressed file (makedumpfile's page_desc_t). */
struct descriptor {
	uint64_t offset;
	uint32_t size, flags;
	uint64_t page_flags;
};

enum { ZLIB = 1, LZO = 2, SNAPPY = 4, ZSTD = 32 };

/** The run of one mode; tasks are numbered, and threads take the next one. */
struct run {
	const char *path;
	int cache;
	bool virtual;
	struct segment *segments;
	size_t count;
	int fd;
	const uint8_t *file;
	size_t file_size;
	bool unmap;
	const struct descriptor **pages;
	size_t page_count;
	size_t tasks;
	_Atomic size_t next;
	_Atomic uint64_t sum;
	void (*task)(struct run *, size_t, void *);
	void *(*prepare)(struct run *);
};

static void die(const char *what)
{
	fprintf(stderr, "bench_peers: %s: %s\n", what, strerror(errno));
	exit(1);
}

static __attribute__((noreturn, unused)) void lacking(const char *library)
{
	fprintf(stderr, "compiled without %s\n", library);
	exit(LACKING);
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/** Segments in pieces of at most BLOCK bytes: the tasks of all modes but decompress. */
static void read_segments(struct run *run)
{
	struct segment one;
	while (scanf("%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &one.virtual, &one.physical, &one.offset,
		     &one.size) == 4) {
		while (one.size) {
			const uint64_t size = one.size < BLOCK ? one.size : BLOCK;
			run->segments = realloc(run->segments, (run->count + 1) * sizeof(one));
			if (!run->segments)
				die("memory");
			run->segments[run->count++] =
				(struct segment){ one.virtual, one.physical, one.offset, size };
			one = (struct segment){ one.virtual + size, one.physical + size, one.offset + size,
						one.size - size };
		}
	}
	run->tasks = run->count;
}

static void map_file(struct run *run, int flags)
{
	const int fd = open(run->path, O_RDONLY);
	struct stat status;
	if (fd < 0 || fstat(fd, &status))
		die(run->path);
	run->file_size = status.st_size;
	run->file = mmap(NULL, run->file_size, PROT_READ, MAP_SHARED | flags, fd, 0);
	if (run->file == MAP_FAILED)
		die(run->path);
	close(fd);
}

// ---------------------------------------------------------------- sum

static uint64_t sum_words(const void *bytes, uint64_t size)
{
	const uint64_t *words = bytes;
	uint64_t sums[8] = { 0 }, sum = 0;
	for (size_t i = 0; i + 8 <= size / 8; i += 8) {
		for (size_t j = 0; j < 8; j++)
			sums[j] += words[i + j];
	}
	for (size_t j = 0; j < 8; j++)
		sum += sums[j];
	return sum;
}

static void sum_block(struct run *run, size_t number, void *context)
{
	(void)context;
	const struct segment *segment = &run->segments[number];
	run->sum += sum_words(run->file + segment->offset, segment->size);
}

static void *make_buffer(struct run *run)
{
	void *buffer = malloc(READ);
	if (!buffer)
		die("memory");
	run->fd = open(run->path, O_RDONLY);
	if (run->fd < 0)
		die(run->path);
	return buffer;
}

static void read_and_sum(struct run *run, size_t number, void *buffer)
{
	const struct segment *segment = &run->segments[number];
	for (uint64_t done = 0; done < segment->size; done += READ) {
		const uint64_t left = segment->size - done, size = left < READ ? left : READ;
		if (pread(run->fd, buffer, size, segment->offset + done) != (ssize_t)size)
			die(run->path);
		run->sum += sum_words(buffer, size);
	}
}

// ---------------------------------------------------------------- decompress

/** What a thread decompresses with. */
struct unpacker {
	uint8_t page[FRAME];
#ifdef HAVE_ZLIB
	z_stream zlib;
#endif
#ifdef HAVE_ZSTD
	ZSTD_DCtx *zstd;
#endif
};

static void *make_unpacker(struct run *run)
{
	(void)run;
	struct unpacker *unpacker = calloc(1, sizeof(*unpacker));
	if (!unpacker)
		die("memory");
#ifdef HAVE_ZLIB
	if (inflateInit(&unpacker->zlib) != Z_OK)
		die("zlib");
#endif
#ifdef HAVE_ZSTD
	unpacker->zstd = ZSTD_createDCtx();
#endif
	return unpacker;
}

static bool unpack_zlib(struct unpacker *unpacker, const uint8_t *data, size_t size)
{
#ifdef HAVE_ZLIB
	inflateReset(&unpacker->zlib);
	unpacker->zlib.next_in = (uint8_t *)data;
	unpacker->zlib.avail_in = size;
	unpacker->zlib.next_out = unpacker->page;
	unpacker->zlib.avail_out = FRAME;
	return inflate(&unpacker->zlib, Z_FINISH) == Z_STREAM_END;
#else
	lacking("zlib");
#endif
}

static bool unpack_lzo(struct unpacker *unpacker, const uint8_t *data, size_t size)
{
#ifdef HAVE_LZO
	lzo_uint length = FRAME;
	return lzo1x_decompress_safe(data, size, unpacker->page, &length, NULL) == LZO_E_OK;
#else
	lacking("lzo2");
#endif
}

static bool unpack_snappy(struct unpacker *unpacker, const uint8_t *data, size_t size)
{
#ifdef HAVE_SNAPPY
	size_t length = FRAME;
	return snappy_uncompress((const char *)data, size, (char *)unpacker->page, &length) == SNAPPY_OK;
#else
	lacking("snappy");
#endif
}

static bool unpack_zstd(struct unpacker *unpacker, const uint8_t *data, size_t size)
{
#ifdef HAVE_ZSTD
	return ZSTD_decompressDCtx(unpacker->zstd, unpacker->page, FRAME, data, size) == FRAME;
#else
	lacking("zstd");
#endif
}

static bool unpack(struct unpacker *unpacker, const struct descriptor *page, const uint8_t *data)
{
	switch (page->flags & (ZLIB | LZO | SNAPPY | ZSTD)) {
	case ZLIB:
		return unpack_zlib(unpacker, data, page->size);
	case LZO:
		return unpack_lzo(unpacker, data, page->size);
	case SNAPPY:
		return unpack_snappy(unpacker, data, page->size);
	case ZSTD:
		return unpack_zstd(unpacker, data, page->size);
	default:
		memcpy(unpacker->page, data, page->size);
		return page->size == FRAME;
	}
}

enum { PAGES_A_TASK = BLOCK / FRAME };

static void decompress_block(struct run *run, size_t number, void *context)
{
	struct unpacker *unpacker = context;
	uint64_t sum = 0;
	const size_t end = (number + 1) * PAGES_A_TASK;
	for (size_t i = number * PAGES_A_TASK; i < end && i < run->page_count; i++) {
		if (!unpack(unpacker, run->pages[i], run->file + run->pages[i]->offset))
			die("a page does not decompress");
		sum += unpacker->page[FRAME - 1];
	}
	run->sum += sum;
}

static bool bit(const uint8_t *bits, uint64_t number)
{
	return bits[number / 8] >> number % 8 & 1;
}

/** Descriptors of the pages of all segments, in their order. */
static void find_pages(struct run *run)
{
	int32_t block, sub_blocks;
	uint32_t bitmap_blocks;
	map_file(run, MAP_POPULATE);
	if (memcmp(run->file, "KDUMP   ", 8)) {
		fprintf(stderr, "not a kdump-compressed file\n");
		exit(LACKING);
	}
	memcpy(&block, run->file + 428, 4);
	memcpy(&sub_blocks, run->file + 432, 4);
	memcpy(&bitmap_blocks, run->file + 436, 4);
	const uint64_t bitmaps = (uint64_t)block * (1 + sub_blocks), size = (uint64_t)block * bitmap_blocks;
	const uint8_t *dumped = run->file + bitmaps + size / 2;
	const struct descriptor *table = (const struct descriptor *)(run->file + bitmaps + size);
	uint64_t rank = 0, pfn = 0, bytes = 0;
	for (size_t i = 0; i < run->count; i++)
		bytes += run->segments[i].size;
	run->pages = malloc(bytes / FRAME * sizeof(*run->pages));
	if (!run->pages)
		die("memory");
	for (size_t i = 0; i < run->count; i++) {
		const uint64_t first = run->segments[i].physical / FRAME;
		if (first < pfn)
			pfn = rank = 0;
		for (; pfn < first; pfn++)
			rank += bit(dumped, pfn);
		for (; pfn < first + run->segments[i].size / FRAME; pfn++) {
			if (bit(dumped, pfn))
				run->pages[run->page_count++] = &table[rank++];
		}
	}
	run->tasks = (run->page_count + PAGES_A_TASK - 1) / PAGES_A_TASK;
}

// ---------------------------------------------------------------- libkdumpfile

#ifdef HAVE_KDUMPFILE
/** A context and a buffer of a thread. */
struct reader {
	kdump_ctx_t *context;
	uint8_t data[BLOCK];
};

static void set_number(kdump_ctx_t *context, const char *key, uint64_t number)
{
	if (kdump_set_number_attr(context, key, number) != KDUMP_OK) {
		fprintf(stderr, "libkdumpfile: %s: %s\n", key, kdump_get_err(context));
		exit(1);
	}
}

static void *make_reader(struct run *run)
{
	struct reader *reader = malloc(sizeof(*reader));
	if (!reader || !(reader->context = kdump_new()))
		die("memory");
	const int fd = open(run->path, O_RDONLY);
	if (fd < 0)
		die(run->path);
	set_number(reader->context, KDUMP_ATTR_FILE_FD, fd);
	if (run->cache)
		set_number(reader->context, "cache.size", run->cache);
	// After the file, as drgn does.
	if (kdump_set_string_attr(reader->context, KDUMP_ATTR_OSTYPE, "linux") != KDUMP_OK)
		die("libkdumpfile: ostype");
	return reader;
}

static void read_block(struct run *run, size_t number, void *context)
{
	struct reader *reader = context;
	const struct segment *segment = &run->segments[number];
	size_t size = segment->size;
	const kdump_addrspace_t space = run->virtual ? KDUMP_KVADDR : KDUMP_MACHPHYSADDR;
	const uint64_t address = run->virtual ? segment->virtual : segment->physical;
	if (kdump_read(reader->context, space, address, reader->data, &size) != KDUMP_OK) {
		fprintf(stderr, "libkdumpfile: %s\n", kdump_get_err(reader->context));
		exit(1);
	}
	run->sum += reader->data[size - 1];
}
#endif

static void use_libkdumpfile(struct run *run)
{
#ifdef HAVE_KDUMPFILE
	run->prepare = make_reader;
	run->task = read_block;
#else
	(void)run;
	lacking("libkdumpfile");
#endif
}

// ---------------------------------------------------------------- threads

struct worker {
	struct run *run;
	void *context;
	pthread_t thread;
};

static void *work(void *argument)
{
	struct worker *worker = argument;
	for (size_t task; (task = worker->run->next++) < worker->run->tasks;)
		worker->run->task(worker->run, task, worker->context);
	return NULL;
}

/** Seconds that so many threads take; their contexts are made before. */
static double measure(struct run *run, int threads)
{
	struct worker *workers = calloc(threads, sizeof(*workers));
	if (!workers)
		die("memory");
	for (int i = 0; i < threads; i++) {
		workers[i].run = run;
		workers[i].context = run->prepare ? run->prepare(run) : NULL;
	}
	const double begin = now();
	for (int i = 0; i < threads; i++) {
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("thread");
	}
	for (int i = 0; i < threads; i++)
		pthread_join(workers[i].thread, NULL);
	if (run->unmap)
		munmap((void *)run->file, run->file_size);
	return now() - begin;
}

static int choose(struct run *run, const char *mode)
{
	const bool sum = !strcmp(mode, "sum");
	if (sum || !strcmp(mode, "map")) {
		map_file(run, sum ? MAP_POPULATE : 0);
		run->task = sum_block;
		run->unmap = !sum;
	} else if (!strcmp(mode, "read")) {
		run->prepare = make_buffer;
		run->task = read_and_sum;
	} else if (!strcmp(mode, "decompress")) {
		find_pages(run);
		run->prepare = make_unpacker;
		run->task = decompress_block;
	} else if (!strcmp(mode, "physical") || !strcmp(mode, "virtual")) {
		run->virtual = mode[0] == 'v';
		use_libkdumpfile(run);
	} else {
		return -1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct run run = { .path = argc > 2 ? argv[2] : "", .cache = argc > 4 ? atoi(argv[4]) : 0 };
	if (argc < 4) {
		fprintf(stderr, "usage: bench_peers MODE FILE THREADS [CACHE] <SEGMENTS\n");
		return 2;
	}
	read_segments(&run);
	if (choose(&run, argv[1])) {
		fprintf(stderr, "bench_peers: no mode %s\n", argv[1]);
		return 2;
	}
	const double seconds = measure(&run, atoi(argv[3]));
	uint64_t bytes = (uint64_t)run.page_count * FRAME;
	if (!run.page_count) {
		for (size_t i = 0; i < run.count; i++)
			bytes += run.segments[i].size;
	}
	printf("%.6f %" PRIu64 " %016" PRIx64 "\n", seconds, bytes, run.sum);
	return 0;
}
