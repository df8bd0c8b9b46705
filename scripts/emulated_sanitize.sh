#!/usr/bin/env bash
# Runs the kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the tests of the emulated device, and comparisons
# of all backends on a few random sets of parameters. The first finding ends the test program with its file and line.
#
# usage: scripts/emulated_sanitize.sh [FILTER…]      default: emulated parity::sets
#
# environment:
#   WAVEMILL_PARITY_CASES=N   random sets of parameters (default: 20)
#   WAVEMILL_PACKAGES=…       packages that cargo selects, so that a gate builds each crate once (default: -p wavemill-kernels)
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
# Leak detection reports memory of Rust's threads, and a GPU's driver does not work under the sanitizer.
read -ra packages <<<"${WAVEMILL_PACKAGES:--p wavemill-kernels}"
# Runs only the tests of the kernels, found by the program's name among all selected packages.
built=$(cargo test --locked "${packages[@]}" --lib --no-run --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    found = json.loads(line)
    if found.get("executable") and found["target"]["name"] == "wavemill_kernels":
        print(found["executable"])')
# These tests write past an allocation or overflow a stack on purpose, so the sanitizer correctly ends them.
skipped=(--skip write_outside --skip a_stack_that_was_too_small)
step 'sanitized kernels' env LD_PRELOAD="$asan" ASAN_OPTIONS=detect_leaks=0 CUDA_VISIBLE_DEVICES= "$built" "${skipped[@]}" "$@"
