"""Commands on small synthetic data, the state in which each begins, and what each must have made at its end."""

import argparse
import dataclasses
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

RECIPE = """
name = "faults"
[catalog]
dataset = "fma"
[[targets]]
name = "genre"
column = "track_genre_top"
[split]
rule = "artist"
fractions = [0.6, 0.2, 0.2]
[audio]
sample_rate_hz = 16000
duration_s = 2.0
min_duration_s = 0.5
[[features]]
name = "log_mel"
op = "mel"
n_fft = 512
hop_length = 256
n_mels = 32
[shards]
clips = 8
"""
STATISTICS = """
[[features]]
name = "statistics"
op = "statistics"
source = "log_mel"
"""
# The status of `verify` for files that differ or cannot be read.
DAMAGED = 3
# The message of `verify` for a store in which nothing was committed yet.
NO_VERSION = "no store with a committed version"


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that may be interrupted by a fault and is then repeated."""

    name: str
    # Commands that make the state in which it begins; "{at}" is the folder of the trial, "{inputs}" that of the inputs.
    before: Sequence[str]
    words: str
    # Returns what the command made in the folder of a trial, given its standard output.
    made: Callable[[Path, str], object]
    changes_store: bool = False
    # Statuses besides 1 and 5 with which it may report a fault.
    more_statuses: Sequence[int] = ()
    # Pattern of a path that is there only if everything was made.
    last: str = ""

    @property
    def changes_disk(self) -> bool:
        return self.changes_store or bool(self.last) or self.made is weights_of


def run(
    words: str,
    at: Path,
    inputs: Path,
    programs: Path,
    *,
    before: Sequence[str] = (),
    env: dict[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Runs a command, whose first word is the name of the program, for at most `timeout` seconds. `before` are words of a
    program that starts it."""
    program, *rest = shlex.split(words.format(at=at, inputs=inputs, programs=programs))
    return subprocess.run(
        [*before, str(programs / program), *rest],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=at,
        env=os.environ | (env or {}),
        timeout=timeout,
    )


