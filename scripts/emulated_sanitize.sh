#!/usr/bin/env bash
# Kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the emulated device's own tests, and all backends against
# each other on a few drawn sets. The first finding ends the test program with its file and line.
#
# usage: scripts/emulated_sanitize.sh [FILTER…]      default: emulated parity::sets
#
# environment:
#   WAVEMILL_PARITY_CASES=N   drawn sets (default: 20)
#   CXX=COMPILER              g++, which has its sanitizers as shared libraries (default: c++)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need_toolchain
read -ra compiler <<<"${CXX:-c++}"
need "${compiler[0]}" 'apt-get install build-essential, or dnf install gcc-c++'
asan=$("${compiler[@]}" -print-file-name=libasan.so)
if [[ $(head -c 4 "$asan" 2>/dev/null) != $'\x7fELF' ]]; then
    echo "libasan.so of ${compiler[*]} is needed: apt-get install g++, dnf install libasan, or another CXX" >&2
    exit 1
fi

((${#})) || set -- emulated parity::sets
export WAVEMILL_EMULATED_SANITIZE=1 WAVEMILL_PARITY_CASES=${WAVEMILL_PARITY_CASES:-20}
# Rust's own threads leave what leak detection takes for lost; a GPU's driver does not bear the sanitizer.
runner="['env', 'LD_PRELOAD=$asan', 'ASAN_OPTIONS=detect_leaks=0', 'CUDA_VISIBLE_DEVICES=']"
step 'sanitized kernels' cargo --config "target.'cfg(unix)'.runner = $runner" \
    test --locked -p wavemill-kernels --lib -- "$@"
