// SPDX-License-Identifier: LGPL-2.1-or-later
// C tests of reading a dump's file, built with ASan and UBSan: every allocation, every read and every start of
// a thread failed once.  What the answers are is tested from Python; here it is that a failure is an error or a
// scan that stops, never another answer, and that nothing is leaked. Link with
// -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=pread,--wrap=pread64,--wrap=pthread_create.

#define _GNU_SOURCE

#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../readers/bulk.h"
#include "check.h"
#include "machine.h"

enum {
	FRAMES = 96,
	PAGES = FRAMES * 64,
	TABLES = 8,
	PHYSICAL = 0x100000,
	HEADERS = 4096,
	MEMORY_SIZE = (TABLES + FRAMES) * ZD_FRAME,
};

// Half of the memmap lies in one part, half in the next.
#define MEMMAP (UINT64_C(0xffffea0004000000) - FRAMES / 2 * ZD_FRAME)

static struct fault reading, starting;

ssize_t __real_pread(int fd, void *buffer, size_t size, off_t offset);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
			  void *context);

ssize_t __wrap_pread(int fd, void *buffer, size_t size, off_t offset)
{
	if (!must_fail(&reading))
		return __real_pread(fd, buffer, size, offset);
	errno = EIO;
	return -1;
}

ssize_t __wrap_pread64(int fd, void *buffer, size_t size, off_t offset)
{
	return __wrap_pread(fd, buffer, size, offset);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
			  void *context)
{
	return must_fail(&starting) ? EAGAIN : __real_pthread_create(thread, attributes, run, context);
}

static const struct zd_pagemap pagemap = { .address = 0xffff888101234500,
					   .type = ZD_FS_DAX,
					   .severity_cap = ZD_ERROR };

/** An entry for @address in the table of @level, the tables being used up one by one. */
static void map_page(uint64_t (*tables)[512], unsigned int *used, uint64_t address, uint64_t physical)
{
	uint64_t *table = tables[0];

	for (unsigned int level = 3; level; level--) {
		uint64_t *slot = &table[address >> (12 + 9 * level) & 511];

		if (!*slot)
			*slot = (PHYSICAL + (uint64_t)++ * used * ZD_FRAME) | 0x63;
		table = tables[(*slot - PHYSICAL) / ZD_FRAME];
	}
	table[address >> 12 & 511] = physical | 0x63;
}

/** Page tables and, behind them, free pages, in each fifth frame with a refcount below 0. */
static void make_memory(uint8_t *memory)
{
	uint64_t idle[8] = { UINT64_C(4) << 51 | 1 << 13, 0xffff888101234500, 0, 0, 0, 0, UINT32_MAX, 0 };
	uint64_t(*tables)[512] = (void *)memory;
	unsigned int used = 0;

	memset(memory, 0, MEMORY_SIZE);
	for (uint64_t i = 0; i < FRAMES; i++) {
		map_page(tables, &used, MEMMAP + i * ZD_FRAME, PHYSICAL + (TABLES + i) * ZD_FRAME);
		for (int j = 0; j < 64; j++) {
			idle[6] = i % 5 ? UINT32_MAX : UINT64_MAX;
			memcpy(memory + (TABLES + i) * ZD_FRAME + j * 64, idle, 64);
		}
	}
	CHECK(used < TABLES);
}

static int make_file(const void *bytes, size_t size)
{
	int fd = memfd_create("dump", MFD_CLOEXEC);

	CHECK(write(fd, bytes, size) == (ssize_t)size);
	return fd;
}

