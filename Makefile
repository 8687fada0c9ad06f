# SPDX-License-Identifier: LGPL-2.1-or-later
# The commands of the README.  Each does all of its set-up, and is quick the second time:
# a virtual environment in .venv, the extension built into it, the bundled vmcores unpacked.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE ?= tests/vmcores/7.2-entries

# make lab: all kernels and scenarios, or those named (KERNELS="6.1 7.2" SCENARIOS="nvdimm legacy").
KERNELS ?=
SCENARIOS ?=
LABFLAGS ?=
export LAB ?= lab-out
comma := ,
empty :=
list = $(subst $(empty) $(empty),$(comma),$(strip $(1)))

# make bench: e.g. --gib 4 --rounds 1, growth, guest RELEASE; scripts/bench --help
BENCHFLAGS ?=

SOURCES := setup.py pyproject.toml $(wildcard ext/core/*.[ch] ext/readers/*.[ch] ext/python/*.[ch])

.PHONY: audit test build docs bench lab fuzz format clean

audit: $(VENV)/.built
	@$(BIN)/python scripts/unpack_vmcore.py $(CORE) build/vmcores
	@$(BIN)/zonedev audit build/vmcores/$(notdir $(CORE))/vmcore -s $(CORE)/vmlinux

test: $(VENV)/.built $(VENV)/.tools $(VENV)/.browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

build: $(VENV)/.built

# Warnings are errors.  All is made anew (-E): pages depend on the parser, on schemas, on what pages there are.
docs: $(VENV)/.built $(VENV)/.docs
	@$(BIN)/sphinx-build -q -E -W --keep-going -d build/docs/.html -b html docs build/docs/html
	@$(BIN)/sphinx-build -q -E -W --keep-going -d build/docs/.man -t man -b man docs build/docs/man
	@echo "build/docs/html/index.html, build/docs/man/zonedev.1"

bench: $(VENV)/.built
	$(BIN)/python scripts/bench $(BENCHFLAGS)

lab: $(VENV)/.built
	@sh scripts/lab/setup.sh
	@$(BIN)/python scripts/lab/lab.py --kernels "$(call list,$(KERNELS))" --scenarios "$(call list,$(SCENARIOS))" $(LABFLAGS)

# make fuzz: FUZZ_SECONDS for each target, with clang's libFuzzer; then corrupt cores, FUZZ_ROUNDS of each kind.
# What a target dies of, and the corpus as it grows, are in build/fuzz.
FUZZ_SECONDS ?= 600
FUZZ_ROUNDS ?= 300
FUZZ_FLAGS := -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
FUZZ_TARGETS := scan entries btf kallsyms elf kdump memory expand
FUZZ_SOURCES_scan := $(wildcard ext/core/*.c)
FUZZ_SOURCES_entries := $(FUZZ_SOURCES_scan)
FUZZ_SOURCES_btf := ext/core/error.c ext/core/names.c ext/core/btf.c
FUZZ_SOURCES_kallsyms := ext/core/error.c ext/core/names.c ext/core/kallsyms.c
FUZZ_SOURCES_elf := ext/core/error.c ext/readers/elf.c
FUZZ_SOURCES_kdump := ext/core/error.c ext/readers/kdump.c
FUZZ_SOURCES_expand := ext/core/error.c $(addprefix ext/readers/,decompress.c lzo.c snappy.c recipe.c)
FUZZ_SOURCES_memory := $(FUZZ_SOURCES_expand) $(addprefix ext/readers/,memory.c view.c extents.c flat.c core.c diskdump.c)
FUZZ_LIBS_memory = $(patsubst %,-DHAVE_%=1,LIBDEFLATE LIBZSTD) $(shell pkg-config --cflags --libs libdeflate libzstd)
FUZZ_LIBS_expand = -DHAVE_LIBZSTD=1 $(shell pkg-config --cflags --libs lzo2 snappy libzstd)
FUZZ_LIBS_elf = -DHAVE_LIBELF=1 $(shell pkg-config --cflags --libs libelf)
FUZZ_LIBS_kdump = -DHAVE_LIBKDUMPFILE=1 $(shell pkg-config --cflags --libs libkdumpfile)
# libkdumpfile believes sizes, and what it holds when it is stopped is lost: processes of its own, begun again.
FUZZ_OPTIONS_kdump := -fork=1 -ignore_ooms=1 -detect_leaks=0
FUZZ_ASAN_kdump := :detect_leaks=0
# libFuzzer's way to say that the last of them was out of memory.
FUZZ_FINE_kdump := || test $$? = 71

fuzz: $(addprefix fuzz-,$(FUZZ_TARGETS)) $(VENV)/.built
	$(BIN)/python scripts/corrupt.py --rounds $(FUZZ_ROUNDS)
	$(BIN)/python scripts/corrupt_explain.py --rounds $(FUZZ_ROUNDS)

fuzz-%:
	@mkdir -p build/fuzz/$*
	clang $(FUZZ_FLAGS) $(FUZZ_SOURCES_$*) ext/fuzz/fuzz_$*.c $(FUZZ_LIBS_$*) -o build/fuzz/fuzz_$*
	ASAN_OPTIONS=allocator_may_return_null=1$(FUZZ_ASAN_$*) build/fuzz/fuzz_$* -max_total_time=$(FUZZ_SECONDS) \
		-artifact_prefix=build/fuzz/ $(FUZZ_OPTIONS_$*) build/fuzz/$* tests/corpus/$* $(FUZZ_FINE_$*)

format: $(VENV)/.tools
	$(BIN)/ruff format .
	clang-format -i ext/*/*.[ch] scripts/*.c

$(VENV)/.created:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.created $(SOURCES)
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.created tests/requirements.txt
	@$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.created docs/requirements.txt
	@$(BIN)/python -m pip install --quiet -r docs/requirements.txt
	@touch $@

$(VENV)/.browser: $(VENV)/.created scripts/setup.sh
	@sh scripts/setup.sh --tests
	@touch $@

clean:
	rm -rf build $(VENV) zonedev/*.so *.egg-info
