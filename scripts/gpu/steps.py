"""The steps of a check on a GPU, in order. Each takes the check under way and the place, and raises what went wrong."""

import json
import re
import shutil
from dataclasses import dataclass
from typing import Callable

from place import find_tool


class Failed(Exception):
    """What a step showed is not as it should be."""


class NotRun(Exception):
    """A step that this machine cannot take; that is no success."""


@dataclass(frozen=True)
class Step:
    """A line of the table. All limits together stay under nine minutes."""

    name: str
    limit_s: int
    title: str
    run: Callable


def need_gpu(place):
    if not place.gpus:
        raise NotRun("no GPU on this machine")


def need_trainer(place):
    need_gpu(place)
    if lack := place.torch_lacks():
        raise NotRun(lack)


def run_tests(check, program, filters, environment):
    """Tests that show as ignored where there is no GPU. That none was run is a failure: a filter finds nothing."""
    out = check.run([program, "--ignored", *filters], environment)
    counted = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", out)
    passed = int(counted[1]) if counted else 0
    if not passed:
        raise Failed(f"no test of {', '.join(filters)} was run")
    check.figures["tests"] = check.figures.get("tests", 0) + passed


def machine(check, place):
    """What is installed, in wavemill's own words: devices, driver, cuFFT, NVRTC, NCCL."""
    need_gpu(place)
    listed = check.run([place.program("wavemill"), "info", "--devices", "--json"], place.environment())
    found = json.loads(listed)
    for library in found["libraries"]:
        check.text.append(f"{library['name']} {library['version'] or 'missing'}: {library['path'] or library['problem']}")
    if not found["usable"]:
        raise Failed(found["problem"] or "CUDA cannot be used")
    check.figures["device"] = ", ".join(device["name"] for device in found["devices"])


def opened(check, place):
    """Memory, copies, kernels one by one, and equal bits on both lanes."""
    need_gpu(place)
    # NVRTC's tests are ignored elsewhere for want of NVRTC alone; here they belong to what must work.
    parts = ["device::compile::", "device::cuda_tests::", "samples::", "resample::", "db::", "delta::", "mfcc::", "pack::"]
    parts.append("parity::batches::")
    run_tests(check, place.program("kernels-lib"), parts, place.environment())


def parity(seed):
    """All kernels against the CPU and the references, in drawn and in fixed cases."""

    def run(check, place):
        need_gpu(place)
        filters = ["parity::cases::", "parity::sets::"] if seed == 0 else ["parity::sets::"]
        run_tests(check, place.program("kernels-lib"), filters, place.environment(WAVEMILL_PARITY_SEED=seed))

    return run


def librosa(check, place):
    """Real clips against librosa's own values."""
    need_gpu(place)
    clips = sorted(folder.name for folder in (place.packed / "data/librosa_ref").iterdir() if folder.is_dir())
    for clip in clips:
        name = f"librosa::{clip}::cuda"
        out = check.run([place.program("kernels-librosa"), "--exact", name], place.environment())
        if "1 passed" not in out:
            raise Failed(f"{name} was not run")
    check.figures["clips"] = len(clips)


def long_clips(check, place):
    """64 clips of 30 s at each of three rates, against the CPU."""
    need_gpu(place)
    run_tests(check, place.program("kernels-lib"), ["long_clips::"], place.environment())


def bench(check, place):
    """Clips a second, and the time of each kernel."""
    need_gpu(place)
    out = check.run([place.program("bench-cuda")], place.environment())
    check.text += out.splitlines()
    check.figures.update(bench_figures(out))


def bench_figures(out):
    """Clips a second of each case, of what the bench printed."""
    figures = {}
    case = None
    for line in out.splitlines():
        if begins := re.match(r"(.*), batches of \d+ clips$", line):
            case = begins.group(1)
        elif resident := re.match(r"samples on the device: (\d+) clips/s", line):
            figures[f"{case}: resident"] = f"{resident.group(1)} clips/s"
        elif copied := re.match(r"with copies, \d+ lanes: (\d+) clips/s", line):
            figures[f"{case}: with copies"] = f"{copied.group(1)} clips/s"
    return figures


def torchaudio(check, place):
    """The same work by torchaudio."""
    need_gpu(place)
    if not place.python:
        raise NotRun(place.torch_lacks())
    out = check.run([place.python, place.packed / "peers/torchaudio_gpu.py"], place.environment())
    check.text += out.splitlines()
    if "clips/s" not in out:
        raise Failed("torchaudio measured nothing")


