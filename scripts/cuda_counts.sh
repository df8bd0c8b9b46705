#!/usr/bin/env bash
# Counts the memory accesses of the kernels on the emulated device: wavefronts of shared memory and lines of global memory.
# Fails if a kernel exceeds its bound (kernels/src/backend/counts.rs), or if the table in docs/cuda-kernels.md differs.
# Needs g++ and no GPU; cargo's unit tests do the same.
#
# usage: scripts/cuda_counts.sh [--write]
#   --write   update the table
#
# environment:
#   WAVEMILL_PACKAGES=…   packages that cargo selects, so that a gate builds each crate once (default: -p wavemill-kernels)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for option in "$@"; do
    case $option in
        --write) export WAVEMILL_BLESS=1 ;;
        --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "unknown option $option; see --help" >&2; exit 2 ;;
    esac
done

need_toolchain
need c++ 'apt-get install g++'
read -ra packages <<<"${WAVEMILL_PACKAGES:--p wavemill-kernels}"
step 'accesses of kernels' cargo test --locked "${packages[@]}" --lib -- counts::
