#!/usr/bin/env bash
# Checks the Python package in python/ with the module of the last debug build: types, tests, and the notebook.
#
# usage: scripts/python_check.sh [TEST…]
#   TEST   names of unittest, such as test_audio or test_feature.BadInput; all tests and checks by default
#
# Needs scripts/peers/setup.sh (.venv), which WAVEMILL_PEERS=1 of scripts/test.sh runs. Tests with torch need its option
# --bench.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:-} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --locked --workspace --lib --bins --tests
python_module debug

python=$PWD/.venv/bin/python
PYTHONPATH=$PWD/python:$PWD/python/tests${PYTHONPATH:+:$PYTHONPATH}
# Other tests compile librosa's functions at the same time, and would damage a common cache.
NUMBA_CACHE_DIR=$PWD/tmp/numba
export PYTHONPATH NUMBA_CACHE_DIR
cd python
if (($#)); then exec "$python" -m unittest -v "$@"; fi
step 'types of the Python package' "$python" -m mypy wavemill tests/typed_example.py
step 'tests of the Python package' "$python" -m unittest discover -s tests
step 'notebook' "$python" ../scripts/peers/run_notebook.py ../docs/python.ipynb
