#!/usr/bin/env bash
# Makes .venv with the Python peers: readers of a store and tools for features, and with --bench torch and what the benches
# compare with.
#
# usage: scripts/peers/setup.sh [--bench | --typos]      PYTHON=python3.12 picks an interpreter
#   --typos   the spelling checker alone, in a few seconds
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../lib.sh"
cd "$here/../.."
lists=(requirements.txt)
bench=false
typos_alone=false
case ${1:-} in
    --help) usage "$here/setup.sh"; exit 0 ;;
    --bench) lists+=(requirements-bench.txt); bench=true ;;
    --typos) typos_alone=true ;;
esac

python=${PYTHON:-python3}
need "$python" 'apt-get install python3 python3-venv'
# What an installer that was killed has left looks whole to the next one.
if [[ -e .venv/unfinished ]]; then rm -rf .venv; fi
if [[ ! -x .venv/bin/pip ]]; then
    "$python" -m venv .venv || { echo 'no venv module: apt-get install python3-venv' >&2; exit 1; }
fi
touch .venv/unfinished
if $typos_alone; then
    .venv/bin/pip install --quiet --disable-pip-version-check "$(grep '^typos==' "$here/requirements.txt")"
    rm .venv/unfinished
    exit
fi
# uv takes half of pip's time. It compiles modules only if it is told to; where Python may not keep what it compiles, each
# start of a program would do it again. Where uv cannot be had, or does not reach the index as pip is told to, pip does it.
if [[ ! -x .venv/bin/uv ]]; then
    .venv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 || echo 'no uv for this Python: pip takes longer' >&2
fi
# install LIST [OPTIONS…]: what a list names, unless just that is there.
install() {
    local list=$1 mark=.venv/$1
    shift
    if cmp --silent "$here/$list" "$mark"; then return; fi
    .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python "$@" -r "$here/$list" ||
        .venv/bin/pip install --quiet --disable-pip-version-check "$@" -r "$here/$list"
    cp "$here/$list" "$mark"
}
for list in "${lists[@]}"; do install "$list"; done
install requirements-datasets4.txt --no-deps --upgrade --target .venv/datasets4
if $bench; then install requirements-gradio.txt --upgrade --target .venv/gradio; fi
rm .venv/unfinished
