/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel's memory inside of a process, and the core file made of it.
 *
 * Owns: the kernel image (objects marked KERNEL), RAM behind a direct map, page tables, the variables
 * that any audit asks for, the core.  Does not: know struct page or dev_pagemap (each era's own file).
 * The program is linked at low addresses; VMCOREINFO's KERNELOFFSET lifts them to where a kernel lies,
 * so that its own DWARF and symbols are the kernel's.  Pointers that are stored in kernel objects are
 * kernel addresses: K(pointer).
 *
 * An era defines before including this: RELEASE; MEM_SECTION_ARRAY where mem_section is an array of
 * pointers (before 4.15); HAS_PHYS_BASE (4.10) and HAS_BUILD_ID (5.9) where VMCOREINFO names them.
 */
#ifndef MOCK_H
#define MOCK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t u64;
typedef unsigned long pgoff_t;
typedef u64 phys_addr_t;
typedef phys_addr_t resource_size_t;

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long counter;
} atomic_long_t;

struct list_head {
	struct list_head *next, *prev;
};

struct resource {
	resource_size_t start, end;
	const char *name;
	unsigned long flags, desc;
	struct resource *parent, *sibling, *child;
};

/* ---- memory ---- */

#define KERNEL __attribute__((section("kernel"), used))

enum { PAGE_SIZE_ = 4096, SECTION_SHIFT = 27, NR_CPUS = 64, MAX_NUMNODES = 64 };

#define IMAGE_OFFSET 0xffffffff80000000UL
#define PAGE_OFFSET 0xffff880000000000UL
#define VMEMMAP 0xffffea0000000000UL
#define RAM_PHYS 0x8000000UL
#define RAM_SIZE (2UL << 20)

extern char __start_kernel[], __stop_kernel[];

static char ram[RAM_SIZE] __attribute__((aligned(4096)));
static size_t ram_used;

static void *ram_alloc(size_t size, size_t align)
{
	size_t at = (ram_used + align - 1) / align * align;

	if (at + size > RAM_SIZE) {
		fprintf(stderr, "mock: out of RAM\n");
		exit(1);
	}
	ram_used = at + size;
	return ram + at;
}

#define NEW(type) ((type *)ram_alloc(sizeof(type), 64))

static bool in_ram(const void *p)
{
	return (const char *)p >= ram && (const char *)p < ram + RAM_SIZE;
}

static u64 phys(const void *p)
{
	return in_ram(p) ? RAM_PHYS + (u64)((const char *)p - ram) : (u64)p;
}

static u64 kaddr(const void *p)
{
	if (!p)
		return 0;
	return in_ram(p) ? PAGE_OFFSET + phys(p) : (u64)p + IMAGE_OFFSET;
}

/* The kernel address of an object, array or function. */
#define K(p) ((__typeof__(&*(p)))kaddr((const void *)(p)))

/* The object at a kernel address. */
static void *at_kaddr(u64 address)
{
	if (address >= IMAGE_OFFSET)
		return (void *)(address - IMAGE_OFFSET);
	return ram + (address - PAGE_OFFSET - RAM_PHYS);
}

/* ---- page tables ---- */

static u64 swapper_pg_dir[512] KERNEL __attribute__((aligned(4096)));

struct mm_struct {
	u64 *pgd;
};

struct mm_struct init_mm KERNEL;

static u64 *next_table(u64 *entry)
{
	if (!*entry)
		*entry = phys(ram_alloc(PAGE_SIZE_, PAGE_SIZE_)) | 0x63;
	return (u64 *)(ram + ((*entry & ~0xfffUL) - RAM_PHYS));
}

static void map_page(u64 address, u64 physical)
{
	u64 *table = swapper_pg_dir;

	for (int shift = 39; shift > 12; shift -= 9)
		table = next_table(&table[address >> shift & 511]);
	table[address >> 12 & 511] = physical | 0x63;
}

