// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Guest workload: keeps ZONE_DEVICE pages moving while somebody else looks at them.
 *
 *   churn hold fsdax DIR | hold devdax /dev/daxX.Y ALIGN
 *   churn run COUNTERS CPU WORKERS TARGET...
 *       TARGET: fsdax:DIR  devdax:DEV:ALIGN  p2p:.../p2pmem/allocate  hmm:/dev/hmm_dmirrorN
 *
 * hold: maps pages that the churn leaves alone, records them (record.h) and stays; faults are planted there.
 * run: WORKERS processes a target, all on CPU (-1: on every one), do operations drawn by lot for ever, without
 * a sleep. Nothing they do is recorded page by page: only how many operations were done, in the file COUNTERS
 * (struct counter) and, twice a second, as an event "churn".
 *
 * Keep: a healthy kernel must stay healthy, and the churn must go on. No pin, no reference and no half-done
 * truncate outlives its operation. An operation may fail (blocks are gone, another worker was faster), but must
 * not wait for ever; so it holds no mapping of a shared file when it takes that file's lock (from 6.15 on, a
 * truncate that has met a pinned page waits until nobody maps it, with the lock held). And files that share
 * blocks are smaller than a PMD (seen on 7.2: a PMD folio made over mapped pages of the other file). And
 * O_DIRECT goes into files that nobody else truncates (6.1.176 forgets the wake-up when such an I/O ends).
 */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/fs.h>
#include <linux/io_uring.h>

#include "record.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif

enum { FILES = 3, FILE_LEN = 4 << 20, HOLE_LEN = 8 << 20, PIN_PAGES = 8, SHARED_PAGES = 64 };

enum kind { FSDAX, DEVDAX, P2P, HMM, KINDS };
static const char *const kind_names[KINDS] = { "fsdax", "devdax", "p2p", "hmm" };

struct target {
	enum kind kind;
	char path[128];
	size_t align;
};

// A process that churns one target. Its mappings all lie in @hole, which is aligned to 2 MiB.
struct worker {
	const struct target *target;
	struct counter *counters; // of the target, one an operation
	unsigned int id, random;
	off_t start; // where it may map: a device's first pages belong to `churn hold`
	char *hole;
	int pipe[2];
	int disk;   // a fast disk for O_DIRECT, -1: none
	int device; // of HMM: test_hmm evicts the pages of all processes on close, which races with their use
};

// COUNTERS of them are the file that the auditor reads (live.py); a name ends in NULs.
struct counter {
	char name[40];
	uint64_t done, failed;
};

static struct counter *counters;

// ---- small things ----

static unsigned int draw(struct worker *w, unsigned int n)
{
	w->random = w->random * 1103515245 + 12345;
	return (w->random >> 16) % n;
}

