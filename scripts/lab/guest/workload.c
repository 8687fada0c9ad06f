// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Guest workload: brings ZONE_DEVICE pages into many known states and holds them there.
 *
 *   workload fsdax  DIR [SLOWDEV]     files on a -o dax mount
 *   workload devdax /dev/daxX.Y ALIGN
 *   workload p2p    .../p2pmem/allocate
 *   workload hmm    /dev/hmm_dmirrorN NPAGES
 *
 * Owns the states only; record.h writes them down. Every shared mapping is MADV_DONTFORK, so a
 * child maps nothing that it has not mapped itself; private_forked is the exception, on purpose.
 * Nothing is undone at the end: the process and its children stay until the dump.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <linux/fs.h>
#include <linux/if_xdp.h>
#include <linux/io_uring.h>

#include "record.h"

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 3
#endif

// ---- children: they tell once, then stay for ever ----

static int tell_fd = -1;

// Returns 0 in the child; in the parent when the child has called tell().
static pid_t fork_child(void)
{
	int sync[2];
	char c;
	pid_t pid;

	if (pipe(sync))
		_exit(8);
	pid = fork();
	if (!pid) {
		close(sync[0]);
		tell_fd = sync[1];
		return 0;
	}
	close(sync[1]);
	if (read(sync[0], &c, 1) != 1)
		failed("child", "", "read", errno);
	close(sync[0]);
	return pid;
}

static void tell(void)
{
	if (write(tell_fd, "x", 1) != 1)
		_exit(8);
	close(tell_fd);
}

static void __attribute__((noreturn)) hold(void)
{
	for (;;)
		pause();
}

// ---- files and mappings ----

static void *aligned_hole(size_t len, size_t align)
{
	char *a = mmap(NULL, len + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return (void *)(((uintptr_t)a + align - 1) & ~(align - 1));
}

static struct file open_file(const char *dir, const char *name)
{
	struct file f = {};
	struct stat st = {};

	snprintf(f.path, sizeof(f.path), "%s%s%s", dir, *name ? "/" : "", name);
	f.fd = open(f.path, O_RDWR | (*name ? O_CREAT | O_TRUNC : 0), 0644);
	if (f.fd < 0 || fstat(f.fd, &st))
		failed(name, f.path, "open", errno);
	f.ino = st.st_ino;
	return f;
}

static struct file allocated(const char *dir, const char *name, size_t len)
{
	struct file f = open_file(dir, name);

	if (fallocate(f.fd, 0, 0, len))
		failed(name, f.path, "fallocate", errno);
	return f;
}

static char *map_file(const struct file *f, size_t len, size_t align, int flags)
{
	char *p = mmap(aligned_hole(len, align), len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, f->fd, 0);

	if (p == MAP_FAILED) {
		failed("mmap", f->path, "mmap", errno);
		return NULL;
	}
	if (!(flags & MAP_PRIVATE))
		madvise(p, len, MADV_DONTFORK);
	return p;
}

// A file of @len bytes, mapped and written; in 4K pages if @align is PG.
static char *mapped(const char *cat, const char *dir, const char *name, size_t len, size_t align, struct file *f)
{
	char *p;

	*f = allocated(dir, name, len);
	p = map_file(f, len, align, MAP_SHARED);
	if (p)
		enter(cat, f, p, len, align, true);
	return p;
}

// ---- pins ----

// The pipe stays open: the pages are held until the end.
static long vmsplice_pages(const char *cat, const struct file *f, char *p, size_t n)
{
	struct iovec iov = { p, n * PG };
	int pfd[2];
	long ret = pipe(pfd) ? -1 : vmsplice(pfd[1], &iov, 1, 0);

	if (ret < 0)
		ret = -errno;
	record_pin(cat, "vmsplice", f, p, n, ret);
	return ret;
}

static void uring_pages(const char *cat, const struct file *f, char *p, size_t n)
{
	struct io_uring_params par = {};
	struct iovec iov = { p, n * PG };
	int fd = syscall(__NR_io_uring_setup, 4, &par);
	int ret = fd < 0 ? -1 : syscall(__NR_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov, 1);

	record_pin(cat, "io_uring", f, p, n, ret ? -errno : 0);
}

static void xdp_pages(const char *cat, const struct file *f, char *p, size_t n)
{
	struct xdp_umem_reg reg = { .addr = (uintptr_t)p, .len = n * PG, .chunk_size = PG };
	int s = socket(AF_XDP, SOCK_RAW, 0);
	int ret = s < 0 ? -1 : setsockopt(s, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg));

	record_pin(cat, "xdp_umem", f, p, n, ret ? -errno : 0);
}

