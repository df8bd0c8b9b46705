#!/usr/bin/env python3
"""Compare derived features with librosa, scipy and matplotlib's colour maps.

usage: derived.py [--wavemill PATH] CLIP.wav ...
needs: scripts/peers/setup.sh; pictures are compared with matplotlib's own tables if it is installed

Statistics of 20 MFCC and of log-mel are compared with those of librosa's values, computed by numpy and scipy.stats from the
same 16-bit samples. Prints one line per clip and feature; exit code 1 if any difference exceeds its bound.
"""
import argparse, pathlib, subprocess, sys, tempfile, warnings, wave
import librosa
import numpy as np
import scipy.stats

RECIPE = """
name = "derived"
[catalog]
dataset = "folders"
[audio]
sample_rate_hz = {rate}
min_duration_s = 0.1
[[features]]
name = "mfcc"
op = "mfcc"
[[features]]
name = "log_mel"
op = "mel"
db = {{ ref = "max", amin = 1e-10, top_db = 80.0 }}
normalize = "minmax"
dtype = "u8"
[[features]]
name = "mfcc_statistics"
op = "statistics"
source = "mfcc"
[[features]]
name = "log_mel_statistics"
op = "statistics"
source = "log_mel"
[[features]]
name = "grey"
op = "picture"
source = "log_mel"
colour_map = "grey"
[[features]]
name = "magma"
op = "picture"
source = "log_mel"
colour_map = "magma"
dtype = "f32"
[[features]]
name = "viridis"
op = "picture"
source = "log_mel"
colour_map = "viridis"
dtype = "f32"
"""

# In the order of a tensor's rows.
STATISTICS = {
    "kurtosis": lambda x: scipy.stats.kurtosis(x, axis=1),
    "max": lambda x: np.max(x, axis=1),
    "mean": lambda x: np.mean(x, axis=1),
    "median": lambda x: np.median(x, axis=1),
    "min": lambda x: np.min(x, axis=1),
    "skew": lambda x: scipy.stats.skew(x, axis=1),
    "std": lambda x: np.std(x, axis=1),
}
# The bounds are limited by the source values, which differ by up to 4e-4 (docs/features.md).
BOUNDS = {"mean": 1e-3, "median": 1e-3, "std": 1e-3, "min": 1e-2, "max": 1e-2, "skew": 1e-3, "kurtosis": 1e-3}
# Differences of these are relative to the value, or to 1 if it is smaller: near 0 a relative difference means
# nothing.
RELATIVE = {"skew", "kurtosis"}


# Some entries of matplotlib 3.11's tables (matplotlib/_cm_listed.py), used if matplotlib is not installed.
PUBLISHED = {
    "magma": {0: (0.001462, 0.000466, 0.013866), 128: (0.716387, 0.214982, 0.475290), 255: (0.987053, 0.991438, 0.749504)},
    "viridis": {0: (0.267004, 0.004874, 0.329415), 128: (0.127568, 0.566949, 0.550556), 255: (0.993248, 0.906157, 0.143936)},
}
COLOUR = 1e-6  # the tables have six decimals, and the values here are f32
GREY_OFF = 1  # a value near the boundary between two colours may get either
GREY_OFF_SHARE = 0.01


def colour_maps():
    """Return the tables by name: index -> red, green, blue."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return PUBLISHED
    return {name: dict(enumerate(matplotlib.colormaps[name].colors)) for name in PUBLISHED}


def read_wav(path):
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2), f"{path}: not 16-bit mono"
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.astype(np.float32) / np.float32(32768), file.getframerate()


def theirs(x, rate):
    """Return the values of each source in f64, so that sums add no rounding error of f32."""
    mel = librosa.feature.melspectrogram(y=x, sr=rate)
    yield "mfcc", librosa.feature.mfcc(y=x, sr=rate).astype(np.float64)
    yield "log_mel", librosa.power_to_db(mel, ref=np.max, top_db=80.0).astype(np.float64)


def ours(wavemill, clip, rate, feature, folder):
    """Return the tensor that `wavemill features` writes."""
    recipe, out = folder / "recipe.toml", folder / "out.npy"
    recipe.write_text(RECIPE.format(rate=rate))
    command = [wavemill, "features", clip, "--recipe", recipe, "--feature", feature, "--format", "npy", "--out", out]
    subprocess.run([str(part) for part in command], check=True)
    return np.load(out)[0]


def check_pictures(wavemill, clip, rate, log_mel, folder):
    """Check positions and colours of pixels against values and tables. Return (success, description)."""
    share = (log_mel - log_mel.min()) / (log_mel.max() - log_mel.min())
    # Low bands are at the bottom, as with `imshow(origin="lower")`; 256 intervals of equal width, as in
    # matplotlib's `Colormap`.
    index = np.minimum((share[::-1] * 256).astype(int), 255)
    grey = ours(wavemill, clip, rate, "grey", folder)
    off = np.abs(grey.astype(int) - index)
    ok = grey.shape == (3, *index.shape) and off.max() <= GREY_OFF and np.mean(off > 0) <= GREY_OFF_SHARE

    told = [f"index off by {off.max()} in {np.mean(off > 0):.1e}"]
    for name, table in colour_maps().items():
        picture = ours(wavemill, clip, rate, name, folder)
        errors = [0.0]
        for entry, colour in table.items():
            pixels = picture[:, grey[0] == entry]
            errors.append(np.abs(pixels - np.array(colour)[:, None]).max(initial=0))
        ok &= max(errors) <= COLOUR
        told.append(f"{name} {max(errors):.1e} over {len(table)} colours")
    return ok, ", ".join(told)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wavemill", default="target/debug/wavemill", help="path of wavemill (default: %(default)s)")
    parser.add_argument("clips", nargs="+", type=pathlib.Path, help="16-bit mono WAVs")
    args = parser.parse_args()

    warnings.filterwarnings("ignore", message="Precision loss occurred")  # for bands with constant values
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for clip in args.clips:
            x, rate = read_wav(clip)
            for source, values in theirs(x, rate):
                got = ours(args.wavemill, clip, rate, f"{source}_statistics", pathlib.Path(folder))
                assert got.shape == (len(STATISTICS), len(values)), got.shape
                worst = {}
                for row, (name, statistic) in zip(got, STATISTICS.items()):
                    want = statistic(values)
                    if name in RELATIVE:
                        # If a band is constant, scipy returns NaN, and wavemill 0.
                        want = np.where(np.ptp(values, axis=1) == 0, 0, want)
                    error = np.abs(row - want)
                    worst[name] = np.max(error / np.maximum(np.abs(want), 1) if name in RELATIVE else error)
                ok = all(error <= BOUNDS[name] for name, error in worst.items())
                failed += not ok
                told = " ".join(f"{name} {error:.1e}" for name, error in worst.items())
                print(f"{'ok  ' if ok else 'FAIL'} {clip.parent.name or clip.stem:12} {source:8} {told}")
            # The last source is log_mel.
            ok, told = check_pictures(args.wavemill, clip, rate, values, pathlib.Path(folder))
            failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {clip.parent.name or clip.stem:12} pictures {told}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
