#!/usr/bin/env bash
# Counts what the kernels' accesses ask of a GPU's memory, on the emulated device: wavefronts of shared memory, lines of
# global memory. Fails where a kernel takes more than its bound (kernels/src/backend/counts.rs), or where the table in
# docs/cuda-kernels.md says otherwise. Needs g++ and no GPU; cargo's unit tests do the same.
#
# usage: scripts/cuda_counts.sh [--write]
#   --write   brings the table up to date
#
# environment:
#   WAVEMILL_PACKAGES=…   what cargo selects, so that a gate builds each crate once (default: -p wavemill-kernels)
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