/** The memory as an ELF core; returns its descriptor. */
static int make_core(void)
{
	static uint8_t bytes[HEADERS + MEMORY_SIZE];
	Elf64_Ehdr header = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1 },
			      .e_type = ET_CORE,
			      .e_phoff = sizeof(header),
			      .e_phentsize = sizeof(Elf64_Phdr),
			      .e_phnum = 1 };
	Elf64_Phdr segment = { .p_type = PT_LOAD,
			       .p_offset = HEADERS,
			       .p_paddr = PHYSICAL,
			       .p_filesz = MEMORY_SIZE,
			       .p_memsz = MEMORY_SIZE };

	memcpy(bytes, &header, sizeof(header));
	memcpy(bytes + sizeof(header), &segment, sizeof(segment));
	make_memory(bytes + HEADERS);
	return make_file(bytes, sizeof(bytes));
}

static void put(uint8_t *at, uint64_t number, int size)
{
	for (int i = 0; i < size; i++)
		at[i] = number >> 8 * i;
}

/** The memory as makedumpfile writes it, with pages that it did not compress. */
static int make_dump(void)
{
	enum { PAGES_AT = 5 * ZD_FRAME, DESCRIPTORS_AT = 4 * ZD_FRAME, BITMAP_AT = 3 * ZD_FRAME };
	static uint8_t bytes[PAGES_AT + MEMORY_SIZE];
	const int first = PHYSICAL / ZD_FRAME, count = MEMORY_SIZE / ZD_FRAME;

	memcpy(bytes, "KDUMP   ", 8);
	put(bytes + 8, 6, 4);
	put(bytes + 428, ZD_FRAME, 4);
	put(bytes + 432, 1, 4);
	put(bytes + 436, 2, 4);
	put(bytes + ZD_FRAME + 96, first + count, 8);
	for (int i = 0; i < count; i++) {
		bytes[BITMAP_AT + (first + i) / 8] |= 1 << (first + i) % 8;
		put(bytes + DESCRIPTORS_AT + 24 * i, PAGES_AT + (uint64_t)i * ZD_FRAME, 8);
		put(bytes + DESCRIPTORS_AT + 24 * i + 8, ZD_FRAME, 4);
	}
	make_memory(bytes + PAGES_AT);
	return make_file(bytes, sizeof(bytes));
}

/** Numbers of flattened dumps are big-endian. */
static void put_record(uint8_t *at, uint64_t offset, uint64_t size)
{
	offset = __builtin_bswap64(offset);
	size = __builtin_bswap64(size);
	memcpy(at, &offset, 8);
	memcpy(at + 8, &size, 8);
}

/** A file in records, its beginning first as something else. */
static int flatten(int fd)
{
	enum { RECORD = 100000 };
	static uint8_t bytes[2 * (HEADERS + MEMORY_SIZE)];
	uint64_t size = lseek(fd, 0, SEEK_END), at = HEADERS;

	memset(bytes, 0, sizeof(bytes));
	memcpy(bytes, "makedumpfile", 12);
	put_record(bytes + 16, 1, 1);
	put_record(bytes + at, 10, 2 * ZD_FRAME);
	at += 16 + 2 * ZD_FRAME;
	for (uint64_t offset = 0; offset < size; offset += RECORD) {
		uint64_t length = size - offset < RECORD ? size - offset : RECORD;

		put_record(bytes + at, offset, length);
		CHECK(__real_pread(fd, bytes + at + 16, length, offset) == (ssize_t)length);
		at += 16 + length;
	}
	put_record(bytes + at, UINT64_MAX, UINT64_MAX);
	close(fd);
	return make_file(bytes, at + 16);
}

static bool never_stop(void *context, uint64_t pages)
{
	(void)context;
	(void)pages;
	return true;
}

/** Scan what can be read of the core; the tally in @ret, which is to be freed. */
static struct zd_error *scan_core(int fd, unsigned int threads, struct zd_tally *ret)
{
	const struct zd_range range = { 1 << 20, (1 << 20) + PAGES, MEMMAP, 0 };
	struct zd_bulk bulk = { .root = PHYSICAL, .levels = 4, .threads = threads, .poll = never_stop };
	struct zd_memory *memory = NULL;
	struct zd_error *error;
	struct zd_scan scan;
	uint64_t absent = 0;

