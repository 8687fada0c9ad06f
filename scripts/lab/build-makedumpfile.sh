#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build $LAB/makedumpfile/: with every compression (Debian leaves snappy out, and older ones zstd), and
# with commits bad2a7c ("Fix wrong exclusion of Slab pages on Linux 6.10-rc1 and later") and f50c015 ("Fix
# wrong exclusion of compound tail pages on Linux 7.1 and later"), without which -d31 loses slab pages.
#
# usage: build-makedumpfile.sh          (as root, in the chroot $BUILD_ROOT of build-root.sh)
# The source comes from $MAKEDUMPFILE_GIT, unchanged. The directory holds the chroot's loader and libraries,
# too, because those of the machine may be older; makedumpfile/run starts the program with them.
. "$(dirname "$0")/env.sh"
git=${MAKEDUMPFILE_GIT:-https://github.com/makedumpfile/makedumpfile}
commit=b7587f1e8f456af717e12d59ec10e88a3527d144
packages=$(echo gcc make zlib1g-dev lib{dw,elf,lzo2,snappy,zstd,bz2,lzma}-dev)
source=$BUILD_ROOT/usr/src/makedumpfile

rm -rf "$source"
git clone -q --no-checkout "$git" "$source"
git -C "$source" -c advice.detachedHead=false checkout -q "$commit"
# kernel headers that fetch.py unpacked may have replaced the link lib -> usr/lib
libraries=lib/x86_64-linux-gnu
if [ ! -e "$BUILD_ROOT/$libraries" ]; then ln -s "../usr/$libraries" "$BUILD_ROOT/$libraries"; fi
chroot "$BUILD_ROOT" sh -ec "
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qqy --no-install-recommends install $packages
  make -s -C /usr/src/makedumpfile LINKTYPE=dynamic USELZO=on USESNAPPY=on USEZSTD=on"
rm -rf "$LAB/makedumpfile"
mkdir -p "$LAB/makedumpfile"
for file in /usr/src/makedumpfile/makedumpfile \
  $(chroot "$BUILD_ROOT" ldd /usr/src/makedumpfile/makedumpfile | grep -o '/[^ ]*\.so[^ ]*'); do
  cp -L "$BUILD_ROOT$file" "$LAB/makedumpfile/"
done
cat >"$LAB/makedumpfile/run" <<'END'
#!/bin/sh
here=${0%/*}
exec "$here"/ld-linux-*.so.* --library-path "$here" "$here/makedumpfile" "$@"
END
chmod 755 "$LAB/makedumpfile/run"
"$LAB/makedumpfile/run" -v
