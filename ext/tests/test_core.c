// SPDX-License-Identifier: LGPL-2.1-or-later
// C tests of the core, built with ASan and UBSan: arbitrary bytes in arbitrary pieces, every
// allocation failed once.  What the answers are is tested from Python; here it is that there is one,
// that the classes add up, and that nothing is read, leaked or shifted that must not be.
// Link with -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc.

#include "../core/btf.h"
#include "../core/entries.h"
#include "../core/pagebits.h"
#include "../core/pointers.h"
#include "check.h"
#include "machine.h"

enum { PAGES = 600, ROUNDS = 200 };

static uint64_t state = 88172645463325252;

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/**
 * Fail the first, the second, ... allocation of @run, until it needs no more; how many failed.
 * @run sees the same input each time.
 */
static unsigned long fail_each_allocation(struct zd_error *(*run)(void))
{
	struct zd_error *error = NULL;
	unsigned long failed = 0;

	for (allocation.fail_at = 1; allocation.fail_at < 10000; allocation.fail_at++) {
		allocation.calls = 0;
		error = run();
		if (!error)
			break;
		CHECK(error->code == ZD_ERROR_NO_MEMORY);
		zd_error_destroy(error);
		failed++;
	}
	CHECK(!error);
	allocation.fail_at = 0;
	return failed;
}

/** Words that bring a page near to something: flags, pointers, counters. */
static uint64_t telling_word(const struct zd_range *range)
{
	static const uint64_t words[] = { 0, 1, 2, UINT64_MAX, 0xfdfdfdfdfdfdfdfd, 0xffff888101234500 };
	uint64_t r = next_random();

	switch (r % 6) {
	case 0:
		return range->memmap + r / 6 % PAGES * 64 + 1;
	case 1:
		return ~(UINT64_C(64) << r / 6 % 40) + 2;
	case 2:
		return UINT64_C(4) << 51 | 1 << 13 | (r / 6 & 0x7f);
	case 3:
		return r;
	default:
		return words[r / 6 % (sizeof(words) / sizeof(*words))];
	}
}

static void make_pages(uint8_t *bytes, const struct zd_range *range)
{
	uint64_t idle[8] = { UINT64_C(4) << 51 | 1 << 13, 0xffff888101234500, 0, 0, 0, 0, UINT32_MAX, 0 };

	for (int i = 0; i < PAGES; i++)
		memcpy(bytes + i * 64, idle, 64);
	for (unsigned int i = next_random() % 400; i; i--) {
		uint64_t word = telling_word(range);

		memcpy(bytes + next_random() % (PAGES * 8) * 8, &word, 8);
	}
}

/** One scan in pieces; NULL or the error of an allocation that failed. */
static struct zd_error *scan_pages(const struct zd_layout *layout, const struct zd_scheme *scheme,
				   const struct zd_pagemap *pagemap, const struct zd_range *range,
				   const uint8_t *bytes)
{
	struct zd_scan scan;
	struct zd_error *error = zd_scan_init(&scan, layout, scheme, pagemap, true, true);
	uint64_t sum = 0;

	if (!error)
		error = zd_scan_begin(&scan, range);
	if (!error)
		error = zd_scan_count_cells(&scan, range->start_pfn, range->end_pfn, next_random() % 8);
	for (uint64_t done = 0; !error && done < PAGES;) {
		uint64_t n = next_random() % 100 + 1;
		uint8_t *piece;

		if (n > PAGES - done)
			n = PAGES - done;
		// A block of its own, so that ASan sees a byte too many.
		piece = __real_malloc(n * 64);
		memcpy(piece, bytes + done * 64, n * 64);
		error = next_random() % 8 ? zd_scan_pages(&scan, piece, n)
					  : zd_scan_hole(&scan, n, ZD_UNREADABLE);
		free(piece);
		done += n;
	}
	if (!error) {
		error = zd_scan_end(&scan);
		for (int i = 0; i < ZD_CLASSES; i++)
			sum += scan.tally.classes[i];
		CHECK(sum == PAGES && cells_add_up(&scan));
	}
	zd_scan_deinit(&scan);
	return error;
}

