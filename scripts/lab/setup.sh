#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Installs what the lab runs on this machine, with apt as root or through sudo; otherwise one line names it.
# usage: setup.sh
set -eu
packages="qemu-system-x86 ndctl daxctl busybox-static kmod cpio e2fsprogs xfsprogs gcc libc6-dev zstd xz-utils debootstrap makedumpfile kexec-tools git"

missing=$(for package in $packages; do
	dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || echo "$package"
done | tr '\n' ' ')
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then sudo=
elif sudo -n true 2>/dev/null; then sudo="sudo -n"
else echo "lab: missing: ${missing% }; install with: apt-get install ${missing% }" >&2; exit 1
fi
echo "lab: installing ${missing% }" >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null ||
	echo "lab: apt-get update failed; going on with the package lists at hand" >&2
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
