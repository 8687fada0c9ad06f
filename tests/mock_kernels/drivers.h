/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drivers that keep books of their pages: a pool of peer-to-peer memory, lists of free pages.
 *
 * Owns the drivers' types in the shape of their time, the way from a pagemap to its books, and their making.
 * Which pages the books call free is program.h's to say.  OLD_P2PDMA: as before 6.19.
 * Mirrors drivers/pci/p2pdma.c, lib/genalloc.c, lib/test_hmm.c, drivers/gpu/drm/nouveau/nouveau_dmem.c and
 * drivers/xen/unpopulated-alloc.c, members and places only.
 */
#ifndef MOCK_DRIVERS_H
#define MOCK_DRIVERS_H

/* Its private pages are test_hmm's, told by their ops. */
#define gpu_ops dmirror_devmem_ops

#include "memremap.h"

/* ---- a pool ---- */

struct gen_pool {
	unsigned int lock;
	struct list_head chunks;
	int min_alloc_order;
};

struct gen_pool_chunk {
	struct list_head next_chunk;
	atomic_long_t avail;
	phys_addr_t phys_addr;
	void *owner;
	unsigned long start_addr, end_addr;
	unsigned long bits[];
};

struct pci_p2pdma {
	struct gen_pool *pool;
	bool p2pmem_published;
};

struct device_core {
	unsigned int refs;
};

struct pci_dev {
	unsigned int devfn;
	struct device_core dev;
	struct pci_p2pdma *p2pdma;
};

struct p2pdma_provider {
	struct device_core *owner;
	u64 bus_offset;
};

struct pci_p2pdma_pagemap {
#ifdef OLD_P2PDMA
	struct pci_dev *provider;
	u64 bus_offset;
	struct dev_pagemap pgmap;
#else
	struct dev_pagemap pgmap;
	struct p2pdma_provider *mem;
#endif
};

static struct gen_pool_chunk *add_chunk(struct gen_pool *pool, unsigned long pages)
{
	size_t size = sizeof(struct gen_pool_chunk) + (pages + 63) / 64 * sizeof(unsigned long);
	struct gen_pool_chunk *chunk = ram_alloc(size, 64);
	struct list_head *first = at_kaddr((u64)pool->chunks.next);

	chunk->next_chunk = (struct list_head){ pool->chunks.next, K(&pool->chunks) };
	first->prev = K(&chunk->next_chunk);
	pool->chunks.next = K(&chunk->next_chunk);
	chunk->start_addr = PAGE_OFFSET + (1UL << 40);
	chunk->end_addr = chunk->start_addr + pages * PAGE_SIZE_ - 1;
	return chunk;
}

static struct dev_pagemap *new_p2pdma(const struct device *device)
{
	struct pci_p2pdma_pagemap *wrapper = NEW(struct pci_p2pdma_pagemap);
	struct pci_p2pdma *p2pdma = NEW(struct pci_p2pdma);
	struct gen_pool *pool = NEW(struct gen_pool);
	struct pci_dev *pci_dev = NEW(struct pci_dev);

	pci_dev->p2pdma = K(p2pdma);
	p2pdma->pool = K(pool);
	pool->min_alloc_order = 12;
	pool->chunks = (struct list_head){ K(&pool->chunks), K(&pool->chunks) };
	add_chunk(pool, device->pages)->owner = K(&wrapper->pgmap.ref);
	/* Of another part of the device. */
	add_chunk(pool, device->pages)->owner = K(pool);
#ifdef OLD_P2PDMA
	wrapper->provider = K(pci_dev);
#else
	wrapper->mem = K(NEW(struct p2pdma_provider));
	((struct p2pdma_provider *)at_kaddr((u64)wrapper->mem))->owner = K(&pci_dev->dev);
#endif
	return &wrapper->pgmap;
}

