#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Makes the virtual environment that make audit and make test work in.  What the system lacks is
# installed with apt as root or through sudo; otherwise one line names it.
# usage: setup.sh VENV          (PYTHON: the interpreter, default python3)
#        setup.sh --tests       what some tests need: a Chromium, which they open pages of audit --html with, and shellcheck
set -eu
venv=$1
python=${PYTHON:-python3}

say() { printf 'zonedev: %s\n' "$*" >&2; }

# Debian packages that are needed but not there.  Libraries are optional.
missing() {
	command -v "$python" >/dev/null || echo python3
	command -v cc >/dev/null || echo gcc libc6-dev
	command -v pkg-config >/dev/null || echo pkg-config
	command -v "$python" >/dev/null && "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
	header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null || echo none)
	[ -e "$header" ] || echo python3-dev
}

optional() {
	pkg-config --exists libelf 2>/dev/null || echo libelf-dev
	pkg-config --exists libkdumpfile 2>/dev/null || echo libkdumpfile-dev
	pkg-config --exists libdeflate 2>/dev/null || echo libdeflate-dev
	pkg-config --exists zlib 2>/dev/null || echo zlib1g-dev
	pkg-config --exists libzstd 2>/dev/null || echo libzstd-dev
	# What tests and measurements compare with.
	pkg-config --exists lzo2 2>/dev/null || echo liblzo2-dev
	pkg-config --exists snappy 2>/dev/null || echo libsnappy-dev
}

# A way to run apt-get without asking anybody; empty where there is none.
apt() {
	command -v apt-get >/dev/null || return 0
	if [ "$(id -u)" = 0 ]; then echo env DEBIAN_FRONTEND=noninteractive apt-get
	elif sudo -n true 2>/dev/null; then echo sudo -n env DEBIAN_FRONTEND=noninteractive apt-get
	fi
}

install_packages() {
	needed=$(missing | tr '\n' ' ')
	wanted=$(optional | tr '\n' ' ')
	[ -n "$needed$wanted" ] || return 0
	get=$(apt)
	if [ -z "$get" ]; then
		[ -z "$needed" ] || { say "missing: ${needed% }; install with: apt-get install ${needed% }"; exit 1; }
		say "optional libraries are missing: ${wanted% }; building without them"
		return 0
	fi
	say "installing $needed${wanted% }"
	$get update -qq >/dev/null || say "apt-get update failed; going on with the package lists at hand"
	# shellcheck disable=SC2086
	[ -z "$needed" ] || $get install -qq -y $needed >/dev/null
	# shellcheck disable=SC2046
	wanted=$(optional | tr '\n' ' ')
	# shellcheck disable=SC2086
	[ -z "$wanted" ] || $get install -qq -y $wanted >/dev/null || say "not installed: ${wanted% }; building without them"
}

# Programs that some tests need, and are skipped without.
for_tests() {
	command -v chromium >/dev/null || echo chromium fonts-dejavu-core
	command -v shellcheck >/dev/null || echo shellcheck
}

install_for_tests() {
	wanted=$(for_tests | tr '\n' ' ')
	[ -n "$wanted" ] || return 0
	get=$(apt)
	[ -n "$get" ] || { say "some tests are skipped; install with: apt-get install ${wanted% }"; return 0; }
	say "installing ${wanted% }"
	$get update -qq >/dev/null || say "apt-get update failed; going on with the package lists at hand"
	# shellcheck disable=SC2086 # several words
	$get install -qq -y --no-install-recommends $wanted >/dev/null ||
		say "not installed: ${wanted% }; some tests are skipped"
}

if [ "$venv" = --tests ]; then
	install_for_tests
	exit 0
fi
install_packages
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || { say "$python is older than Python 3.9"; exit 1; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'setuptools>=64' wheel 'drgn>=0.1'
