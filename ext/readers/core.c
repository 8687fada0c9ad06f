// SPDX-License-Identifier: LGPL-2.1-or-later
// ELF cores: physical memory by the p_paddr of PT_LOADs.  Where several hold a frame, the last one does, as
// drgn has it (a kernel's text is in a segment of its own and in the one of its memory).
// A frame of which a segment's file part ends in its midst is unsure, and so is what follows up to p_memsz.

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "extents.h"
#include "format.h"

struct core {
	struct zd_memory memory;
	/** Physical memory without overlaps, in rising order; in file_size what the part holds. */
	struct zd_extent *parts;
	size_t parts_count;
	/** Virtual memory, in the order of the file. */
	struct zd_extent *virtual;
	size_t virtual_count;
};

struct core_cursor {
	struct zd_cursor cursor;
	size_t part; /* where the last frame was found */
};

static bool probe(const uint8_t *magic)
{
	return !memcmp(magic, ELFMAG, SELFMAG);
}

static void deinit(struct zd_memory *memory)
{
	struct core *core = (struct core *)memory;

	free(core->parts);
	free(core->virtual);
}

static bool has_virtual(const struct zd_memory *memory, uint64_t start, uint64_t end)
{
	const struct core *core = (const struct core *)memory;

	for (size_t i = 0; i < core->virtual_count; i++) {
		if (start < core->virtual[i].end && core->virtual[i].start < end)
			return true;
	}
	return false;
}

/**
 * The memory of a program header at @start, as far as a file of @file_size bytes has it; false where there is
 * none, or it would wrap around.
 */
static bool make_segment(const Elf64_Phdr *header, uint64_t start, uint64_t file_size, struct zd_extent *ret)
{
	uint64_t left = header->p_offset < file_size ? file_size - header->p_offset : 0;
	uint64_t file_end;

	*ret = (struct zd_extent){ start, 0, header->p_offset,
				   header->p_filesz < left ? header->p_filesz : left };
	return header->p_type == PT_LOAD && header->p_memsz && header->p_filesz <= header->p_memsz &&
	       !__builtin_add_overflow(start, header->p_memsz, &ret->end) &&
	       !__builtin_add_overflow(header->p_offset, header->p_filesz, &file_end);
}

static struct zd_error *take_segments(struct core *core, const Elf64_Phdr *headers, size_t count)
{
	struct zd_extent physical[ZD_SEGMENTS_MAX];
	size_t physical_count = 0;
	bool addressed = false;

	for (size_t i = 0; i < count; i++)
		addressed |= headers[i].p_type == PT_LOAD && headers[i].p_paddr;
	if (!addressed)
		return zd_error_create(ZD_ERROR_INVALID, "core: it has no physical addresses");
	core->parts = calloc(2 * count, sizeof(*core->parts));
	core->virtual = calloc(count, sizeof(*core->virtual));
	if (!core->parts || !core->virtual)
		return zd_error_no_memory();
	for (size_t i = 0; i < count; i++) {
		if (headers[i].p_type != PT_LOAD || !headers[i].p_memsz)
			continue;
		if (make_segment(&headers[i], headers[i].p_vaddr, core->memory.file_size,
				 &core->virtual[core->virtual_count]))
			core->virtual_count++;
		if (!make_segment(&headers[i], headers[i].p_paddr, core->memory.file_size,
				  &physical[physical_count++]))
			return zd_error_create(ZD_ERROR_INVALID, "core: program header %zu makes no sense", i);
	}
	core->parts_count = zd_extents_divide(physical, physical_count, core->parts);
	return NULL;
}

static struct zd_error *init(struct zd_memory *memory)
{
	struct core *core = (struct core *)memory;
	Elf64_Phdr *headers;
	struct zd_error *error;
	Elf64_Ehdr header;

	if (!zd_memory_pread(memory, &header, sizeof(header), 0))
		return zd_error_create(ZD_ERROR_FORMAT, "core: it ends within its header");
	if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || header.e_type != ET_CORE ||
	    header.e_phentsize != sizeof(*headers) || !header.e_phnum || header.e_phnum > ZD_SEGMENTS_MAX)
		return zd_error_create(ZD_ERROR_INVALID, "core: of a kind that is not read here");
	headers = calloc(header.e_phnum, sizeof(*headers));
	if (!headers)
		return zd_error_no_memory();
	if (zd_memory_pread(memory, headers, header.e_phnum * sizeof(*headers), header.e_phoff))
		error = take_segments(core, headers, header.e_phnum);
	else
		error = zd_error_create(ZD_ERROR_FORMAT, "core: it ends within its program headers");
	free(headers);
	return error;
}

/** What is known of a frame, and in @left how many bytes from it on lie in one piece of the file. */
static enum zd_memory_state find_frame(struct core_cursor *cursor, uint64_t frame,
				       const struct zd_extent **part, uint64_t *left)
{
	const struct core *core = (const struct core *)cursor->cursor.memory;
	size_t i = zd_extents_find(core->parts, core->parts_count, cursor->part, frame);
	uint64_t into;

	if (i == core->parts_count || core->parts[i].start >= frame + ZD_FRAME)
		return ZD_MEMORY_ABSENT;
	*part = &core->parts[i];
	cursor->part = i;
	into = frame - (*part)->start;
	if (frame < (*part)->start || (*part)->file_size < into || (*part)->file_size - into < ZD_FRAME)
		return ZD_MEMORY_UNSURE;
	*left = (*part)->file_size - into;
	return ZD_MEMORY_DATA;
}

/** How many of @count frames follow each other in memory. */
static size_t run_of(const uint64_t *frames, size_t count)
{
	size_t n = 1;

	while (n < count && frames[n] == frames[0] + n * ZD_FRAME)
		n++;
	return n;
}

/** Load the first frames of @count that follow each other in the file. */
static size_t load(struct zd_cursor *cursor, const uint64_t *frames, size_t count, uint8_t *buffer,
		   uint8_t *states)
{
	const struct zd_extent *part;
	uint64_t left;
	size_t n;

	states[0] = find_frame((struct core_cursor *)cursor, frames[0], &part, &left);
	if (states[0] != ZD_MEMORY_DATA)
		return 1;
	n = run_of(frames, left / ZD_FRAME < count ? left / ZD_FRAME : count);
	if (!zd_memory_pread(cursor->memory, buffer, n * ZD_FRAME, part->offset + (frames[0] - part->start))) {
		states[0] = ZD_MEMORY_UNSURE;
		return 1;
	}
	memset(states, ZD_MEMORY_DATA, n);
	return n;
}

const struct zd_format zd_format_elf = {
	.name = "elf",
	.probe = probe,
	.memory_size = sizeof(struct core),
	.cursor_size = sizeof(struct core_cursor),
	.init = init,
	.deinit = deinit,
	.has_virtual = has_virtual,
	.load = load,
};
