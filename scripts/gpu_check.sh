#!/usr/bin/env bash
# Runs all checks that need a machine with a GPU. Programs are built and packed beforehand, run on that machine without Rust
# and without a network, and the results are written to a page afterwards.
#
# usage: scripts/gpu_check.sh build [OPTIONS]         programs and data into .gpu/gpu.tar.xz; needs no GPU
#        scripts/gpu_check.sh run [FOLDER] [OPTIONS]  all steps, at most 9 minutes; results into FOLDER (.gpu/results)
#        scripts/gpu_check.sh report FOLDER           docs/benchmarks/gpu.md from these results
# Options of each command: scripts/gpu_check.sh build --help
# A first run (limits of 165 s, plus unpacking; allow 240 s):
#   scripts/gpu_check.sh run FOLDER --steps machine,open,bench,ncu,parity
#
# `run` needs python3 (3.12, or a later 3.11) and NVIDIA's driver; cuFFT and NVRTC, from a toolkit or from wheels; and, for
# training and NCCL, a Python with torch 2.11 for CUDA: in VIRTUAL_ENV, on PATH, or below /opt. Exit code 0: all steps
# passed. Without a GPU every step is "not run", and the exit code is 1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/lib.sh"

command=${1:---help}
shift || true
export PYTHONDONTWRITEBYTECODE=1
case $command in
    build) exec "$here/gpu/build.sh" "$@" ;;
    run | report)
        need python3 'apt-get install python3'
        exec python3 "$here/gpu/$command.py" "$@"
        ;;
    --help) usage "${BASH_SOURCE[0]}" ;;
    *) echo "unknown command $command; see --help" >&2; exit 2 ;;
esac
