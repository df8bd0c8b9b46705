#!/usr/bin/env bash
# Builds programs for users, with the profile `dist` and for machines with AVX2 (x86-64-v3), in target/v3/dist. Also
# writes the checksums of the programs (SHA256SUMS) and a list of the crates in them (wavemill.cdx.json, see
# docs/dependencies.md). A plain `cargo build --release` stays portable.
#
# usage: scripts/build.sh [CARGO OPTIONS]
#   -p demo-audio        also builds the program that `wavemill demo` starts, in the folder where it is searched
#   -p wavemill-trainer  also builds the program that `wavemill train` and `predict` start; needs scripts/libtorch.sh first
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(-p wavemill)
programs=(wavemill)
for option; do
    case $option in
        *demo-audio) packages+=(-p demo-audio) programs+=(demo-audio) ;;
        *wavemill-trainer) packages+=(-p wavemill-trainer) programs+=(wavemill-train) ;;
    esac
done

need_toolchain
need python3 'apt-get install python3, or dnf install python3'
target=${CARGO_TARGET_DIR:-target}/v3
mkdir -p "$target"
CARGO_TARGET_DIR=$(cd "$target" && pwd)

# Paths in messages of panics and assertions do not contain the folders of this machine, so that a build in another
# folder gives the same bytes. The last prefix that matches a path applies. Cargo leaves RUSTFLAGS out of the hashes in
# symbol names, and out of those in file names if `--remap-path-prefix` is among them.
rust_flags=-Ctarget-cpu=x86-64-v3
c_flags=
for map in "$(pwd -P)=." "${CARGO_HOME:-$HOME/.cargo}=cargo" "$CARGO_TARGET_DIR=target"; do
    rust_flags+=$'\x1f'--remap-path-prefix=$map
    c_flags+=" -ffile-prefix-map=$(printf %q "$map")"
done
export CARGO_TARGET_DIR CARGO_ENCODED_RUSTFLAGS=$rust_flags
export CC_SHELL_ESCAPED_FLAGS=1 CFLAGS="${CFLAGS:-}$c_flags" CXXFLAGS="${CXXFLAGS:-}$c_flags"
# Options of cargo may choose another folder: the checksums must not be those of an earlier build.
rm -f "${programs[@]/#/$CARGO_TARGET_DIR/dist/}"
step 'dist build for x86-64-v3' cargo build --locked --profile dist -p wavemill "$@"

cd "$CARGO_TARGET_DIR/dist"
sha256sum "${programs[@]}" >SHA256SUMS
"$OLDPWD/scripts/sbom.py" "${packages[@]}" >wavemill.cdx.json
printf '%s\n' "${programs[@]/#/$PWD/}"
