#!/usr/bin/env python3
"""Compile the device code with nvcc and NVRTC, and print the resources of each kernel.

usage: scripts/cuda_check.py TOOLKIT        (scripts/cuda_check.sh downloads TOOLKIT and calls this)

Fails on warnings, spills, too many registers, and loops of the resampler that exceed their limits. The translation unit is
assembled as in kernels/kernels/src/device/source.rs, and NVRTC's options are those of device/compile.rs.

Registers are counted per thread. If nvcc and NVRTC differ, both numbers are printed, nvcc's first. Shared memory is the
size that a kernel declares, in bytes. Stack and spills are the maximum over all architectures and compilers, in bytes per
thread.

The second table counts the instructions of one thread in one iteration of the resampler's loops, for Hopper (sm_90):
multiply-adds: the loop over the filter's taps; all its instructions, and the multiply-adds among them
a source sample: the loop that downmixes a sample and stores it in shared memory; inside the clip, and at an edge
an output, written: the loop that writes an output sample, if the loop of the sums does not write it
"""

import ctypes
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

ARCHITECTURES = ["sm_75", "sm_80", "sm_90", "sm_100"]
# The largest block that host code launches, and the registers of a block: with more registers per thread, the
# launch fails.
BLOCK_THREADS, BLOCK_REGISTERS = 512, 65536
DEVICE = Path("kernels/kernels/src/device")
# Maximum number of instructions per multiply-add in the loop over taps, and per source sample: the measured number
# when the limits were set, plus a tenth.
SUMS_RATIO_MAX = {"decimate": 1.33, "polyphase": 2.92}
SOURCE_SAMPLE_MAX = 34


def unit():
    """Returns the translation unit, assembled by the list in source.rs."""
    files = re.findall(r'\(\s*"([^"]+)",\s*include_str!\("([^"]+)"\),?\s*\)', (DEVICE / "source.rs").read_text())
    if len(files) != (DEVICE / "source.rs").read_text().count("include_str!("):
        sys.exit(f"{DEVICE / 'source.rs'}: only {len(files)} of its listed files were recognised")
    return "".join(f'#line 1 "kernels/kernels/src/{name}"\n{(DEVICE / path).read_text()}\n' for name, path in files)


def options():
    """Returns the options that compile.rs passes to NVRTC."""
    listed = re.search(r"const OPTIONS: [^=]*= \[([^\]]*)\]", (DEVICE / "compile.rs").read_text())
    return re.findall(r'"([^"]+)"', listed.group(1))


def nvcc(toolkit, source, architecture, folder):
    """Compiles with nvcc and returns ptxas' report."""
    command = [toolkit / "bin/nvcc", f"-arch={architecture}", "-std=c++17", "-lineinfo", "-cubin", "-Xptxas", "-v"]
    ran = subprocess.run([*command, "-o", folder / f"{architecture}.cubin", source], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"nvcc for {architecture}:\n{ran.stderr}")
    return ran.stderr


class Nvrtc:
    """NVRTC by its C interface."""

    def __init__(self, toolkit):
        for name in ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"]:
            self.library = ctypes.CDLL(toolkit.resolve() / "lib" / name, mode=ctypes.RTLD_GLOBAL)

    def compile(self, text, architecture):
        """Compiles with NVRTC and returns ptxas' report."""
        program, source = ctypes.c_void_p(), text.encode()
        self.library.nvrtcCreateProgram(ctypes.byref(program), source, b"unit.cu", 0, None, None)
        wanted = [f"--gpu-architecture={architecture}", *options(), "--ptxas-options=-v"]
        values = (ctypes.c_char_p * len(wanted))(*[option.encode() for option in wanted])
        failed = self.library.nvrtcCompileProgram(program, len(wanted), values)
        size = ctypes.c_size_t()
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        if failed:
            sys.exit(f"NVRTC for {architecture}:\n{log.value.decode()}")
        return log.value.decode()

    def version(self):
        """Returns the major and minor version; NVRTC reports no more."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"


def read(report, who):
    """Returns kernel -> numbers of one compiler for one architecture. Spills of a function count for the kernels that call it."""
    if "warning" in report:
        said = [line for line in report.splitlines() if "ptxas" not in line and "bytes stack frame" not in line]
        sys.exit(f"{who} warns:\n" + "\n".join(said))
    kernels, kernel = {}, None
    for line in report.splitlines():
        if entry := re.search(r"Compiling entry function '(\w+)'", line):
            kernel = kernels.setdefault(entry.group(1), {"registers": 0, "shared": 0, "stack": 0, "spills": [0, 0]})
        elif took := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            stack, *spills = map(int, took.groups())
            kernel["stack"] = max(kernel["stack"], stack)
            kernel["spills"] = [max(pair) for pair in zip(kernel["spills"], spills)]
        elif used := re.search(r"Used (\d+) registers", line):
            kernel["registers"] = int(used.group(1))
            shared = re.search(r"(\d+) bytes smem", line)
            kernel["shared"] = int(shared.group(1)) if shared else 0
    if not kernels:
        sys.exit(f"{who} found no kernel:\n{report}")
    return kernels


def table(found):
    """Returns a Markdown table with a line per kernel."""
    head = ["kernel", *(f"registers, {name}" for name in ARCHITECTURES), "shared", "stack", "spill stores / loads"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for kernel in sorted(found["nvcc", ARCHITECTURES[0]]):
        numbers = {key: kernels[kernel] for key, kernels in found.items()}
        cells = []
        for architecture in ARCHITECTURES:
            both = [numbers[compiler, architecture]["registers"] for compiler in ("nvcc", "NVRTC")]
            cells.append(" / ".join(map(str, dict.fromkeys(both))))
        cells += [str(max(each[key] for each in numbers.values())) for key in ("shared", "stack")]
        cells.append(" / ".join(str(max(each["spills"][place] for each in numbers.values())) for place in (0, 1)))
        lines.append(f"| `{kernel}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compile_all(toolkit, text, nvrtc, folder):
    """Returns (compiler, architecture) -> kernels with their resources, after checking that no kernel is missing. nvcc's
    machine code is kept in `folder`."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        source = folder / "unit.cu"
        source.write_text(text)
        jobs = {("nvcc", name): pool.submit(nvcc, toolkit, source, name, folder) for name in ARCHITECTURES}
        jobs |= {("NVRTC", name): pool.submit(nvrtc.compile, text, name) for name in ARCHITECTURES}
        found = {key: read(job.result(), " for ".join(key)) for key, job in jobs.items()}
    declared = set(re.findall(r"^KERNEL(?:_OF)?\((\w+)", text, re.MULTILINE))
    for key, kernels in found.items():
        if not declared <= set(kernels) or set(kernels) != set(found["nvcc", ARCHITECTURES[0]]):
            sys.exit(f"{' for '.join(key)} compiled {sorted(kernels)}; declared: {sorted(declared)}")
    return found


