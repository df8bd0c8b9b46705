"""Collects the programs and data for a machine with a GPU; called by scripts/gpu/build.sh.

usage: pack.py BUILT FOLDER DATA CLIP…
  BUILT    cargo's messages about the programs, one JSON object per line
  FOLDER   folder to create: bin/, data/, gpu/, BUILD
  DATA     folder of real data, which contains the clips of librosa_ref
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

# (name of the target, kind of the target, whether it is a test) -> the program's name in the archive.
PROGRAMS = {
    ("wavemill", "bin", False): "wavemill",
    ("demo-audio", "bin", False): "demo-audio",
    ("wavemill-train", "bin", False): "wavemill-train",
    ("wavemill_kernels", "lib", True): "kernels-lib",
    ("wavemill_trainer", "lib", True): "trainer-lib",
    ("librosa", "test", True): "kernels-librosa",
    ("main", "test", True): "tests-main",
    ("cuda", "bench", True): "bench-cuda",
}


def programs(built):
    """Returns name in the archive -> path of the program that cargo built."""
    found = {}
    for line in built.read_text().splitlines():
        told = json.loads(line)
        if told.get("executable"):
            key = (told["target"]["name"], told["target"]["kind"][0], told["profile"]["test"])
            # cargo may build a bench as a test or not.
            if key[1] == "bench":
                key = (*key[:2], True)
            if key in PROGRAMS:
                found[PROGRAMS[key]] = Path(told["executable"])
    return found


def revision():
    """Returns the revision and the compiler of the programs."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    described = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    return f"wavemill: {described}\nrustc: {rustc.removeprefix('rustc ')}\n"


def copy_clips(data, folder, clips):
    """Copies librosa's reference values of some clips, if the real data exists."""
    reference = data / "librosa_ref"
    into = folder / "data/librosa_ref"
    into.mkdir(parents=True)
    if not reference.is_dir():
        print(f"no {reference}: no clip is packed, and the step `librosa` will report it")
        return
    shutil.copyfile(reference / "manifest.json", into / "manifest.json")
    for clip in clips:
        (into / clip).mkdir()
        for path in sorted((reference / clip).iterdir()):
            shutil.copyfile(path, into / clip / path.name)


def main():
    built, folder, data, clips = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
    (folder / "bin").mkdir(parents=True)
    found = programs(built)
    missing = [name for name in PROGRAMS.values() if name not in found and "train" not in name]
    if missing:
        sys.exit(f"cargo did not report {', '.join(missing)}")
    for name, program in sorted(found.items()):
        copied = folder / "bin" / name
        shutil.copyfile(program, copied)
        copied.chmod(0o755)
        subprocess.run(["strip", copied], check=True)
        print(f"{copied.stat().st_size / 2**20:7.1f} MiB  {name}")
    copy_clips(data, folder, clips)
    here = Path(__file__).parent
    shutil.copytree(here, folder / "gpu", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "BUILD").write_text(revision())


if __name__ == "__main__":
    main()
