#!/usr/bin/env python3
"""Measures the peak memory of commands and compares it with their memory limit.

usage: scripts/memory.py --programs FOLDER [--case NAME]... [--quick]

FOLDER contains the programs (`cargo build --workspace --bins`). Prints a Markdown table with one line per command, and ends
with status 1 if a command takes more memory than allowed, does not end as documented, or returns different results.

`extract` and `sql` may take 1.05 times `--memory-limit` and the program's own memory (docs/commands.md), which is 112 MiB in a
debug build, mostly mapped pages of the executable (tests/tests/memory.rs). The plan of a large archive may take more
(docs/scale.md), but gets no allowance here. Two programs have no limit: `fit` may take 1.1 times as much as with two
prefetched batches and the bytes of the further ones, and the peak of `serve` may be 5 % above that of its first 1,000
requests.

threads  clips of 30 s, with up to 64 threads under limits from 64 MiB; stores must be equal in every byte
hours    one clip of three or five hours: a row, a reject, or an error that states a limit, which must be enough
tiny     100,000 clips of 25 ms
slow     a disk that writes 2 MB/s, so that rows wait for the writer
growth   a second version: one more clip of 100,001, and new sides, for which all rows are copied
sql      sorts, windows, groups and joins; sorts and groups must spill, only joins may be refused
loader   `fit` with more and more prefetched batches
serve    peak of the server and its model process in the first 1,000 requests, and in later ones up to 100,000

The kernel's figure (ru_maxrss) is at least the memory of this script, which is printed at the end. `hours` needs 4 GiB of
memory and 600 MB of disk."""

import argparse
import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MIB = 1 << 20
# Factor by which a command may exceed its limit, and memory of the program itself.
SLACK, PROGRAM_BYTES = 1.05, 112 * MIB
# The same for `fit`, whose peaks differ by 6 % between equal runs.
LOADER_SLACK = 1.1
# Documented ends without a result: limits that are too small for the program, for its threads, and for one clip.
TOO_SMALL = "must be at least 256 MiB"
TOO_SMALL_FOR_THREADS = "bytes are not enough: this recipe needs"
# Limit from which all threads of these cases fit: the tables of 64 take 289 MiB, and what exceeds an eighth of the limit
# has to fit into a half of it (extract/src/threads/limits.rs).
THREADS_FIT_MIB = 512
TOO_SMALL_FOR_CLIP = r"(\S+\.(?:mp3|wav)): needs .* give --memory-limit (\d+)MiB or more (to read this file|for this clip)"
TOO_SMALL_FOR_JOIN = "the query exceeds --memory-limit .*HashJoinInput"
# Time after which a command is killed.
TIMEOUT_S = 1_200
# Share of the time in which workers are busy, at most, if the disk is slow.
BUSY_MAX = 0.5
# Suffix of the name of a case that is repeated with the limit from its error.
STATED = ", stated limit"
BATCH_ROWS, BATCH_FRAMES = 4, 1024
BATCH_BYTES = BATCH_ROWS * BATCH_FRAMES * 128 * 4
MANY = "features_log_mel CROSS JOIN generate_series(1, {})"
ORDER = "ORDER BY audio_blake3, value, clip_key"
# For each query: the store, the format of the result, whether it may be refused, and its text. Those that may not must spill.
QUERIES = {
    "sort": ("many", "csv", False, f"SELECT clip_key, value FROM {MANY.format(20)} {ORDER}"),
    "sort by numbers": (
        "rows", "csv", False,
        "SELECT clip_key, value FROM tracks CROSS JOIN generate_series(1, 8000) ORDER BY value * 7919 % 1000003, clip_key",
    ),
    "window": ("many", "csv", False, f"SELECT count(*), max(n) FROM (SELECT row_number() OVER ({ORDER}) n FROM {MANY.format(5)})"),
    "group": (
        "many", "csv", False,
        f"SELECT count(*), sum(n) FROM (SELECT audio_blake3, value, clip_key, count(*) n FROM {MANY.format(5)} GROUP BY 1, 2, 3)",
    ),
    "sort of tensors": ("rows", "arrow", False, "SELECT clip_key, log_mel FROM features_log_mel ORDER BY audio_blake3, clip_key"),
    "join with tracks": ("rows", "arrow", True, "SELECT t.clip_key, log_mel FROM tracks t JOIN features_log_mel USING (clip_key)"),
    "join of tensors": ("rows", "arrow", True, "SELECT log_mel, mfcc FROM features_log_mel JOIN features_mfcc USING (clip_key)"),
}  # fmt: skip
RECIPE = """
name = "memory"
[catalog]
dataset = "folders"
[split]
rule = "stratified"
[[targets]]
name = "genre"
column = "genre"
[audio]
min_duration_s = 0.01
[[features]]
name = "log_mel"
op = "mel"
db = { ref = 1.0, top_db = 80.0 }
dtype = "f32"
[[features]]
name = "mfcc"
op = "mfcc"
n_mfcc = 13
"""
TINY = ["audio.sample_rate_hz=8000", "audio.duration_s=0.025", "features.log_mel.n_mels=16", "features.log_mel.n_fft=128",
        "features.log_mel.hop_length=100"]
