#!/usr/bin/env bash
# Builds the programs for a check on a GPU, and packs them into .gpu/gpu.tar.xz. Called by `scripts/gpu_check.sh build`.
# Needs no GPU.
#
# usage: scripts/gpu_check.sh build [--no-trainer] [--dev] [--no-archive]
#   --no-trainer   skip the programs that need libtorch
#   --dev          use the profile of tests and demo, which is built already, instead of release; speeds are not valid then
#   --no-archive   only create the folder .gpu/wavemill-gpu, which `run --packed` takes
#
# environment:
#   WAVEMILL_DATA=DIR   folder that contains librosa_ref (default: ../shared/data); without it no clip is packed
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# 64 MiB can be copied to a lent machine, including the working tree. One is left for the names of files and padding.
carried_bytes=$((63 << 20))
# Two of librosa's six clips, to keep the archive small.
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

# The file names of test programs contain a hash, which cargo prints. Both commands select the same packages and
# need their development dependencies, so that cargo builds each crate once.
build() {
    local selected=("${profile[@]}" --locked "${packages[@]}" --message-format=json-render-diagnostics)
    # `step` calls these functions in a condition, where `set -e` has no effect.
    cargo build "${selected[@]}" --bins --test main --test librosa --bench cuda >.gpu/built.json &&
        cargo test "${selected[@]}" --lib --no-run >>.gpu/built.json
}

# One thread of xz takes minutes, but its dictionary spans all programs, which share most of their code.
compress() {
    tar -C .gpu -c wavemill-gpu | xz -T1 --lzma2=preset=6,dict=256MiB >.gpu/gpu.tar.xz.part &&
        mv .gpu/gpu.tar.xz.part .gpu/gpu.tar.xz
}

# The size of the working tree: all files but those that git ignores.
tree_bytes() {
    git ls-files -z --cached --others --exclude-standard | xargs -0 stat -c %s | awk '{ sum += $1 } END { print sum }'
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
archive_bytes=$(stat -c %s .gpu/gpu.tar.xz)
limit_bytes=$((carried_bytes - $(tree_bytes)))
awk "BEGIN { printf \".gpu/gpu.tar.xz: %.1f MiB of at most %.1f\n\", $archive_bytes / 1048576, $limit_bytes / 1048576 }"
if ((archive_bytes > limit_bytes)); then
    echo 'too large: archive and working tree together exceed 63 MiB' >&2
    exit 1
fi
echo 'on the machine, first:  scripts/gpu_check.sh run FOLDER --steps machine,open,bench,ncu,parity'
echo 'on the machine, all:    scripts/gpu_check.sh run FOLDER'
