#!/usr/bin/env bash
# Compiles the device code for four generations of GPUs with nvcc and with NVRTC, and prints the resources of each kernel:
# registers, shared memory, stack, spills, and the instructions of the resampler's loops. Fails on a warning, a spill, more
# registers than a launch can have, a kernel that does not compile, or a loop of the resampler that grew. Needs no GPU, and
# does not show how the code runs on one. The compilers are downloaded from PyPI to .cuda/ (195 MB to download, 0.3 GB on
# disk).
#
# usage: scripts/cuda_check.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for option in "$@"; do
    case $option in
        --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        *) echo "unknown option $option; see --help" >&2; exit 2 ;;
    esac
done
wheels=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-nvdisasm==13.2.51)

get_compilers() {
    if [[ $(cat .cuda/wheels 2>/dev/null) == "${wheels[*]}" ]]; then return; fi
    rm -rf .cuda.part
    # `step` calls this function in a condition, where `set -e` has no effect.
    fetch_wheels .cuda.part/wheels "${wheels[@]}" || return
    python3 - .cuda.part/wheels .cuda.part <<'PYTHON' || return
"""Extracts what is needed to compile to a cubin: no linker, no second build of NVRTC."""
import pathlib, re, sys, zipfile

wheels, into = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
tools = r"nvidia/cu13/(bin/(nvcc(\.profile)?|ptxas|nvdisasm|crt/.*)|nvvm/.*|include/.*|lib/libnvrtc(-builtins)?\.so.*)|.*LICENSE.*"
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in filter(re.compile(tools).fullmatch, archive.namelist()):
            path = pathlib.Path(archive.extract(name, into))
            if "/bin/" in name and path.is_file():
                path.chmod(0o755)
PYTHON
    rm -rf .cuda.part/wheels
    echo "${wheels[*]}" >.cuda.part/wheels
    rm -rf .cuda
    mv .cuda.part .cuda
}

need python3 'apt-get install python3 python3-venv'
step 'compilers (.cuda)' get_compilers
need c++ 'nvcc uses its preprocessor: apt-get install g++'
step 'kernels' python3 scripts/cuda_check.py .cuda/nvidia/cu13
