#!/usr/bin/env bash
# From a fresh clone to a store that answers SQL: builds wavemill, makes a small synthetic music archive,
# extracts it, and shows two answers and the rejects.
#
# usage: scripts/demo.sh [DIR]      DIR (default: tmp/demo) gets the archive and the store
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
dir=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../tmp/demo}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need_toolchain
step 'libtorch (.libtorch)' scripts/libtorch.sh
step 'build (the first time 5 to 10 minutes)' build_programs
exec "${CARGO_TARGET_DIR:-target}/debug/wavemill" demo "$dir"
