#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes a bundled vmcore out of a full one: sliced, packed, with the record of what was done to its pages.
# usage: fixture.sh NAME CORE VMLINUX TRUTH-STATES TRUTH [OPTION ...]     -> tests/vmcores/NAME/
# CORE, VMLINUX and OPTIONs (--with tasks, -s MODULE) as for zonedev slice; VMLINUX -: none, types out of BTF; TRUTH-STATES by scripts/lab/replay.py out of
# TRUTH (truth.jsonl).
set -eu
name=$1 core=$2 vmlinux=$3 states=$4 truth=$5
shift 5
zonedev=${ZONEDEV:-.venv/bin/zonedev}
out=tests/vmcores/$name
mkdir -p "$out"
if [ "$vmlinux" = - ]; then
	set -- --btf "$@"
else
	set -- -s "$vmlinux" "$@"
fi
$zonedev slice "$core" "$@" -o "$out"
if [ "$(head -c 5 "$core")" = KDUMP ]; then	# stays what it is, with the frames of the slice
	python3 scripts/thin_kdump.py "$core" "$out/vmcore" "$out/vmcore.kdump"
	mv "$out/vmcore.kdump" "$out/vmcore"
fi
xz -9e -T1 -f "$out/vmcore"
cp "$states" "$out/truth-states.json"
cp "$truth" "$out/truth.jsonl"
chmod 644 "$out"/*
ls -l "$out"
