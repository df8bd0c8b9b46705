#!/usr/bin/env bash
# Searches for bytes that break what reads music, guided by the code that they reach. No step of the gate.
#
# usage: scripts/fuzz.sh [mp3_frames|files] [SECONDS]      default: mp3_frames, 60 seconds
#   mp3_frames   frames of MPEG layer III, on both paths
#   files        whole files of every format; builds DataFusion along, which takes a while
#
# What it finds lies in fuzz/artifacts/, and what it has learnt in fuzz/corpus/, from where the next search goes on.
#
# environment:
#   WAVEMILL_DATA=DIR   music to begin with (default ../shared/data); it begins with nothing without
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
need cargo-fuzz 'cargo install cargo-fuzz, and rustup toolchain install nightly'
target=${1:-mp3_frames}
seconds=${2:-60}
data=${WAVEMILL_DATA:-../shared/data}

# Bytes of a seed, and of what is made of seeds, at most: a few frames.
seed_bytes=6000
input_bytes=8192
# Seconds for one input; more is a hang.
input_s=5

features=()
choice=
case $target in
    # Its first byte chooses a band.
    mp3_frames) choice='\x00' ;;
    files) features=(--features files) ;;
    *) echo "unknown target $target; see --help" >&2; exit 2 ;;
esac

# Seeds: the start of every piece of music. Their names do not change, so that a second search adds none.
seeds=fuzz/corpus/$target
mkdir -p "$seeds"
if [[ -d $data ]]; then
    find "$data" -type f \( -name '*.mp3' -o -name '*.bit' -o -name '*.wav' -o -name '*.flac' -o -name '*.ogg' \) |
        sort | while read -r file; do
        { printf '%b' "$choice"; head -c "$seed_bytes" "$file"; } >"$seeds/seed-$(sha1sum <<<"${file#"$data"}" | cut -c -16)"
    done
fi

# No sanitizer: what is fuzzed has no unsafe code of its own. Overflow and debug assertions are checked.
cargo +nightly fuzz run --sanitizer none "${features[@]}" "$target" -- \
    -max_total_time="$seconds" -max_len="$input_bytes" -timeout="$input_s" -print_final_stats=1
