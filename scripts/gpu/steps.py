"""The steps of a check on a GPU, in order. Each takes the running check and the machine, and raises an error on failure."""

import json
import os
import re
import shutil
from dataclasses import dataclass
from typing import Callable

from place import find_tool


class Failed(Exception):
    """A step failed."""


class NotRun(Exception):
    """A step cannot run on this machine, which does not count as success."""


@dataclass(frozen=True)
class Step:
    """A line of the table. The sum of all limits is at most nine minutes."""

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
    """Runs tests that are ignored without a GPU. Fails if none was run, because then the filter matches nothing."""
    out = check.run([program, "--ignored", *filters], environment)
    counted = re.search(r"test result: \w+\. (\d+) passed; (\d+) failed", out)
    passed = int(counted[1]) if counted else 0
    if not passed:
        raise Failed(f"no test of {', '.join(filters)} was run")
    check.figures["tests"] = check.figures.get("tests", 0) + passed


def machine(check, place):
    """Records the devices, driver, cuFFT, NVRTC and NCCL that wavemill finds."""
    need_gpu(place)
    listed = check.run([place.program("wavemill"), "info", "--devices", "--json"], place.environment())
    found = json.loads(listed)
    for library in found["libraries"]:
        check.text.append(f"{library['name']} {library['version'] or 'missing'}: {library['path'] or library['problem']}")
    if not found["usable"]:
        raise Failed(found["problem"] or "CUDA cannot be used")
    check.figures["device"] = ", ".join(device["name"] for device in found["devices"])


def opened(check, place):
    """Tests memory, copies, each kernel, and equal bits on both lanes."""
    need_gpu(place)
    # On other machines, the tests of NVRTC are ignored if NVRTC is missing; here they must pass.
    parts = ["device::compile::", "device::cuda_tests::", "resample::", "db::", "delta::", "mfcc::", "pack::"]
    parts.append("parity::batches::")
    run_tests(check, place.program("kernels-lib"), parts, place.environment())


def parity(seed):
    """Compares all kernels with the CPU and the references, in random and in fixed cases."""

    def run(check, place):
        need_gpu(place)
        filters = ["parity::cases::", "parity::sets::"] if seed == 0 else ["parity::sets::"]
        run_tests(check, place.program("kernels-lib"), filters, place.environment(WAVEMILL_PARITY_SEED=seed))

    return run


def librosa(check, place):
    """Compares real clips with librosa's own values."""
    need_gpu(place)
    clips = sorted(folder.name for folder in (place.packed / "data/librosa_ref").iterdir() if folder.is_dir())
    for clip in clips:
        name = f"librosa::{clip}::cuda"
        out = check.run([place.program("kernels-librosa"), "--exact", name], place.environment())
        if "1 passed" not in out:
            raise Failed(f"{name} was not run")
    check.figures["clips"] = len(clips)


def long_clips(check, place):
    """Compares 64 clips of 30 s at each of three rates with the CPU."""
    need_gpu(place)
    run_tests(check, place.program("kernels-lib"), ["long_clips::"], place.environment())


def bench(check, place):
    """Measures clips per second and the time of each kernel."""
    need_gpu(place)
    out = check.run([place.program("bench-cuda")], place.environment())
    check.text += out.splitlines()
    check.figures.update(bench_figures(out))


def bench_figures(out):
    """Returns clips per second of each case, from the output of the bench."""
    figures = {}
    case = None
    for line in out.splitlines():
        if begins := re.match(r"(.*), batches of \d+ clips$", line):
            case = begins.group(1)
        elif resident := re.match(r"samples on the device: (\d+) clips/s", line):
            figures[f"{case}: resident"] = f"{resident.group(1)} clips/s"
        elif copied := re.match(r"with copies to ([a-z -]+), \d+ lanes: (\d+) clips/s", line):
            figures[f"{case}: to {copied.group(1)}"] = f"{copied.group(2)} clips/s"
    return figures


def counters(check, place):
    """Records ncu's counters of the two main kernels."""
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
    # Clocks are not changed, because the settings of a lent machine must stay as they are. The first launch of each
    # kernel is skipped.
    words = [ncu, "--clock-control", "none", "--kernel-name", "regex:fused_mel|decimate", "--launch-skip", "2"]
    words += ["--launch-count", "4", "--metrics", ",".join(metrics), place.program("bench-cuda"), "--once"]
    out = check.run(words, place.environment())
    measured = [line.strip() for line in out.splitlines() if any(metric in line for metric in metrics)]
    kernels = [line.strip() for line in out.splitlines() if re.search(r"^\s*(fused_mel|decimate)\w* ", line)]
    if not measured:
        raise Failed("ncu measured no kernel")
    check.text += kernels + measured
    check.figures["kernels"] = len(kernels)