static void scan_everything(void)
{
	static uint8_t bytes[PAGES * 64];
	struct zd_range range = { 1 << 20, (1 << 20) + PAGES, 0xffffea0004000000 };

	for (int round = 0; round < ROUNDS; round++) {
		const struct zd_scheme *scheme = &zd_schemes[next_random() % ZD_SCHEMES];
		struct zd_pagemap pagemap = {
			.address = 0xffff888101234500,
			.type = next_random() % ZD_TYPES,
			.ref = next_random() % 3,
			.vmemmap_shift = next_random() % 2 * 9,
			.node = 0,
			.deduplicated = next_random() % 2,
			.severity_cap = ZD_ERROR,
		};
		struct zd_error *error;

		make_pages(bytes, &range);
		error = scan_pages(&amd64, scheme, &pagemap, &range, bytes);
		CHECK(!error);
	}
}

static struct zd_error *scan_some_pages(void)
{
	static uint8_t bytes[PAGES * 64];
	struct zd_range range = { 1 << 20, (1 << 20) + PAGES, 0xffffea0004000000 };
	struct zd_pagemap pagemap = {
		.address = 0xffff888101234500, .type = ZD_FS_DAX, .deduplicated = true, .severity_cap = ZD_ERROR
	};

	state = 7;
	make_pages(bytes, &range);
	return scan_pages(&amd64, &zd_schemes[ZD_SCHEME_H], &pagemap, &range, bytes);
}

static void fail_every_allocation(void)
{
	CHECK(fail_each_allocation(scan_some_pages) >= 3);
}

/** Struct pages of a layout, and no byte more, through a scan. */
static void scan_layout(const struct zd_layout *layout, const struct zd_pagemap *pagemap, const uint8_t *bytes,
			uint64_t pages)
{
	struct zd_range range = { 1 << 20, (1 << 20) + pages, 0xffffea0004000000 };
	uint8_t *copy = __real_malloc(pages * layout->page_size);
	struct zd_scan scan;

	memcpy(copy, bytes, pages * layout->page_size);
	CHECK(!zd_scan_init(&scan, layout, &zd_schemes[ZD_SCHEME_H], pagemap, true, true));
	CHECK(!zd_scan_begin(&scan, &range));
	CHECK(!zd_scan_pages(&scan, copy, pages));
	CHECK(!zd_scan_end(&scan));
	zd_scan_deinit(&scan);
	free(copy);
}

/** Layouts with one byte changed: refused, or safe to scan with. */
static void refuse_layouts(void)
{
	static const struct zd_pagemap pagemap = { .type = ZD_FS_DAX, .severity_cap = ZD_ERROR };
	static uint8_t bytes[8 * ZD_PAGE_MAX];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = next_random();
	for (int i = 0; i < ROUNDS * 20; i++) {
		struct zd_layout layout = amd64;
		struct zd_error *error;
		uint64_t r = next_random();

		((uint8_t *)&layout)[r % sizeof(layout)] = r >> 32;
		// A bool is 0 or 1: whoever makes a layout has seen to that.
		layout.big_endian = r >> 40 & 1;
		layout.compound_mask = r >> 41 & 1;
		error = zd_layout_check(&layout);
		if (!error)
			scan_layout(&layout, &pagemap, bytes, 8);
		zd_error_destroy(error);
	}
}

// ---------------------------------------------------------------- entries

enum { NODES = 40, NODE_SIZE = 576 };

static const struct zd_xa_layout xa = { .node_size = NODE_SIZE,
					.slot_count = 64,
					.shift = 0,
					.offset = 1,
					.count = 2,
					.parent = 8,
					.array = 16,
					.slots = 40,
					.word_size = 8 };
static const struct zd_space_layout space = { .size = 32, .host = 0, .xarray = 8, .xa_head = 16, .lock = 8 };
static const struct zd_inode_layout inode = { .size = 64, .sb_list = 16, .mapping = 40, .flags = 12 };

/** Memory of random words, many of which lead to itself. */
static uint8_t arena[NODES * NODE_SIZE];
static const uint64_t arena_at = 0xffff888100000000;
static unsigned long reads;

