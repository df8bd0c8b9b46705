#!/usr/bin/env bash
# Builds programs for users, with the profile `dist` and for machines with AVX2 (x86-64-v3), in target/v3/dist.
# A plain `cargo build --release` stays portable.
#
# usage: scripts/build.sh [CARGO OPTIONS]
#   -p demo-audio        also builds the program that `wavemill demo` starts, in the folder where it is searched
#   -p wavemill-trainer  also builds the program that `wavemill train` and `predict` start; needs scripts/libtorch.sh first
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

need_toolchain
export RUSTFLAGS='-C target-cpu=x86-64-v3'
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/v3
step 'dist build for x86-64-v3' cargo build --locked --profile dist -p wavemill "$@"
echo "$CARGO_TARGET_DIR/dist/wavemill"