# Clips in the archive of demo-audio, at the bit rates of real archives, and copies of them for a measurement of speed.
TRACKS, COPIES = 320, 32


def extract(check, place, backend, name, inputs):
    """Extracts an archive to a store and records the report of `extract --json`."""
    store = place.scratch / name
    words = [place.program("wavemill"), "extract", "--recipe", "demo", "--set", "audio.duration_s=30.0", *inputs]
    words += ["--store", store, "--backend", backend, "--max-reject-fraction", "1", "--json", "--quiet"]
    said = json.loads(check.run(words, place.environment()))
    clips, wall_s = said["counts"]["clips_written"], said["wall_s"]["clips"]
    check.figures[name] = f"{clips / wall_s:.0f} clips/s"
    cpu = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in said["cpu_s"].items() if seconds)
    check.text.append(f"{name}: {clips} clips in {wall_s:.2f} s, CPU {sum(said['cpu_s'].values()):.1f} s: {cpu}")
    check.text.append(f"{name}: workers busy {said['workers_busy'] or 0:.2f}")
    if said["device"]:
        check.text.append(f"{name}: device {json.dumps(said['device'])}")
    if said["backend"] != backend:
        raise Failed(f"{name} was computed by {said['backend']}")
    return store


def committed(store):
    """Returns the relative paths of all files of a store's versions."""
    found = [path for part in ("data", "_wavemill/versions") for path in (store / part).rglob("*")]
    return sorted(str(path.relative_to(store)) for path in found if path.is_file())


def first_difference(left, right):
    """Returns the first difference between the versions of two stores; None if all bytes are equal."""
    names, other_names = committed(left), committed(right)
    if names != other_names or not names:
        return f"the files: {len(names)} and {len(other_names)}"
    for name in names:
        if (left / name).read_bytes() != (right / name).read_bytes():
            return name
    return None


def stores(check, place):
    """Extracts 320 clips of 30 s twice on the GPU, to compare the bytes, and 10,000 on GPU and CPU, for the speed."""
    need_gpu(place)
    archive = place.scratch / "archive"
    check.run([place.program("demo-audio"), archive, "--tracks", TRACKS, "--seconds", "30"], place.environment())
    inputs = ["--metadata", archive / "fma_metadata", "--audio", archive / "fma_demo"]
    place.cuda_store = extract(check, place, "cuda", "cuda", inputs)
    again = extract(check, place, "cuda", "cuda again", inputs)
    if differs := first_difference(place.cuda_store, again):
        raise Failed(f"two stores computed on the GPU differ in {differs}")

    # With few clips, the time is mostly that of the start. The copies are links to the same files, without metadata.
    for number in range(COPIES):
        shutil.copytree(archive / "fma_demo", place.scratch / f"many/genre{number}", copy_function=os.link)
    inputs = ["--audio", place.scratch / "many"]
    for key in ("catalog.dataset=folders", "catalog.clean=[]", "targets.genre.column=genre", "split.rule=stratified"):
        inputs += ["--set", key]
    for backend in ("cuda", "cpu"):
        shutil.rmtree(extract(check, place, backend, f"{backend}, many clips", inputs))


def whole_runs(check, place):
    """Runs the integration tests of the backend: batches, odd transforms, both precisions, failing devices."""
    need_gpu(place)
    out = check.run([place.program("tests-main"), "backends::cuda_"], place.environment(TMPDIR=place.scratch))
    passed = re.search(r"(\d+) passed", out)
    # Tests for machines without a GPU have the same prefix, and are ignored here.
    if not passed or int(passed[1]) == 0:
        raise Failed("no test was run")
    check.figures["tests"] = int(passed[1])


def fit(check, place, name, device, *more):
    """Trains for two epochs and returns the run's folder."""
    runs = place.scratch / "runs" / name
    words = [place.program("wavemill-train"), "fit", "--store", place.cuda_store, "--model", "cnn2d"]
    words += ["--feature", "log_mel", "--epochs", "2", "--runs", runs, "--device", device, "--json", "--quiet", *more]
    check.run(words, place.environment(trainer=True))
    (run,) = runs.iterdir()
    epochs = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in epochs if line["kind"] == "epoch"]
    # The first epoch includes one-time costs: loading libraries and selecting algorithms.
    check.figures[name] = f"{epochs[-1]['unix_s'] - epochs[-2]['unix_s']:.2f} s for the second epoch"
    check.text.append(f"{name}: {json.dumps(epochs[-1])[:400]}")
    return run


