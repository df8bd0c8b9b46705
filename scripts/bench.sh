#!/usr/bin/env bash
# Compares wavemill with its Python peers, alternating between them in one run, and writes docs/benchmarks/*.md.
#
# usage: scripts/bench.sh [extract|kernels|loader|train|all] [ROUNDS]      default: all, 5 rounds
#   extract   MP3s to a committed store: librosa, soundfile + soxr + torchaudio, torchcodec; threads; peak memory; README's
#             chart
#   kernels   wavemill's own kernels, beside other decoders and resamplers (criterion)
#   loader    batches from a store; prints the figures, and writes no page
#   train     training steps on a CPU: PyTorch with the same architectures
#
# Needs about 6 GB for the peers (.venv), FFmpeg's libraries for torchcodec, and WAVEMILL_DATA (default ../shared/data).
# Uses the programs of a plain `cargo build --release`, which run on any x86-64.
# WAVEMILL_BIN_DIR=DIR makes train use the programs in DIR instead of building them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kind=${1:-all}
rounds=${2:-5}
data=${WAVEMILL_DATA:-../shared/data}
docs=docs/benchmarks

kernels() {
    local raw
    raw=$(WAVEMILL_DATA=$(realpath -m "$data") cargo bench --locked --quiet -p wavemill-kernels \
        -p wavemill-signal -p wavemill-decode --bench features --bench resample --bench layer3 -- --noplot | tee /dev/stderr) || return 1
    {
        printf '# Kernels\n\nA clip of 30 s on one core, features at 22,050 Hz: low value, estimate, high value (%s).\n\n' \
            "\`scripts/bench.sh kernels\`"
        printf 'The lines from "wavemill scalar" to "nanomp3" decode an MP3 (44.1 kHz, stereo, 256 kbit/s); nanomp3 also finds '
        printf 'the\nframes. "mono" is the mean of the channels, as in extraction.\n\n'
        printf '%s; %s; wavemill %s.\n\n```\n' "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" "$(date +%F)" \
            "$(git rev-parse --short HEAD)"
        grep -E '^(features|wavemill|rubato|symphonia|nanomp3)|time:' <<<"$raw" | grep -vE 'change|%' | sed 's/time:   //'
        printf '```\n'
    } >$docs/kernels.md
}

# Only prints its figures.
loader() {
    scripts/libtorch.sh && cargo bench --locked -p wavemill-trainer --bench loader
}

train() {
    local programs=${WAVEMILL_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}
    scripts/peers/setup.sh --bench || return 1
    if [[ -z ${WAVEMILL_BIN_DIR:-} ]]; then
        scripts/libtorch.sh && cargo build --locked --release -p wavemill -p wavemill-trainer -p demo-audio || return 1
    fi
    .venv/bin/python scripts/peers/train.py "$programs" $docs/train.md "$rounds"
}

extract() {
    local wavemill=${CARGO_TARGET_DIR:-target}/release/wavemill
    if [[ ! -d $data ]]; then echo "no real clips in $data: set WAVEMILL_DATA" >&2; return 1; fi
    command -v ffmpeg >/dev/null || echo 'no ffmpeg: torchcodec cannot be loaded (apt-get install ffmpeg)' >&2
    scripts/peers/setup.sh --bench || return 1
    cargo build --locked --release -p wavemill -p wavemill-python && python_module release || return 1
    PYTHONPATH=python .venv/bin/python scripts/peers/bench.py "$wavemill" "$data" $docs/extract.md "$rounds" &&
        scripts/peers/speed_chart.py
}

case $kind in
    all) kinds=(kernels extract loader train) ;;
    extract | kernels | loader | train) kinds=("$kind") ;;
    *) echo "unknown bench $kind; see --help" >&2; exit 2 ;;
esac
mkdir -p $docs
for one in "${kinds[@]}"; do step "$one" "$one"; done