static void *aligned_hole(size_t len, size_t align)
{
	char *a = mmap(NULL, len + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return (void *)(((uintptr_t)a + align - 1) & ~(align - 1));
}

// Whatever is mapped in the hole goes, as munmap would do it.
static void clear_hole(struct worker *w)
{
	mmap(w->hole, HOLE_LEN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static char *map_at(struct worker *w, int fd, size_t at, size_t len, int flags)
{
	char *p = mmap(w->hole + at, len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, w->start);

	return p == MAP_FAILED ? NULL : p;
}

static sigjmp_buf bus;

static void on_bus(int signal)
{
	(void)signal;
	siglongjmp(bus, 1);
}

// Access one byte each @step; false if the blocks went away meanwhile.
static bool reach(char *p, size_t len, size_t step, bool write)
{
	if (sigsetjmp(bus, 1))
		return false;
	touch(p, len, step, write);
	return true;
}

static int open_numbered(struct worker *w, const char *name, unsigned int number)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s%u", w->target->path, name, number);
	return open(path, O_RDWR | O_CREAT, 0644);
}

static int open_shared(struct worker *w)
{
	return open_numbered(w, "churn", draw(w, FILES));
}

// A file that only this worker uses.
static int open_own(struct worker *w, const char *name)
{
	return open_numbered(w, name, w->id);
}

static bool refill(int fd)
{
	return fallocate(fd, 0, 0, FILE_LEN) == 0;
}

static void drain(int fd, size_t len)
{
	char buffer[4096];
	ssize_t n;

	while (len && (n = read(fd, buffer, len < sizeof(buffer) ? len : sizeof(buffer))) > 0)
		len -= n;
}

// ---- mappings; @fd is the file or device, of at least FILE_LEN bytes ----

static bool map_4k(struct worker *w, int fd)
{
	size_t step = w->target->align, len = (1 + draw(w, step > PG ? 2 : 32)) * step;
	size_t at = w->target->kind == FSDAX ? PG : 0; // not where a PMD could map it
	char *p = map_at(w, fd, at, len, MAP_SHARED);

	return p && reach(p, len, step, draw(w, 2));
}

static bool map_pmd(struct worker *w, int fd)
{
	unsigned long before;
	char *p = map_at(w, fd, 0, FILE_LEN, MAP_SHARED);

	if (!p)
		return false;
	before = faults_now();
	return reach(p, FILE_LEN, M2, true) && reach(p, FILE_LEN, 256 * PG, false) &&
	       faults_now() - before <= FILE_LEN / M2;
}

static bool map_split(struct worker *w, int fd)
{
	char *p = map_at(w, fd, 0, FILE_LEN, MAP_SHARED);

	if (!p || !reach(p, FILE_LEN, M2, true))
		return false;
	munmap(p + M2 / 2, M2 / 2);
	return reach(p, M2 / 2, 16 * PG, true);
}

static bool map_sync(struct worker *w, int fd)
{
	char *p = map_at(w, fd, 0, M2, MAP_SHARED_VALIDATE | MAP_SYNC);

	bool ok = p && reach(p, M2, 64 * PG, true);

	clear_hole(w);
	return ok && !fsync(fd);
}

static bool protect(struct worker *w, int fd)
{
	char *p = map_at(w, fd, 0, M2, MAP_SHARED);
	bool ok = p && reach(p, M2, 64 * PG, false);

	ok = ok && !mprotect(p, M2, PROT_READ) && !mprotect(p, M2, PROT_READ | PROT_WRITE);
	return ok && reach(p, M2, 64 * PG, true) && !madvise(p, M2, MADV_DONTNEED) &&
	       reach(p, M2, 64 * PG, false);
}

static bool move(struct worker *w, int fd)
{
	char *p = map_at(w, fd, 0, M2, MAP_SHARED);

	if (!p || !reach(p, M2, 64 * PG, true))
		return false;
	p = mremap(p, M2, M2, MREMAP_MAYMOVE | MREMAP_FIXED, w->hole + 2 * M2);
	return p != MAP_FAILED && reach(p, M2, 64 * PG, false);
}

// The child takes over what fork copies, faults in the rest and goes.
static bool fork_maps(struct worker *w, int fd)
{
	size_t step = w->target->kind == DEVDAX ? w->target->align : 64 * PG;
	char *p = map_at(w, fd, 0, M2, MAP_SHARED), *q = NULL;
	pid_t pid;

	if (w->target->kind == FSDAX)
		q = map_at(w, fd, M2, M2, MAP_PRIVATE);
	if (!p || !reach(p, M2, step, true))
		return false;
	if (q && (!reach(q, 4 * PG, PG, true) || !reach(q, M2, step, false)))
		return false;
	pid = fork();
	if (!pid) {
		bool ok = reach(p, M2, step, false) && (!q || reach(q, 6 * PG, PG, true));

		_exit(!ok);
	}
	return pid > 0 && waitpid(pid, NULL, 0) == pid;
}

// ---- pins ----

static bool pin_vmsplice(struct worker *w, int fd)
{
	size_t len = PIN_PAGES * PG;
	char *p = map_at(w, fd, 0, len > w->target->align ? len : w->target->align, MAP_SHARED);
	struct iovec iov = { p, len };
	ssize_t n;

	if (!p || !reach(p, len, PG, true))
		return false;
	n = vmsplice(w->pipe[1], &iov, 1, SPLICE_F_NONBLOCK);
	if (n > 0 && draw(w, 2))
		clear_hole(w); // the pins outlive the mapping
	if (n > 0)
		drain(w->pipe[0], n);
	return n > 0;
}

/* A truncate meets pins of a file that nobody maps: up to 6.14 it frees the blocks below them, later kernels
 * wait for the pins. The child truncates, so that the parent can let go. */
static bool pin_truncate(struct worker *w, int fd)
{
	int own = open_own(w, "pinned");
	bool ok = !fallocate(own, 0, 0, PIN_PAGES * PG);
	char *p = map_at(w, own, 0, PIN_PAGES * PG, MAP_SHARED);
	struct iovec iov = { p, PIN_PAGES * PG };
	ssize_t n = -1;
	pid_t pid;

	(void)fd;
	if (ok && p && reach(p, PIN_PAGES * PG, PG, true))
		n = vmsplice(w->pipe[1], &iov, 1, SPLICE_F_NONBLOCK);
	clear_hole(w);
	pid = fork();
	if (!pid)
		_exit(ftruncate(own, 0) != 0);
	drain(w->pipe[0], n > 0 ? n : 0);
	close(own);
	return pid > 0 && waitpid(pid, NULL, 0) == pid && n > 0;
}

static bool pin_odirect(struct worker *w, int fd)
{
	size_t len = PIN_PAGES * PG;
	int own = w->target->kind == FSDAX ? open_own(w, "dio") : dup(fd);
	char *p = map_at(w, own, 0, len > w->target->align ? len : w->target->align, MAP_SHARED);
	bool ok = w->target->kind != FSDAX || !fallocate(own, 0, 0, len);

	ok = ok && w->disk >= 0 && p && pread(w->disk, p, len, 0) == (ssize_t)len;
	clear_hole(w);
	if (w->target->kind == FSDAX && draw(w, 2))
		ok = !ftruncate(own, 0) && ok;
	close(own);
	return ok;
}

static bool pin_uring(struct worker *w, int fd)
{
	struct io_uring_params par = {};
	char *p = map_at(w, fd, 0, M2, MAP_SHARED);
	struct iovec iov = { p, 64 * PG };
	int ring = p ? syscall(__NR_io_uring_setup, 4, &par) : -1;
	int ret = ring < 0 ? -1 : syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, &iov, 1);

	if (!ret)
		syscall(__NR_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
	if (ring >= 0)
		close(ring);
	return !ret;
}

// ---- blocks ----

static bool do_truncate(struct worker *w, int fd)
{
	char *p = draw(w, 2) ? map_at(w, fd, PG, M2, MAP_SHARED) : NULL;
	bool ok = !p || reach(p, M2, 64 * PG, true);

	clear_hole(w);
	ok = !ftruncate(fd, draw(w, 4) * (M2 / 2)) && ok;
	return refill(fd) && ok;
}

static bool do_punch(struct worker *w, int fd)
{
	char *p = map_at(w, fd, 0, M2, MAP_SHARED);
	off_t off = draw(w, 256) * PG;
	bool ok = p && reach(p, M2, 32 * PG, draw(w, 2));

	clear_hole(w);
	ok = !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, (1 + draw(w, 128)) * PG) && ok;
	p = map_at(w, fd, 0, M2, MAP_SHARED);
	return ok && p && reach(p, M2, 32 * PG, true);
}

static bool do_write(struct worker *w, int fd)
{
	static char buffer[16 * PG];
	off_t off = draw(w, 512) * PG;

	return pwrite(fd, buffer, sizeof(buffer), off) == sizeof(buffer) &&
	       pread(fd, buffer, sizeof(buffer), off) == sizeof(buffer);
}

// A large folio (from 6.15 on) comes and goes: a file of one PMD is mapped, and truncated while it is.
static bool do_pmd_truncate(struct worker *w, int fd)
{
	int own = open_own(w, "pmd");
	char *p;
	bool ok;

	(void)fd;
	p = own >= 0 && !fallocate(own, 0, 0, M2) ? map_at(w, own, 0, M2, MAP_SHARED) : NULL;
	ok = p && reach(p, PG, PG, true);
	if (draw(w, 2))
		clear_hole(w);
	ok = !ftruncate(own, 0) && ok;
	close(own);
	return ok;
}

static bool do_unlink(struct worker *w, int fd)
{
	char path[160], *p;
	int own;
	bool ok;

	(void)fd;
	snprintf(path, sizeof(path), "%s/own%u", w->target->path, w->id);
	own = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
	p = own >= 0 && !fallocate(own, 0, 0, M2) ? map_at(w, own, PG * draw(w, 2), M2, MAP_SHARED) : NULL;
	ok = p && reach(p, M2, 64 * PG, true) && !unlink(path);
	close(own);
	return ok && reach(p, M2, 32 * PG, false);
}

// A file that others clone, too; not one of those that are mapped by PMD entries.
static int open_source(struct worker *w)
{
	int fd = open_numbered(w, "source", draw(w, 2));

	if (fd >= 0 && fallocate(fd, 0, 0, SHARED_PAGES * PG))
		(void)ftruncate(fd, 0);
	return fd;
}

// Two files share blocks, both mapped; then one or both get their own by writing, and the clone goes.
static bool do_reflink(struct worker *w, int fd)
{
	size_t len = SHARED_PAGES * PG;
	char *p = NULL, *q = NULL;
	int source = open_source(w), own = open_own(w, "clone");
	bool ok;

	(void)fd;
	if (!ioctl(own, FICLONE, source)) {
		p = map_at(w, source, 0, len, MAP_SHARED);
		q = map_at(w, own, M2, len, MAP_SHARED);
	}
	ok = p && q && reach(p, len, 4 * PG, false) && reach(q, len, 4 * PG, false) &&
	     reach(q, 4 * PG, PG, true) && (draw(w, 2) || reach(p, 2 * PG, PG, true));
	clear_hole(w);
	ok = !ftruncate(own, draw(w, 2) * PG * 40) && ok;
	close(own);
	close(source);
	return ok;
}

// ---- device private and coherent ----

struct hmm_dmirror_cmd {
	uint64_t addr, ptr, npages, cpages, faults;
};
#define HMM_DMIRROR_MIGRATE_TO_DEV _IOWR('H', 0x02, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_MIGRATE_TO_SYS _IOWR('H', 0x03, struct hmm_dmirror_cmd)

static bool migrate(int fd, unsigned long request, char *p, size_t len)
{
	static char mirror[M2];
	struct hmm_dmirror_cmd cmd = { (uintptr_t)p, (uintptr_t)mirror, len / PG, 0, 0 };

	return !ioctl(fd, request, &cmd);
}

static bool hmm_pages(struct worker *w, int fd, size_t len, int advice)
{
	char *p = map_at(w, -1, 0, len, MAP_PRIVATE | MAP_ANONYMOUS);
	bool ok = p && !madvise(p, len, advice) && reach(p, len, PG, true) &&
		  migrate(fd, HMM_DMIRROR_MIGRATE_TO_DEV, p, len);

	switch (ok ? draw(w, 4) : 0) {
	case 1: // a fault brings each page back
		return reach(p, len / 2, PG, draw(w, 2));
	case 2:
		return migrate(fd, HMM_DMIRROR_MIGRATE_TO_SYS, p, len / 2);
	case 3: {
		pid_t pid = fork();

		if (!pid)
			_exit(!reach(p, len / 4, PG, true));
		return pid > 0 && waitpid(pid, NULL, 0) == pid;
	}
	}
	return ok;
}

static bool hmm_small(struct worker *w, int fd)
{
	return hmm_pages(w, fd, (1 + draw(w, 64)) * PG, MADV_NOHUGEPAGE);
}

static bool hmm_huge(struct worker *w, int fd)
{
	return hmm_pages(w, fd, M2, MADV_HUGEPAGE);
}

// ---- PCI peer-to-peer ----

static bool p2p_map(struct worker *w, int fd)
{
	size_t len = (1 + draw(w, 16)) * PG;
	char *p = map_at(w, fd, 0, len, MAP_SHARED);

	return p && reach(p, len, PG, draw(w, 2));
}

// ---- the operations ----

#define K(kind) (1u << (kind))

static struct op {
	const char *name;
	unsigned int kinds, weight;
	bool (*run)(struct worker *w, int fd);
} ops[] = {
	{ "map4k", K(FSDAX) | K(DEVDAX), 1, map_4k },
	{ "pmd", K(FSDAX), 1, map_pmd },
	{ "split", K(FSDAX), 1, map_split },
	{ "sync", K(FSDAX), 1, map_sync },
	{ "protect", K(FSDAX), 1, protect },
	{ "mremap", K(FSDAX), 1, move },
	{ "fork", K(FSDAX) | K(DEVDAX), 1, fork_maps },
	{ "vmsplice", K(FSDAX) | K(DEVDAX) | K(P2P), 1, pin_vmsplice },
	{ "pin_truncate", K(FSDAX), 3, pin_truncate },
	{ "odirect", K(FSDAX) | K(DEVDAX), 1, pin_odirect },
	{ "io_uring", K(DEVDAX), 1, pin_uring },
	{ "truncate", K(FSDAX), 3, do_truncate },
	{ "pmd_truncate", K(FSDAX), 30, do_pmd_truncate },
	{ "punch", K(FSDAX), 2, do_punch },
	{ "write", K(FSDAX), 1, do_write },
	{ "unlink", K(FSDAX), 1, do_unlink },
	{ "reflink", K(FSDAX), 1, do_reflink },
	{ "p2p_map", K(P2P), 1, p2p_map },
	{ "migrate", K(HMM), 1, hmm_small },
	{ "migrate_thp", K(HMM), 1, hmm_huge },
};

enum { OPS = sizeof(ops) / sizeof(*ops), TARGETS = 16, COUNTERS = TARGETS * OPS };

// How often an operation is drawn for a kind of target; CHURN_ONLY=NAME leaves only that one.
static unsigned int weight(const struct op *op, enum kind kind)
{
	const char *only = getenv("CHURN_ONLY");

	if (!(op->kinds & K(kind)) || (only && strcmp(op->name, only)))
		return 0;
	return op->weight;
}

static unsigned int weight_of_all(enum kind kind)
{
	unsigned int sum = 0;

	for (int i = 0; i < OPS; i++)
		sum += weight(&ops[i], kind);
	return sum;
}

// The counters of a target: one an operation; those that are drawn have a name.
static void name_counters(struct counter *c, const struct target *t)
{
	const char *device = t->kind == P2P ? "p2p" : strrchr(t->path, '/') + 1;

	for (int i = 0; i < OPS; i++, c++)
		if (weight(&ops[i], t->kind))
			snprintf(c->name, sizeof(c->name), "%s.%s", device, ops[i].name);
}

static unsigned int draw_operation(struct worker *w)
{
	unsigned int lot = draw(w, weight_of_all(w->target->kind)), i;

	for (i = 0; lot >= weight(&ops[i], w->target->kind); i++)
		lot -= weight(&ops[i], w->target->kind);
	return i;
}

static void one_operation(struct worker *w)
{
	unsigned int i = draw_operation(w);
	enum kind kind = w->target->kind;
	struct counter *c = w->counters + i;
	int fd;
	bool ok;

	fd = kind == FSDAX ? open_shared(w) : kind == HMM ? dup(w->device) : open(w->target->path, O_RDWR);
	if (kind == FSDAX && fd >= 0 && lseek(fd, 0, SEEK_END) < FILE_LEN)
		(void)refill(fd);
	ok = fd >= 0 && ops[i].run(w, fd);
	__atomic_fetch_add(ok ? &c->done : &c->failed, 1, __ATOMIC_RELAXED);
	clear_hole(w);
	close(fd);
}

static void __attribute__((noreturn)) work(const struct target *target, struct counter *c, unsigned int id)
{
	struct worker w = { .target = target, .counters = c, .id = id, .random = id * 7919 + 1 };

	// Those who look on are to have a processor of their own: else a run is mostly their waiting.
	nice(19);
	signal(SIGBUS, on_bus);
	w.hole = aligned_hole(HOLE_LEN, M2);
	w.start = target->kind == DEVDAX ? FILE_LEN : 0;
	w.device = target->kind == HMM ? open(target->path, O_RDWR) : -1;
	w.disk = open(getenv("CHURN_DISK") ?: "", O_RDONLY | O_DIRECT);
	if (pipe(w.pipe) || !weight_of_all(target->kind) || (target->kind == HMM && w.device < 0))
		_exit(8);
	for (;;)
		one_operation(&w);
}

// ---- what stays ----

// The beginning of a file or device, mapped, touched each @step and recorded. @at: 0 for PMD entries.
static void hold_pages(const char *cat, const char *path, size_t len, size_t at, size_t step)
{
	struct file f = {};
	struct stat st;
	char *p;

	snprintf(f.path, sizeof(f.path), "%s", path);
	f.fd = open(path, O_RDWR | O_CREAT, 0644);
	if (f.fd < 0 || fstat(f.fd, &st) || (S_ISREG(st.st_mode) && !refill(f.fd)))
		failed(cat, path, "open", errno);
	f.ino = st.st_ino;
	p = mmap((char *)aligned_hole(HOLE_LEN, M2) + at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 f.fd, 0);
	if (p == MAP_FAILED)
		failed(cat, path, "mmap", errno);
	else
		enter(cat, &f, p, len, step, true);
}

static void __attribute__((noreturn)) hold(const char *kind, const char *path, size_t align)
{
	char name[160];

	if (!strcmp(kind, "devdax")) {
		hold_pages("hold_devdax", path, FILE_LEN, 0, align);
	} else {
		snprintf(name, sizeof(name), "%s/hold", path);
		hold_pages("hold_pmd", name, FILE_LEN, 0, PG);
		snprintf(name, sizeof(name), "%s/hold4k", path);
		hold_pages("hold_4k", name, 64 * PG, PG, PG);
	}
	observe_all();
	if (getenv("READY"))
		close(open(getenv("READY"), O_CREAT | O_WRONLY, 0600));
	for (;;)
		pause();
}

// ---- main ----

static bool parse_target(char *word, struct target *t)
{
	char *path = strchr(word, ':'), *align = strrchr(word, ':');

	if (!path)
		return false;
	*path++ = 0;
	for (t->kind = 0; t->kind < KINDS && strcmp(word, kind_names[t->kind]); t->kind++)
		;
	t->align = PG;
	if (t->kind == DEVDAX && align > path) { // a PCI address has colons, too
		t->align = strtoul(align + 1, NULL, 0);
		*align = 0;
	}
	snprintf(t->path, sizeof(t->path), "%s", path);
	return t->kind < KINDS;
}

static void share_counters(const char *path)
{
	size_t len = COUNTERS * sizeof(*counters);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || ftruncate(fd, len))
		_exit(11);
	counters = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

static void report_for_ever(void)
{
	for (;;) {
		uint64_t done = 0, missed = 0;

		for (struct counter *c = counters; c < counters + COUNTERS; c++) {
			done += c->done;
			missed += c->failed;
		}
		say("{\"ev\":\"churn\",\"done\":%llu,\"failed\":%llu}", (unsigned long long)done,
		    (unsigned long long)missed);
		usleep(500000);
	}
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		failed("churn", "", "sched_setaffinity", errno);
}

static int run(int argc, char **argv)
{
	static struct target targets[TARGETS];
	unsigned int id = 0, workers = strtoul(argv[4], NULL, 0);

	share_counters(argv[2]);
	for (int i = 0; i < TARGETS && i + 5 < argc; i++) {
		struct target *t = &targets[i];
		struct counter *c = counters + i * OPS;

		if (!parse_target(argv[i + 5], t))
			return 2;
		name_counters(c, t);
		for (unsigned int n = 0; n < workers; n++, id++)
			if (!fork()) {
				stay_on(atoi(argv[3]));
				work(t, c, id);
			}
	}
	report_for_ever();
	return 0;
}

int main(int argc, char **argv)
{
	record_init();
	signal(SIGHUP, SIG_IGN);
	if (argc >= 4 && !strcmp(argv[1], "hold"))
		hold(argv[2], argv[3], argc > 4 ? strtoul(argv[4], NULL, 0) : PG);
	if (argc >= 6 && !strcmp(argv[1], "run"))
		return run(argc, argv);
	return 2;
}
