// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The record: one JSON line for each thing that the workload does to a page or sees of it.
 *
 * Owns the vocabulary (README.md lists the events) and what is seen from user space alone:
 * page frames from /proc/PID/pagemap, numbers of page faults. It never looks at a struct page;
 * what the kernel should have in them is for replay.py to say.
 * Keep: an event is written after the system call that it reports has returned ("begin" excepted),
 * and before the next action that touches the same pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PG 4096UL
#define M2 (2UL << 20)
#define G1 (1UL << 30)

struct file {
	char path[256];
	unsigned long ino;
	int fd;
};

// A mapping that is still there; shared by all processes of the workload.
struct span {
	int pid;
	char *va;
	size_t n;
	bool huge;	// 1 GiB entries: reading pagemap would split them
};

static struct span *spans;	// SPANS of them
static unsigned int *nr_spans;
static int truth = 2;

enum { SPANS = 512, PAGEMAP_MAX = 1 << 15 };

static void record_init(void)
{
	const char *path = getenv("TRUTH");
	int fd = path ? open(path, O_WRONLY | O_APPEND | O_NOCTTY) : -1;

	if (fd >= 0)
		truth = fd;
	spans = mmap(NULL, SPANS * sizeof(*spans) + PG, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	nr_spans = (unsigned int *)(spans + SPANS);
}

static void write_line(int fd, const char *line, int len)
{
	if (fd >= 0 && write(fd, line, len) != len)
		_exit(9);
}

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int len, copy;

	va_start(ap, fmt);
	len = vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	line[len++] = '\n';
	write_line(truth, line, len);
	// a copy which guest/init can read
	copy = open("/run/truth", O_WRONLY | O_APPEND | O_CREAT, 0644);
	write_line(copy, line, len);
	close(copy);
}

static void failed(const char *cat, const char *path, const char *what, int err)
{
	say("{\"ev\":\"failed\",\"cat\":\"%s\",\"path\":\"%s\",\"what\":\"%s\",\"errno\":%d}", cat, path, what, err);
}

// A pagemap entry as a page frame: of a present page, or of a device-private swap entry.
struct frame {
	uint64_t pfn;	// 0: neither
	bool swap;
};

static struct frame frame_of(uint64_t entry)
{
	if (entry >> 63)
		return (struct frame){ entry & ((1ULL << 55) - 1), false };
	if (entry >> 62 & 1)
		return (struct frame){ entry >> 5 & ((1ULL << 34) - 1), true };
	return (struct frame){ 0, false };
}

// Length of the run of frames at @e that goes in steps of *@step (-1, 0 or 1 page).
static size_t run_length(const uint64_t *e, size_t n, int *step)
{
	struct frame first = frame_of(e[0]);
	size_t i;

	*step = 1;
	if (n > 1 && first.pfn) {
		struct frame next = frame_of(e[1]);

		if (next.swap == first.swap && (next.pfn == first.pfn || next.pfn == first.pfn - 1))
			*step = (int)(int64_t)(next.pfn - first.pfn);
	}
	if (!first.pfn)
		*step = 0;
	for (i = 1; i < n; i++) {
		struct frame f = frame_of(e[i]);

		if (f.swap != first.swap || f.pfn != first.pfn + (int64_t)*step * (int64_t)i)
			break;
	}
	return i;
}

// One line a run of page frames behind [@va, @va + @n pages) of process @pid.
static void record_frames(const char *head, int pid, char *va, size_t n, const char *tail)
{
	static uint64_t e[PAGEMAP_MAX];
	char name[64];
	size_t i, len;
	int fd, step;

	if (n > PAGEMAP_MAX)
		n = PAGEMAP_MAX;
	snprintf(name, sizeof(name), "/proc/%d/pagemap", pid);
	fd = open(name, O_RDONLY);
	if (pread(fd, e, n * 8, (uintptr_t)va / PG * 8) != (ssize_t)(n * 8))
		failed("pagemap", name, "pread", errno);
	close(fd);
	for (i = 0; i < n; i += len) {
		struct frame f = frame_of(e[i]);
		char pfn[48] = "null";

		len = run_length(e + i, n - i, &step);
		if (f.pfn)
			snprintf(pfn, sizeof(pfn), "%llu,\"step\":%d%s", (unsigned long long)f.pfn, step,
				 f.swap ? ",\"swap\":1" : "");
		say("{%s,\"pid\":%d,\"va\":%lu,\"off\":%zu,\"n\":%zu,\"pfn\":%s%s}", head, pid,
		    (unsigned long)va + i * PG, i, len, pfn, tail);
	}
}