static enum zd_read read_arena(void *context, uint64_t address, void *buffer, size_t size)
{
	(void)context;
	reads++;
	if (address < arena_at || address - arena_at > sizeof(arena) ||
	    size > sizeof(arena) - (address - arena_at))
		return next_random() % 4 ? ZD_READ_FAULT : ZD_READ_STOP;
	memcpy(buffer, arena + (address - arena_at), size);
	return ZD_READ_DONE;
}

static const struct zd_memory memory = { .read = read_arena };

/** The same, but what lies outside of it is always lost. */
static enum zd_read read_or_fault(void *context, uint64_t address, void *buffer, size_t size)
{
	bool inside = address >= arena_at && address - arena_at <= sizeof(arena) &&
		      size <= sizeof(arena) - (address - arena_at);

	return inside ? read_arena(context, address, buffer, size) : ZD_READ_FAULT;
}

static const struct zd_memory arena_only = { .read = read_or_fault };

static uint64_t arena_word(int node)
{
	uint64_t r = next_random();

	switch (r % 8) {
	case 0:
		return 0;
	case 1:
	case 2:
		return (r / 8 % 700 + (1 << 20)) << 5 | (r / 8192 & 30) | 1;
	case 3:
		return (r / 8 % 64) << 2 | 2;
	case 4:
		return r;
	default:
		// A node that may well be a child of this one.
		return (arena_at + (node + 1 + r / 8 % 4) % NODES * NODE_SIZE) | 2;
	}
}

/** A chain of nodes that believe in each other, with random slots, and then some random bytes. */
static void make_arena(void)
{
	for (int i = 0; i < NODES; i++) {
		uint8_t *node = arena + i * NODE_SIZE;
		uint64_t parent = i ? arena_at + (i - 1) * NODE_SIZE : 0, array = arena_at + 8;
		unsigned int count = 0;

		memset(node, 0, NODE_SIZE);
		for (int slot = 0; slot < 64; slot++) {
			uint64_t word = slot == i % 7 ? (arena_at + (i + 1) * NODE_SIZE) | 2 : arena_word(i);

			memcpy(node + 40 + slot * 8, &word, 8);
			count += word != 0;
		}
		node[0] = i < 8 ? 42 - 6 * (unsigned int)i : next_random();
		node[1] = i ? (i - 1) % 7 : 0;
		node[2] = count;
		memcpy(node + 8, &parent, 8);
		memcpy(node + 16, &array, 8);
	}
	for (unsigned int i = next_random() % 20; i; i--)
		arena[next_random() % sizeof(arena)] ^= 1 << next_random() % 8;
}

static struct zd_error *count_entry(void *context, const struct zd_dax_entry *entry)
{
	*(unsigned long *)context += !entry->misplaced;
	return NULL;
}

static struct zd_error *count_value(void *context, const struct zd_xa_value *value)
{
	*(unsigned long *)context += value->slots;
	return NULL;
}

static struct zd_error *count_inode(void *context, uint64_t address, uint64_t mapping)
{
	(void)address;
	(void)mapping;
	++*(unsigned long *)context;
	return NULL;
}

static struct zd_error *walk_arena(uint64_t head)
{
	struct zd_range range = { 1 << 20, (1 << 20) + PAGES, arena_at };
	struct zd_inode_walk inodes;
	struct zd_entries entries;
	struct zd_file_tally tally;
	unsigned long count = 0;
	struct zd_error *error = zd_entries_init(&entries, &amd64, next_random() % 4, &xa, &space);

	// Few claims at a time, or all of them.
	if (next_random() % 2)
		entries.claims.limit = 1 + next_random() % 8;
	if (!error)
		error = zd_entries_add_range(&entries, &range);
	if (!error)
		error = zd_entries_add_file(&entries, &memory, arena_at, &tally);
	if (!error)
		error = zd_entries_walk_file(&entries, &memory, arena_at, count_entry, &count, &tally);
	if (!error)
		error = zd_entries_know(&entries, head, ZD_MAPPING_UNKNOWN);
	if (!error) {
		CHECK(zd_entries_kind(&entries, head) == ZD_MAPPING_UNKNOWN);
		zd_entries_judge_lock(&entries, range.start_pfn, PAGES, next_random() % 2);
		reads = 0;
		error = zd_inodes_walk(&xa, &inode, &memory, head, count_inode, &count, &inodes);
		CHECK(reads <= sizeof(arena));
	}
	zd_entries_deinit(&entries);
	return error;
}

