#!/usr/bin/env bash
# Kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the emulated device's own tests, and all backends against
# each other on a few drawn sets. The first finding ends the test program with its file and line.
#
# usage: scripts/emulated_sanitize.sh [FILTER…]      default: emulated parity::sets
#
# environment:
#   WAVEMILL_PARITY_CASES=N   drawn sets (default: 20)
#   WAVEMILL_PACKAGES=…       what cargo selects, so that a gate builds each crate once (default: -p wavemill-kernels)
#   CXX=COMPILER              g++, which has its sanitizers as shared libraries (default: c++)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need_toolchain
need python3 'apt-get install python3'
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
read -ra packages <<<"${WAVEMILL_PACKAGES:--p wavemill-kernels}"
# Of whatever is selected, the kernels' tests alone: by the program's name.
built=$(cargo test --locked "${packages[@]}" --lib --no-run --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    found = json.loads(line)
    if found.get("executable") and found["target"]["name"] == "wavemill_kernels":
        print(found["executable"])')
# Tests that write beside memory, or a stack, on purpose: the sanitizer rightly ends them.
skipped=(--skip a_write_beside --skip a_stack_that_was_too_small)
# Counts come through calls of another sanitizer.
skipped+=(--skip counts::)
step 'sanitized kernels' env LD_PRELOAD="$asan" ASAN_OPTIONS=detect_leaks=0 CUDA_VISIBLE_DEVICES= "$built" "${skipped[@]}" "$@"
