// SPDX-License-Identifier: LGPL-2.1-or-later
// ELF files through elfutils' libelf: kind, completeness, build id.
// Never reads memory contents; every header comes from libelf, which checks its bounds.

#include <errno.h>
#include <string.h>

#include "inspect.h"

#ifdef HAVE_LIBELF

#include <elfutils/version.h>
#include <fcntl.h>
#include <gelf.h>
#include <sys/stat.h>
#include <unistd.h>

#define STRING(x) #x
#define VERSION_STRING(x) "0." STRING(x)

const char *zd_elf_version(void)
{
	return VERSION_STRING(_ELFUTILS_VERSION);
}

/** Remember the NT_GNU_BUILD_ID note if @data holds one. */
static void find_build_id(Elf_Data *data, struct zd_elf_info *info)
{
	size_t offset = 0, name, description;
	GElf_Nhdr note;

	while (data && !info->build_id_size &&
	       (offset = gelf_getnote(data, offset, &note, &name, &description))) {
		if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 || note.n_descsz > ZD_BUILD_ID_MAX ||
		    memcmp((const char *)data->d_buf + name, "GNU", 4))
			continue;
		memcpy(info->build_id, (const char *)data->d_buf + description, note.n_descsz);
		info->build_id_size = note.n_descsz;
	}
}

static void inspect_sections(Elf *elf, struct zd_elf_info *info)
{
	size_t names;
	Elf_Scn *section = NULL;
	GElf_Shdr header;

	if (elf_getshdrstrndx(elf, &names))
		return;
	while ((section = elf_nextscn(elf, section))) {
		const char *name;

		if (!gelf_getshdr(section, &header))
			continue;
		name = elf_strptr(elf, names, header.sh_name);
		if (name && (!strcmp(name, ".debug_info") || !strcmp(name, ".zdebug_info")))
			info->has_debug_info = header.sh_type != SHT_NOBITS;
		if (name && !strcmp(name, ".BTF") && header.sh_type != SHT_NOBITS &&
		    !(header.sh_flags & SHF_COMPRESSED)) {
			info->btf_offset = header.sh_offset;
			info->btf_size = header.sh_size;
		}
		if (header.sh_type == SHT_NOTE)
			find_build_id(elf_getdata(section, NULL), info);
	}
}

static void inspect_segments(Elf *elf, struct zd_elf_info *info)
{
	GElf_Phdr header;
	size_t count;

	if (elf_getphdrnum(elf, &count))
		return;
	for (size_t i = 0; i < count && gelf_getphdr(elf, i, &header); i++) {
		uint64_t end;

		if (!__builtin_add_overflow(header.p_offset, header.p_filesz, &end) && end > info->wanted_size)
			info->wanted_size = end;
		// A core's PT_NOTEs are its processes' and VMCOREINFO, not a build id of its own.
		if (header.p_type == PT_NOTE && !info->core)
			find_build_id(elf_getdata_rawchunk(elf, header.p_offset, header.p_filesz, ELF_T_NHDR),
				      info);
	}
}

static struct zd_error *inspect_elf(Elf *elf, const char *path, struct zd_elf_info *info)
{
	GElf_Ehdr header;

	if (!elf || elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, &header))
		return zd_error_create(ZD_ERROR_FORMAT, "%s: not an ELF file", path);
	info->core = header.e_type == ET_CORE;
	info->machine = header.e_machine;
	info->bits = gelf_getclass(elf) == ELFCLASS64 ? 64 : 32;
	inspect_sections(elf, info);
	inspect_segments(elf, info);
	return NULL;
}

struct zd_error *zd_elf_inspect(const char *path, struct zd_elf_info *ret)
{
	struct zd_error *error;
	struct stat status;
	Elf *elf;
	int fd;

	memset(ret, 0, sizeof(*ret));
	elf_version(EV_CURRENT);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status)) {
		error = zd_error_create(ZD_ERROR_IO, "%s: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return error;
	}
	ret->file_size = status.st_size;
	elf = elf_begin(fd, ELF_C_READ, NULL);
	error = inspect_elf(elf, path, ret);
	elf_end(elf);
	close(fd);
	return error;
}

#else

const char *zd_elf_version(void)
{
	return NULL;
}

struct zd_error *zd_elf_inspect(const char *path, struct zd_elf_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	return zd_error_create(ZD_ERROR_INVALID, "%s: built without libelf", path);
}

#endif
