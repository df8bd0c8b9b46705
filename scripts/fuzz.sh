#!/usr/bin/env bash
# Fuzzes what reads bytes from outside, guided by code coverage. Not a step of the gate.
#
# usage: scripts/fuzz.sh TARGET [SECONDS] [LIBFUZZER OPTIONS]      default: 60 seconds
#   mp3_frames   frames of MPEG layer III, on both decode paths
#   files        whole files of every audio format, and pictures
#   clip         from a file to the rows of features
#   zip          directories of zip archives, and their clips
#   tables       tracks.csv, genres.csv, and tables of the user in CSV, JSON and Parquet
#   recipe       recipes, experiments, configurations and overrides
#   manifest     manifests, receipts, plans and records of inputs, with valid checksums
#   shard        Parquet shards and tables of a store, as the loader and SQL read them
#   sql          input of the SQL prompt
#   stream       the Arrow stream of rows between the programs
#   weights      safetensors
#   http         requests to `wavemill serve`
#
# Findings are written to tests/fuzz/artifacts/TARGET/; `scripts/fuzz.sh TARGET 0 FILE` repeats one. The file `last` there is
# the input that was tried last, which is the finding if the stack overflowed. The corpus is kept in
# tests/fuzz/corpus/TARGET/, and the next run continues from it. Without a nightly compiler, the stable one adds the counters.
#
# environment:
#   WAVEMILL_DATA=DIR      music files for the initial corpus (default ../shared/data); without them it is empty
#   WAVEMILL_FUZZ_ASAN=1   build with AddressSanitizer, in a folder of its own
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:---help} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
need_toolchain
scripts/libtorch.sh
target=$1
seconds=${2:-60}
data=${WAVEMILL_DATA:-../shared/data}

# Maximum number of bytes of a music file as a seed, a few frames, and of an input.
seed_bytes=6000
input_bytes=32768
choice=
case $target in
    # The first byte of an input selects a band.
    mp3_frames) choice='\x00' ;;
    files | clip) ;;
    # Music files are no seeds of the others.
    *) data=/nowhere ;;
esac

seeds=tests/fuzz/corpus/$target
artifacts=tests/fuzz/artifacts/$target/
mkdir -p "$seeds" "$artifacts"
# Seeds are the first bytes of each music file. Their names are stable, so a second run adds none.
if [[ -d $data ]]; then
    # Music files, also those with names of MPEG's conformance tests.
    music='.*\.\(mp3\|bit\|wav\|flac\|ogg\|opus\|m4a\|aac\|aiff?\)'
    find "$data" -type f -regex "$music" | sort | while read -r file; do
        { printf '%b' "$choice"; head -c "$seed_bytes" "$file"; } >"$seeds/seed-$(sha1sum <<<"${file#"$data"}" | cut -c -16)"
    done
fi

# The flags that cargo-fuzz passes; `sancov-module` is a pass of LLVM that every compiler has.
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares)
export RUSTFLAGS="--cfg fuzzing ${coverage[*]}"
built=tests/fuzz/target
if [[ ${WAVEMILL_FUZZ_ASAN:-} == 1 ]]; then
    # The sanitizer is an unstable option of the compiler.
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="$RUSTFLAGS -Zsanitizer=address"
    built=tests/fuzz/target-asan
fi
cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml --target x86_64-unknown-linux-gnu --target-dir "$built"

# Programs outside of the workspace have no rpath.
export LD_LIBRARY_PATH=$PWD/.libtorch/torch/lib:$PWD/.libtorch/nvidia/cu13/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export WAVEMILL_FUZZ=$target WAVEMILL_FUZZ_SEEDS=$seeds
program=$built/x86_64-unknown-linux-gnu/release/wavemill-fuzz
if [[ $seconds == 0 ]]; then exec "$program" "${@:3}"; fi
export WAVEMILL_FUZZ_LAST=${artifacts}last
# An input that takes longer than the timeout counts as a hang.
exec "$program" -max_total_time="$seconds" -max_len="$input_bytes" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$artifacts" "${@:3}" "$seeds"