static void walk_everything(void)
{
	uint64_t head = arena_at | 2, most = 0;

	for (int round = 0; round < ROUNDS * 10; round++) {
		struct zd_error *error;

		make_arena();
		// The head of the xarray at arena + 8: the first node itself, or anything.
		if (next_random() % 4)
			memcpy(arena + 16, &head, 8);
		error = walk_arena(arena_at + next_random() % (sizeof(arena) / 8) * 8);
		CHECK(!error);
	}
	// Nodes that believe in each other are walked.
	for (int round = 0; round < ROUNDS; round++) {
		struct zd_xa_walk walk;
		unsigned long count = 0;

		make_arena();
		CHECK(!zd_xa_walk(&xa, &memory, arena_at + 8, arena_at | 2, count_value, &count, &walk));
		most = walk.nodes > most ? walk.nodes : most;
	}
	CHECK(most > 8);
}

static void sort_claims(void)
{
	for (int round = 0; round < ROUNDS; round++) {
		struct zd_claims claims;
		uint64_t sum = 0, wide = next_random() % 2 ? 40 : 4;

		zd_claims_init(&claims, 1 + next_random() % 5000);
		while (!zd_claims_full(&claims)) {
			struct zd_claim claim = { next_random() >> wide, next_random() };

			CHECK(!zd_claims_add(&claims, &claim));
			sum += claim.word ^ claim.index;
		}
		CHECK(!zd_claims_sort(&claims));
		for (size_t i = 0; i < claims.count; i++) {
			CHECK(!i || claims.list[i - 1].word <= claims.list[i].word);
			sum -= claims.list[i].word ^ claims.list[i].index;
		}
		CHECK(!sum);
		zd_claims_clear(&claims);
		CHECK(!claims.count && !zd_claims_full(&claims));
		zd_claims_deinit(&claims);
	}
}

/** Marks do not depend on how many claims are compared at once. */
static void compare_batches(void)
{
	struct zd_range range = { 1 << 20, (1 << 20) + PAGES, arena_at };

	for (int round = 0; round < ROUNDS; round++) {
		struct zd_entries entries[2];
		struct zd_file_tally tally;
		uint64_t run;
		bool known;

		make_arena();
		for (int i = 0; i < 2; i++) {
			CHECK(!zd_entries_init(&entries[i], &amd64, ZD_SHARED_SHARE, &xa, &space));
			CHECK(!zd_entries_add_range(&entries[i], &range));
			if (i)
				entries[i].claims.limit = 1 + next_random() % 8;
			CHECK(!zd_entries_add_file(&entries[i], &arena_only, arena_at, &tally));
		}
		for (uint64_t pfn = range.start_pfn; pfn < range.end_pfn; pfn++) {
			const uint8_t *a = zd_entries_marks(&entries[0], pfn, &run, &known);
			const uint8_t *b = zd_entries_marks(&entries[1], pfn, &run, &known);

			CHECK((a ? *a : 0) == (b ? *b : 0));
			CHECK(zd_entries_misfit(&entries[0], pfn) == zd_entries_misfit(&entries[1], pfn));
		}
		zd_entries_deinit(&entries[0]);
		zd_entries_deinit(&entries[1]);
	}
}

static struct zd_error *walk_the_same_arena(void)
{
	state = 11;
	make_arena();
	return walk_arena(arena_at);
}

static void fail_every_allocation_of_entries(void)
{
	CHECK(fail_each_allocation(walk_the_same_arena) >= 3);
}

/** A word of BTF, little-endian; @bytes goes on behind it. */
static void put32(uint8_t **bytes, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		*(*bytes)++ = value >> 8 * i;
}

