#!/usr/bin/env bash
# Compares wavemill with its Python peers, alternating between them in one run, and writes docs/benchmarks/*.md.
#
# usage: scripts/bench.sh [extract|catalog|stages|clips|kernels|loader|serve|train|methods|all] [ROUNDS]      default: all, 5 rounds
#   extract   MP3s to a committed store: librosa, soundfile + soxr + torchaudio, torchcodec, Essentia; threads; peak memory
#   catalog   tracks.csv of FMA's size: DuckDB, Polars
#   clips     cost per clip in archives of ten to ten thousand clips; utilization of workers
#   stages    decode, resample and log-mel: the Python chains, mpg123, symphonia, nanomp3
#   kernels   wavemill's own kernels (criterion)
#   loader    batches from a store in Rust and Python: memory-mapped .npy, HDF5, pyarrow, torch's DataLoader, WebDataset, …
#   serve     time from a song to its prediction over HTTP: Gradio with the same model as TorchScript
#   train     training steps on a CPU: PyTorch with the same architectures; values of GOMP_SPINCOUNT (an hour)
#   methods   training methods against the defaults, over five seeds on two data sets
#
# Needs about 6 GB for the peers (.venv), FFmpeg's libraries for torchcodec, mpg123 and valgrind for stages, and
# WAVEMILL_DATA (default ../shared/data). Uses the programs of a plain `cargo build --release`, which run on any x86-64.
# WAVEMILL_BIN_DIR=DIR makes serve, train and methods use the programs in DIR instead of building them.
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
        printf '# Kernels\n\nThe clip has 30 s, features are at 22,050 Hz, and one core is used. '
        printf 'Each line shows criterion'"'"'s low value, estimate and\nhigh value. Command: %s.\n\n' \
            "\`scripts/bench.sh kernels\`"
        printf 'The lines from "wavemill scalar" to "nanomp3" decode an MP3 of the real test data (30 s, 44.1 kHz, stereo, 256 '
        printf 'kbit/s on\naverage) from memory. wavemill, symphonia as released and nanomp3 decode both channels; nanomp3 also '
        printf 'finds the frames\nand keeps all samples. The two "mono" lines decode to the mean of the channels, as extraction '
        printf 'does.\n\n'
        printf '%s; %s; wavemill %s.\n\n```\n' "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" "$(date +%F)" \
            "$(git rev-parse --short HEAD)"
        grep -E '^(features|wavemill|rubato|symphonia|nanomp3)|time:|thrpt:' <<<"$raw" | grep -vE 'change|%'
        printf '```\n'
    } >$docs/kernels.md
}

loader() {
    local bench
    scripts/libtorch.sh && scripts/peers/setup.sh --bench || return 1
    bench=$(cargo bench --locked --no-run -p wavemill-trainer --bench loader 2>&1 | tee /dev/stderr |
        sed -n 's/.*Executable.*(\(.*\))$/\1/p') || return 1
    cargo build --locked --release -p wavemill-python && python_module release || return 1
    PYTHONPATH=.venv/streaming:.venv/datasets4:python \
        .venv/bin/python scripts/peers/loader.py "$bench" $docs/loader.md "$rounds"
}

# The peers and the data are already installed.
serve() {
    local programs=${WAVEMILL_BIN_DIR:-${wavemill%/*}}
    if [[ -z ${WAVEMILL_BIN_DIR:-} ]]; then
        scripts/libtorch.sh && cargo build --locked --release -p wavemill -p wavemill-trainer || return 1
    fi
    .venv/bin/python scripts/peers/serve.py "$programs" "$data" $docs/serve.md "$rounds"
}

# Both make their own data.
train() { training train.py $docs/train.md "$rounds"; }
methods() { training methods.py $docs/methods.md; }

training() {
    local programs=${WAVEMILL_BIN_DIR:-${CARGO_TARGET_DIR:-target}/release}
    scripts/peers/setup.sh --bench || return 1
    if [[ -z ${WAVEMILL_BIN_DIR:-} ]]; then
        scripts/libtorch.sh && cargo build --locked --release -p wavemill -p wavemill-trainer -p demo-audio || return 1
    fi
    .venv/bin/python "scripts/peers/$1" "$programs" "${@:2}"
}

peers() {
    PYTHONPATH=python .venv/bin/python scripts/peers/bench.py "$1" "$wavemill" "$data" "$docs/$1.md" "$rounds"
}

case $kind in
    all) kinds=(kernels catalog stages clips extract loader serve train methods) ;;
    extract | catalog | stages | clips | kernels | loader | serve | train | methods) kinds=("$kind") ;;
    *) echo "unknown bench $kind; see --help" >&2; exit 2 ;;
esac
mkdir -p $docs
if [[ $kind != kernels && $kind != loader && $kind != train && $kind != methods ]]; then
    if [[ ! -d $data ]]; then echo "no real clips in $data: set WAVEMILL_DATA" >&2; exit 1; fi
    command -v ffmpeg >/dev/null || echo 'no ffmpeg: torchcodec cannot be loaded (apt-get install ffmpeg)' >&2
    step 'peers (.venv)' scripts/peers/setup.sh --bench
    # Instructions are counted by function, which needs the names that releases leave out.
    export CARGO_PROFILE_RELEASE_STRIP=none
    if [[ $kind == stages || $kind == all ]]; then
        need mpg123 'apt-get install mpg123'
        need valgrind 'apt-get install valgrind'
        step 'other decoders' cargo build --locked --release -p wavemill-decode --example decode_mp3
    fi
    wavemill=${CARGO_TARGET_DIR:-target}/release/wavemill
    if [[ $kind != serve ]]; then
        step 'release build' cargo build --locked --release -p wavemill -p wavemill-python
        python_module release
    fi
fi
for one in "${kinds[@]}"; do
    case $one in
        kernels | loader | serve | train | methods) step "$one" "$one" ;;
        *) step "$one" peers "$one" ;;
    esac
done