static void fill_pool(const struct device *device, const bool *used)
{
	struct pci_p2pdma_pagemap *wrapper =
		(void *)((char *)device->pgmap - offsetof(struct pci_p2pdma_pagemap, pgmap));
#ifdef OLD_P2PDMA
	struct pci_dev *pci_dev = at_kaddr((u64)wrapper->provider);
#else
	struct p2pdma_provider *mem = at_kaddr((u64)wrapper->mem);
	struct pci_dev *pci_dev = (void *)((char *)at_kaddr((u64)mem->owner) - offsetof(struct pci_dev, dev));
#endif
	struct pci_p2pdma *p2pdma = at_kaddr((u64)pci_dev->p2pdma);
	struct gen_pool *pool = at_kaddr((u64)p2pdma->pool);
	/* The one that was added first. */
	struct gen_pool_chunk *chunk = at_kaddr((u64)pool->chunks.prev);

	for (unsigned long i = 0; i < device->pages; i++)
		chunk->bits[i / 64] |= (unsigned long)used[i] << i % 64;
}

/* ---- lists of free pages ---- */

/* Its coherent pages are called nouveau's, which has none: so each driver has some. */
static struct dev_pagemap_ops nouveau_dmem_pagemap_ops KERNEL;

struct dmirror_device {
	unsigned long calloc, cfree;
	struct page *free_pages;
};

struct dmirror_chunk {
	struct dev_pagemap pagemap;
	struct dmirror_device *mdevice;
	bool remove;
};

struct nouveau_dmem {
	struct list_head chunks;
	struct page *free_pages;
	struct page *free_folios;
};

struct nouveau_drm {
	struct nouveau_dmem *dmem;
};

struct nouveau_dmem_chunk {
	struct list_head list;
	struct nouveau_drm *drm;
	struct dev_pagemap pagemap;
};

static struct page *page_list KERNEL;

static struct dev_pagemap *new_dmirror(void)
{
	struct dmirror_chunk *chunk = NEW(struct dmirror_chunk);

	chunk->mdevice = K(NEW(struct dmirror_device));
	return &chunk->pagemap;
}

static struct dev_pagemap *new_nouveau(void)
{
	struct nouveau_dmem_chunk *chunk = NEW(struct nouveau_dmem_chunk);
	struct nouveau_drm *drm = NEW(struct nouveau_drm);

	drm->dmem = K(NEW(struct nouveau_dmem));
	chunk->drm = K(drm);
	return &chunk->pagemap;
}

/* The variable that holds the list of a device's free pages, NULL: it keeps none. */
static struct page **list_of(const struct device *device)
{
	struct dmirror_chunk *dmirror = device->pgmap;
	struct nouveau_dmem_chunk *nouveau;
	struct nouveau_drm *drm;

	switch (device->kernel_type) {
	case MEMORY_DEVICE_PRIVATE:
		return &((struct dmirror_device *)at_kaddr((u64)dmirror->mdevice))->free_pages;
	case MEMORY_DEVICE_COHERENT:
		nouveau = (void *)((char *)device->pgmap - offsetof(struct nouveau_dmem_chunk, pagemap));
		drm = at_kaddr((u64)nouveau->drm);
		return &((struct nouveau_dmem *)at_kaddr((u64)drm->dmem))->free_pages;
	default:
		return strcmp(device->name, "Xen scratch") ? NULL : &page_list;
	}
}

static void fill_list(const struct device *device, const bool *used)
{
	struct page **list = list_of(device);

	for (unsigned long i = 0; list && i < device->pages; i++) {
		if (used[i])
			continue;
		device->memmap[i].zone_device_data = *list;
		*list = (void *)(VMEMMAP + (device->pfn + i) * sizeof(struct page));
	}
}

/* ---- both ---- */

static struct dev_pagemap *new_driver_pagemap(const struct device *device)
{
	switch (device->kernel_type) {
	case MEMORY_DEVICE_PCI_P2PDMA:
		return new_p2pdma(device);
	case MEMORY_DEVICE_PRIVATE:
		return new_dmirror();
	case MEMORY_DEVICE_COHERENT:
		return new_nouveau();
	default:
		return NEW(struct dev_pagemap);
	}
}

/* @used: per page whether the books of the driver call it used. */
static void keep_books(const struct device *device, const bool *used)
{
	struct dev_pagemap *pgmap = device->pgmap;

	if (device->kernel_type == MEMORY_DEVICE_PCI_P2PDMA)
		fill_pool(device, used);
	fill_list(device, used);
	if (device->kernel_type == MEMORY_DEVICE_COHERENT) {
		nouveau_dmem_pagemap_ops = gpu_ops;
		pgmap->ops = K(&nouveau_dmem_pagemap_ops);
	}
}

#define NEW_PAGEMAP(device) new_driver_pagemap(device)

#endif
