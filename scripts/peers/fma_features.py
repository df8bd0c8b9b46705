#!/usr/bin/env python3
"""Compare a features.csv of wavemill with FMA's own statistics, computed by librosa 0.11 from the same clips.

usage: fma_features.py FEATURES.csv SAMPLES
needs: scripts/peers/setup.sh

FEATURES.csv is written by `wavemill export --format fma-features` from a store of the recipe fma-features, to which a
feature with op = "pcm" and dtype = "f32" was added; SAMPLES is the folder that `wavemill export --format npy` makes of
this feature. So both compute from the same samples, and decoders are not compared. The statistics
are those of FMA's features.py with librosa's new names and the true sample rate; `chroma_cqt` and `chroma_cens` are given
`bins_per_octave=12`, which was the default when FMA ran it. Prints one line per feature with the largest error of a mean,
median, deviation, minimum or maximum, relative to the range of the band, and the largest error of skew and kurtosis,
relative to 1 or to the value. Exit code 1 if an error exceeds its bound.
"""
import csv, pathlib, sys, warnings
import librosa
import numpy as np

from compare import MOMENTS, STATISTICS, moment_scale

warnings.simplefilter("ignore")

# Bounds of both errors.
BOUNDS = {
    "chroma_cens": (0.02, 0.05),  # an energy that almost reaches a step
    "chroma_cqt": (1e-3, 2e-3),  # the resampler's transition band
    "chroma_stft": (1e-4, 1e-4),
    "mfcc": (1e-4, 1e-4),
    "rmse": (1e-5, 1e-5),
    "spectral_bandwidth": (1e-3, 1e-3),
    "spectral_centroid": (1e-4, 1e-3),
    "spectral_contrast": (0.02, 0.05),  # valleys in the noise of an f32 transform
    "spectral_rolloff": (1e-3, 1e-2),  # a sum that almost reaches the roll-off
    "tonnetz": (0.02, 0.05),
    "zcr": (1e-5, 1e-5),
}
# Features of noise in digital silence, which a resampler leaves.
OF_CONSTANT_Q = ("chroma_cens", "chroma_cqt", "tonnetz")
HOP = 512
RATE = 44100


def features(x, sr):
    """Return the eleven features of FMA's features.py, each of shape (bands, frames)."""
    f = librosa.feature
    cqt = np.abs(librosa.cqt(x, sr=sr, hop_length=HOP, bins_per_octave=12, n_bins=84, tuning=None))
    S = np.abs(librosa.stft(x, n_fft=2048, hop_length=HOP))
    cens = f.chroma_cens(C=cqt, n_chroma=12, n_octaves=7, bins_per_octave=12)
    mel = f.melspectrogram(sr=sr, S=S**2)
    return {
        "chroma_cens": cens,
        "chroma_cqt": f.chroma_cqt(C=cqt, n_chroma=12, n_octaves=7, bins_per_octave=12),
        "chroma_stft": f.chroma_stft(S=S**2, sr=sr, n_chroma=12),
        "mfcc": f.mfcc(S=librosa.power_to_db(mel), n_mfcc=20),
        "rmse": f.rms(S=S),
        "spectral_bandwidth": f.spectral_bandwidth(S=S, sr=sr),
        "spectral_centroid": f.spectral_centroid(S=S, sr=sr),
        "spectral_contrast": f.spectral_contrast(S=S, sr=sr, n_bands=6),
        "spectral_rolloff": f.spectral_rolloff(S=S, sr=sr),
        "tonnetz": f.tonnetz(chroma=cens),
        "zcr": f.zero_crossing_rate(x, frame_length=2048, hop_length=HOP),
    }


def read(path):
    """Return the columns as (feature, statistic, number), and the values of each track."""
    with open(path, newline="") as file:
        lines = list(csv.reader(file))
    headings = [line[0] for line in lines[:4]]
    assert headings == ["feature", "statistics", "number", "track_id"], headings
    columns = list(zip(*(line[1:] for line in lines[:3])))
    assert len(columns) == 518 and columns == sorted(columns), f"{len(columns)} columns"
    return columns, {int(line[0]): np.array(line[1:], dtype=float) for line in lines[4:]}


def samples(folder):
    """Yield the samples of each track."""
    for table in folder.glob("*.csv"):
        with open(table, newline="") as file:
            for row in csv.DictReader(file):
                yield int(row["track_id"]), np.load(folder / row["file"]).reshape(-1)


def compare(table, folder):
    columns, rows = read(table)
    worst = {feature: [0.0, 0.0] for feature in BOUNDS}
    n_clips, n_silent = 0, 0
    for track, x in samples(folder):
        computed = features(x, RATE)
        loudest = np.abs(librosa.cqt(x, sr=RATE, hop_length=HOP)).max(axis=0)
        is_silent = loudest.min() <= 1e-6 * loudest.max()
        n_clips += 1
        n_silent += is_silent
        got = dict(zip(columns, rows[track]))
        for feature, frames in computed.items():
            if is_silent and feature in OF_CONSTANT_Q:
                continue
            band_range = np.maximum(np.ptp(frames, axis=1), 1e-9)
            for statistic, compute in STATISTICS.items():
                wanted = compute(frames.astype(np.float64))
                is_moment = statistic in MOMENTS
                scale = moment_scale(wanted) if is_moment else band_range
                ours = np.array([got[feature, statistic, f"{n + 1:02d}"] for n in range(len(wanted))])
                error = np.nanmax(np.abs(ours - wanted) / scale)
                worst[feature][is_moment] = max(worst[feature][is_moment], error)

    failed = n_clips == 0
    print(
        f"{n_clips} clips, {n_silent} of them with digital silence, whose chroma of the constant-Q transform are not "
        "compared"
    )
    for feature, (error, of_moments) in worst.items():
        bound, moments = BOUNDS[feature]
        ok = error <= bound and of_moments <= moments
        failed |= not ok
        print(
            f"{'ok  ' if ok else 'FAIL'} {feature:20} {error:.1e} <= {bound:.0e} of the range, "
            f"skew and kurtosis {of_moments:.1e} <= {moments:.0e}"
        )
    sys.exit(1 if failed else 0)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    compare(*map(pathlib.Path, sys.argv[1:]))


if __name__ == "__main__":
    main()
