#!/usr/bin/env bash
# The gate: every check and every test, cheapest first, with durations.
#
# usage: scripts/test.sh [--quick] [--no-trainer]
#   --quick        checks that do not compile, and unit tests, alone
#   --no-trainer   without the crate that needs libtorch
#
# environment:
#   WAVEMILL_DATA=DIR          real inputs (default: ../shared/data); tests that need them show as ignored without, and
#                              scripts/break.sh breaks fewer kinds of files
#   WAVEMILL_REQUIRE_DATA=1    they fail without
#   WAVEMILL_PEERS=1           other programs are asked too: readers of a store (DuckDB, Polars, pandas, pyarrow, datasets), and
#                              tools for features (Kaldi, Whisper, librosa); makes .venv from PyPI, 1 GB; default 1 where
#                              CI is set, else 0, and these tests show as ignored
#   WAVEMILL_CUDA_CHECK=1      device code is compiled for GPUs (none is needed; makes .cuda from PyPI, 0.3 GB), and
#                              its emulation runs under sanitizers; default as above
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
quick=false
trainer=true
packages=(--workspace)
for option in "$@"; do
    case $option in
        --quick) quick=true ;;
        --no-trainer) trainer=false; packages+=(--exclude wavemill-trainer) ;;
        --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "unknown option $option; see --help" >&2; exit 2 ;;
    esac
done

# A machine without a GPU runs no step of the check on one, says so of each, and takes that for a failure.
dry_run() {
    local code=0
    mkdir -p tmp
    scripts/gpu_check.sh run tmp/gpu-dry --packed .gpu/wavemill-gpu >tmp/gpu-dry.txt || code=$?
    tail -n 2 tmp/gpu-dry.txt
    [[ $code == 1 ]] && grep -q ' steps: 0 passed, 0 failed, ' tmp/gpu-dry.txt
}

trap end_steps EXIT
need_toolchain
need python3 'apt-get install python3 python3-venv'
if [[ ${WAVEMILL_PEERS:-${CI:+1}} == 1 ]]; then
    step 'spelling checker (.venv)' scripts/peers/setup.sh --typos
    # The others are fetched while the checks build everything: only tests need them.
    beside 'peers (.venv)' scripts/peers/setup.sh
    export WAVEMILL_PEERS=1 WAVEMILL_PYTHON=$PWD/.venv/bin/python
fi
if $trainer; then step 'libtorch (.libtorch)' scripts/libtorch.sh; fi
step checks scripts/check.sh --no-docs "$@"
join_steps
build_with_clippy
# One core is enough for docs.
if ! $quick; then beside 'docs and their examples' check_docs "${packages[@]}"; fi
# Many tests wait for disks, other processes and clocks: two at a time on each core keep it busy.
threads=$(($(nproc) * 2))
# Every step selects the same packages, so that cargo unifies the same features and builds each crate once.
step 'unit tests' cargo test --locked "${packages[@]}" --lib --bins -- --test-threads "$threads"
join_steps
if $quick; then exit 0; fi
if [[ ${WAVEMILL_CUDA_CHECK:-${CI:+1}} == 1 ]]; then
    WAVEMILL_PACKAGES=${packages[*]} beside 'device code under sanitizers' scripts/emulated_sanitize.sh
    step 'device code (.cuda)' scripts/cuda_check.sh
    LD_LIBRARY_PATH=$PWD/.cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} beside 'device code as it is compiled at start' \
        cargo test --locked "${packages[@]}" --lib -- --ignored device::compile
fi
options=(--dev --no-archive)
if ! $trainer; then options+=(--no-trainer); fi
step 'what is carried to a machine with a GPU' scripts/gpu_check.sh build "${options[@]}"
if [[ ! -e /dev/nvidia0 ]]; then step 'the check on a GPU, without one' dry_run; fi
step 'broken files' scripts/break.sh
join_steps
if [[ ${WAVEMILL_PEERS:-} == 1 ]]; then
    beside 'scores beside scikit-learn' .venv/bin/python scripts/peers/metrics.py \
        --binary "${CARGO_TARGET_DIR:-target}/debug/examples/metrics"
    beside 'maps beside scikit-learn' .venv/bin/python scripts/peers/map.py \
        --binary "${CARGO_TARGET_DIR:-target}/debug/examples/map"
fi
step 'real files and whole runs' cargo test --locked "${packages[@]}" --test '*' -- --test-threads "$threads"
join_steps
printf 'all green in %d s\n' "$SECONDS"