// ---- fsdax: one function a state or a family of states ----

static void state_map4k(const char *dir)
{
	struct file f;
	char *p;

	mapped("map4k", dir, "map4k", 256 * PG, PG, &f);
	mapped("map4k_two", dir, "map4k_two", 64 * PG, PG, &f);
	if (!fork_child()) {
		p = map_file(&f, 64 * PG, PG, MAP_SHARED);
		enter("map4k_two_child", &f, p, 64 * PG, PG, true);
		tell();
		hold();
	}
}

static void state_pmd(const char *dir)
{
	struct file f;
	char *p;

	mapped("pmd", dir, "pmd", 4 * M2, M2, &f);

	f = allocated(dir, "pmd_sync", M2);
	p = map_file(&f, M2, M2, MAP_SHARED_VALIDATE | MAP_SYNC);
	if (p)
		enter("pmd_sync", &f, p, M2, PG, true);

	p = mapped("pmd_unmapped", dir, "pmd_unmapped", M2, M2, &f);
	leave(&f, p, M2);

	// the same blocks, mapped again in 4K
	p = mapped("pmd_split", dir, "pmd_split", M2, M2, &f);
	leave(&f, p, M2);
	p = map_file(&f, M2 / 2, M2, MAP_SHARED);
	enter("pmd_split", &f, p, M2 / 2, PG, true);

	// a partly unmapped PMD entry is taken away as a whole; the rest comes back in 4K
	p = mapped("pmd_partial", dir, "pmd_partial", M2, M2, &f);
	leave(&f, p + M2 / 2, M2 / 2);
	enter("pmd_partial", &f, p, M2 / 2, PG, true);

	p = mapped("pmd_vmsplice", dir, "pmd_vmsplice", M2, M2, &f);
	vmsplice_pages("pmd_vmsplice", &f, p + 5 * PG, 3);
}

static void state_unmapped(const char *dir)
{
	struct file f;
	char *p = mapped("unmapped", dir, "unmapped", 64 * PG, PG, &f);

	leave(&f, p, 64 * PG);
}

static void state_freed(const char *dir)
{
	struct file f;
	char *p = mapped("truncated", dir, "truncated", 64 * PG, PG, &f);

	leave(&f, p, 64 * PG);
	record_begin("truncate", &f);
	record_end("truncate", &f, ftruncate(f.fd, 0) ? -errno : 0);

	mapped("punched", dir, "punched", 64 * PG, PG, &f);
	record_begin("punch", &f);
	record_end("punch", &f,
		   fallocate(f.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 64 * PG) ? -errno : 0);
}

// Holes that are read: the zero page, and the huge zero page (both System RAM).
static void state_hole(const char *dir)
{
	struct file f = open_file(dir, "hole"), g = open_file(dir, "hole_pmd");
	char *p;

	if (ftruncate(f.fd, 64 * PG) || ftruncate(g.fd, 2 * M2))
		failed("hole", f.path, "ftruncate", errno);
	p = map_file(&f, 64 * PG, PG, MAP_SHARED);
	enter("hole_zero", &f, p, 64 * PG, PG, false);
	p = map_file(&g, 2 * M2, M2, MAP_SHARED);
	enter("hole_zero_pmd", &g, p, 2 * M2, M2, false);
}

// Private mappings: of unwritten blocks (zero page), and of written ones, inherited by a child.
static void state_private(const char *dir)
{
	struct file f = allocated(dir, "private", 64 * PG);
	char *p = map_file(&f, 64 * PG, PG, MAP_PRIVATE);

	touch(p, 16 * PG, PG, true);	// copied to RAM
	enter("private", &f, p, 64 * PG, PG, false);

	p = mapped("private_forked", dir, "private_forked", 64 * PG, PG, &f);
	leave(&f, p, 64 * PG);
	p = map_file(&f, 64 * PG, PG, MAP_PRIVATE);
	touch(p, PG, PG, true);
	enter("private_forked", &f, p, 64 * PG, PG, false);
	if (!fork_child()) {
		record_map("private_forked_child", &f, p, 64 * PG, 1, 0);
		tell();
		hold();
	}
	madvise(p, 64 * PG, MADV_DONTFORK);	// not for the children of later states
}

