"""Locates the requirements of a check: the packed programs, a Python with torch, NVIDIA's tools, a GPU."""

import os
import platform
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from glob import glob
from pathlib import Path

# Version that the packed trainer was linked against; another minor version has another ABI.
TORCH = "2.11."

# Prints the location of torch and its version without importing it, which takes seconds.
FIND_TORCH = """
import importlib.metadata, importlib.util, pathlib
found = importlib.util.find_spec("torch")
if found: print(pathlib.Path(found.origin).parent, importlib.metadata.version("torch"), sep="\\n")
"""

# Folders in which toolkits and distributions install NVIDIA's tools, in addition to PATH.
TOOL_FOLDERS = ["/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/opt/cuda/bin", "/usr/local/cuda-*/bin"]


def said(command):
    """Returns the output of a short command; empty if it cannot be started, fails or takes too long."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def gpus():
    """Returns the GPUs listed by nvidia-smi, or else the files of an installed driver. Empty if the machine has no GPU."""
    listed = [line for line in said(["nvidia-smi", "-L"]).splitlines() if line.startswith("GPU ")]
    devices = [path for path in ("/dev/nvidia0", "/proc/driver/nvidia/version") if Path(path).exists()]
    return listed or devices


def pythons():
    """Returns Python interpreters that may have torch, the likeliest first, without duplicates."""
    tried = []
    if environment := os.environ.get("VIRTUAL_ENV"):
        tried.append(f"{environment}/bin/python3")
    tried += [shutil.which("python3") or sys.executable]
    tried += sorted(glob("/opt/*/bin/python3") + glob("/opt/*/.venv/bin/python3") + glob("/opt/*/venv/bin/python3"))
    tried += [f"{home}/bin/python3" for home in (".venv", "venv")]
    return list(dict.fromkeys(path for path in tried if Path(path).exists()))


def find_torch():
    """Returns (python, folder of torch, version): the first of version TORCH, else the first of any version, else None."""
    found = []
    for python in pythons():
        lines = said([python, "-c", FIND_TORCH]).splitlines()
        if len(lines) == 2:
            found.append((python, Path(lines[0]), lines[1]))
    right = [one for one in found if one[2].startswith(TORCH)]
    return (right or found or [None])[0]


def find_tool(name):
    """Returns the path of one of NVIDIA's tools, on PATH or in the folders of toolkits; None if it is not found."""
    if path := shutil.which(name):
        return path
    places = [f"{folder}/{name}" for pattern in TOOL_FOLDERS for folder in sorted(glob(pattern))]
    return next((path for path in places if os.access(path, os.X_OK)), None)


def cpu():
    """Returns the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Place:
    """A machine with the unpacked archive."""

    def __init__(self, packed, scratch):
        self.packed, self.scratch = packed, scratch
        self.gpus = gpus()
        torch = find_torch()
        self.python, self.torch, self.torch_version = torch or (None, None, None)
        self.cuda_store = None  # set by one step for the next

    def program(self, name):
        """Returns the path of a packed program."""
        return str(self.packed / "bin" / name)

    def torch_lacks(self):
        """Returns the reason why the trainer cannot run here; None if it can."""
        if self.torch is None:
            return f"no Python with torch (tried {', '.join(pythons())})"
        if not self.torch_version.startswith(TORCH):
            return f"torch {self.torch_version} in {self.torch}: the programs need {TORCH}x"
        if not (self.torch / "lib/libtorch_cuda.so").exists():
            return f"torch in {self.torch} was built without CUDA"
        return None

    def read_ahead(self):
        """Reads the libraries of the steps into the page cache, in the background: several GB may lie on a cold disk."""
        if not self.torch or not (self.torch / "lib/libtorch_cuda.so").exists():
            return
        found = sorted(self.torch.parent.glob("nvidia/**/*.so*")) + sorted(self.torch.glob("lib/*.so*"))
        files = [path for path in found if path.is_file()]
        # The first steps load only cuFFT and NVRTC.
        files.sort(key=lambda path: "cufft" not in path.name and "nvrtc" not in path.name)

        def read():
            block = bytearray(1 << 20)
            for path in files:
                # The step that needs a file reports it if it cannot be read.
                with suppress(OSError), open(path, "rb", buffering=0) as file:
                    while file.readinto(block):
                        pass

        threading.Thread(target=read, daemon=True).start()

    def environment(self, trainer=False, **more):
        """Returns the environment of the programs. Only the trainer needs the folder of torch in LD_LIBRARY_PATH."""
        names = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        if self.python:
            # The libraries of the wheels are searched next to the first python3 on PATH.
            kept["PATH"] = f"{Path(self.python).parent}:{kept.get('PATH', '')}"
        if trainer:
            others = kept.get("LD_LIBRARY_PATH")
            kept["LD_LIBRARY_PATH"] = f"{self.torch / 'lib'}" + (f":{others}" if others else "")
        kept["WAVEMILL_REQUIRE_CUDA"] = "1"
        kept["WAVEMILL_PARITY_DEVICES"] = "cuda"
        kept["WAVEMILL_DATA"] = str(self.packed / "data")
        kept["WAVEMILL_BIN_DIR"] = str(self.packed / "bin")
        # Without a cache folder, every program would compile the kernels again.
        kept["XDG_CACHE_HOME"] = str(self.scratch / "cache")
        return kept | {name: str(value) for name, value in more.items()}

    def described(self):
        """Returns the machine and the versions of its software, for the page."""
        build = self.packed / "BUILD"
        versions = dict(line.split(": ", 1) for line in build.read_text().splitlines()) if build.exists() else {}
        smi = said(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
        return {
            "gpu": smi.splitlines() or self.gpus,
            "cpu": cpu(),
            "cores": os.cpu_count(),
            "system": f"{platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')}, kernel {platform.release()}",
            "torch": self.torch_version,
            "build": versions,
        }
