#!/usr/bin/env bash
# Makes the wheel of the Python package with the profile `dist`, and checks that it needs no library that a machine with
# Python may lack. One wheel serves Python 3.10 and later. It contains the programs demo-audio, with the licences of LAME,
# and wavemill-train, which uses the libtorch of an installed torch. At the end, `wavemill demo` runs in a new environment
# that contains only the wheel.
#
# usage: scripts/wheel.sh [--dev] [OUT]      default: target/wheels
#   --dev   with the profile dev, to test this script
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
profile=dist folder=dist
case ${1:-} in
    --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    --dev) profile=dev folder=debug; shift ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${1:-target/wheels}")

# The demo of the wheel in an environment of its own, from a folder of its own.
try_wheel() {
    local place
    place=$(mktemp -d)
    python3 -m venv "$place/venv"
    "$place/venv/bin/pip" install --quiet --disable-pip-version-check "$1"
    (cd "$place" && "$place/venv/bin/wavemill" demo)
    rm -rf "$place"
}

need_toolchain
if [[ ! -x target/maturin/bin/maturin ]]; then
    python3 -m venv target/maturin
    target/maturin/bin/pip install --quiet --disable-pip-version-check maturin==1.16.0
fi
export PATH=$PWD/target/maturin/bin:$PATH
step 'libtorch (.libtorch)' scripts/libtorch.sh
step 'programs' cargo build --locked --profile $profile --bins -p demo-audio -p wavemill-trainer
python_programs $folder
# An earlier wheel must not be taken for this one.
rm -f "$out"/wavemill-*.whl
# maturin's own audit fails if the module links a library outside of the manylinux set.
step 'wheel' maturin build --locked --profile $profile --strip --manifest-path python/Cargo.toml --auditwheel check --out "$out"
ls -l "$out"/*.whl
step 'demo of the wheel' try_wheel "$out"/wavemill-*.whl