def hashes(folder: Path, parts: Sequence[str] = ("",)) -> dict[str, str]:
    """Returns the hash of each file in parts of a folder. Readers skip names that start with a dot, such as temporary ones."""
    files = [path for part in parts for path in (folder / part).rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def versions(at: Path, _: str) -> object:
    """Returns the hashes of a store's data and manifests."""
    return hashes(at / "store", ("data", "_wavemill/versions", "_wavemill/tags"))


def exported(at: Path, _: str) -> object:
    return hashes(at / "out")


def catalogued(at: Path, _: str) -> object:
    """Returns the hashes of a catalogue, and its script without the folder of the trial."""
    script = at / "out/ducklake.sql"
    words = re.sub(r"/trial(-\d+)?/", "/", script.read_text()) if script.exists() else ""
    return hashes(at / "out", ("data",)), words


def answered(at: Path, _: str) -> object:
    """Returns the content of a file with the result of a query."""
    file = at / "answer.csv"
    return file.read_bytes() if file.exists() else None


def listed(at: Path, out: str) -> object:
    """Returns printed JSON without times and without the path of the store."""
    return re.sub(r'"committed":(null|"[^"]*")', "", out.replace(str(at), ""))


def printed(_: Path, out: str) -> object:
    return out


def plan_of(at: Path, out: str) -> object:
    """Returns the printed id of a plan, and the hashes of the plan and of the tables that belong to it."""
    return out, hashes(at / "store", ("_wavemill/plans", "data"))


def shards_of(at: Path, _: str) -> object:
    return hashes(at / "store", ("data",))


def weights_of(at: Path, _: str) -> object:
    """Returns the hashes of a run's checkpoints and of its result, without its log."""
    return hashes(at / "run", ("checkpoints",)), hashes(at / "run").get("result.json")


INPUTS = "--metadata {inputs}/made/fma_metadata --max-reject-fraction 1 --max-shrink 1 --new-version --threads 1 --store {at}/store"
EXTRACT = f"wavemill extract -q --recipe {{inputs}}/one.toml --audio {{inputs}}/made/fma_demo {INPUTS}"
FEWER = f"wavemill extract -q --recipe {{inputs}}/one.toml --audio {{inputs}}/fewer {INPUTS}"
BOTH = f"wavemill extract -q --recipe {{inputs}}/two.toml --audio {{inputs}}/made/fma_demo {INPUTS}"
PLAN = f"wavemill plan -q --recipe {{inputs}}/one.toml --audio {{inputs}}/made/fma_demo {INPUTS}"
WORK = "wavemill work -q --store {at}/store --plan {plan} --part 1/1 --threads 1"
COMMIT = "wavemill commit -q --store {at}/store --plan {plan}"
QUERY = "SELECT clip_key, split, tensor_mean(log_mel) AS mean FROM features_log_mel ORDER BY clip_key"
EXPORT = "wavemill export -q --store {at}/store --out {at}/out --feature log_mel --format"
CATALOG = "wavemill catalog -q --store {at}/store --out {at}/out --format ducklake"
SQL = f"wavemill sql --store {{at}}/store --format csv \"{QUERY}\""
FIT = (
    "wavemill-train fit -q --store {at}/store --feature statistics --model mlp-1 --epochs 2 --batch-size 8 --device cpu --threads 1 "
    "--split artist --readers 1 --resume-or-start {at}/run"
)

# A server that answers once.
SERVE = f"{Path(__file__).with_name('serve_once.py')} {{programs}}/wavemill {{at}}/run"


def all_commands(plan: str) -> list[Command]:
    """Returns all commands. `plan` is the id of the plan that the inputs give."""
    work, commit = (words.replace("{plan}", plan) for words in (WORK, COMMIT))
    return [
        Command("extract", [], EXTRACT, versions, True),
        Command("growth", [FEWER], EXTRACT, versions, True),
        Command("added feature", [EXTRACT], BOTH, versions, True),
        Command("plan", [], PLAN, plan_of, True, last="store/_wavemill/plans/*/plan.json"),
        Command("work", [PLAN], work, shards_of, True),
        Command("commit", [PLAN, work], commit, versions, True),
        Command("gc", [FEWER, EXTRACT, BOTH], "wavemill gc -q --store {at}/store --keep 1", versions, True),
        Command("tag", [FEWER, EXTRACT], "wavemill tag -q --store {at}/store 1 paper", versions, True),
        Command("export npy", [EXTRACT], f"{EXPORT} npy", exported, last="out"),
        Command("export png", [EXTRACT], f"{EXPORT} png", exported, last="out"),
        Command("export huggingface", [EXTRACT], f"{EXPORT} huggingface", exported, last="out"),
        Command("export webdataset", [EXTRACT], f"{EXPORT} webdataset", exported, last="out"),
        Command("catalog", [EXTRACT], CATALOG, catalogued, last="out"),
        Command("verify", [EXTRACT], "wavemill verify --json --store {at}/store", listed, more_statuses=[DAMAGED]),
        Command("info", [EXTRACT], "wavemill info --json --versions --store {at}/store", listed),
        Command("diff", [FEWER, EXTRACT], "wavemill diff --json --store {at}/store 1 2", listed),
        Command("sql", [EXTRACT], SQL, printed),
        Command("sql to a file", [EXTRACT], f"{SQL} --out {{at}}/answer.csv", answered, last="answer.csv"),
        Command("train fit", [BOTH], FIT, weights_of),
        Command("serve", [BOTH, FIT], SERVE, printed),
    ]


def make_inputs(programs: Path, inputs: Path, tracks: int = 20) -> None:
    """Makes an archive, another one that lacks some of its clips, and recipes."""
    inputs.mkdir(parents=True)
    made = [str(programs / "demo-audio"), str(inputs / "made"), "--tracks", str(tracks), "--seconds", "2"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(inputs / "made/fma_demo", inputs / "fewer")
    clips = sorted((inputs / "fewer").rglob("*.mp3"))
    for clip in clips[::3]:
        clip.unlink()
    (inputs / "one.toml").write_text(RECIPE)
    (inputs / "two.toml").write_text(RECIPE + STATISTICS)


def plan_id(programs: Path, inputs: Path, at: Path) -> str:
    """Returns the id of the plan of all inputs."""
    at.mkdir()
    done = run(PLAN, at, inputs, programs)
    shutil.rmtree(at)
    return done.stdout.strip()


def store_problem(at: Path, base: Path, inputs: Path, programs: Path) -> str:
    """Returns what `verify` says of the store of a trial, or nothing if it is intact, or has no version as in `base`."""
    if not (at / "store").exists():
        return ""
    had_version = any((base / "store/_wavemill/versions").glob("[0-9]*"))
    verified = run("wavemill verify -q --store {at}/store", at, inputs, programs)
    if verified.returncode == 0 or (NO_VERSION in verified.stderr and not had_version):
        return ""
    return f"the store is damaged: {verified.stderr}"


def build_shim(folder: Path) -> Path:
    """Compiles the shim into a folder."""
    shim = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    return shim


def drive(parser: argparse.ArgumentParser, try_all: Callable, is_tried: Callable[[Command], bool] = lambda _: True) -> None:
    """Parses the options, makes the inputs, and ends with status 1 if `try_all(arguments, folder, shim, commands)` returns a
    number of broken rules. The folder is in memory if that is possible, where synchronization costs nothing."""
    parser.add_argument("--programs", required=True, type=lambda path: Path(path).resolve(), help="folder of the programs")
    parser.add_argument("--seed", type=int, default=1, help="seed of all random choices (default 1)")
    parser.add_argument("--command", action="append", help="a command to try; may be repeated (default: all)")
    parser.add_argument("--sample", type=int, help="number of trials of each command (default: all)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="trials at the same time")
    arguments = parser.parse_args()

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="wavemill-faults-", dir=memory) as folder:
        root = Path(folder).resolve()
        shim = build_shim(root)
        make_inputs(arguments.programs, root / "inputs")
        commands = all_commands(plan_id(arguments.programs, root / "inputs", root / "plan"))
        known = [command.name for command in commands if is_tried(command)]
        if unknown := set(arguments.command or ()) - set(known):
            sys.exit(f"--command {min(unknown)}: choose from {', '.join(known)}")
        chosen = [command for command in commands if command.name in (arguments.command or known)]
        sys.exit(1 if try_all(arguments, root, shim, chosen) else 0)