static void state_vmsplice(const char *dir)
{
	struct file f;
	char *p = mapped("vmsplice_mapped", dir, "vmsplice_mapped", 8 * PG, PG, &f);

	vmsplice_pages("vmsplice_mapped", &f, p, 8);
	p = mapped("vmsplice_unmapped", dir, "vmsplice_unmapped", 8 * PG, PG, &f);
	vmsplice_pages("vmsplice_unmapped", &f, p, 8);
	leave(&f, p, 8 * PG);
}

/* A truncate of a pinned page either waits, or returns and frees a block whose page is pinned: on
 * older kernels that depends on whether the file is mapped. Both go on in a child. */
static void state_truncate_pinned(const char *dir, bool keep_mapped)
{
	const char *cat = keep_mapped ? "truncate_pinned_mapped" : "truncate_pinned_unmapped";
	struct file f;
	char *p = mapped(cat, dir, cat, 8 * PG, PG, &f);

	vmsplice_pages(cat, &f, p, 8);
	if (!keep_mapped)
		leave(&f, p, 8 * PG);
	record_begin("truncate", &f);
	if (!fork_child()) {
		tell();
		record_end("truncate", &f, ftruncate(f.fd, 0) ? -errno : 0);
		hold();
	}
	usleep(500000);
}

static void state_longterm(const char *dir)
{
	struct file f;
	char *p = mapped("uring_fixed", dir, "uring_fixed", 8 * PG, PG, &f);

	xdp_pages("uring_fixed", &f, p, 8);
	uring_pages("uring_fixed", &f, p, 8);
}

// Reads in flight, from sysfs: the pages of a read are pinned before it is counted there.
static int reads_in_flight(const char *disk)
{
	char name[128];
	int n = 0;
	FILE *s;

	snprintf(name, sizeof(name), "/sys/block/%s/inflight", strrchr(disk, '/') + 1);
	s = fopen(name, "r");
	if (!s || fscanf(s, "%d", &n) != 1)
		failed("odirect_inflight", name, "inflight", errno);
	if (s)
		fclose(s);
	return n;
}

// O_DIRECT read from a disk that does not answer, into 8 pages that two processes map.
static void state_odirect(const char *dir, const char *slow)
{
	struct file f;
	char *p;
	int i;

	mapped("odirect_inflight", dir, "odirect", 8 * PG, PG, &f);
	if (!fork_child()) {
		int s = open(slow, O_RDONLY | O_DIRECT);
		long r;

		p = map_file(&f, 8 * PG, PG, MAP_SHARED);
		enter("odirect_child", &f, p, 8 * PG, PG, true);
		record_pin("odirect_inflight", "odirect", &f, p, 8, 0);
		tell();
		r = read(s, p, 8 * PG);
		say("{\"ev\":\"unpin\",\"how\":\"odirect\",\"path\":\"%s\",\"ino\":%lu,\"ret\":%ld}", f.path, f.ino,
		    r < 0 ? -errno : r);
		hold();
	}
	for (i = 0; i < 50 && !reads_in_flight(slow); i++)
		usleep(100000);
	say("{\"ev\":\"inflight\",\"disk\":\"%s\",\"reads\":%d}", slow, reads_in_flight(slow));
}

// A second file @name that shares the blocks of @a; false where the file system cannot do it.
static bool cloned(const struct file *a, const char *dir, const char *name, struct file *b)
{
	int ret;

	*b = open_file(dir, name);
	fsync(a->fd);
	ret = ioctl(b->fd, FICLONE, a->fd) ? -errno : 0;
	say("{\"ev\":\"end\",\"op\":\"clone\",\"path\":\"%s\",\"ino\":%lu,\"to\":\"%s\",\"to_ino\":%lu,\"ret\":%d}",
	    a->path, a->ino, b->path, b->ino, ret);
	return !ret;
}