SMALL_GROUPS = ["shards.row_group_rows=4"]
# Delays writes to files in proportion to their bytes.
SLOW_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>
ssize_t write(int fd, const void *bytes, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    ssize_t written = real(fd, bytes, n);
    struct stat stat;
    if (written > 0 && !fstat(fd, &stat) && S_ISREG(stat.st_mode)) usleep(written / 2);
    return written;
}
"""


@dataclasses.dataclass
class Ended:
    """The end of a process, with its peak memory and the most bytes that it had in temporary files."""

    status: int
    peak: int
    spilled: int
    out: str
    err: str

    def problem(self) -> str:
        return f"status {self.status}: {self.err.split('wavemill: ')[-1].strip()[:300]}" if self.status else ""


def wav(path: Path, rate_hz: int, seconds: float, noise: bool) -> None:
    """Writes a WAV of a repeated second of noise, or of silence, which takes no space on disk."""
    n_bytes = 2 * int(rate_hz * seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        form = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16, b"data", n_bytes)
        file.write(b"RIFF" + struct.pack("<I", 36 + n_bytes) + b"WAVE" + form)
        second = random.Random(str(path)).randbytes(2 * rate_hz)
        for at in range(0, n_bytes if noise else 0, len(second)):
            file.write(second[: n_bytes - at])
        file.truncate(44 + n_bytes)


def hash_of(path: Path) -> str:
    """Returns the hash of a file, which is not read as a whole, because the memory of this script must stay small."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """Returns the size of all files below a folder. Files that are removed meanwhile do not count."""
    size = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.stat(os.path.join(at, name)).st_size
    return size


def peak_of(process: int) -> int:
    """Returns the peak memory of a process and its children in bytes since the last call, or since their start."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    status = Path(f"/proc/{process}/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024
    # The current memory becomes the peak (proc(5)).
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return peak + sum(peak_of(int(child)) for child in children)


