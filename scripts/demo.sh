#!/usr/bin/env bash
# From a fresh clone to an evaluated model: builds wavemill, generates a small synthetic music archive, extracts it, runs
# three queries on the store, trains on it for a minute, predicts a clip, and prints commands to continue with.
#
# usage: scripts/demo.sh [DIR]      DIR (default: tmp/demo) is the folder for the archive, the store and the run
set -euo pipefail
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
source "$root/scripts/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
dir=${1:-$(realpath -m --relative-base=. "$root/tmp/demo")}
programs=$(cd "$root" && realpath -m "${CARGO_TARGET_DIR:-target}/debug")
# Nothing that only tests and the Python package need.
packages=(-p wavemill -p demo-audio -p wavemill-trainer)
# As in CI. What later builds could reuse (incremental state, debug lines) takes a minute to make.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0

# Cargo shows its progress only on a terminal. Elsewhere, prints a line every half minute instead of one per crate.
build() {
    local crates line number=0 next=0
    if [[ -t 2 ]]; then cargo build --locked --bins "${packages[@]}"; return; fi
    crates=$(cargo tree --quiet --locked "${packages[@]}" --edges normal,build --prefix none | cut -d ' ' -f 1,2 | sort -u | wc -l)
    cargo build --locked --bins "${packages[@]}" 2>&1 | while IFS= read -r line; do
        case $line in
            *' Compiling '*)
                number=$((number + 1))
                if ((SECONDS < next)); then continue; fi
                next=$((SECONDS + 30))
                printf '   %d s, crate %d of %d: %s\n' "$SECONDS" "$number" "$crates" "${line#* Compiling }"
                ;;
            *' Downloaded '*) ;;
            *) printf '%s\n' "$line" ;;
        esac
    done
}

(
    cd "$root"
    need_toolchain
    step 'libtorch (.libtorch)' scripts/libtorch.sh
    step 'wavemill, wavemill-train and demo-audio (the first time 14 to 22 minutes of CPU time: 7 to 11 on two cores)' build
)
# The commands that the demo prints are relative to the folder in which it was started.
"$(realpath --relative-base=. "$programs")/wavemill" demo "$dir" --train