static char *read_mapped(const char *cat, const struct file *f, size_t n)
{
	char *p = map_file(f, n * PG, PG, MAP_SHARED);

	enter(cat, f, p, n * PG, PG, false);
	return p;
}

// Two files that share blocks: both mapped for reading; both unmapped; one of them truncated.
static void state_reflink(const char *dir)
{
	struct file a, b;
	char *p = mapped("reflink", dir, "reflink_a", 16 * PG, PG, &a);

	if (!cloned(&a, dir, "reflink_b", &b))
		return;
	leave(&a, p, 16 * PG);
	read_mapped("reflink_a", &a, 16);
	read_mapped("reflink_b", &b, 16);

	p = mapped("reflink_cached", dir, "reflink_cached_a", 8 * PG, PG, &a);
	cloned(&a, dir, "reflink_cached_b", &b);
	leave(&a, p, 8 * PG);
	leave(&a, read_mapped("reflink_cached_a", &a, 8), 8 * PG);
	leave(&b, read_mapped("reflink_cached_b", &b, 8), 8 * PG);

	p = mapped("reflink_truncated", dir, "reflink_truncated_a", 8 * PG, PG, &a);
	cloned(&a, dir, "reflink_truncated_b", &b);
	leave(&a, p, 8 * PG);
	leave(&a, read_mapped("reflink_truncated_a", &a, 8), 8 * PG);
	leave(&b, read_mapped("reflink_truncated_b", &b, 8), 8 * PG);
	record_begin("truncate", &b);
	record_end("truncate", &b, ftruncate(b.fd, 0) ? -errno : 0);
}

static void state_unlinked(const char *dir)
{
	struct file f;

	mapped("unlinked_open", dir, "unlinked", 16 * PG, PG, &f);
	record_end("unlink", &f, unlink(f.path) ? -errno : 0);
}

// Written but never mapped: no trace in struct page.
static void state_written(const char *dir)
{
	static char buf[64 * PG];
	struct file f = open_file(dir, "written");

	memset(buf, 0xa5, sizeof(buf));
	record_end("write", &f, write(f.fd, buf, sizeof(buf)) < 0 ? -errno : 0);
}

static void fsdax(const char *dir, const char *slow)
{
	state_map4k(dir);
	state_pmd(dir);
	state_unmapped(dir);
	state_freed(dir);
	state_hole(dir);
	state_private(dir);
	state_vmsplice(dir);
	// before blocks with pinned pages are freed: a clone of a file that gets one waits for ever
	state_reflink(dir);
	state_truncate_pinned(dir, true);
	state_truncate_pinned(dir, false);
	state_longterm(dir);
	if (slow)
		state_odirect(dir, slow);
	state_unlinked(dir);
	state_written(dir);
}

// ---- devdax ----

// Mapped by a second process; a part mapped and given back.
static void devdax_child(const struct file *f, size_t len, size_t align)
{
	char *p = map_file(f, len, align, MAP_SHARED);

	enter("devdax_two", f, p, M2, align, true);
	touch(p + len - M2, M2, align, true);
	record_map("devdax_unmapped", f, p + len - M2, M2, align / PG, 0);
	leave(f, p, len);
	p = map_file(f, len, align, MAP_SHARED);
	enter("devdax_two_again", f, p, M2, align, true);
}

static void devdax(const char *dev, size_t align)
{
	struct file f = open_file(dev, "");
	size_t len = align > M2 ? align : 4 * M2;
	char *p = map_file(&f, len, align, MAP_SHARED), *q = p + (align > M2 ? M2 : 0);

	if (!p)
		return;
	enter("devdax_mapped", &f, p, align > M2 ? align : len / 2, align, true);
	uring_pages("devdax_uring_fixed", &f, q, 16);
	xdp_pages("devdax_xdp_umem", &f, q + 64 * PG, 16);
	vmsplice_pages("devdax_vmsplice", &f, p + 32 * PG, 8);
	if (align <= M2 && !fork_child()) {
		struct file g = open_file(dev, "");

		devdax_child(&g, len, align);
		tell();
		hold();
	}
}

// ---- PCI peer-to-peer, device private and coherent ----