/** One struct with one member of an enum with one value. */
static size_t make_btf(uint8_t *bytes)
{
	static const char strings[] = "\0page\0flags\0PG_locked";
	static const uint32_t types[] = {
		1, 4u << 24 | 1, 4, 6,	2, 0, /* struct page { enum flags flags; } */
		6, 6u << 24 | 1, 4, 12, 0,    /* enum flags { PG_locked } */
	};
	uint8_t *end = bytes;

	put32(&end, 0x1eb9f);
	put32(&end, ZD_BTF_HEADER_SIZE);
	put32(&end, 0);
	put32(&end, sizeof(types));
	put32(&end, sizeof(types));
	put32(&end, sizeof(strings));
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
		put32(&end, types[i]);
	memcpy(end, strings, sizeof(strings));
	return end + sizeof(strings) - bytes;
}

static struct zd_btf *made_btf;

static struct zd_error *create_btf(void)
{
	uint8_t bytes[256];
	size_t size = make_btf(bytes);

	CHECK(zd_btf_size(bytes) == size);
	return zd_btf_create(bytes, size, 8, NULL, &made_btf);
}

/** BTF without memory is an error, and leaves nothing behind. */
static void fail_every_allocation_of_btf(void)
{
	struct zd_btf_member member;
	const struct zd_btf *btf;
	uint32_t i;

	CHECK(fail_each_allocation(create_btf) >= 8);
	btf = made_btf;
	CHECK(zd_btf_find(btf, "page", 1 << ZD_BTF_STRUCT, 0) == 1);
	CHECK(zd_btf_find_member(btf, 1, "flags", &member) && member.type == 2);
	CHECK(zd_btf_find_enumerator(btf, "PG_locked", &i) == 2 && i == 0);
	zd_btf_destroy(made_btf);
	zd_btf_destroy(NULL);
}

// ---------------------------------------------------------------- bits of pages

/** A list through arbitrary bytes, in two ranges: as long as there are pages at most. */
static struct zd_error *walk_list(void)
{
	const uint64_t size = amd64.page_size, half = sizeof(arena) / size / 2;
	struct zd_page_bits bits;
	struct zd_chain chain;
	struct zd_error *error = zd_page_bits_init(&bits, &amd64);

	for (int i = 0; !error && i < 2; i++) {
		struct zd_range range = { 1000 * i, 1000 * i + half, arena_at + i * half * size };

		error = zd_page_bits_add_range(&bits, &range);
	}
	for (int i = 0; !error && i < 20; i++) {
		uint64_t before = bits.set;

		zd_page_bits_walk(&bits, &memory, arena_at + next_random() % (2 * half) * size, &chain);
		CHECK(bits.set == before + chain.pages && bits.set <= 2 * half);
		CHECK(chain.why || !chain.link);
		CHECK(zd_page_bits_clear_run(&bits, 0, 5000) <= 5000);
	}
	zd_page_bits_deinit(&bits);
	return error;
}

static void walk_lists_through_arbitrary_bytes(void)
{
	for (int round = 0; round < 200; round++) {
		make_arena();
		CHECK(!walk_list());
	}
}

static void fail_every_allocation_of_bits(void)
{
	CHECK(fail_each_allocation(walk_list) >= 4);
}

/** Rows with a predicate fit a set. */
static void count_rules(void)
{
	for (size_t i = ZD_PAGE_RULES_MAX; i < zd_rules_count; i++)
		CHECK(!zd_rules[i].predicate);
}

/** What is put into a set comes out, lowest first, whichever word it lies in. */
static void take_rules(void)
{
	static const unsigned int rows[] = { 0, 63, 64, ZD_PAGE_RULES_MAX - 1 };
	struct zd_rule_set set = { 0 }, other = { 0 };
	unsigned int row;

	for (int i = 3; i >= 0; i--)
		zd_rule_set_add(&set, rows[i]);
	for (int i = 0; i < 4; i++) {
		CHECK(!zd_rule_set_equal(&set, &other));
		CHECK(zd_rule_set_take(&set, &row) && row == rows[i]);
	}
	CHECK(zd_rule_set_equal(&set, &other));
	CHECK(!zd_rule_set_take(&set, &row));
}