static void map_range(u64 address, const void *memory, size_t size)
{
	for (size_t i = 0; i < size; i += PAGE_SIZE_)
		map_page(address + i, phys((const char *)memory + i));
}

/* ---- what every audit asks for ---- */

struct new_utsname {
	char sysname[65], nodename[65], release[65], version[65], machine[65], domainname[65];
};

struct uts_namespace {
	struct new_utsname name;
};

struct uts_namespace init_uts_ns KERNEL = { { "Linux", "mock", RELEASE, "#1 mock", "x86_64", "" } };

/* drgn tells kernels without a build ID by this. */
char linux_banner[] KERNEL = "Linux version " RELEASE " (mock) #1";

struct mem_section {
	unsigned long section_mem_map;
	unsigned long *pageblock_flags;
};

enum { SECTIONS_PER_ROOT = PAGE_SIZE_ / sizeof(struct mem_section), NR_SECTION_ROOTS = 2048 };

#ifdef MEM_SECTION_ARRAY
struct mem_section *mem_section[NR_SECTION_ROOTS] KERNEL;
#else
struct mem_section **mem_section KERNEL;
#endif

struct cpumask {
	unsigned long bits[1];
};

struct cpumask __cpu_possible_mask KERNEL = { { 3 } };
unsigned int nr_cpu_ids KERNEL = 2;
unsigned long __per_cpu_offset[NR_CPUS] KERNEL;

struct pglist_data {
	int node_id;
};

struct pglist_data *node_data[MAX_NUMNODES] KERNEL;
struct resource iomem_resource KERNEL = { .end = ~0UL, .name = "PCI mem" };

/*
 * That the kernel has it tells drgn that there is a virtual memory map; and that the file has .init.text,
 * that it is a kernel.
 */
__attribute__((section(".init.text"), used)) int vmemmap_populate(unsigned long start, unsigned long end,
								  int node);
int vmemmap_populate(unsigned long start, unsigned long end, int node)
{
	return start < end ? node : -1;
}

/* Per-CPU memory: two areas, addressed by "offsets" from PERCPU_BASE. */
#define PERCPU_BASE 0x10000UL

static char *percpu_area[2];

static void setup_percpu(void)
{
	for (int cpu = 0; cpu < 2; cpu++) {
		percpu_area[cpu] = ram_alloc(PAGE_SIZE_, PAGE_SIZE_);
		__per_cpu_offset[cpu] = kaddr(percpu_area[cpu]) - PERCPU_BASE;
	}
}

static void setup_sections(void)
{
	struct mem_section *root = ram_alloc(PAGE_SIZE_, PAGE_SIZE_);

	/* Every section's word is the start of the vmemmap and state bits: section 0 is RAM, others are not
	 * online. */
	for (int i = 0; i < SECTIONS_PER_ROOT; i++)
		root[i].section_mem_map = VMEMMAP | (i ? 3 : 7);
#ifndef MEM_SECTION_ARRAY
	struct mem_section **roots = ram_alloc(NR_SECTION_ROOTS * sizeof(*roots), PAGE_SIZE_);

	mem_section = K(roots);
	roots[0] = K(root);
#else
	mem_section[0] = K(root);
#endif
}

static size_t image_size(void)
{
	return ((size_t)(__stop_kernel - __start_kernel) + 4095) & ~4095UL;
}

static void setup_kernel(void)
{
	map_range(kaddr(__start_kernel), __start_kernel, image_size());
	map_range(PAGE_OFFSET + RAM_PHYS, ram, RAM_SIZE);
	setup_percpu();
	setup_sections();
	init_mm.pgd = K(swapper_pg_dir);
}

/* In /proc/iomem, under a name. */
static void add_resource(const char *name, struct resource range)
{
	struct resource *resource = NEW(struct resource);
	char *copy = ram_alloc(strlen(name) + 1, 1);

	strcpy(copy, name);
	*resource = range;
	resource->name = K(copy);
	resource->sibling = iomem_resource.child;
	iomem_resource.child = K(resource);
}

