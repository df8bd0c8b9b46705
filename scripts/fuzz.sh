#!/usr/bin/env bash
# Fuzzes the readers of music files, guided by code coverage. Not a step of the gate.
#
# usage: scripts/fuzz.sh [mp3_frames|files] [SECONDS]      default: mp3_frames, 60 seconds
#   mp3_frames   frames of MPEG layer III, on both decode paths
#   files        whole files of every format
#
# Findings are written to fuzz/artifacts/. The corpus is kept in fuzz/corpus/, and the next run continues from it.
#
# environment:
#   WAVEMILL_DATA=DIR   music files for the initial corpus (default ../shared/data); without them it is empty
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
need cargo-fuzz 'cargo install cargo-fuzz, and rustup toolchain install nightly'
target=${1:-mp3_frames}
seconds=${2:-60}
data=${WAVEMILL_DATA:-../shared/data}

# Maximum number of bytes of a seed, and of an input derived from seeds: a few frames.
seed_bytes=6000
input_bytes=8192
# Time limit for one input in seconds. A longer time counts as a hang.
input_s=5

choice=
case $target in
    # The first byte of an input selects a band.
    mp3_frames) choice='\x00' ;;
    files) ;;
    *) echo "unknown target $target; see --help" >&2; exit 2 ;;
esac

# Seeds are the first bytes of each music file. Their names are stable, so a second run adds none.
seeds=fuzz/corpus/$target
mkdir -p "$seeds"
if [[ -d $data ]]; then
    find "$data" -type f \( -name '*.mp3' -o -name '*.bit' -o -name '*.wav' -o -name '*.flac' -o -name '*.ogg' \) |
        sort | while read -r file; do
        { printf '%b' "$choice"; head -c "$seed_bytes" "$file"; } >"$seeds/seed-$(sha1sum <<<"${file#"$data"}" | cut -c -16)"
    done
fi

# No sanitizer, because the fuzzed code has no unsafe code of its own. Overflow and debug assertions are enabled.
cargo +nightly fuzz run --sanitizer none "$target" -- \
    -max_total_time="$seconds" -max_len="$input_bytes" -timeout="$input_s" -print_final_stats=1
