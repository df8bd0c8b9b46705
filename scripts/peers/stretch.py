#!/usr/bin/env python3
"""Compare wavemill's time stretch with librosa's on clips of 16-bit mono at 22,050 Hz.

usage: stretch.py [--wavemill PATH] CLIP.wav ...        whole runs: PCM to log-mel
       stretch.py --columns FOLDER CLIP.wav ...         writes reference values for kernels/kernels/tests/stretch.rs
needs: scripts/peers/setup.sh

Whole runs: `wavemill extract` with `stretch = [0.85, 1.15]`, against librosa.effects.time_stretch, melspectrogram and
power_to_db (ref max, top_db 80). Prints one line for each clip and factor; exit code 1 above 0.1 dB (99th percentile) or
0.01 dB (mean).

--columns: for a clip `NAME/….wav`, `NAME.c64` contains librosa's STFT in complex64, and `NAME-RATE.c64` contains the output
of its phase vocoder for this STFT, column by column.
"""
import pathlib
import librosa
import numpy as np
import pyarrow.parquet as pq

from compare import RECIPE, Comparison, read_wav

RATES = [0.85, 1.15]
P99_DB = 0.1
MEAN_DB = 0.01
RECIPE_OF_STRETCH = """stretch = [0.85, 1.15]
[split]
rule = "stratified"
fractions = [1.0, 0.0, 0.0]
[[features]]
name = "log_mel"
op = "mel"
db = { ref = "max", top_db = 80.0 }
dtype = "f32"
"""


def ours(comparison, clip):
    """Returns the log-mel of a clip, by stored factor."""
    folder = comparison.folder / clip.parent.name
    (folder / "audio/genre").mkdir(parents=True)
    (folder / "audio/genre/clip.wav").write_bytes(clip.read_bytes())
    (folder / "recipe.toml").write_text(RECIPE.format(rate=22050, features=RECIPE_OF_STRETCH))
    comparison.run("extract", "--recipe", folder / "recipe.toml", "--audio", folder / "audio", "--store", folder / "store",
                   "--backend", "cpu", "--quiet")
    rows = {}
    for path in (folder / "store").glob("data/*/features/log_mel/split=training/*.parquet"):
        for row in pq.ParquetFile(path).read().to_pylist():
            values = np.frombuffer(row["log_mel"], "<f4").reshape(row["log_mel_shape"])
            rows[round(row["variant"], 6)] = values
    return rows


def samples_of(clip):
    samples, rate = read_wav(clip)
    assert rate == 22050, f"{clip}: {rate} Hz"
    return samples


def log_mel(samples):
    mel = librosa.feature.melspectrogram(y=samples, sr=22050, n_fft=2048, hop_length=512, n_mels=128)
    return librosa.power_to_db(mel, ref=np.max, top_db=80.0)


def compare(comparison, clip):
    samples, rows = samples_of(clip), ours(comparison, clip)
    for rate in RATES:
        got, want = rows[rate], log_mel(librosa.effects.time_stretch(samples, rate=rate))
        name = f"{clip.parent.name} {rate}"
        if got.shape != want.shape:
            comparison.line(False, f"{name}: {got.shape} instead of {want.shape}")
            continue
        difference = np.abs(got - want)
        p99, mean = np.quantile(difference, 0.99), difference.mean()
        comparison.line(
            p99 <= P99_DB and mean <= MEAN_DB,
            f"{name:16} {want.shape[1]:5} frames  p99 {p99:.5f} <= {P99_DB} dB, mean {mean:.6f} <= {MEAN_DB} dB, "
            f"maximum {difference.max():.4f} dB",
        )


def write_columns(folder, clip):
    name = clip.parent.name
    columns = librosa.stft(samples_of(clip))
    arrays = {name: columns}
    for rate in RATES:
        arrays[f"{name}-{rate}"] = librosa.phase_vocoder(columns, rate=rate)

    for name, array in arrays.items():
        assert array.dtype == np.complex64
        np.ascontiguousarray(array.T).tofile(folder / f"{name}.c64")


def add_columns(parser):
    parser.add_argument("--columns", type=pathlib.Path, metavar="FOLDER", help="output folder for columns")


def main():
    comparison = Comparison(__doc__, add_columns)
    for clip in comparison.clips:
        if comparison.options.columns:
            write_columns(comparison.options.columns, clip)
        else:
            compare(comparison, clip)
    comparison.end()


if __name__ == "__main__":
    main()