/* ---- the core ---- */

static char vmcoreinfo[4096];

static void vmcoreinfo_append(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void vmcoreinfo_append(const char *format, ...)
{
	size_t used = strlen(vmcoreinfo);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(vmcoreinfo + used, sizeof(vmcoreinfo) - used, format, arguments);
	va_end(arguments);
}

static void make_vmcoreinfo(const char *build_id)
{
	vmcoreinfo_append("OSRELEASE=%s\n", RELEASE);
#ifdef HAS_BUILD_ID
	vmcoreinfo_append("BUILD-ID=%s\n", build_id);
#endif
	vmcoreinfo_append("PAGESIZE=4096\n");
	vmcoreinfo_append("SYMBOL(init_uts_ns)=%lx\n", kaddr(&init_uts_ns));
	vmcoreinfo_append("SYMBOL(swapper_pg_dir)=%lx\n", kaddr(swapper_pg_dir));
	vmcoreinfo_append("SYMBOL(mem_section)=%lx\n", kaddr(&mem_section));
	vmcoreinfo_append("LENGTH(mem_section)=%d\n", NR_SECTION_ROOTS);
	vmcoreinfo_append("SIZE(mem_section)=%zu\n", sizeof(struct mem_section));
#ifdef HAS_PHYS_BASE
	vmcoreinfo_append("NUMBER(phys_base)=0\n");
#endif
	vmcoreinfo_append("KERNELOFFSET=%lx\n", IMAGE_OFFSET);
	(void)build_id;
}

struct elf64_header {
	unsigned char ident[16];
	uint16_t type, machine;
	uint32_t version;
	u64 entry, phoff, shoff;
	uint32_t flags;
	uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};

struct elf64_phdr {
	uint32_t type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};

struct elf64_note {
	uint32_t namesz, descsz, type;
	char name[12];
};

enum { CORE_NOTES = 0x1000, CORE_IMAGE = 0x3000 };

/* Where an object lies in the core file. */
static u64 core_offset(const void *p)
{
	if (in_ram(p))
		return CORE_IMAGE + image_size() + (u64)((const char *)p - ram);
	return CORE_IMAGE + (u64)((const char *)p - __start_kernel);
}

static void write_at(FILE *file, u64 offset, const void *data, size_t size)
{
	if (fseek(file, (long)offset, SEEK_SET) || fwrite(data, 1, size, file) != size) {
		perror("mock: core");
		exit(1);
	}
}

static void write_core(FILE *file)
{
	size_t text = strlen(vmcoreinfo), used = (ram_used + 4095) & ~4095UL;
	size_t notes = sizeof(struct elf64_note) + ((text + 3) & ~3UL);
	struct elf64_note note = { 11, (uint32_t)text, 0, "VMCOREINFO" };
	struct elf64_phdr table[] = {
		{ 4, 0, CORE_NOTES, 0, 0, notes, notes, 4 },
		{ 1, 7, CORE_IMAGE, kaddr(__start_kernel), phys(__start_kernel), image_size(), image_size(),
		  4096 },
		{ 1, 7, CORE_IMAGE + image_size(), kaddr(ram), phys(ram), used, used, 4096 },
	};
	struct elf64_header header = {
		.ident = { 0x7f, 'E', 'L', 'F', 2, 1, 1 },
		.type = 4,
		.machine = 62,
		.version = 1,
		.phoff = sizeof(header),
		.ehsize = sizeof(header),
		.phentsize = sizeof(*table),
		.phnum = 3,
	};

	write_at(file, 0, &header, sizeof(header));
	write_at(file, sizeof(header), table, sizeof(table));
	write_at(file, CORE_NOTES, &note, sizeof(note));
	write_at(file, CORE_NOTES + sizeof(note), vmcoreinfo, text);
	write_at(file, CORE_IMAGE, __start_kernel, (size_t)(__stop_kernel - __start_kernel));
	write_at(file, core_offset(ram), ram, used);
}

#endif
