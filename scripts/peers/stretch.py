#!/usr/bin/env python3
"""Compare wavemill's time stretch with librosa's on clips of 16-bit mono at 22,050 Hz.

usage: stretch.py [--wavemill PATH] CLIP.wav ...        whole runs: PCM to log-mel
       stretch.py --columns FOLDER CLIP.wav ...         writes reference values for kernels/tests/stretch.rs
needs: scripts/peers/setup.sh

Whole runs: `wavemill extract` with `stretch = [0.85, 1.15]`, against librosa.effects.time_stretch, melspectrogram and
power_to_db (ref max, top_db 80). Prints one line for each clip and factor; exit code 1 above 0.1 dB (99th percentile) or
0.01 dB (mean). The line also shows the difference of librosa's own vocoder on an f32 STFT, which shows how much the result
depends on rounding.

--columns: for a clip `NAME/….wav`, `NAME.c64` contains librosa's STFT in complex64, and `NAME-RATE.c64` contains the output
of its phase vocoder for this STFT, column by column.
"""
import argparse, pathlib, subprocess, sys, tempfile, wave
import librosa
import numpy as np
import pyarrow.parquet as pq
import scipy.fft

RATES = [0.85, 1.15]
P99_DB = 0.1
MEAN_DB = 0.01
RECIPE = """
name = "stretch"
[catalog]
dataset = "folders"
[split]
rule = "stratified"
fractions = [1.0, 0.0, 0.0]
[audio]
sample_rate_hz = 22050
min_duration_s = 0.1
stretch = [0.85, 1.15]
[[features]]
name = "log_mel"
op = "mel"
db = { ref = "max", top_db = 80.0 }
dtype = "f32"
"""


def read_wav(path):
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 22050), f"{path}: different samples"
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.astype(np.float32) / np.float32(32768)


def ours(wavemill, clip, folder):
    """Returns the log-mel of the only clip, by stored factor."""
    (folder / "audio" / "genre").mkdir(parents=True)
    (folder / "audio" / "genre" / "clip.wav").write_bytes(pathlib.Path(clip).read_bytes())
    (folder / "recipe.toml").write_text(RECIPE)
    command = [wavemill, "extract", "--recipe", folder / "recipe.toml", "--audio", folder / "audio"]
    command += ["--store", folder / "store", "--backend", "cpu", "--quiet"]
    subprocess.run([str(word) for word in command], check=True)
    rows = {}
    for path in (folder / "store").glob("data/*/features/log_mel/split=training/*.parquet"):
        for row in pq.ParquetFile(path).read().to_pylist():
            values = np.frombuffer(row["log_mel"], "<f4").reshape(row["log_mel_shape"])
            rows[round(row["variant"], 6)] = values
    return rows


def log_mel(samples):
    mel = librosa.feature.melspectrogram(y=samples, sr=22050, n_fft=2048, hop_length=512, n_mels=128)
    return librosa.power_to_db(mel, ref=np.max, top_db=80.0)


def stretched_in_f32(samples, rate):
    """Returns the result of librosa's chain with its first transform in single precision."""
    window = librosa.filters.get_window("hann", 2048).astype(np.float32)
    padded = np.pad(samples, 1024)
    frames = librosa.util.frame(padded, frame_length=2048, hop_length=512)
    columns = scipy.fft.rfft(window[:, None] * frames, axis=0)
    assert columns.dtype == np.complex64
    vocoded = librosa.phase_vocoder(columns, rate=rate, hop_length=512)
    return librosa.istft(vocoded, dtype=np.float32, length=int(round(samples.size / rate)))


def differences(a, b):
    difference = np.abs(a - b)
    return difference.max(), np.quantile(difference, 0.99), difference.mean()


def compare(wavemill, clips):
    failed = 0
    for clip in clips:
        samples = read_wav(clip)
        with tempfile.TemporaryDirectory() as folder:
            rows = ours(wavemill, clip, pathlib.Path(folder))
        for rate in RATES:
            want = log_mel(librosa.effects.time_stretch(samples, rate=rate))
            got = rows[rate]
            name = f"{pathlib.Path(clip).parent.name} {rate}"
            if got.shape != want.shape:
                print(f"FAIL {name}: {got.shape} instead of {want.shape}")
                failed += 1
                continue
            most, p99, mean = differences(got, want)
            of_f32 = differences(log_mel(stretched_in_f32(samples, rate)), want)
            ok = p99 <= P99_DB and mean <= MEAN_DB
            failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {name:16} {want.shape[1]:5} frames  p99 {p99:.5f} <= {P99_DB} dB, "
                  f"mean {mean:.6f} <= {MEAN_DB} dB, maximum {most:.4f} dB; librosa on an f32 STFT: "
                  f"p99 {of_f32[1]:.5f}, mean {of_f32[2]:.6f} dB")
    return failed


def write_columns(folder, clip):
    name = pathlib.Path(clip).parent.name
    columns = librosa.stft(read_wav(clip))
    arrays = {name: columns}
    for rate in RATES:
        arrays[f"{name}-{rate}"] = librosa.phase_vocoder(columns, rate=rate)

    for name, array in arrays.items():
        assert array.dtype == np.complex64
        np.ascontiguousarray(array.T).tofile(folder / f"{name}.c64")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wavemill", default="target/debug/wavemill", help="path of wavemill (default: %(default)s)")
    parser.add_argument("--columns", type=pathlib.Path, metavar="FOLDER", help="output folder for columns")
    parser.add_argument("clips", nargs="+", metavar="CLIP")
    args = parser.parse_args()
    if args.columns:
        for clip in args.clips:
            write_columns(args.columns, clip)
        return
    sys.exit(1 if compare(args.wavemill, args.clips) else 0)


if __name__ == "__main__":
    main()