/** Is the layout refused?  Also when there is no memory to say why. */
static bool is_refused(const struct zd_layout *layout)
{
	struct zd_error *error = zd_layout_check(layout);
	bool refused = error;

	CHECK(!error || (error->code == ZD_ERROR_INVALID && strstr(error->message, "layout: ")));
	zd_error_destroy(error);
	allocation.calls = 0;
	allocation.fail_at = 1;
	error = zd_layout_check(layout);
	allocation.fail_at = 0;
	CHECK(refused ? error && error->code == ZD_ERROR_NO_MEMORY : !error);
	zd_error_destroy(error);
	return refused;
}

static void refuse_senseless_layouts(void)
{
	struct zd_layout layout;

#define REFUSE(member, value)                                                                                  \
	do {                                                                                                   \
		layout = amd64;                                                                                \
		layout.member = (value);                                                                       \
		CHECK(is_refused(&layout));                                                                    \
	} while (0)
	CHECK(!is_refused(&amd64));
	REFUSE(page_size, 136);
	REFUSE(page_size, 60);
	REFUSE(word_size, 2);
	REFUSE(page_shift, 60);
	REFUSE(pmd_order, ZD_ORDER_MAX + 1);
	REFUSE(page_type_limit, 0);
	REFUSE(field[ZD_REFCOUNT].offset, 61);
	REFUSE(field[ZD_REFCOUNT].size, 0);
	REFUSE(field[ZD_FLAGS].size, 4);
	REFUSE(field[ZD_MAPCOUNT].bits, 16);
	REFUSE(field[ZD_ORDER].size, 3);
	REFUSE(field[ZD_ORDER].bits, 65);
	REFUSE(field[ZD_PINCOUNT].offset, 253);
	REFUSE(flag[ZD_PG_HEAD], 64);
	REFUSE(zone.width, 32);
	// A shift by a whole word is undefined, even for no bits.
	layout = amd64;
	layout.node = (struct zd_bits){ 64, 0 };
	CHECK(is_refused(&layout));
	REFUSE(zone_device, 8);
#undef REFUSE
}

/** Members behind the 64 bytes that templates hold: struct page is larger in some configurations. */
static void scan_large_struct_pages(void)
{
	static const struct zd_pagemap pagemap = { .type = ZD_FS_DAX, .severity_cap = ZD_ERROR };
	static uint8_t bytes[8 * ZD_PAGE_MAX];
	struct zd_layout layout = amd64;

	layout.page_size = ZD_PAGE_MAX;
	layout.field[ZD_MEMCG_DATA].offset = ZD_PAGE_MAX - 8;
	layout.field[ZD_MAPPING].offset = ZD_PAGE_MAX - 16;
	memset(bytes, 0x11, sizeof(bytes));
	scan_layout(&layout, &pagemap, bytes, 8);
}

/** Numbers of a dump at the ends of their types: no shift and no sum goes over. */
static void survive_extremes(void)
{
	struct zd_pagemap pagemap = { .type = ZD_GENERIC, .vmemmap_shift = 255, .severity_cap = ZD_ERROR };
	uint64_t head[16] = { UINT64_C(4) << 51 | 1 << 13 | 1 << 6, 0, 0, 0, 0, 0, 0x100000000, 0, 0xc8 };
	struct zd_layout layout = amd64;
	struct zd_scheme scheme = zd_schemes[ZD_SCHEME_F1];
	struct zd_range range = { 0, 1, 0xffffea0000000000 };
	struct zd_scan scan;

	for (head[8] = 0; head[8] < 256; head[8]++)
		scan_layout(&layout, &pagemap, (const uint8_t *)head, 2);
	// As many maps as there can be, a reference of the entry, and one of its own.
	pagemap.type = ZD_FS_DAX;
	pagemap.vmemmap_shift = 0;
	head[0] &= ~(UINT64_C(1) << 6);
	head[3] = 0xffff888101234500;
	head[6] = INT32_MAX - 2;
	scheme.type[ZD_FS_DAX] = (struct zd_scheme_type){ 1, 1, true, false, false, true };
	CHECK(!zd_scan_init(&scan, &layout, &scheme, &pagemap, true, true));
	CHECK(!zd_scan_begin(&scan, &range));
	CHECK(!zd_scan_pages(&scan, (const uint8_t *)head, 1));
	CHECK(!zd_scan_end(&scan));
	CHECK(scan.tally.findings_count == 1 && scan.tally.findings[0].expected == 2);
	zd_scan_deinit(&scan);
}