def last_checkpoint(run):
    """Returns the folder of the latest complete checkpoint."""
    return max((run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.split("-")[1]))


def training(check, place):
    """Trains in f32 and bf16 on the GPU and in f32 on the CPU. A resumed run must equal an uninterrupted one bit for bit."""
    need_trainer(place)
    if not place.cuda_store:
        raise NotRun("the step `stores` created no store")
    run = fit(check, place, "f32", "cuda")
    fit(check, place, "bf16", "cuda", "--set", "train.precision=bf16")

    # Simulates a run that was killed after its first epoch, by removing everything that was written later.
    stopped = place.scratch / "runs/stopped"
    shutil.copytree(run, stopped)
    shutil.rmtree(last_checkpoint(stopped))
    for name in ("result.json", "result"):
        (stopped / name).unlink(missing_ok=True)
    resume = [place.program("wavemill-train"), "fit", "--resume", stopped, "--device", "cuda", "--json", "--quiet"]
    check.run(resume, place.environment(trainer=True))
    whole, resumed = last_checkpoint(run), last_checkpoint(stopped)
    if whole.name != resumed.name:
        raise Failed(f"the resumed run ended at {resumed.name}, the uninterrupted run at {whole.name}")
    if (whole / "tensors.safetensors").read_bytes() != (resumed / "tensors.safetensors").read_bytes():
        raise Failed("the weights of the resumed run differ from those of the uninterrupted run")
    check.figures["resume"] = "bit for bit"
    fit(check, place, "cpu", "cpu")


def nccl(check, place):
    """Tests NCCL with one rank: join, sum f32 and f64, query errors, leave."""
    need_trainer(place)
    run_tests(check, place.program("trainer-lib"), ["one_rank_sums_by_nccl"], place.environment(trainer=True))


def sanitizer(tool):
    """Returns a step that runs a few cases under one of compute-sanitizer's tools."""

    def run(check, place):
        need_gpu(place)
        program = find_tool("compute-sanitizer")
        if not program:
            raise NotRun("compute-sanitizer is not installed")
        cases = ["db::", "delta::", "mfcc::", "pack::", "a_sample_without"]
        # Checking the accesses of these for races takes minutes.
        if tool != "racecheck":
            cases.append("few_samples_match")
        words = [program, "--tool", tool, "--error-exitcode", "9", place.program("kernels-lib"), "--ignored"]
        out = check.run([*words, "--test-threads", "1", *cases], place.environment())
        found = re.search(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", out)
        check.figures["says"] = found[0] if found else "no summary"
        if not re.search(r"[1-9]\d* passed", out):
            raise Failed("no test was run")

    return run


STEPS = [
    Step("machine", 20, "machine, libraries, versions", machine),
    Step("open", 25, "memory, copies, each kernel, equal bits on both lanes", opened),
    Step("bench", 60, "clips per second and time of each kernel", bench),
    Step("ncu", 15, "counters of the two main kernels", counters),
    Step("parity", 45, "all kernels compared with the CPU and references", parity(0)),
    Step("parity-1", 45, "random sets of another seed", parity(1)),
    Step("librosa", 20, "real clips compared with librosa", librosa),
    Step("long-clips", 25, "64 clips of 30 s at 44.1, 48 and 32 kHz compared with the CPU", long_clips),
    Step("stores", 85, "320 clips of 30 s twice on the GPU, and 10,000 on GPU and CPU", stores),
    Step("whole-runs", 40, "integration tests with --backend cuda", whole_runs),
    Step("train", 70, "two epochs in f32 and bf16, on the CPU, and resumed", training),
    Step("nccl", 15, "NCCL with one rank", nccl),
    Step("memcheck", 15, "compute-sanitizer memcheck", sanitizer("memcheck")),
    Step("racecheck", 30, "compute-sanitizer racecheck", sanitizer("racecheck")),
    Step("synccheck", 15, "compute-sanitizer synccheck", sanitizer("synccheck")),
]

# Steps of a first run, which the help of `scripts/gpu_check.sh` names.
FIRST = ["machine", "open", "bench", "ncu", "parity"]
# Steps that load the libraries of torch.
NEED_TORCH = ["train", "nccl"]
