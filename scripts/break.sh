#!/usr/bin/env bash
# Breaks audio files by the thousand, and checks what `wavemill extract` makes of them.
#
# usage: scripts/break.sh [--files N] [--seed N] [--formats mp3,wav,flac,ogg] [--keep FOLDER]
#   --files N         broken files (default 20000: a minute or two; 200000 by hand)
#   --seed N          the same seed breaks the same files (default 1)
#   --first-batch N   goes on from this batch of 2,000
#   --formats LIST    formats to break (default all)
#   --keep FOLDER     where a file that shows a fault is kept (default tmp/broken)
#   --file-cpu-s S    CPU seconds that one file may take (default 5); none that takes more passes unseen
#
# environment:
#   WAVEMILL_DATA=DIR   real inputs (default ../shared/data): MP3s of more rates, a longer Ogg; less is broken without
#
# Builds nothing: cargo build --workspace --bins --tests first. CARGO_TARGET_DIR is honoured.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
need python3 'apt-get install python3'

programs=${CARGO_TARGET_DIR:-target}/debug
for program in wavemill demo-audio; do
    need "$programs/$program" 'cargo build --locked --workspace --bins --tests'
done
exec python3 scripts/break/run.py --programs "$programs" --data "${WAVEMILL_DATA:-../shared/data}" "$@"
