#!/usr/bin/env bash
# Damages thousands of audio files, and checks the results of `wavemill extract` on them.
#
# usage: scripts/break.sh [--files N] [--seed N] [--formats mp3,wav,flac,ogg,aiff,m4a,aac] [--keep FOLDER]
#   --files N         number of damaged files (default 20000, which takes a minute or two; 200000 for a manual run)
#   --seed N          seed of the damage; the same seed gives the same files (default 1)
#   --first-batch N   continue with this batch of 2,000 files
#   --formats LIST    formats to damage (default all)
#   --keep FOLDER     folder for files that show a fault (default tmp/broken)
#   --file-cpu-s S    limit of CPU seconds per file (default 5); every file above it is found
#
# environment:
#   WAVEMILL_DATA=DIR   real inputs (default ../shared/data): MP3s of more rates and a longer Ogg, which are optional
#
# Builds nothing: run cargo build --workspace --bins --tests first. CARGO_TARGET_DIR is respected.
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