def check(found):
    """Exits if a kernel spills, or uses more registers than a launch can have."""
    each = [(f"{kernel} by {' for '.join(key)}", took) for key, all_ in found.items() for kernel, took in all_.items()]
    if spilled := [f"{where}: {took['spills']}" for where, took in each if any(took["spills"])]:
        sys.exit("spills (stores, loads; bytes per thread):\n" + "\n".join(spilled))
    if large := [where for where, took in each if took["registers"] * BLOCK_THREADS > BLOCK_REGISTERS]:
        sys.exit(f"too many registers for {BLOCK_THREADS} threads: " + ", ".join(large))


def loops(toolkit, cubin):
    """Returns a Markdown table of the resampler's loops. Exits if a loop exceeds its limit."""
    command = [toolkit / "bin/nvdisasm", "-c", cubin]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    lines = [
        "| kernel | multiply-adds: all instructions / multiply-adds | a source sample: inside / at an edge | an output, written |",
        "|---|---:|---:|---:|",
    ]
    for part in sorted(re.split(r"^\.text\.(?=\w+:)", code, flags=re.MULTILINE)[1:]):
        kernel = part.partition(":")[0]
        if not kernel.startswith(("decimate", "polyphase")):
            continue
        found = innermost_loops(part)
        sums = max(found, key=lambda loop: count(loop, "FFMA"))
        loads = sorted(len(loop) for loop in found if count(loop, "LDG") == 1 and count(loop, "STS") == 1)
        stores = [len(loop) for loop in found if count(loop, "STG") and count(loop, "LDS")]
        # The shortest loop that writes to shared memory loads taps; polyphase does not copy its taps.
        loads = loads[1:] if kernel.startswith("decimate") else loads

        ratio = len(sums) / count(sums, "FFMA")
        if ratio > SUMS_RATIO_MAX[kernel.partition("_")[0]] or loads[-1] > SOURCE_SAMPLE_MAX:
            sys.exit(f"{kernel}: {ratio:.2f} instructions per multiply-add, {loads[-1]} per source sample")
        if any(count(loop, "MUFU.RCP") for loop in found):
            sys.exit(f"{kernel}: a loop contains a division")

        written = stores[0] if stores else "beside the sums"
        lines.append(f"| `{kernel}` | {len(sums)} / {count(sums, 'FFMA')} | {loads[0]} / {loads[-1]} | {written} |")
    return "\n".join(lines)


def innermost_loops(code):
    """Returns the instructions of each innermost loop of a kernel's machine code."""
    instructions, labels, waiting = [], {}, []
    for line in code.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            waiting.append(label.group(1))
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            labels |= dict.fromkeys(waiting, len(instructions))
            waiting = []
            instructions.append(instruction.group(1))

    ranges = []
    for end, instruction in enumerate(instructions):
        target = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", instruction)
        start = labels.get(target.group(1), end + 1) if target else end + 1
        # A branch to itself is the padding after a kernel's end.
        if start < end:
            ranges.append((start, end))
    inner = [one for one in ranges if not any(one != other and one[0] <= other[0] and other[1] <= one[1] for other in ranges)]
    return [instructions[start : end + 1] for start, end in inner]


def count(loop, name):
    """Returns the number of instructions of that name."""
    return sum(bool(re.search(rf"\b{re.escape(name)}\b", instruction)) for instruction in loop)


def main():
    toolkit = Path(sys.argv[1])
    nvrtc = Nvrtc(toolkit)
    release = subprocess.run([toolkit / "bin/nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        found = compile_all(toolkit, unit(), nvrtc, Path(folder))
        rows = table(found)
        print(rows)
        check(found)
        print(loops(toolkit, Path(folder) / "sm_90.cubin"))
    registers = max(took["registers"] for kernels in found.values() for took in kernels.values())
    print(
        f"ok: {len(rows.splitlines()) - 2} kernels x {len(ARCHITECTURES)} architectures, spills 0, "
        f"at most {registers} registers, "
        f"by nvcc {re.search(r'V([0-9.]+)', release).group(1)} and NVRTC {nvrtc.version()}"
    )


if __name__ == "__main__":
    main()
