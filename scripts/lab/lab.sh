#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Make all cores of some kernels: every row of scenarios.tsv, then replay and comparison.
#
# usage: lab.sh [RELEASE...]             (default: all rows of kernels.tsv; fetch.py comes first)
# PYTHON is a Python with drgn, for the comparison; without debug information it is left out.
# One virtual machine at a time: TCG uses two cores.
. "$(dirname "$0")/env.sh"
PYTHON=${PYTHON:-python3}

replay_and_check() { # RELEASE NAME
  local dir=$LAB/cores/$1/$2 vmlinux=$LAB/debug/$1/vmlinux
  "$LAB_SRC/replay.py" "$dir/truth.jsonl" -o "$dir/truth-states.json"
  if [ -e "$vmlinux" ]; then "$PYTHON" "$LAB_SRC/check_states.py" "$vmlinux" "$dir/core.elf" "$dir/truth-states.json"; fi
}

run_scenarios() { # RELEASE
  local name scenarios options needs
  # a tab is white space to read, which would join empty columns
  grep -vE '^(#|name)' "$LAB_SRC/scenarios.tsv" | tr '\t' '|' | while IFS='|' read -r name scenarios options needs; do
    if [ "$needs" != - ] && [ ! -e "$LAB/kmod/$1/$needs.ko" ]; then echo "lab.sh: $1: no $needs.ko, $name left out"; continue; fi
    # shellcheck disable=SC2086 # several words
    "$LAB_SRC/boot.py" "$1" "$scenarios" --name "$name" $options </dev/null
    replay_and_check "$1" "$name"
  done
}

for release in ${*:-$(kernel_releases)}; do
  if [ -d "$BUILD_ROOT/usr/src/linux-headers-$release" ]; then "$LAB_SRC/build-kmod.sh" "$release"; fi
  "$LAB_SRC/mkinitramfs.sh" "$release"
  run_scenarios "$release"
done