/** A node that the node bits cannot show would make the templates lie. */
static void refuse_pagemaps(void)
{
	struct zd_pagemap pagemap = { .type = ZD_FS_DAX, .node = 1 << 10, .severity_cap = ZD_ERROR };
	struct zd_layout layout = amd64;
	struct zd_error *error;
	struct zd_scan scan;

	error = zd_scan_init(&scan, &layout, &zd_schemes[ZD_SCHEME_H], &pagemap, true, true);
	CHECK(error && error->code == ZD_ERROR_INVALID);
	zd_error_destroy(error);
	zd_scan_deinit(&scan);
	pagemap.node = (1 << 10) - 1;
	CHECK(!zd_scan_init(&scan, &layout, &zd_schemes[ZD_SCHEME_H], &pagemap, true, true));
	zd_scan_deinit(&scan);
}

static const struct zd_pointers struct_pages = {
	.lo = 0xffffea0004000040,
	.hi = 0xffffea0004000040 + 40 * 64,
	.step = 64,
	.word_size = 8,
	.big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__,
};

/** Put a word of the kernel's into memory, byte by byte. */
static void put_word(const struct zd_pointers *what, uint8_t *bytes, uint64_t word)
{
	for (unsigned int i = 0; i < what->word_size; i++)
		bytes[i] = word >> 8 * (what->big_endian ? what->word_size - 1 - i : i);
}

/** All kinds of words, everywhere in buffers that end everywhere: each that is a pointer is told, no other. */
static void find_pointers_of(const struct zd_pointers *what)
{
	enum { BYTES = 1300 };
	struct zd_pointer array[BYTES / 4];
	struct zd_pointers_found found;

	for (size_t size = 0; size <= BYTES; size += 1 + next_random() % 9) {
		// A block of its own: whoever reads behind its end is caught.
		uint8_t *bytes = malloc(size + !size);
		size_t wanted = 0;

		for (size_t i = 0; i < size; i++)
			bytes[i] = next_random();
		for (size_t at = 0; size - at >= what->word_size; at += what->word_size) {
			uint64_t i = next_random() % 50, tag = next_random() % 4;

			if (next_random() % 8)
				continue;
			put_word(what, bytes + at, what->lo + i * 64 + tag);
		}
		zd_pointers_find(what, bytes, size, array, BYTES / 4, &found);
		for (size_t at = 0; size - at >= what->word_size; at += what->word_size) {
			uint64_t word = 0;

			for (unsigned int i = 0; i < what->word_size; i++)
				word |= (uint64_t)bytes[at + i]
					<< 8 * (what->big_endian ? what->word_size - 1 - i : i);
			if (word < what->lo || word >= what->hi || (word - what->lo) % 64 > 3)
				continue;
			CHECK(wanted < found.count && array[wanted].offset == at &&
			      array[wanted].index == (word - what->lo) / 64 && array[wanted].tag == word % 4);
			wanted++;
		}
		CHECK(found.count == wanted && !found.more);
		free(bytes);
	}
}

static void find_pointers(void)
{
	for (int kind = 0; kind < 4; kind++) {
		struct zd_pointers what = struct_pages;

		what.big_endian = kind & 1;
		if (kind & 2) {
			what.word_size = 4;
			what.lo = 0xf7000040;
			what.hi = what.lo + 40 * 64;
		}
		find_pointers_of(&what);
	}
}

