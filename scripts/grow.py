#!/usr/bin/env python3
"""Measures the cost of a new version of a store for each kind of change, and writes the table in docs/store.md.

Generates a synthetic archive (`demo-audio`) and extracts it. For each kind of change, copies store and archive, changes
one thing and commits the next version. Prints one line per change: clips decoded, rows taken over, feature files that are
linked, rewritten and new, CPU time as a share of the full run, and tracks that moved to another side.

Needs the programs (`cargo build --release --workspace --bins`) and only Python's standard library. Takes some minutes.
"""

import argparse
import csv
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

BEGIN = "<!-- made by scripts/grow.py -->"
END = "<!-- end -->"

# Share of the tracks that the first version lacks, so that they can be added.
HELD_BACK_SHARE = 0.01

FEATURE = """
[[features]]
name = "log_mel_64"
op = "mel"
n_fft = 2048
hop_length = 512
n_mels = 64
db = { ref = "max", top_db = 80.0 }
normalize = "minmax"
dtype = "f16"

[shards]
"""

COLUMNS = ["changed", "clips decoded", "rows taken over", "files linked", "rewritten", "new", "CPU", "tracks moved"]


class Archive:
    """A copy of the archive that can be changed."""

    def __init__(self, folder):
        self.folder = folder
        self.metadata = folder / "fma_metadata" / "tracks.csv"
        self.audio = folder / "fma_demo"
        with self.metadata.open(newline="", encoding="latin-1") as file:
            rows = list(csv.reader(file))
        # The header has two lines of names and one that names the index.
        self.head, self.rows = rows[:3], rows[3:]

    def column(self, group, field):
        """Returns the index of a column of tracks.csv."""
        return next(n for n, name in enumerate(zip(*self.head[:2])) if name == (group, field))

    def write(self):
        """Replaces tracks.csv, which is shared with other copies, by a new file."""
        self.metadata.unlink()
        with self.metadata.open("w", newline="", encoding="latin-1") as file:
            csv.writer(file, lineterminator="\n").writerows(self.head + self.rows)

    def clip(self, row):
        """Returns the audio file of a row of tracks.csv."""
        number = int(row[0])
        return self.audio / f"{number // 1000:03}" / f"{number:06}.mp3"

    def change_file(self, path, change):
        """Changes the bytes of a file without changing the file of other copies."""
        data = change(path.read_bytes())
        path.unlink()
        path.write_bytes(data)


def copied(archive, to):
    """Creates hard links to all files; `change_file` and `write` replace them."""
    shutil.copytree(archive, to, copy_function=os.link)
    return Archive(to)


def with_tag(data):
    """Returns the bytes with a different ID3v1 tag at the end."""
    if data[-128:-125] == b"TAG":
        data = data[:-128]
    return data + b"TAG" + b"a title".ljust(124, b"\0") + b"\xff"


class Runs:
    """Runs wavemill and measures its CPU time."""

    def __init__(self, wavemill, threads):
        self.wavemill = wavemill
        self.threads = threads

    def extract(self, recipe, archive, store, *words):
        """Returns the report of a run, extended by `cpu` (CPU seconds) and `peak_mib` (peak memory)."""
        command = [self.wavemill, "extract", "--recipe", recipe, "--audio", archive.audio, "--store", store, "--json"]
        if archive.metadata.exists():
            command += ["--metadata", archive.metadata.parent]
        command += ["--threads", str(self.threads), "--max-reject-fraction", "1", *words]
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=err)
            _, status, usage = os.wait4(child.pid, 0)
            out.seek(0)
            err.seek(0)
            if status != 0:
                sys.exit(f"{' '.join(map(str, command))}\n{err.read()}")
            report = json.loads(out.read())
        report["cpu"] = usage.ru_utime + usage.ru_stime
        report["peak_mib"] = usage.ru_maxrss / 1024
        return report


def nothing(_archive):
    """Changes nothing."""


def adds(held_back, share):
    """Adds some of the tracks that the first version does not have."""

    def change(archive):
        rows = held_back[:1] if share is None else held_back
        for row, file in rows:
            archive.rows.append(row)
            path = archive.clip(row)
            path.parent.mkdir(exist_ok=True)
            os.link(file, path)
        archive.write()

    return change


