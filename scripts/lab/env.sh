# SPDX-License-Identifier: LGPL-2.1-or-later
# Common settings of the lab, read by its shell scripts.
#
# Owns where things are below $LAB, the scratch directory (default: ./lab-out). Nothing is written
# outside it. kernels.tsv says which kernels there are; no script names one.
set -euo pipefail
LAB_SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB=$(realpath -m "${LAB:-lab-out}")
export LAB
BUILD_ROOT=${BUILD_ROOT:-$LAB/build-root}	# chroot with compilers and kernel headers

# column NAME of the row of kernel RELEASE
kernel_column() {
  awk -F'\t' -v release="$1" -v column="$2" '
    /^#/ { next }
    !header { for (i = 1; i <= NF; i++) at[$i] = i; header = 1; next }
    $1 == release { print $at[column]; found = 1 }
    END { exit !found }' "$LAB_SRC/kernels.tsv" || { echo "no kernel $1 in kernels.tsv" >&2; return 1; }
}

kernel_releases() { awk -F'\t' '!/^#/ && $1 != "release" { print $1 }' "$LAB_SRC/kernels.tsv"; }

# directory with modules.dep or at least kernel/
module_dir() {
  local d
  for d in "$LAB/kernels/$1/lib/modules/$1" "$LAB/kernels/$1/usr/lib/modules/$1"; do
    if [ -d "$d" ]; then echo "$d"; return; fi
  done
  echo "kernel $1 is not below $LAB/kernels: run fetch.py" >&2
  return 1
}