	memset(ret, 0, sizeof(*ret));
	error = zd_scan_init(&scan, &amd64, &zd_schemes[ZD_SCHEME_H], &pagemap, true, true);
	if (!error)
		error = zd_scan_begin(&scan, &range);
	if (!error)
		error = zd_scan_count_cells(&scan, range.start_pfn, range.end_pfn, 6);
	if (!error)
		error = zd_memory_open(fd, &memory);
	bulk.memory = memory;
	if (!error)
		error = zd_bulk_scan(&bulk, &scan, &absent);
	if (!error)
		error = zd_scan_hole(&scan, range.end_pfn - scan.next_pfn, ZD_UNREADABLE);
	if (!error)
		error = zd_scan_end(&scan);
	CHECK(error || cells_add_up(&scan));
	if (!error) {
		*ret = scan.tally;
		memset(&scan.tally, 0, sizeof(scan.tally));
	}
	CHECK(!absent);
	zd_memory_destroy(memory);
	zd_scan_deinit(&scan);
	return error;
}

/** True where @part has nothing that @whole has not, and what it lacks is unreadable. */
static bool is_part(const struct zd_tally *part, const struct zd_tally *whole)
{
	uint64_t sum = 0;

	for (int i = 0; i < ZD_CLASSES; i++) {
		sum += part->classes[i];
		if (i != ZD_UNREADABLE && part->classes[i] > whole->classes[i])
			return false;
	}
	return sum == PAGES && part->findings_count <= whole->findings_count;
}

static bool is_same(const struct zd_tally *one, const struct zd_tally *other)
{
	return !memcmp(one->classes, other->classes, sizeof(one->classes)) &&
	       one->findings_count == other->findings_count && one->findings_count &&
	       !memcmp(one->findings, other->findings, one->findings_count * sizeof(*one->findings));
}

/** Fail each call of a kind; whether that must be an error, and of which code. */
static unsigned long fail_each(int fd, struct fault *fault, unsigned int threads, int code,
			       const struct zd_tally *whole)
{
	unsigned long failed = 0;
	struct zd_error *error;
	struct zd_tally tally;

	for (fault->fail_at = 1; fault->fail_at < 10000; fault->fail_at++) {
		fault->calls = 0;
		error = scan_core(fd, threads, &tally);
		CHECK(!error || (int)error->code == code || code < 0);
		CHECK(error || is_part(&tally, whole));
		zd_error_destroy(error);
		if (!error && fault->calls < fault->fail_at)
			CHECK(is_same(&tally, whole));
		zd_tally_deinit(&tally);
		if (fault->calls < fault->fail_at)
			break;
		failed++;
	}
	fault->fail_at = 0;
	return failed;
}

/** Each call of each kind fails once, for a number of threads. */
static void test_failures(int fd, unsigned int threads)
{
	struct zd_tally whole;

	CHECK(!scan_core(fd, threads, &whole));
	CHECK(!whole.classes[ZD_UNREADABLE] && whole.classes[ZD_IDLE] && whole.findings_count);
	CHECK(fail_each(fd, &allocation, threads, ZD_ERROR_NO_MEMORY, &whole) >= 10);
	CHECK(fail_each(fd, &reading, threads, -1, &whole) >= 8);
	CHECK(fail_each(fd, &starting, threads, ZD_ERROR_IO, &whole) == threads);
	zd_tally_deinit(&whole);
}

int main(void)
{
	const int dumps[] = { make_core(), make_dump(), flatten(make_core()), flatten(make_dump()) };

	for (size_t i = 0; i < sizeof(dumps) / sizeof(dumps[0]); i++) {
		for (unsigned int threads = 1; threads <= 3; threads++)
			test_failures(dumps[i], threads);
		close(dumps[i]);
	}
	printf("%d failures\n", failures);
	return failures != 0;
}