static void p2p(const char *allocate)
{
	struct file f = open_file(allocate, "");
	char *p = map_file(&f, 16 * PG, PG, MAP_SHARED);

	if (!p)
		return;
	enter("p2p_mapped", &f, p, 16 * PG, PG, true);
	vmsplice_pages("p2p_vmsplice", &f, p, 4);
	p = map_file(&f, 16 * PG, PG, MAP_SHARED);
	enter("p2p_freed", &f, p, 16 * PG, PG, true);
	leave(&f, p, 16 * PG);
}

struct hmm_dmirror_cmd { uint64_t addr, ptr, npages, cpages, faults; };
#define HMM_DMIRROR_MIGRATE_TO_DEV	_IOWR('H', 0x02, struct hmm_dmirror_cmd)
#define HMM_DMIRROR_MIGRATE_TO_SYS	_IOWR('H', 0x03, struct hmm_dmirror_cmd)

static void migrate(const char *cat, const struct file *f, unsigned long request, char *p, size_t n)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)p, .ptr = (uintptr_t)malloc(n * PG), .npages = n,
	};
	int ret = ioctl(f->fd, request, &cmd);

	say("{\"ev\":\"migrate\",\"cat\":\"%s\",\"path\":\"%s\",\"ret\":%d,\"pages\":%llu}", cat, f->path,
	    ret ? -errno : 0, (unsigned long long)cmd.cpages);
}

static char *anonymous(size_t len, int advice)
{
	char *p = mmap(aligned_hole(len, M2), len, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	madvise(p, len, advice);
	touch(p, len, PG, true);
	return p;
}

// AnonHugePages of the mapping that starts at @p: memory below PMD entries.
static unsigned long anon_huge_kib(char *p)
{
	unsigned long start, end, kib;
	bool inside = false;
	char line[256];
	FILE *s = fopen("/proc/self/smaps", "r");

	while (s && fgets(line, sizeof(line), s)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start == (unsigned long)p;
		else if (inside && sscanf(line, "AnonHugePages: %lu kB", &kib) == 1) {
			fclose(s);
			return kib;
		}
	}
	if (s)
		fclose(s);
	return 0;
}

static void hmm(const char *dev, size_t n)
{
	struct file f = open_file(dev, "");
	char *p = anonymous(n * PG, MADV_NOHUGEPAGE);

	migrate("hmm", &f, HMM_DMIRROR_MIGRATE_TO_DEV, p, n);
	record_map("hmm", &f, p, n * PG, 1, 0);
	// a quarter comes back: freed device pages
	touch(p, n * PG / 4, PG, false);
	migrate("hmm_quarter_back", &f, HMM_DMIRROR_MIGRATE_TO_SYS, p, n / 4);
	record_map("hmm_quarter_back", &f, p, n * PG, 1, 0);
	// a huge page (may move as one folio since 6.19); the order of its folios is known if one entry maps it
	p = anonymous(M2, MADV_HUGEPAGE);
	migrate("hmm_thp", &f, HMM_DMIRROR_MIGRATE_TO_DEV, p, 512);
	record_map("hmm_thp", &f, p, M2, anon_huge_kib(p) == M2 / 1024 ? M2 / PG : 0, 0);
}

static bool run(int argc, char **argv)
{
	if (argc >= 3 && !strcmp(argv[1], "fsdax"))
		fsdax(argv[2], argc > 3 ? argv[3] : NULL);
	else if (argc >= 4 && !strcmp(argv[1], "devdax"))
		devdax(argv[2], strtoul(argv[3], NULL, 0));
	else if (argc >= 3 && !strcmp(argv[1], "p2p"))
		p2p(argv[2]);
	else if (argc >= 4 && !strcmp(argv[1], "hmm"))
		hmm(argv[2], atoi(argv[3]));
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	record_init();
	signal(SIGHUP, SIG_IGN);
	if (!run(argc, argv))
		return 2;
	observe_all();
	say("{\"ev\":\"done\",\"what\":\"%s %s\",\"pid\":%d}", argv[1], argv[2], getpid());
	if (getenv("READY"))
		close(open(getenv("READY"), O_CREAT | O_WRONLY, 0600));
	hold();
}
