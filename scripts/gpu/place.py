"""Where a check finds what it needs: the packed programs, a Python with torch, NVIDIA's tools, a GPU."""

import os
import platform
import shutil
import subprocess
import sys
from glob import glob
from pathlib import Path

# What the packed trainer was linked against; another minor version has another ABI.
TORCH = "2.11."

# Prints where torch lies and its version, without loading it: that takes seconds.
FIND_TORCH = """
import importlib.metadata, importlib.util, pathlib
found = importlib.util.find_spec("torch")
if found: print(pathlib.Path(found.origin).parent, importlib.metadata.version("torch"), sep="\\n")
"""

# Beside PATH: where toolkits and distributions put NVIDIA's tools.
TOOL_FOLDERS = ["/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/*", "/opt/cuda/bin", "/usr/local/cuda-*/bin"]


def said(command):
    """What a short command prints; nothing where it cannot be started, fails or takes too long."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def gpus():
    """GPUs by nvidia-smi's words, or the fact that a driver is there. None: this machine has none."""
    listed = [line for line in said(["nvidia-smi", "-L"]).splitlines() if line.startswith("GPU ")]
    devices = [path for path in ("/dev/nvidia0", "/proc/driver/nvidia/version") if Path(path).exists()]
    return listed or devices


def pythons():
    """Pythons that may have torch, the likeliest first, each once."""
    tried = []
    if environment := os.environ.get("VIRTUAL_ENV"):
        tried.append(f"{environment}/bin/python3")
    tried += [shutil.which("python3") or sys.executable]
    tried += sorted(glob("/opt/*/bin/python3") + glob("/opt/*/.venv/bin/python3") + glob("/opt/*/venv/bin/python3"))
    tried += [f"{home}/bin/python3" for home in (".venv", "venv")]
    return list(dict.fromkeys(path for path in tried if Path(path).exists()))


def find_torch():
    """(python, folder of torch, version), the first of TORCH's version; else the first of any; else None."""
    found = []
    for python in pythons():
        lines = said([python, "-c", FIND_TORCH]).splitlines()
        if len(lines) == 2:
            found.append((python, Path(lines[0]), lines[1]))
    right = [one for one in found if one[2].startswith(TORCH)]
    return (right or found or [None])[0]


def find_tool(name):
    """One of NVIDIA's tools: on PATH, or where toolkits lie. None if it is nowhere."""
    if path := shutil.which(name):
        return path
    places = [f"{folder}/{name}" for pattern in TOOL_FOLDERS for folder in sorted(glob(pattern))]
    return next((path for path in places if os.access(path, os.X_OK)), None)


def cpu():
    """The processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


class Place:
    """One machine, and the unpacked archive on it."""

    def __init__(self, packed, scratch):
        self.packed, self.scratch = packed, scratch
        self.gpus = gpus()
        torch = find_torch()
        self.python, self.torch, self.torch_version = torch or (None, None, None)
        self.cuda_store = None  # left by one step for the next

    def program(self, name):
        """A packed program."""
        return str(self.packed / "bin" / name)

    def torch_lacks(self):
        """Why the trainer cannot run here; None where it can."""
        if self.torch is None:
            return f"no Python with torch (tried {', '.join(pythons())})"
        if not self.torch_version.startswith(TORCH):
            return f"torch {self.torch_version} in {self.torch}: the programs need {TORCH}x"
        if not (self.torch / "lib/libtorch_cuda.so").exists():
            return f"torch in {self.torch} is one without CUDA"
        return None

    def environment(self, trainer=False, **more):
        """What programs are started with. Only the trainer is told where torch lies: the others find what they need."""
        names = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES", "CUDA_HOME")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        if self.python:
            # The libraries of the wheels are looked for beside the first python3.
            kept["PATH"] = f"{Path(self.python).parent}:{kept.get('PATH', '')}"
        if trainer:
            others = kept.get("LD_LIBRARY_PATH")
            kept["LD_LIBRARY_PATH"] = f"{self.torch / 'lib'}" + (f":{others}" if others else "")
        kept["WAVEMILL_REQUIRE_CUDA"] = "1"
        kept["WAVEMILL_PARITY_DEVICES"] = "cuda"
        kept["WAVEMILL_DATA"] = str(self.packed / "data")
        kept["WAVEMILL_BIN_DIR"] = str(self.packed / "bin")
        return kept | {name: str(value) for name, value in more.items()}

    def described(self):
        """The machine and its versions, for the page."""
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
