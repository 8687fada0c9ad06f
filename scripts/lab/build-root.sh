#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Make the chroot in which guest modules are built: compilers and libraries, no kernel headers.
#
# usage: build-root.sh [SUITE]          (as root, with debootstrap; default suite trixie)
# One root serves all rows of kernels.tsv: it has every compiler that its cc column names.
# fetch.py --modules unpacks the headers into it.
. "$(dirname "$0")/env.sh"
suite=${1:-trixie}
compilers=$(for release in $(kernel_releases); do kernel_column "$release" cc; done | sort -u | paste -sd,)
packages=$compilers,make,binutils,bc,pahole,libelf1t64,libssl3t64
if [ ! -e "$BUILD_ROOT/usr/bin/make" ]; then
  debootstrap --variant=minbase --include="$packages" "$suite" "$BUILD_ROOT" "${MIRROR:-http://deb.debian.org/debian}"
fi
