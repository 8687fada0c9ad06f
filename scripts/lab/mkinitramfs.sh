#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Build $LAB/initramfs/RELEASE.cpio.gz: busybox, ndctl, daxctl, mkfs, the workload, kernel modules.
#
# usage: mkinitramfs.sh RELEASE          (modules in $LAB/kmod/RELEASE are taken along)
# Programs come from this machine (their shared libraries with them), modules from the kernel's
# package, decompressed because busybox reads nothing else.
. "$(dirname "$0")/env.sh"
release=$1
root=$LAB/initramfs/$release.d
modules=$root/lib/modules/$release
source_modules=$(module_dir "$release")
MODULES="nfit libnvdimm nd_pmem nd_btt dax_pmem dax_pmem_core device_dax fsdev_dax kmem dax_hmem nd_e820
  virtio_pmem ext4 xfs virtio_pci virtio_blk scsi_debug sd_mod nvme 9p 9pnet_virtio qemu_fw_cfg
  crc32c_generic crc32c-intel crc32_generic vfio_pci vfio_iommu_type1 ib_uverbs rdma_rxe dummy"

add_busybox() {
  local applet busybox=${BUSYBOX:-/bin/busybox}
  cp "$busybox" "$root/bin/busybox"
  for applet in $("$busybox" --list | grep -vx busybox); do ln -sf busybox "$root/bin/$applet"; done
}

add_program() {
  local program library
  program=$(PATH=$PATH:/usr/sbin:/sbin command -v "$1")
  cp -L "$program" "$root/usr/bin/"
  ldd "$program" | grep -o '/[^ ]*\.so[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -Lu "$library" "$root$library"
  done
}

# modules.dep of the package's modules, made in a scratch tree if the package has none
dependencies() {
  if [ -e "$source_modules/modules.dep" ]; then cat "$source_modules/modules.dep"; return; fi
  mkdir -p "$LAB/depmod/$release/lib/modules"
  ln -sfn "$source_modules" "$LAB/depmod/$release/lib/modules/$release"
  depmod -b "$LAB/depmod/$release" "$release"
  cat "$source_modules/modules.dep"
}

unpack_module() {
  local to=$modules/${1##*/}
  case $1 in
    *.xz) xz -dc "$source_modules/$1" >"${to%.xz}" ;;
    *.zst) zstd -qdc "$source_modules/$1" >"${to%.zst}" ;;
    *) cp "$source_modules/$1" "$to" ;;
  esac
}

add_module() {
  local line file
  line=$(grep -m1 -E "/${1//[-_]/[-_]}\.ko[^:]*:" "$root/modules.dep") || return 0	# not in this kernel
  for file in ${line/:/ }; do unpack_module "$file"; done
}

rm -rf "$root"
mkdir -p "$root"/{bin,sbin,proc,sys,dev,run,tmp,mnt,etc,lib64,usr/bin,usr/sbin} "$modules/extra"
add_busybox
for program in ndctl daxctl mkfs.ext4 mkfs.xfs xfs_io kexec makedumpfile; do add_program "$program"; done
if [ -e "$LAB/makedumpfile/run" ]; then cp -r "$LAB/makedumpfile" "$root/"; fi
if [ -e /etc/mke2fs.conf ]; then cp /etc/mke2fs.conf "$root/etc/"; fi
dependencies >"$root/modules.dep"
for module in $MODULES; do add_module "$module"; done
rm "$root/modules.dep"
cp "$LAB/kmod/$release"/*.ko "$modules/extra/" 2>/dev/null || true
cp "$source_modules"/modules.builtin* "$source_modules"/modules.order "$modules/" 2>/dev/null || true
depmod -b "$root" "$release" 2>/dev/null
for program in workload churn pins; do gcc -O1 -static -o "$root/bin/$program" "$LAB_SRC/guest/$program.c"; done
install -m 755 "$LAB_SRC/guest/init" "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$LAB/initramfs/$release.cpio.gz"
rm -rf "$root"