static void span_add(char *va, size_t n, bool huge)
{
	struct span *s;

	for (s = spans; s < spans + *nr_spans; s++)
		if (s->pid == getpid() && s->va == va && s->n >= n)
			return;
	if (*nr_spans == SPANS)
		_exit(10);
	spans[(*nr_spans)++] = (struct span){ getpid(), va, n, huge };
}

// Forget [@va, @va + @n pages): spans inside it go, a span that it cuts keeps its beginning.
static void span_cut(char *va, size_t n)
{
	char *end = va + n * PG;
	struct span *s;

	for (s = spans; s < spans + *nr_spans; s++) {
		if (s->pid != getpid() || s->va >= end || s->va + s->n * PG <= va)
			continue;
		s->n = s->va < va ? (va - s->va) / PG : 0;
	}
}

// What is still mapped, at the end, by every process of the workload.
static void observe_all(void)
{
	struct span *s;

	for (s = spans; s < spans + *nr_spans; s++)
		if (s->n && !s->huge)
			record_frames("\"ev\":\"observe\"", s->pid, s->va, s->n, "");
}

static unsigned long faults_now(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_minflt + u.ru_majflt;
}

static void touch(volatile char *p, size_t len, size_t step, bool write)
{
	for (size_t i = 0; i < len; i += step)
		if (write)
			p[i] = 0x5a;
		else
			(void)p[i];
}

// @faults: one for each of @n entries, or a few more: a fault may have to be taken again.
static bool one_each(size_t n, unsigned long faults)
{
	return faults >= n && faults <= n + 3;
}

/* Pages behind one page table entry, judged by how many faults it took to reach each page. */
static size_t entry_pages(size_t len, unsigned long faults)
{
	if (len % G1 == 0 && one_each(len / G1, faults))
		return G1 / PG;
	if (len % M2 == 0 && one_each(len / M2, faults))
		return M2 / PG;
	return 1;
}

static void record_map(const char *cat, const struct file *f, char *p, size_t len, size_t entry, unsigned long faults)
{
	bool huge = entry > M2 / PG;
	char head[400], tail[64];

	snprintf(head, sizeof(head), "\"ev\":\"map\",\"cat\":\"%s\",\"path\":\"%s\",\"ino\":%lu", cat, f->path, f->ino);
	snprintf(tail, sizeof(tail), ",\"entry\":%zu,\"faults\":%lu", entry, faults);
	if (huge)
		say("{%s,\"pid\":%d,\"va\":%lu,\"off\":0,\"n\":%zu,\"pfn\":null%s}", head, getpid(),
		    (unsigned long)p, len / PG, tail);
	else
		record_frames(head, getpid(), p, len / PG, tail);
	span_add(p, len / PG, huge);
}

/* Fault in @len bytes of @f at @p (which maps it from its start) with one access each @step, then
 * read each page, and record what is mapped. */
static void enter(const char *cat, const struct file *f, char *p, size_t len, size_t step, bool write)
{
	unsigned long before, faults;

	faults_now();	// whatever this code itself faults in comes first
	before = faults_now();
	touch(p, len, step, write);
	touch(p, len, step > M2 ? M2 : PG, false);
	faults = faults_now() - before;
	record_map(cat, f, p, len, entry_pages(len, faults), faults);
}

static void leave(const struct file *f, char *p, size_t len)
{
	munmap(p, len);
	span_cut(p, len / PG);
	say("{\"ev\":\"unmap\",\"path\":\"%s\",\"pid\":%d,\"va\":%lu,\"n\":%zu}", f->path, getpid(),
	    (unsigned long)p, len / PG);
}

// @ret: bytes for vmsplice, else 0 or -errno.
static void record_pin(const char *cat, const char *how, const struct file *f, char *p, size_t n, long ret)
{
	say("{\"ev\":\"pin\",\"cat\":\"%s\",\"how\":\"%s\",\"path\":\"%s\",\"ino\":%lu,\"pid\":%d,\"va\":%lu,\"n\":%zu,\"ret\":%ld}",
	    cat, how, f->path, f->ino, getpid(), (unsigned long)p, n, ret);
}

static void record_begin(const char *op, const struct file *f)
{
	say("{\"ev\":\"begin\",\"op\":\"%s\",\"path\":\"%s\",\"ino\":%lu}", op, f->path, f->ino);
}

static void record_end(const char *op, const struct file *f, int ret)
{
	say("{\"ev\":\"end\",\"op\":\"%s\",\"path\":\"%s\",\"ino\":%lu,\"ret\":%d}", op, f->path, f->ino, ret);
}
