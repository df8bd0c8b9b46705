#!/usr/bin/env bash
# Installs libtorch 2.11 for the trainer: the libraries and headers of PyPI's official wheel, in .libtorch/.
# Does nothing if LIBTORCH is set, or if libtorch is already installed.
#
# usage: scripts/libtorch.sh [--cuda]
#   --cuda   with libtorch_cuda and NVIDIA's libraries (3.5 GB in total) instead of the CPU version (0.5 GB)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
torch=2.11.0
kind=cpu
wheels=("torch==$torch" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
case ${1:-} in
    --help) usage scripts/libtorch.sh; exit 0 ;;
    --cuda)
        kind=cuda
        wheels+=(nvidia-cublas==13.1.0.3 nvidia-cufft==12.0.0.61 nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66
            nvidia-cusparse==12.6.3.3 nvidia-nvjitlink==13.0.88 nvidia-cufile==1.15.1.6 nvidia-cudnn-cu13==9.19.0.56
            nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5 nvidia-cuda-nvrtc==13.0.88)
        ;;
    '') ;;
    *) echo "unknown option $1; see --help" >&2; exit 2 ;;
esac

if [[ -n ${LIBTORCH:-} ]]; then
    echo "LIBTORCH is set: $LIBTORCH"
    exit 0
fi
for have in "$kind" cuda; do
    if [[ $(cat .libtorch/kind 2>/dev/null) == "$torch $have" ]]; then exit 0; fi
done
if [[ $(uname -s) != Linux ]]; then
    echo "the wheels are for Linux only: install libtorch $torch manually and set LIBTORCH to its folder" >&2
    exit 1
fi
need python3 'apt-get install python3 python3-venv'

part=.libtorch.part
rm -rf $part
trap 'rm -rf $part' EXIT
fetch_wheels $part/wheels "${wheels[@]}"
python3 - "$kind" $part/wheels $part <<'PYTHON'
"""Extracts from the wheels what a C++ program needs: libraries, headers, licences."""
import pathlib, re, sys, zipfile

kind, wheels, into = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
cpu = re.compile(r"torch/lib/(libtorch|libtorch_cpu|libc10|libgomp[^/]*|libarm_compute[^/]*|libopenblas[^/]*)\.so[^/]*$")
wanted = [r"torch/include/", r"torch/share/", r"nvidia/.*/lib/[^/]*\.so[^/]*$", r"[^/]*dist-info/.*LICENSE", r"torch\.libs/"]
if kind == "cuda":
    wanted.append(r"torch/lib/(?!libtorch_python)[^/]*\.so[^/]*$")
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if cpu.match(name) or any(re.match(pattern, name) for pattern in wanted):
                archive.extract(name, into)
    wheel.unlink()
PYTHON
echo "$torch" >$part/torch/build-version
rm -rf $part/wheels
echo "$torch $kind" >$part/kind
rm -rf .libtorch
mv $part .libtorch
trap - EXIT