def counters(check, place):
    """ncu's counters of the two main kernels."""
    need_gpu(place)
    ncu = find_tool("ncu")
    if not ncu:
        raise NotRun("ncu is not installed")
    metrics = [
        "gpu__time_duration.sum",
        "dram__bytes.sum",
        "dram__throughput.avg.pct_of_peak_sustained_elapsed",
        "sm__throughput.avg.pct_of_peak_sustained_elapsed",
        "l1tex__data_pipe_lsu_wavefronts.sum",
        "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
        "smsp__inst_executed.sum",
        "sm__warps_active.avg.pct_of_peak_sustained_active",
        "launch__registers_per_thread",
    ]
    # Clocks stay as they are: a lent machine's settings are not ours. The first launch of each kernel is left out.
    words = [ncu, "--clock-control", "none", "--kernel-name", "regex:fused_mel|decimate", "--launch-skip", "2"]
    words += ["--launch-count", "4", "--metrics", ",".join(metrics), place.program("bench-cuda"), "--once"]
    out = check.run(words, place.environment())
    measured = [line.strip() for line in out.splitlines() if any(metric in line for metric in metrics)]
    kernels = [line.strip() for line in out.splitlines() if re.search(r"^\s*(fused_mel|decimate)\w* ", line)]
    if not measured:
        raise Failed("ncu measured no kernel")
    check.text += kernels + measured
    check.figures["kernels"] = len(kernels)


def extract(check, place, backend, name):
    """A store of the demo's archive, and what `extract --json` says of it."""
    store = place.scratch / name
    archive = place.scratch / "archive"
    words = [place.program("wavemill"), "extract", "--recipe", "demo", "--set", "audio.duration_s=30.0"]
    words += ["--metadata", archive / "fma_metadata", "--audio", archive / "fma_demo", "--store", store]
    words += ["--backend", backend, "--max-reject-fraction", "1", "--json", "--quiet"]
    said = json.loads(check.run(words, place.environment()))
    clips, wall_s = said["counts"]["clips_written"], said["wall_s"]["clips"]
    check.figures[name] = f"{clips / wall_s:.0f} clips/s"
    check.text.append(f"{name}: {clips} clips in {wall_s:.2f} s, CPU {sum(said['cpu_s'].values()):.1f} s")
    if said["device"]:
        check.text.append(f"{name}: device {json.dumps(said['device'])}")
    if said["backend"] != backend:
        raise Failed(f"{name} was made by {said['backend']}")
    return store


def committed(store):
    """Files of a store's versions, by their places in it."""
    found = [path for part in ("data", "_wavemill/versions") for path in (store / part).rglob("*")]
    return sorted(str(path.relative_to(store)) for path in found if path.is_file())


def first_difference(left, right):
    """What differs first between the versions of two stores; None: they are equal byte for byte."""
    names, other_names = committed(left), committed(right)
    if names != other_names or not names:
        return f"the files: {len(names)} and {len(other_names)}"
    for name in names:
        if (left / name).read_bytes() != (right / name).read_bytes():
            return name
    return None


def stores(check, place):
    """320 clips of 30 s to a store: by the CPU, and by the GPU twice."""
    need_gpu(place)
    archive = place.scratch / "archive"
    check.run([place.program("demo-audio"), archive, "--tracks", "320", "--seconds", "30"], place.environment())
    by_cpu = extract(check, place, "cpu", "cpu")
    by_cuda = extract(check, place, "cuda", "cuda")
    place.cuda_store = by_cuda
    again = extract(check, place, "cuda", "cuda again")
    if differs := first_difference(by_cuda, again):
        raise Failed(f"two stores by the GPU differ in {differs}")
    if not place.python:
        raise NotRun("bytes are equal; values were not compared: no Python with pyarrow")
    compare = [place.python, place.packed / "gpu/compare_stores.py", by_cpu, by_cuda]
    check.text += check.run(compare, place.environment()).splitlines()


def whole_runs(check, place):
    """The whole-system tests of the backend: batches, odd transforms, both precisions, devices that fail."""
    need_gpu(place)
    out = check.run([place.program("tests-main"), "backends::cuda_"], place.environment(TMPDIR=place.scratch))
    passed = re.search(r"(\d+) passed", out)
    # Those for machines without a GPU have the same first word, and show as ignored here.
    if not passed or int(passed[1]) == 0:
        raise Failed("no test was run")
    check.figures["tests"] = int(passed[1])


