// SPDX-License-Identifier: LGPL-2.1-or-later
// Runs a fuzz target without libFuzzer: every file of a corpus as it is, then mutations of them, always
// the same ones.  The input that a target dies of is written to the file "crash".
// usage: fuzz_TARGET [-runs=N] FILE...       (N mutations of each file, default 100)

#include <signal.h>
#include <string.h>

#include "fuzz.h"

enum { INPUT_MAX = 1 << 18, EDITS_MAX = 8 };

/** Of the sanitizers' run time; absent without them. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static uint8_t current[INPUT_MAX];
static size_t current_size;
static uint64_t state;

static void save_current(void)
{
	FILE *file = fopen("crash", "wb");

	if (!file)
		return;
	fwrite(current, 1, current_size, file);
	fclose(file);
}

static void on_signal(int number)
{
	save_current();
	signal(number, SIG_DFL);
	raise(number);
}

static uint64_t next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/** Mutations depend on the input alone. */
static void seed(void)
{
	state = UINT64_C(14695981039346656037);
	for (size_t i = 0; i < current_size; i++)
		state = (state ^ current[i]) * UINT64_C(1099511628211);
	state |= 1;
}

/** Overwrite up to eight bytes with a number that bounds are often wrong at. */
static void write_number(size_t at)
{
	static const uint64_t numbers[] = { 0,		1,
					    2,		4,
					    63,		64,
					    127,	255,
					    0x7fffffff, 0x80000000,
					    UINT32_MAX, UINT64_C(1) << 63,
					    UINT64_MAX, UINT64_MAX - 1 };
	uint64_t number = numbers[next_random() % (sizeof(numbers) / sizeof(*numbers))] + next_random() % 3 - 1;
	size_t length = (size_t)1 << next_random() % 4;

	for (size_t i = 0; i < length && at + i < current_size; i++)
		current[at + i] = number >> 8 * i;
}

/** Copy a stretch of the input to another place of it. */
static void copy_stretch(size_t at)
{
	size_t from = next_random() % current_size;
	size_t length = next_random() % 128 + 1;

	if (length > current_size - at)
		length = current_size - at;
	if (length > current_size - from)
		length = current_size - from;
	memmove(current + at, current + from, length);
}

static void mutate(void)
{
	for (unsigned int edits = next_random() % EDITS_MAX + 1; edits && current_size; edits--) {
		// Headers stand in front, and tell most.
		size_t reach = next_random() % 2 && current_size > 256 ? 256 : current_size;
		size_t at = next_random() % reach;

		switch (next_random() % 8) {
		case 0:
			current_size = next_random() % 8 ? current_size : at;
			break;
		case 1:
			copy_stretch(at);
			break;
		case 2:
		case 3:
			current[at] ^= 1 << next_random() % 8;
			break;
		case 4:
			current[at] = next_random();
			break;
		default:
			write_number(at);
		}
	}
}

/** The file's bytes become the input; nothing of a file that cannot be read. */
static void load(const char *path)
{
	FILE *file = fopen(path, "rb");

	PROMISE(file);
	current_size = fread(current, 1, sizeof(current), file);
	fclose(file);
}

static void run(void)
{
	// A copy of its own length, so that ASan sees a byte too many.
	uint8_t *copy = malloc(current_size ? current_size : 1);

	PROMISE(copy);
	memcpy(copy, current, current_size);
	LLVMFuzzerTestOneInput(copy, current_size);
	free(copy);
}

int main(int argc, char **argv)
{
	unsigned long runs = 100, done = 0;

	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(save_current);
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	for (int i = 1; i < argc; i++) {
		if (!strncmp(argv[i], "-runs=", 6)) {
			runs = strtoul(argv[i] + 6, NULL, 10);
			continue;
		}
		load(argv[i]);
		seed();
		run();
		for (unsigned long n = 0; n < runs; n++, done++) {
			load(argv[i]);
			mutate();
			run();
		}
	}
	printf("%lu mutations\n", done);
	return 0;
}