def removes_one(archive):
    """Removes a track and its file."""
    row = archive.rows.pop(len(archive.rows) // 2)
    archive.clip(row).unlink()
    archive.write()


def tags_one(archive):
    """Changes the tag of a file."""
    archive.change_file(archive.clip(archive.rows[7]), with_tag)


def touches_all(archive):
    """Copies every file, which changes its modification time."""
    for path in archive.audio.rglob("*.mp3"):
        archive.change_file(path, lambda data: data)
        os.utime(path, (2_000_000_000, 2_000_000_000))


def relabels(genre):
    """Corrects the label of one track."""

    def change(archive):
        top = archive.column("track", "genre_top")
        labelled = [row for row in archive.rows if row[top]]
        row = labelled[len(labelled) // 3]
        row[top] = genre or next(other[top] for other in labelled if other[top] != row[top])
        archive.write()

    return change


def to_folders(archive, to):
    """Copies the labelled clips to one folder per genre."""
    top = archive.column("track", "genre_top")
    for row in archive.rows:
        path = archive.clip(row)
        if row[top] and path.exists():
            folder = to / "fma_demo" / row[top].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            os.link(path, folder / path.name)


class Folders:
    """An archive without metadata, with one folder per genre."""

    def __init__(self, folder):
        self.audio = folder / "fma_demo"
        self.metadata = folder / "none"


def table(args, work):
    """Returns the rows of the table and the additional measurements."""
    runs = Runs(args.wavemill, args.threads)
    whole = work / "archive"
    if not whole.exists():
        subprocess.run([args.demo_audio, whole, "--tracks", str(args.tracks)], check=True, stdout=subprocess.DEVNULL)

    for name in ["base", "held", "folders", "store", "folders-store", "change", "next"]:
        shutil.rmtree(work / name, ignore_errors=True)
    base = copied(whole, work / "base")
    # The archive contains damage on purpose. Skips invalid records, and clips that cannot be moved.
    base.rows = [row for row in base.rows if len(row) == len(base.head[0]) and row[0].isdigit() and base.clip(row).exists()]
    n_held = max(1, round(args.tracks * HELD_BACK_SHARE))
    held_back = []
    (work / "held").mkdir()
    for row in base.rows[-n_held:]:
        file = work / "held" / base.clip(row).name
        base.clip(row).rename(file)
        held_back.append((row, file))
    base.rows = base.rows[:-n_held]
    base.write()

    demo = subprocess.run([args.wavemill, "recipe", "show", "demo"], capture_output=True, text=True, check=True).stdout
    recipe = work / "recipe.toml"
    recipe.write_text(demo)
    more = work / "more.toml"
    more.write_text(demo.replace("\n[shards]\n", FEATURE, 1))
    mfcc = demo.index("[[features]]", demo.index("[[features]]") + 1)
    less = work / "less.toml"
    less.write_text(demo[:mfcc] + demo[demo.index("[shards]") :])
    store = work / "store"
    full = runs.extract(recipe, base, store)

    lines = []

    def line(what, change, *words, recipe=recipe):
        archive = copied(work / "base", work / "change")
        change(archive)
        shutil.copytree(store, work / "next", copy_function=os.link)
        report = runs.extract(recipe, archive, work / "next", "--new-version", *words)
        lines.append((what, report, report["cpu"] / full["cpu"]))
        shutil.rmtree(work / "change")
        shutil.rmtree(work / "next")
        return report

    line("nothing", nothing)
    line("one clip added", adds(held_back, None))
    line(f"1 % added ({n_held} clips)", adds(held_back, HELD_BACK_SHARE))
    line("one clip removed", removes_one)
    line("one file's tags", tags_one)
    line("all files touched", touches_all)
    line("one label corrected", relabels(None))
    line("a class added", relabels("Ambient"))

    to_folders(base, work / "folders")
    folders = Folders(work / "folders")
    by_folder = work / "folders.toml"
    clean = demo[demo.index("[[catalog.clean]]") : demo.index("[[targets]]")]
    text = demo.replace(clean, "").replace('dataset = "fma"', 'dataset = "folders"')
    by_folder.write_text(text.replace('column = "track_genre_top"', 'column = "genre"'))
    full_folders = runs.extract(by_folder, folders, work / "folders-store")
    genre = sorted(path for path in folders.audio.iterdir() if path.is_dir())[1]
    genre.rename(genre.with_name("Renamed"))
    report = runs.extract(by_folder, folders, work / "folders-store", "--new-version")
    lines.append(("a genre folder renamed", report, report["cpu"] / full_folders["cpu"]))

    line("a feature added", nothing, recipe=more)
    line("a feature's option", nothing, "--set", "features.mfcc.n_mfcc=13")
    line("a feature removed", nothing, recipe=less)
    seed = line("the split's seed", nothing, "--set", "split.seed=7")
    line("`--resplit`, and 1 % added", adds(held_back, HELD_BACK_SHARE), "--resplit")
    line("the engine (`--isa scalar`)", nothing, "--isa", "scalar")

    clips = full["counts"]["clips_written"]
    decode_ms = full["cpu_s"]["decode"] / clips * 1e3
    take_ms = seed["cpu_s"]["take"] / clips * 1e3
    return lines, full, decode_ms, take_ms


LARGE_RECIPE = """
name = "large"
[catalog]
dataset = "table"
[[targets]]
name = "genre"
column = "genre"
[audio]
sample_rate_hz = 8000
duration_s = 0.1
min_duration_s = 0.05
[[features]]
name = "log_mel"
op = "mel"
n_fft = 256
hop_length = 128
n_mels = 16
"""
LARGE_ROWS = 106_574
LARGE_CLIPS = 50_000
# Number of files with distinct content; all others are links to them.
LARGE_CONTENTS = 500


def noise(number):
    """Returns a WAV of a tenth of a second."""
    samples = random.Random(number).randbytes(1600)
    head = b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt "
    head += struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    return head + b"data" + struct.pack("<I", len(samples)) + samples


def large(args, work):
    """Measures the cost of planning with as many rows as FMA has and hardly any audio."""
    archive = Folders(work / "large")
    archive.metadata = work / "large" / "metadata" / "table.csv"
    for name in ["large", "large-store"]:
        shutil.rmtree(work / name, ignore_errors=True)
    archive.metadata.parent.mkdir(parents=True)
    contents = work / "large" / "contents"
    contents.mkdir()
    for number in range(LARGE_CONTENTS):
        (contents / f"{number}.wav").write_bytes(noise(number))

    lines = ["clip_key,genre,artist_id"]

    def add(number):
        key = f"{number // 1000:03}/{number:06}.wav"
        path = archive.audio / key
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(contents / f"{number % LARGE_CONTENTS}.wav", path)
        lines.append(f"{key},{'abcdefgh'[number // 7 % 8]},{number // 7}")

    for number in range(LARGE_ROWS - 1):
        add(number)
    archive.metadata.write_text("\n".join(lines) + "\n")
    recipe = work / "large.toml"
    recipe.write_text(LARGE_RECIPE)

    runs = Runs(args.wavemill, args.threads)
    store = work / "large-store"
    limit = ["--limit", str(LARGE_CLIPS)]
    runs.extract(recipe, archive, store, *limit)
    # Adds a track that is not within the limit, and changes a label of one that may be.
    add(LARGE_ROWS - 1)
    lines[1] = lines[1].replace(",a,", ",b,")
    archive.metadata.write_text("\n".join(lines) + "\n")
    first = runs.extract(recipe, archive, work / "large-first", *limit, "--dry-run")
    again = runs.extract(recipe, archive, store, *limit, "--new-version", "--dry-run")
    run = runs.extract(recipe, archive, store, *limit, "--new-version")
    print(
        f"{LARGE_ROWS} rows, {LARGE_CLIPS} clips: planning takes {again['cpu']:.1f} s of CPU, and {first['cpu']:.1f} s in "
        f"a new store; the run takes {run['cpu']:.1f} s for {run['clips_decoded']} clips decoded and "
        f"{run['rows_taken_over']} rows taken over; at most {again['peak_mib']:.0f} MiB and {run['peak_mib']:.0f} MiB"
    )


def in_words(lines, full, decode_ms, take_ms, args):
    """Returns the table as Markdown."""
    text = [BEGIN, "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for what, report, share in lines:
        sides = report["sides"] or {"moved": []}
        moved = sum(count["tracks"] for count in sides["moved"])
        cells = [what, report["clips_decoded"], report["rows_taken_over"], report["shards_reused"]]
        cells += [report["files_rewritten"], report["files_new"], f"{share:.1%}", moved]
        if report["nothing_to_do"]:
            cells[3] = "all"
        text.append("| " + " | ".join(map(str, cells)) + " |")
    text.append("")
    text.append(
        f"{args.tracks} tracks of 10 s, two features; the full run took {full['cpu']:.1f} s of CPU for "
        f"{full['counts']['clips_written']} clips and {full['files_new']} files. Per clip: decoding {decode_ms:.2f} ms, "
        f"copying its two rows {take_ms:.2f} ms ({take_ms / decode_ms:.0%})."
    )
    text.append(END)
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="its folder `grow` gets the archive, which is reused, and stores")
    parser.add_argument("--tracks", type=int, default=2000, help="number of tracks of the synthetic archive [default: 2000]")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--programs", type=Path, default=Path("target/release"), help="folder of the programs")
    parser.add_argument("--large", action="store_true", help="measure the cost of planning with as many rows as FMA has")
    parser.add_argument("--write", action="store_true", help="update the table in docs/store.md")
    args = parser.parse_args()
    args.wavemill = args.programs / "wavemill"
    args.demo_audio = args.programs / "demo-audio"

    # Its own folder, since each run removes stores.
    work = args.work / "grow"
    work.mkdir(parents=True, exist_ok=True)
    if args.large:
        large(args, work)
        return
    text = in_words(*table(args, work), args)
    print(text)
    if args.write:
        page = Path(__file__).parent.parent / "docs" / "store.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(before + text + rest.split(END)[1])


if __name__ == "__main__":
    main()