/** The ends of the address space, and an array that is full. */
static void find_pointers_at_edges(void)
{
	struct zd_pointers what = struct_pages;
	struct zd_pointer array[3];
	struct zd_pointers_found found;
	uint64_t words[200];

	memset(words, 0xff, sizeof(words));
	what.lo = UINT64_MAX - 63;
	what.hi = UINT64_MAX;
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), array, 3, &found);
	CHECK(found.count == 0 && found.more == 0);
	for (int i = 0; i < 200; i++)
		words[i] = UINT64_MAX - 62;
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), array, 3, &found);
	CHECK(found.count == 3 && found.more == 197 && array[2].offset == 16 && array[2].tag == 1);
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), NULL, 0, &found);
	CHECK(found.count == 0 && found.more == 200);
	// An address with a tag in it: no word has it.
	what.lo = UINT64_MAX - 61;
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), array, 3, &found);
	CHECK(found.count == 0 && found.more == 0);
	memset(words, 0, sizeof(words));
	what.lo = 0;
	what.hi = 1;
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), array, 3, &found);
	CHECK(found.count == 3 && found.more == 197);
	// One tagged word in a block, the last address of a range that ends behind its first byte.
	what = struct_pages;
	what.hi = what.lo + 39 * 64 + 1;
	put_word(&what, (uint8_t *)&words[13], what.lo + 39 * 64 + 2);
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), array, 3, &found);
	CHECK(found.count == 1 && array[0].offset == 13 * 8 && array[0].index == 39 && array[0].tag == 2);
	// Beyond what words of 4 bytes can hold.
	what = struct_pages;
	what.word_size = 4;
	put_word(&what, (uint8_t *)words, what.lo);
	zd_pointers_find(&what, (const uint8_t *)words, sizeof(words), array, 3, &found);
	CHECK(found.count == 0 && found.more == 0);
}

static void refuse_pointers(void)
{
#define REFUSE(member, value)                                                                                  \
	do {                                                                                                   \
		struct zd_pointers what = struct_pages;                                                        \
		struct zd_error *error;                                                                        \
		what.member = (value);                                                                         \
		error = zd_pointers_check(&what);                                                              \
		CHECK(error && error->code == ZD_ERROR_INVALID);                                               \
		zd_error_destroy(error);                                                                       \
	} while (0)
	CHECK(!zd_pointers_check(&struct_pages));
	REFUSE(hi, struct_pages.lo);
	REFUSE(lo, UINT64_MAX);
	REFUSE(step, 0);
	REFUSE(word_size, 2);
	REFUSE(word_size, 16);
#undef REFUSE
}

/** One by one, what zd_words_run() tells. */
static uint64_t count_words(const struct zd_words *words, const uint8_t *pages, uint64_t count)
{
	for (uint64_t i = 0; i < count * ZD_WORDS; i++) {
		uint64_t word;

		memcpy(&word, pages + i * 8, 8);
		if ((word ^ words->want[i % ZD_WORDS]) & words->mask[i % ZD_WORDS])
			return i / ZD_WORDS;
	}
	return count;
}

/** Each bit of each page of a run flipped, under the mask and beside it, wherever the pages lie. */
static void compare_words(void)
{
	enum { COUNT = 11 };
	struct zd_words words;
	uint64_t runs = 0;

	for (uint64_t bit = 0; bit < COUNT * 512; bit++) {
		uint64_t count = next_random() % (COUNT + 1), shift = next_random() % 16;
		// Not a byte behind the pages may be read.
		uint8_t *block = __real_malloc(shift + count * 64), *pages = block + shift;

		for (int i = 0; i < ZD_WORDS; i++) {
			words.want[i] = next_random();
			words.mask[i] = next_random() % 4 ? UINT64_MAX : next_random();
		}
		for (uint64_t i = 0; i < count; i++)
			memcpy(pages + i * 64, words.want, 64);
		if (bit / 512 < count)
			pages[bit / 8] ^= 1 << bit % 8;
		runs += count_words(&words, pages, count);
		CHECK(zd_words_run(&words, pages, count) == count_words(&words, pages, count));
		free(block);
	}
	CHECK(runs > COUNT * 512);
}

int main(void)
{
	compare_words();
	scan_everything();
	fail_every_allocation();
	refuse_layouts();
	walk_everything();
	sort_claims();
	compare_batches();
	fail_every_allocation_of_entries();
	fail_every_allocation_of_btf();
	walk_lists_through_arbitrary_bytes();
	fail_every_allocation_of_bits();
	count_rules();
	take_rules();
	refuse_senseless_layouts();
	scan_large_struct_pages();
	survive_extremes();
	refuse_pagemaps();
	find_pointers();
	find_pointers_at_edges();
	refuse_pointers();
	printf("%d failures\n", failures);
	return failures != 0;
}
