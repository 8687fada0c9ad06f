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

SOURCES := setup.py pyproject.toml $(wildcard ext/core/*.[ch] ext/readers/*.[ch] ext/python/*.[ch])

.PHONY: audit test build bench lab format clean

audit: $(VENV)/.built
	@$(BIN)/python scripts/unpack_vmcore.py $(CORE) build/vmcores
	@$(BIN)/zonedev audit build/vmcores/$(notdir $(CORE))/vmcore -s $(CORE)/vmlinux

test: $(VENV)/.built $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

build: $(VENV)/.built

bench: $(VENV)/.built
	$(BIN)/python scripts/bench

lab: $(VENV)/.built
	@sh scripts/lab/setup.sh
	@$(BIN)/python scripts/lab/lab.py --kernels "$(call list,$(KERNELS))" --scenarios "$(call list,$(SCENARIOS))" $(LABFLAGS)

format: $(VENV)/.tools
	$(BIN)/ruff format .
	clang-format -i ext/*/*.[ch]

$(VENV)/.created:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $(VENV)
	@touch $@

$(VENV)/.built: $(VENV)/.created $(SOURCES)
	@$(BIN)/python -m pip install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.created tests/requirements.txt
	@$(BIN)/python -m pip install --quiet -r tests/requirements.txt
	@touch $@

clean:
	rm -rf build $(VENV) zonedev/*.so *.egg-info
