#!/usr/bin/env python3
"""Compare derived features with librosa, scipy and matplotlib's colour maps.

usage: derived.py [--wavemill PATH] CLIP.wav ...
needs: scripts/peers/setup.sh; pictures are compared with matplotlib's own tables if it is installed

Statistics of 20 MFCC and of log-mel are compared with those of librosa's values, computed by numpy and scipy.stats from the
same 16-bit samples. Prints one line per clip and feature; exit code 1 if any difference exceeds its bound.
"""
import warnings
import librosa
import numpy as np

from compare import MOMENTS, STATISTICS, Comparison, moment_scale, read_wav

FEATURES = """
[[features]]
name = "mfcc"
op = "mfcc"
[[features]]
name = "log_mel"
op = "mel"
db = { ref = "max", amin = 1e-10, top_db = 80.0 }
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

# The bounds are limited by the source values, which differ by up to 4e-4 (docs/features.md).
BOUNDS = {"mean": 1e-3, "median": 1e-3, "std": 1e-3, "min": 1e-2, "max": 1e-2, "skew": 1e-3, "kurtosis": 1e-3}

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


def theirs(x, rate):
    """Return the values of each source in f64, so that sums add no rounding error of f32."""
    mel = librosa.feature.melspectrogram(y=x, sr=rate)
    yield "mfcc", librosa.feature.mfcc(y=x, sr=rate).astype(np.float64)
    yield "log_mel", librosa.power_to_db(mel, ref=np.max, top_db=80.0).astype(np.float64)


def statistic_error(name, got, values):
    """Return the largest difference of a statistic over the bands."""
    want = STATISTICS[name](values)
    if name not in MOMENTS:
        return np.abs(got - want).max()
    # If a band is constant, scipy returns NaN, and wavemill 0.
    want = np.where(np.ptp(values, axis=1) == 0, 0, want)
    return (np.abs(got - want) / moment_scale(want)).max()


def check_pictures(ours, log_mel):
    """Check positions and colours of pixels against values and tables. Return (success, description)."""
    share = (log_mel - log_mel.min()) / (log_mel.max() - log_mel.min())
    # Low bands are at the bottom, as with `imshow(origin="lower")`; 256 intervals of equal width, as in
    # matplotlib's `Colormap`.
    index = np.minimum((share[::-1] * 256).astype(int), 255)
    grey = ours("grey")
    off = np.abs(grey.astype(int) - index)
    ok = grey.shape == (3, *index.shape) and off.max() <= GREY_OFF and np.mean(off > 0) <= GREY_OFF_SHARE

    told = [f"index off by {off.max()} in {np.mean(off > 0):.1e}"]
    for name, table in colour_maps().items():
        picture = ours(name)
        errors = [0.0]
        for entry, colour in table.items():
            pixels = picture[:, grey[0] == entry]
            errors.append(np.abs(pixels - np.array(colour)[:, None]).max(initial=0))
        ok &= max(errors) <= COLOUR
        told.append(f"{name} {max(errors):.1e} over {len(table)} colours")
    return ok, ", ".join(told)


def main():
    comparison = Comparison(__doc__)
    warnings.filterwarnings("ignore", message="Precision loss occurred")  # for bands with constant values
    for clip in comparison.clips:
        x, rate = read_wav(clip)
        ours = lambda feature: comparison.feature(clip, rate, FEATURES, feature)
        for source, values in theirs(x, rate):
            got = ours(f"{source}_statistics")
            assert got.shape == (len(STATISTICS), len(values)), got.shape
            worst = {name: statistic_error(name, row, values) for row, name in zip(got, STATISTICS)}
            told = " ".join(f"{name} {error:.1e}" for name, error in worst.items())
            is_ok = all(error <= BOUNDS[name] for name, error in worst.items())
            comparison.line(is_ok, f"{clip.parent.name or clip.stem:12} {source:8} {told}")
        # The last source is log_mel.
        is_ok, told = check_pictures(ours, values)
        comparison.line(is_ok, f"{clip.parent.name or clip.stem:12} pictures {told}")
    comparison.end()


if __name__ == "__main__":
    main()
