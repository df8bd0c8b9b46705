#!/usr/bin/env bash
# Creates .venv with the Python peers: readers of a store and feature libraries, and with --bench also torch and the peers of
# the benches.
#
# usage: scripts/peers/setup.sh [--bench | --checks]      PYTHON=python3.12 selects an interpreter
#   --checks  only the tools of scripts/check.sh, for spelling and licences, which take a few seconds
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../lib.sh"
cd "$here/../.."
lists=(requirements-checks.txt requirements.txt)
checks_alone=false
case ${1:-} in
    --help) usage "$here/setup.sh"; exit 0 ;;
    --bench) lists+=(requirements-bench.txt) ;;
    --checks) checks_alone=true ;;
esac

python=${PYTHON:-python3}
need "$python" 'apt-get install python3 python3-venv'
# An environment left by a killed installer would look complete, so it is removed.
if [[ -e .venv/unfinished ]]; then rm -rf .venv; fi
if [[ ! -x .venv/bin/pip ]]; then
    "$python" -m venv .venv || { echo 'no venv module: apt-get install python3-venv' >&2; exit 1; }
fi
touch .venv/unfinished
if $checks_alone; then
    .venv/bin/pip install --quiet --disable-pip-version-check -r "$here/requirements-checks.txt"
    rm .venv/unfinished
    exit
fi
# uv needs half of pip's time. It compiles modules only with an option; if Python may not write its bytecode cache,
# each start of a program would compile them again. pip is used if uv is not available, or if it cannot reach the
# index as pip is configured to.
if [[ ! -x .venv/bin/uv ]]; then
    .venv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 ||
        echo 'no uv for this Python: using pip, which takes longer' >&2
fi
# install LIST [OPTIONS…]: installs the packages of a list, unless exactly this list is already installed.
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
install requirements-catalogs.txt --no-deps --upgrade --target .venv/catalogs
rm .venv/unfinished
