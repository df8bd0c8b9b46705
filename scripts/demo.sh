#!/usr/bin/env bash
# From a fresh clone to an evaluated model: builds wavemill, generates a small synthetic music archive, extracts it, runs
# three queries on the store, trains on it for a minute, and predicts a clip.
#
# usage: scripts/demo.sh [DIR]      DIR (default: tmp/demo) is the folder for the archive, the store and the run
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
dir=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../tmp/demo}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need_toolchain
step 'libtorch (.libtorch)' scripts/libtorch.sh
# Nothing that only tests and the Python package need.
step 'build (the first time about 9 minutes on two cores)' \
    cargo build --locked --bins -p wavemill -p demo-audio -p wavemill-trainer
programs=${CARGO_TARGET_DIR:-target}/debug
"$programs/wavemill" demo "$dir"

printf '\n6. wavemill train fit --store %s --model crnn --epochs 15\n' "$dir/store" >&2
# A folder of this script alone: in a folder of the user, `runs` may have other runs.
rm -rf "$dir/demo-runs"
"$programs/wavemill" train fit --store "$dir/store" --model crnn --epochs 15 --runs "$dir/demo-runs" --device cpu
run=$(echo "$dir"/demo-runs/crnn-*)
# `sed` reads its input to the end. `head` would stop early, and `sort` would sometimes end by SIGPIPE.
clip=$(find "$dir/data/fma_demo" -name '*.mp3' -size +50k | sort | sed -n 1p)
printf '\n7. wavemill predict --run %s %s\n' "$run" "$clip" >&2
"$programs/wavemill" predict --run "$run" "$clip"
