// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Pins for ever: memory of a device that an RDMA device has registered, and that VFIO has mapped for
 * a PCI device.
 *
 *   pins link NAME NETDEV                   a soft RoCE device on a network device
 *   pins hold UVERBS GROUP /dev/daxX.Y...   both pins on pieces of devdax devices; "-": not this one
 *
 * Owns these two; record.h writes them down. What is pinned stays so until the dump.
 */
#define _GNU_SOURCE
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/netlink.h>
#include <linux/vfio.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_netlink.h>

#include "record.h"

enum { LOCAL_WRITE = 1 };

// What pins [p, p + n pages) and returns 0 or -errno.
typedef int (*pin_fn)(char *p, size_t n);

// ---- RDMA: the commands that libibverbs writes to the device ----

static int uverbs = -1;
static uint32_t pd_handle;

// A command of @len bytes, which says where its answer goes.
static int command(uint32_t number, void *cmd, size_t len, size_t answer_len)
{
	struct ib_uverbs_cmd_hdr *hdr = cmd;

	*hdr = (struct ib_uverbs_cmd_hdr){ number, len / 4, answer_len / 4 };
	return write(uverbs, cmd, len) == (ssize_t)len ? 0 : -errno;
}

static int rdma_open(const char *path)
{
	struct ib_uverbs_get_context_resp context;
	struct ib_uverbs_alloc_pd_resp pd;
	struct { struct ib_uverbs_cmd_hdr hdr; struct ib_uverbs_get_context cmd; } get = {
		.cmd.response = (uintptr_t)&context,
	};
	struct { struct ib_uverbs_cmd_hdr hdr; struct ib_uverbs_alloc_pd cmd; } alloc = {
		.cmd.response = (uintptr_t)&pd,
	};
	int ret;

	uverbs = open(path, O_RDWR | O_CLOEXEC);
	if (uverbs < 0)
		return -errno;
	ret = command(IB_USER_VERBS_CMD_GET_CONTEXT, &get, sizeof(get), sizeof(context));
	if (!ret)
		ret = command(IB_USER_VERBS_CMD_ALLOC_PD, &alloc, sizeof(alloc), sizeof(pd));
	pd_handle = pd.pd_handle;
	return ret;
}

static int rdma_pin(char *p, size_t n)
{
	struct ib_uverbs_reg_mr_resp mr;
	struct { struct ib_uverbs_cmd_hdr hdr; struct ib_uverbs_reg_mr cmd; } reg = {
		.cmd = {
			.response = (uintptr_t)&mr, .start = (uintptr_t)p, .length = n * PG,
			.hca_va = (uintptr_t)p, .pd_handle = pd_handle, .access_flags = LOCAL_WRITE,
		},
	};

	return command(IB_USER_VERBS_CMD_REG_MR, &reg, sizeof(reg), sizeof(mr));
}

// ---- VFIO: a container with one group, whose device is never opened ----

static int container = -1;

static int vfio_open(const char *group)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/dev/vfio/%s", group);
	container = open("/dev/vfio/vfio", O_RDWR);
	fd = open(path, O_RDWR);
	if (container < 0 || fd < 0 || ioctl(fd, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return -errno;
	return 0;
}

static int vfio_pin(char *p, size_t n)
{
	static uint64_t iova = 16 << 20;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)p, .iova = iova, .size = n * PG,
	};

	iova += M2;
	return ioctl(container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

// ---- states ----

struct pinner {
	const char *how;
	pin_fn pin;
};

static void pin(const char *cat, const struct pinner *by, const struct file *f, char *p, size_t n)
{
	record_pin(cat, by->how, f, p, n, by->pin(p, n));
}

static char *mapped_at(const char *cat, const struct file *f, off_t off)
{
	char *p = mmap(NULL, M2, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, off);

	if (p == MAP_FAILED) {
		failed(cat, f->path, "mmap", errno);
		_exit(1);
	}
	enter(cat, f, p, M2, PG, true);
	return p;
}

static struct file open_device(const char *path)
{
	struct file f = { .fd = open(path, O_RDWR) };
	struct stat st = {};

	snprintf(f.path, sizeof(f.path), "%s", path);
	if (f.fd < 0 || fstat(f.fd, &st))
		failed("open", path, "open", errno);
	f.ino = st.st_ino;
	return f;
}

// The first 2 MiB stay mapped; those behind are pinned by one of both each, and unmapped.
static void hold_pins(const char *dev, const struct pinner *all, size_t n)
{
	struct file f = open_device(dev);
	char *p = mapped_at("pins_mapped", &f, 0), *q;
	const struct pinner *by;

	for (by = all; by < all + n; by++) {
		pin("pins_alone", by, &f, p + (16 + 64 * (by - all)) * PG, 16);
		pin("pins_both", by, &f, p + 256 * PG, 8);
		q = mapped_at("pins_unmapped", &f, (1 + by - all) * M2);
		pin("pins_unmapped", by, &f, q + 32 * PG, 16);
		leave(&f, q, M2);
	}
}

static void hold_all(const char *verbs, const char *group, char **devs)
{
	struct pinner all[2];
	size_t n = 0;
	int ret;

	if (*verbs != '-') {
		ret = rdma_open(verbs);
		if (ret)
			failed("rdma", verbs, "open", -ret);
		all[n++] = (struct pinner){ "rdma", rdma_pin };
	}
	if (*group != '-') {
		ret = vfio_open(group);
		if (ret)
			failed("vfio", group, "open", -ret);
		all[n++] = (struct pinner){ "vfio", vfio_pin };
	}
	for (; *devs; devs++)
		hold_pins(*devs, all, n);
}

// ---- soft RoCE ----

static size_t attribute(char *buf, size_t at, uint16_t type, const char *text)
{
	struct nlattr head = { NLA_HDRLEN + strlen(text) + 1, type };

	memcpy(buf + at, &head, sizeof(head));
	strcpy(buf + at + NLA_HDRLEN, text);
	return at + NLA_ALIGN(head.nla_len);
}

static int make_link(const char *name, const char *netdev)
{
	char buf[512] = {};
	struct nlmsghdr *head = (void *)buf;
	struct nlmsgerr *answer = (void *)(buf + NLMSG_HDRLEN);
	int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_RDMA);
	size_t len = NLMSG_HDRLEN;

	len = attribute(buf, len, RDMA_NLDEV_ATTR_DEV_NAME, name);
	len = attribute(buf, len, RDMA_NLDEV_ATTR_LINK_TYPE, "rxe");
	len = attribute(buf, len, RDMA_NLDEV_ATTR_NDEV_NAME, netdev);
	head->nlmsg_len = len;
	head->nlmsg_type = RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, RDMA_NLDEV_CMD_NEWLINK);
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	if (s < 0 || send(s, buf, len, 0) < 0 || recv(s, buf, sizeof(buf), 0) < (ssize_t)NLMSG_HDRLEN)
		return -errno;
	return answer->error;
}

int main(int argc, char **argv)
{
	record_init();
	if (argc == 4 && !strcmp(argv[1], "link")) {
		int ret = make_link(argv[2], argv[3]);

		if (ret)
			failed("rdma", argv[3], "link", -ret);
		return ret != 0;
	}
	if (argc < 5 || strcmp(argv[1], "hold"))
		return 2;
	hold_all(argv[2], argv[3], argv + 4);
	observe_all();
	if (getenv("READY"))
		close(open(getenv("READY"), O_CREAT | O_WRONLY, 0600));
	for (;;)
		pause();
}
