"""Compares each mel band computed by the band path of MP3 with that of the exact path.

For example:

    python3 scripts/peers/band_path.py --wavemill target/release/wavemill CLIP.mp3 …

Prints the table of docs/band-path.md: mean and largest difference in decibels of the bands of a range, over the frames
of all clips. Frames at the start and end of clips, which are cut off there, are apart.
Values are limited to 80 dB below the loudest value of a clip. Clips without a band path (WAV, or a sample rate below twice
the requested one) are also counted. Needs numpy.
"""

import argparse
import io
import itertools
import subprocess
import sys
import tempfile

import numpy as np

#: Number of frames at either end of a clip.
ENDS = 3
#: Limits of the ranges of bands, as shares of the Nyquist frequency.
LIMITS = (0, 0.5, 0.9, 0.95, 1)

RECIPE = """
name = "band-path"

[catalog]
dataset = "folders"

[split]
rule = "artist"

[audio]
sample_rate_hz = {rate}

[[features]]
name = "log_mel"
op = "mel"
preset = "librosa"
n_fft = 2048
hop_length = 512
n_mels = {bands}
db = {{ ref = "max", top_db = 80.0 }}
dtype = "f32"
dim_order = "mel,frame"
"""


def features(program: str, recipe: str, clip: str, path: str) -> np.ndarray:
    """Returns the bands of a clip, (bands, frames), in decibels."""
    command = [program, "features", clip, "--recipe", recipe, "--set", f"audio.decode.path={path}"]
    done = subprocess.run([*command, "--format", "npy", "--quiet"], capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{clip}: {done.stderr.decode()}")
    return np.load(io.BytesIO(done.stdout))[0]


def corners(bands: int, rate: int) -> np.ndarray:
    """Returns the corner frequencies of librosa's (Slaney's) bands in Hz; there are two more than bands."""
    top = 15 + np.log(rate / 2 / 1000) * 27 / np.log(6.4)
    mels = np.linspace(0, top, bands + 2)
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+")
    parser.add_argument("--wavemill", required=True, help="path of the program")
    parser.add_argument("--rate", type=int, default=22_050)
    parser.add_argument("--bands", type=int, default=128)
    options = parser.parse_args()

    differences = []
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as recipe:
        recipe.write(RECIPE.format(rate=options.rate, bands=options.bands))
        recipe.flush()
        for clip in options.clips:
            exact, band = (features(options.wavemill, recipe.name, clip, path) for path in ("exact", "band"))
            if exact.shape != band.shape:
                sys.exit(f"{clip}: {exact.shape} on the exact path, {band.shape} on the band path")
            differences.append(np.abs(exact - band))

    inner = np.concatenate([clip[:, ENDS:-ENDS] for clip in differences], axis=1)
    ends = np.concatenate([np.hstack([clip[:, :ENDS], clip[:, -ENDS:]]) for clip in differences], axis=1)
    shares = np.round(corners(options.bands, options.rate)[2:] / (options.rate / 2), 6)
    print(f"{len(options.clips)} clips, {sum(clip.shape[1] for clip in differences)} frames")
    print("\n| bands that end at, of Nyquist | inner frames: mean, dB | max, dB | frames at the ends: mean, dB | max, dB |")
    print("|---|---|---|---|---|")
    for low, high in itertools.pairwise(LIMITS):
        rows = (low < shares) & (shares <= high)
        figures = [f"{f(part[rows]):.4f}" for part in (inner, ends) for f in (np.mean, np.max)]
        print(f"| {low} to {high} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