class Measurements:
    def __init__(self, programs: Path, at: Path, quick: bool) -> None:
        self.programs, self.at, self.quick = programs, at, quick
        self.n_wrong = 0
        # The first result of each kind, which further ones must equal.
        self.results: dict[str, object] = {}
        (at / "recipe.toml").write_text(RECIPE)

    def run(self, program: str, *words: object, **variables: object) -> Ended:
        """Runs a program and measures it."""
        temporary = self.at / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = os.environ | {"TMPDIR": str(temporary)} | {name: str(value) for name, value in variables.items()}
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = subprocess.Popen([self.programs / program, *map(str, words)], stdout=out, stderr=err, env=environment)
            until, spilled, ended = time.monotonic() + TIMEOUT_S, 0, 0
            while not ended:
                time.sleep(0.02)
                if time.monotonic() > until:
                    child.kill()
                spilled = max(spilled, folder_bytes(temporary))
                ended, status, used = os.wait4(child.pid, os.WNOHANG)
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            return Ended(child.returncode, used.ru_maxrss * 1024, spilled, out.read(), err.read())

    def line(self, case: str, workers: object, limit: object, peak: int, allowed: float, result: str, problem: str = "") -> None:
        """Prints a line of the table."""
        is_ok = peak <= allowed and not problem
        self.n_wrong += not is_ok
        cells = [case, workers, limit, f"{peak / MIB:.0f}", f"{allowed / MIB:.0f}", f"{peak / allowed:.2f}", "yes" if is_ok else "NO"]
        print(f"| {' | '.join(map(str, cells))} | {problem or result} |", flush=True)

    def limited(self, case: str, workers: int, limit_mib: int, ended: Ended, result: str, problem: str, refusal: str) -> None:
        """Prints the line of a command with a limit. `refusal` is the pattern of an error with which it may end."""
        refused = re.search(refusal, ended.err) if refusal and ended.status in (1, 2) else None
        if refused:
            result = f"refused: {refused[2]} MiB {refused[3]}" if refused.lastindex else f"refused: {refused[0]}"
        else:
            problem = ended.problem() or problem
        self.line(case, workers, f"{limit_mib} MiB", ended.peak, SLACK * limit_mib * MIB + PROGRAM_BYTES, result, problem)

    def differs(self, kind: str, result: object) -> str:
        """Returns a problem if a result differs from the first one of its kind."""
        return "" if self.results.setdefault(kind, result) == result else f"other results than the first time: {kind}"

    def extract(self, case: str, audio: Path, workers: int, limit_mib: int, sets: list[str], *, store: str = "store",
                refusal: str = "", is_slow: bool = False, is_growth: bool = False, expected: object = None) -> Ended:  # fmt: skip
        """Extracts into a store, which is a new one unless it grows, and prints the line. `expected` are the numbers of clips, rejects
        and copied rows."""
        at = self.at / store
        if not is_growth:
            shutil.rmtree(at, ignore_errors=True)
        words = ["--recipe", self.at / "recipe.toml", "--audio", audio, "--store", at, "--threads", workers, "--json", "--new-version"]
        words += ["--memory-limit", f"{limit_mib}MiB", "--max-reject-fraction", 1, "--backend", "cpu"]
        words += [word for value in sets for word in ("--set", value)]
        ended = self.run("wavemill", "extract", "-q", *words, **({"LD_PRELOAD": self.at / "slow.so"} if is_slow else {}))
        result = problem = ""
        if ended.status == 0:
            report = json.loads(ended.out)
            found = (report["counts"]["clips_written"], report["counts"]["rejects"], report["rows_taken_over"])
            result = f"{found[0]} clips, {sum(found[1].values())} rejects, {found[2]} rows copied, busy {report['workers_busy']:.0%}"
            files = (path for part in ("data", "_wavemill/versions") for path in sorted((at / part).rglob("*")) if path.is_file())
            hashes = {str(path.relative_to(at)): hash_of(path) for path in files}
            problem = self.differs(f"{audio.name} {sets} {is_growth}", hashes)
            if is_slow and report["workers_busy"] > BUSY_MAX:
                problem = f"{result}: the disk is not slow enough"
            if expected not in (None, found):
                problem = f"{result}, expected {expected}"
        self.limited(case, workers, limit_mib, ended, result, problem, refusal)
        return ended

    def stores(self) -> None:
        """Makes the stores that other cases read."""
        if not (self.at / "rows").exists():
            self.extract("store of clips", self.clips(), 2, 1024, [], store="rows")
            self.extract("store of tiny clips", self.tiny_clips(), 2, 1024, TINY, store="many")

    def clips(self) -> Path:
        """Makes clips of 30 s, each several times, in folders that are their genres."""
        audio = self.at / "clips"
        if not audio.exists():
            made: list[object] = [self.programs / "demo-audio", self.at / "made", "--tracks", "4" if self.quick else "30", "--seconds", "30"]
            subprocess.run(list(map(str, made)), check=True, stdout=subprocess.DEVNULL)
            for genre in range(8):
                shutil.copytree(self.at / "made/fma_demo", audio / f"genre{genre}", copy_function=os.link)
        return audio

    def tiny_clips(self) -> Path:
        """Makes clips of 25 ms: links to a hundred files in sixteen folders."""
        audio = self.at / "tiny"
        if not audio.exists():
            for number in range(100):
                wav(self.at / f"contents/{number}.wav", 8000, 0.025, True)
            for number in range(10_000 if self.quick else 100_000):
                genre = audio / f"genre{number % 16}"
                genre.mkdir(parents=True, exist_ok=True)
                os.link(self.at / f"contents/{number % 100}.wav", genre / f"{number:06}.wav")
        return audio

    def extract_or_stated(self, case: str, audio: Path, workers: int, limit_mib: int, sets: list[str], expected: object = None) -> None:
        """Extracts; if a clip does not fit, the limit that the error states must be enough for that clip."""
        seen: set[object] = set()
        while True:
            refusal = f"{TOO_SMALL_FOR_THREADS}|{TOO_SMALL_FOR_CLIP}" if limit_mib >= 256 else TOO_SMALL
            if limit_mib >= THREADS_FIT_MIB:
                refusal = TOO_SMALL_FOR_CLIP
            ended = self.extract(case, audio, workers, limit_mib, sets, refusal=refusal, expected=expected)
            refused = re.search(TOO_SMALL_FOR_CLIP, ended.err)
            if not ended.status or not refused or (self.quick and int(refused[2]) > 1024):
                return
            # The clip is refused at most twice: before its file was read, and before it was decoded.
            if refused.group(1, 3) in seen:
                self.line(case, workers, f"{limit_mib} MiB", 0, 1, "", f"{limit_mib} MiB are not enough {refused[3]}: {refused[1]}")
                return
            seen.add(refused.group(1, 3))
            case, limit_mib = f"{case.removesuffix(STATED)}{STATED}", int(refused[2])

    def threads(self) -> None:
        for limit_mib in (128, 256, 512) if self.quick else (64, 128, 256, 512, 2048):
            for workers in (2, 64) if self.quick else (1, 2, 8, 64):
                self.extract_or_stated("threads", self.clips(), workers, limit_mib, [])

    def hours(self) -> None:
        files = [("5 h silent", 18_000, False), ("5 h", 18_000, True), ("3 h", 10_740, True)]
        for name, seconds, noise in files[:: 2 if self.quick else 1]:
            wav(self.at / name / "a/hours.wav", 8000, seconds, noise)
            for what, sets in (("", []), (", first 30 s", ["audio.duration_s=30.0"])):
                expected = (1, {}, 0) if what or seconds < 10_800 else (0, {"too_large": 1}, 0)
                for limit_mib in (512,) if self.quick else (256, 512, 1024):
                    self.extract_or_stated(name + what, self.at / name, 8, limit_mib, sets, expected)
            shutil.rmtree(self.at / name)

    def tiny(self) -> None:
        for limit_mib in (128, 256):
            for workers in (2, 8) if self.quick else (2, 8, 32):
                self.extract_or_stated("tiny", self.tiny_clips(), workers, limit_mib, TINY)

    def slow(self) -> None:
        (self.at / "slow.c").write_text(SLOW_DISK)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", self.at / "slow.so", self.at / "slow.c", "-ldl"], check=True)
        self.extract("fast disk", self.clips(), 2, 1024, SMALL_GROUPS)
        for workers, limit_mib in ((8, 256),) if self.quick else ((2, 256), (8, 256), (64, 512)):
            self.extract("slow disk", self.clips(), workers, limit_mib, SMALL_GROUPS, is_slow=True)

    def growth(self) -> None:
        added = self.tiny_clips() / "genre0/added.wav"
        for workers, limit_mib in ((2, 1024), (8, 256)):
            self.extract("growth: first version", self.tiny_clips(), workers, limit_mib, TINY)
            os.link(self.at / "contents/7.wav", added)
            self.extract("growth: one clip added", self.tiny_clips(), workers, limit_mib, TINY, is_growth=True)
            added.unlink()
        self.stores()
        for workers, limit_mib in ((2, 1024), (2, 256), (8, 256), (32, 512)):
            shutil.rmtree(self.at / "store", ignore_errors=True)
            shutil.copytree(self.at / "rows", self.at / "store", copy_function=os.link)
            self.extract("growth: new sides", self.clips(), workers, limit_mib, ["split.seed=7"], is_growth=True)

    def sql(self) -> None:
        self.stores()
        for name, (store, form, may_be_refused, query) in QUERIES.items():
            for workers, limit_mib in ((2, 1024), (2, 128)) if self.quick else ((2, 1024), (8, 256), (2, 128)):
                result = self.at / "result"
                words = ["--store", self.at / store, "--threads", workers, "--memory-limit", f"{limit_mib}MiB", "--out", result]
                ended = self.run("wavemill", "sql", "-q", *words, "--format", form, query)
                problem = ""
                if ended.status == 0:
                    # The batches of an Arrow stream depend on the limit, so only its length in MiB is compared.
                    content = hash_of(result) if form == "csv" else round(result.stat().st_size / MIB)
                    problem = self.differs(name, content)
                    result.unlink()
                    if limit_mib == 128 and not (ended.spilled or may_be_refused or self.quick):
                        problem = "nothing was spilled"
                refusal = TOO_SMALL_FOR_JOIN if may_be_refused else ""
                self.limited(f"sql: {name}", workers, limit_mib, ended, f"{ended.spilled // MIB} MiB spilled", problem, refusal)

    def loader(self) -> None:
        self.stores()
        first_peak = 0
        for n_batches in (2, 32) if self.quick else (2, 8, 32, 128):
            words = ["--feature", "log_mel", "--model", "cnn1d", "--set", f"data.frames={BATCH_FRAMES}", "--batch-size", BATCH_ROWS]
            ended = self.fit("rows", "runs", *words, "--prefetch-batches", n_batches)
            first_peak = first_peak or ended.peak
            if n_batches == 2 and not ended.status:
                continue
            allowed = LOADER_SLACK * (first_peak + (n_batches - 2) * BATCH_BYTES)
            result = f"{BATCH_BYTES // MIB} MiB per batch; {first_peak / MIB:.0f} MiB with two"
            self.line("loader", 2, f"{n_batches} batches", ended.peak, allowed, result, ended.problem())

    def fit(self, store: str, runs: str, *words: object) -> Ended:
        """Trains a model for one epoch."""
        words = ("--store", self.at / store, "--runs", self.at / runs, "--split", "stratified", "--epochs", 1, *words)
        return self.run("wavemill-train", "fit", "-q", "--device", "cpu", "--threads", 1, *words)

    def serve(self) -> None:
        self.stores()
        words = ["--feature", "log_mel", "--model", "lstm", "--set", "data.frames=1", "--batch-size", 1024]
        fitted = self.fit("many", "served", *words)
        if fitted.status:
            sys.exit(f"fit: {fitted.problem()}")
        run = next((self.at / "served").iterdir())
        with (self.at / "serve.err").open("w") as err:
            server = subprocess.Popen([self.programs / "wavemill", "serve", "--port", "0", "--run", run, "--threads", "2"], stderr=err)
        try:
            self.requests(server)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()

    def requests(self, server: "subprocess.Popen[bytes]") -> None:
        """Sends requests to a server, in four threads, and compares its peak in the first ones with that in later ones."""
        address = None
        while server.poll() is None and not address:
            time.sleep(0.1)
            address = re.search(r"http://127.0.0.1:(\d+)/", (self.at / "serve.err").read_text())
        song = (self.at / "contents/0.wav").read_bytes()
        kinds = [("POST", "/api/predict?name=a.wav", song, 200), ("POST", "/api/predict?name=b.wav&html=true", song, 200),
                 ("POST", "/api/predict", song[:100], 422), ("GET", "/metrics", None, 200), ("GET", "/healthz", None, 200),
                 ("GET", "/", None, 200), ("GET", "/none", None, 404), ("POST", "/api/predict?top=x", song, 400)]  # fmt: skip
        wrong: list[str] = []

        def client(n_requests: int) -> None:
            # The server closes each connection after its response, and the client opens the next one.
            connection = http.client.HTTPConnection("127.0.0.1", int(address[1]) if address else 0, timeout=60)
            for number in range(n_requests):
                method, path, body, status = kinds[number % len(kinds)]
                try:
                    connection.request(method, path, body)
                    response = connection.getresponse()
                    content = response.read()
                    if response.status != status:
                        wrong.append(f"{path}: {response.status}: {content[:200]!r}")
                except (OSError, http.client.HTTPException) as error:
                    wrong.append(f"{path}: {error!r}")
                    connection.close()

        # The start of the server does not count.
        peak_of(server.pid)
        first = total = 0
        for n_requests in (1_000, 1_000, 8_000) if self.quick else (1_000, 9_000, 40_000, 50_000):
            clients = [threading.Thread(target=client, args=(n_requests // 4,)) for _ in range(4)]
            for thread in clients:
                thread.start()
            for thread in clients:
                thread.join()
            total += n_requests
            peak = peak_of(server.pid)
            if not first:
                first = peak
                continue
            result = f"with the model process; {first / MIB:.0f} MiB in the first requests"
            self.line("serve", 2, f"{total} requests", peak, SLACK * first, result, wrong[0] if wrong else "")


CASES = [Measurements.threads, Measurements.hours, Measurements.tiny, Measurements.slow, Measurements.growth, Measurements.sql,
         Measurements.loader, Measurements.serve]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, type=lambda path: Path(path).resolve(), help="folder of the programs")
    parser.add_argument("--case", action="append", choices=[case.__name__ for case in CASES], help="run only this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller commands: five minutes instead of forty")
    arguments = parser.parse_args()

    print("| case | workers | limit | peak, MiB | allowed, MiB | peak / allowed | ok | result |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="wavemill-memory-") as folder:
        measurements = Measurements(arguments.programs, Path(folder).resolve(), arguments.quick)
        for case in CASES:
            if case.__name__ in (arguments.case or [case.__name__]):
                case(measurements)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\n{measurements.n_wrong} wrong; the script itself took {own} MiB")
    sys.exit(1 if measurements.n_wrong else 0)


if __name__ == "__main__":
    main()
