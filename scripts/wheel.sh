#!/usr/bin/env bash
# Makes the wheel of the Python package with the profile `dist`, and checks that it needs no library that a machine with
# Python may lack. One wheel serves Python 3.10 and later.
#
# usage: scripts/wheel.sh [OUT]      default: target/wheels
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath -m "${1:-target/wheels}")

need_toolchain
if [[ ! -x target/maturin/bin/maturin ]]; then
    python3 -m venv target/maturin
    target/maturin/bin/pip install --quiet --disable-pip-version-check maturin==1.16.0
fi
export PATH=$PWD/target/maturin/bin:$PATH
# maturin's own audit fails if the module links a library outside of the manylinux set.
step 'wheel' maturin build --locked --profile dist --strip --manifest-path python/Cargo.toml --auditwheel check --out "$out"
ls -l "$out"/*.whl