def fit(check, place, name, device, *more):
    """Two epochs; returns the run's folder."""
    runs = place.scratch / "runs" / name
    words = [place.program("wavemill-train"), "fit", "--store", place.cuda_store, "--model", "cnn2d"]
    words += ["--feature", "log_mel", "--epochs", "2", "--runs", runs, "--device", device, "--json", "--quiet", *more]
    check.run(words, place.environment(trainer=True))
    (run,) = runs.iterdir()
    epochs = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in epochs if line["kind"] == "epoch"]
    # The first epoch has what is done once: loading libraries, choosing algorithms.
    check.figures[name] = f"{epochs[-1]['unix_s'] - epochs[-2]['unix_s']:.2f} s for the second epoch"
    check.text.append(f"{name}: {json.dumps(epochs[-1])[:400]}")
    return run


def last_checkpoint(run):
    """The newest whole checkpoint's folder."""
    return max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.split("-")[1]))


def training(check, place):
    """f32 and bf16 on the GPU and f32 on the CPU, and a run that is gone on with, bit for bit."""
    need_trainer(place)
    if not place.cuda_store:
        raise NotRun("the step `stores` left no store")
    run = fit(check, place, "f32", "cuda")
    fit(check, place, "bf16", "cuda", "--set", "train.precision=bf16")

    # As if the run had been killed after its first epoch: what came later is taken away.
    stopped = place.scratch / "runs/stopped"
    shutil.copytree(run, stopped)
    shutil.rmtree(last_checkpoint(stopped))
    for name in ("result.json", "result"):
        (stopped / name).unlink(missing_ok=True)
    resume = [place.program("wavemill-train"), "fit", "--resume", stopped, "--device", "cuda", "--json", "--quiet"]
    check.run(resume, place.environment(trainer=True))
    whole, resumed = last_checkpoint(run), last_checkpoint(stopped)
    if whole.name != resumed.name:
        raise Failed(f"the resumed run ended at {resumed.name}, the whole one at {whole.name}")
    if (whole / "tensors.safetensors").read_bytes() != (resumed / "tensors.safetensors").read_bytes():
        raise Failed("the resumed run's weights are others than the whole run's")
    check.figures["resume"] = "bit for bit"
    fit(check, place, "cpu", "cpu")


def nccl(check, place):
    """One rank: join, sum f32 and f64, ask for a fault, end."""
    need_trainer(place)
    run_tests(check, place.program("trainer-lib"), ["one_rank_sums_by_nccl"], place.environment(trainer=True))


def sanitizer(tool):
    """A few cases under one of compute-sanitizer's tools."""

    def run(check, place):
        need_gpu(place)
        program = find_tool("compute-sanitizer")
        if not program:
            raise NotRun("compute-sanitizer is not installed")
        cases = ["db::", "delta::", "mfcc::", "pack::", "few_samples_match", "a_sample_without"]
        words = [program, "--tool", tool, "--error-exitcode", "9", place.program("kernels-lib"), "--ignored"]
        out = check.run([*words, "--test-threads", "1", *cases], place.environment())
        found = re.search(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", out)
        check.figures["says"] = found[0] if found else "no summary"
        if not re.search(r"[1-9]\d* passed", out):
            raise Failed("no test was run")

    return run


STEPS = [
    Step("machine", 20, "machine, libraries, versions", machine),
    Step("open", 25, "memory, copies, kernels one by one, equal bits on both lanes", opened),
    Step("parity", 45, "all kernels against the CPU and references", parity(0)),
    Step("parity-1", 45, "drawn sets of another seed", parity(1)),
    Step("librosa", 20, "real clips against librosa", librosa),
    Step("long-clips", 25, "64 clips of 30 s at 44.1, 48 and 32 kHz against the CPU", long_clips),
    Step("bench", 45, "clips a second and each kernel's time", bench),
    Step("torchaudio", 30, "the same work by torchaudio", torchaudio),
    Step("ncu", 30, "counters of the two main kernels", counters),
    Step("stores", 75, "320 clips of 30 s to stores by CPU and GPU", stores),
    Step("whole-runs", 40, "whole runs by --backend cuda", whole_runs),
    Step("train", 70, "two epochs in f32 and bf16, on the CPU, and resumed", training),
    Step("nccl", 15, "NCCL with one rank", nccl),
    Step("memcheck", 15, "compute-sanitizer memcheck", sanitizer("memcheck")),
    Step("racecheck", 15, "compute-sanitizer racecheck", sanitizer("racecheck")),
    Step("synccheck", 15, "compute-sanitizer synccheck", sanitizer("synccheck")),
]
