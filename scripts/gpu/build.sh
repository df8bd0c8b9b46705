#!/usr/bin/env bash
# Builds what a check on a GPU runs, and packs it into .gpu/gpu.tar.xz: `scripts/gpu_check.sh build` calls this. Needs no GPU.
#
# usage: scripts/gpu_check.sh build [--no-trainer] [--dev] [--no-archive]
#   --no-trainer   without what needs libtorch
#   --dev          of the profile of tests and demo, which is built already, instead of release: no speed counts then
#   --no-archive   the folder .gpu/wavemill-gpu alone, which `run --packed` takes
#
# environment:
#   WAVEMILL_DATA=DIR   where librosa_ref lies (default: ../shared/data); without it no clip is packed
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# What may be carried to a machine that is lent is 64 MiB, the working tree included.
limit_bytes=$((58 << 20))
# Of librosa's six clips, so that the archive stays small.
clips=(fma000002 like201003)

trainer=true
archive=true
profile=(--release)
built=release
packages=(--workspace)
for option in "$@"; do
    case $option in
        --no-trainer) trainer=false; packages+=(--exclude wavemill-trainer) ;;
        --dev) profile=(); built=debug ;;
        --no-archive) archive=false ;;
        --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "unknown option $option; see --help" >&2; exit 2 ;;
    esac
done

# Test programs have a hash in their names, which cargo tells. Both commands select the same packages and need their
# development dependencies, so that cargo builds each crate once.
build() {
    local selected=("${profile[@]}" --locked "${packages[@]}" --message-format=json-render-diagnostics)
    cargo build "${selected[@]}" --bins --test main --test librosa --bench cuda >.gpu/built.json
    cargo test "${selected[@]}" --lib --no-run >>.gpu/built.json
}

# One thread of xz takes minutes; its dictionary reaches over all programs, which share most of their code.
compress() {
    tar -C .gpu -c wavemill-gpu | xz -T1 --lzma2=preset=6,dict=256MiB >.gpu/gpu.tar.xz.part
    mv .gpu/gpu.tar.xz.part .gpu/gpu.tar.xz
}

need_toolchain
need python3 'apt-get install python3'
mkdir -p .gpu
if $trainer; then step 'libtorch (.libtorch)' scripts/libtorch.sh; fi
step "build ($built)" build
need strip 'apt-get install binutils'
rm -rf .gpu/wavemill-gpu
step 'programs and data' python3 scripts/gpu/pack.py .gpu/built.json .gpu/wavemill-gpu "${WAVEMILL_DATA:-../shared/data}" "${clips[@]}"
if ! $archive; then exit 0; fi

need xz 'apt-get install xz-utils'
step 'archive' compress
bytes=$(stat -c %s .gpu/gpu.tar.xz)
printf '.gpu/gpu.tar.xz: %s MiB\n' "$(awk "BEGIN { printf \"%.1f\", $bytes / 1048576 }")"
if ((bytes > limit_bytes)); then
    echo "too large: at most $((limit_bytes >> 20)) MiB may be carried" >&2
    exit 1
fi
