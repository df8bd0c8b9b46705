#!/usr/bin/env python3
"""Alters clips, lets wavemill look for near copies, and counts those that it finds and those that are not there.

usage: near_copies.py FOLDER WORK [--wavemill PROGRAM] [--copies 300] [--seed 7]
       near_copies.py chromaprint FOLDER     share of bits that equal those of ffmpeg's Chromaprint, over the WAVE files of FOLDER
needs: ffmpeg, with its Chromaprint for the second form

FOLDER contains clips, such as those of `demo-audio --tracks 2000 --seconds 30`; those below 100 kB are not altered. WORK
gets the altered clips and a store. Clips with equal audio are one recording.
"""
import argparse, collections, concurrent.futures, json, os, pathlib, random, struct, subprocess, sys

SOUNDS = {".mp3", ".wav", ".ogg", ".flac", ".m4a"}
ENCODERS = [
    (".mp3", ["-c:a", "libmp3lame", "-b:a", "64k"]),
    (".mp3", ["-c:a", "libmp3lame", "-b:a", "320k"]),
    (".ogg", ["-c:a", "libvorbis", "-q:a", "1"]),
    (".m4a", ["-c:a", "aac", "-b:a", "96k"]),
    (".mp3", ["-c:a", "libmp3lame", "-q:a", "7"]),
]
CHANGES = ["encoded", "resampled", "shifted", "cut", "gain"]
RECIPE = """
name = "near"
[catalog]
dataset = "folders"
[split]
rule = "stratified"
group_duplicates = "near"
[audio]
sample_rate_hz = 8000
min_duration_s = 0.1
[[features]]
name = "loudness"
op = "rms"
"""


def options(change, rng):
    """Returns ffmpeg's options for a change."""
    if change == "resampled":
        return ["-ar", rng.choice(["22050", "32000", "48000"])]
    if change == "shifted":
        seconds = rng.uniform(0.1, 2.0)
        if rng.random() < 0.5:
            return ["-af", f"adelay={int(seconds * 1000)}:all=1"]
        return ["-ss", f"{seconds:.3f}"]
    if change == "cut":
        return ["-ss", f"{rng.uniform(0, 5):.3f}", "-t", f"{rng.uniform(8, 20):.3f}"]
    if change == "gain":
        return ["-af", f"volume={rng.choice([-20, -12, -6, 6, 10])}dB"]
    return []


def alter(files, folder, n_copies, seed):
    """Writes altered copies of clips, and returns the clip and the change of each."""
    rng = random.Random(seed)
    files = [file for file in files if file.stat().st_size > 100_000]
    rng.shuffle(files)
    made = {}
    jobs = []
    for number in range(n_copies):
        file = files[number % len(files)]
        change = CHANGES[number // len(ENCODERS) % len(CHANGES)]
        suffix, encoder = ENCODERS[number % len(ENCODERS)]
        copy = folder / f"{number:04}{suffix}"
        changed = options(change, rng)
        made[copy.name] = (file, change)
        jobs.append(["ffmpeg", "-v", "error", "-y", "-i", str(file), *changed, *encoder, str(copy)])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda job: subprocess.run(job, check=True), jobs):
            pass
    return made


def query(wavemill, store, sql):
    out = subprocess.run([wavemill, "sql", "--store", store, "--format", "json", sql], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in out.stdout.splitlines()]


def count(arguments):
    work = pathlib.Path(arguments.work)
    audio = work / "audio"
    (audio / "originals").mkdir(parents=True)
    (audio / "copies").mkdir()
    files = sorted(file for file in pathlib.Path(arguments.folder).rglob("*") if file.suffix in SOUNDS)
    names = {}
    for number, file in enumerate(files):
        name = f"{number:05}{file.suffix}"
        os.symlink(file.resolve(), audio / "originals" / name)
        names[file] = f"originals/{name}"
    made = alter(files, audio / "copies", arguments.copies, arguments.seed)

    (work / "near.toml").write_text(RECIPE)
    store = str(work / "store")
    extract = [arguments.wavemill, "extract", "--recipe", str(work / "near.toml"), "--audio", str(audio), "--store", store]
    subprocess.run([*extract, "--allow-outside", "--max-reject-fraction", "1"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # A clip's recording: that of its original, and one for all originals of equal audio.
    equal = query(arguments.wavemill, store, "SELECT clip_key, audio_blake3 FROM features_loudness")
    recording = {row["clip_key"]: row["audio_blake3"] for row in equal}
    original = {f"copies/{copy}": names[file] for copy, (file, _) in made.items()}
    of = lambda key: recording.get(original.get(key, key), original.get(key, key))

    pairs = query(arguments.wavemill, store, "SELECT * FROM near_copies WHERE clip_key < other")
    found = {frozenset([row["clip_key"], row["other"]]): row["similarity"] for row in pairs}
    wrong = [row for row in pairs if of(row["clip_key"]) != of(row["other"])]
    print(f"{len(files)} clips and {len(made)} altered copies: {len(pairs)} pairs, {len(wrong)} of different recordings")
    for row in wrong:
        print("  wrong:", row["clip_key"], row["other"], row["similarity"])

    similarities = collections.defaultdict(list)
    n_made = collections.Counter(change for _, change in made.values())
    for copy, (file, change) in made.items():
        pair = frozenset([f"copies/{copy}", names[file]])
        if pair in found:
            similarities[change].append(found[pair])
        else:
            print(f"  missed: {change}, copies/{copy} of {file}")
    print("| change | copies | found | lowest similarity | median |\n|---|---|---|---|---|")
    for change in CHANGES:
        values = sorted(similarities[change])
        print(f"| {change} | {n_made[change]} | {len(values)} | {values[0]:.3f} | {values[len(values) // 2]:.3f} |")
    return 1 if wrong else 0


def chromaprint(arguments):
    """Compares the stored fingerprints of WAVE files with ffmpeg's."""
    folder = pathlib.Path(arguments.work)
    store = folder / "near_copies.store"
    (folder / "near_copies.toml").write_text(RECIPE)
    extract = [arguments.wavemill, "extract", "--recipe", str(folder / "near_copies.toml"), "--audio", str(folder), "--store", str(store)]
    subprocess.run([*extract, "--max-reject-fraction", "1"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bits = equal = 0
    for row in query(arguments.wavemill, str(store), "SELECT clip_key, fingerprint FROM fingerprints"):
        raw = ["ffmpeg", "-v", "error", "-t", "120", "-i", str(folder / row["clip_key"]), "-f", "chromaprint", "-fp_format", "raw", "-"]
        theirs = subprocess.run(raw, check=True, capture_output=True).stdout
        theirs = struct.unpack(f"<{len(theirs) // 4}I", theirs)
        ours = row["fingerprint"]
        n_items = min(len(ours), len(theirs))
        if abs(len(ours) - len(theirs)) > 1:
            sys.exit(f"{row['clip_key']}: {len(ours)} items, ffmpeg has {len(theirs)}")
        bits += 32 * n_items
        equal += 32 * n_items - sum((a ^ b).bit_count() for a, b in zip(ours, theirs))
    print(f"{bits} bits, {equal / bits:.4%} equal")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("work")
    parser.add_argument("--wavemill", default="target/debug/wavemill")
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    return (chromaprint if arguments.folder == "chromaprint" else count)(arguments)


if __name__ == "__main__":
    sys.exit(main())
