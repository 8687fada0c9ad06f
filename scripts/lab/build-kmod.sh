#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build zdleak.ko (and test_hmm.ko, where kernels.tsv asks for it) to $LAB/kmod/RELEASE/.
#
# usage: build-kmod.sh RELEASE
# Builds in the chroot $BUILD_ROOT that build-root.sh makes: the kbuild programs of new kernels
# need a newer C library than the machine may have, and objtool wants /proc.
. "$(dirname "$0")/env.sh"
release=$1
cc=$(kernel_column "$release" cc)
hmm=$(kernel_column "$release" hmm)
work=/tmp/kmod-$release
built=$LAB/kmod/$release/zdleak.ko
if [ "$built" -nt "$LAB_SRC/kmod/zdleak.c" ] && { [ "$hmm" = - ] || [ -e "${built/zdleak/test_hmm}" ]; }; then exit; fi
rm -rf "${BUILD_ROOT:?}$work"
mkdir -p "$BUILD_ROOT$work" "$LAB/kmod/$release"
cp "$LAB_SRC"/kmod/{zdleak.c,Makefile} "$BUILD_ROOT$work/"
if [ "$hmm" != - ]; then cp "$LAB/source/$release"/lib/test_hmm{.c,_uapi.h} "$BUILD_ROOT$work/"; fi
unshare -m sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$BUILD_ROOT" \
  make -C "/usr/src/linux-headers-$release" M="$work" CC="$cc" modules
cp "$BUILD_ROOT$work"/*.ko "$LAB/kmod/$release/"
