#!/usr/bin/env python3
"""Compare wavemill's complete chain (decode, downmix, resample, log-mel) with librosa's (soundfile, soxr_hq) on MP3s.

usage: chain.py [--wavemill PATH] CLIP.mp3 ...
needs: scripts/peers/setup.sh

Compares log-mel (128 bands, ref 1, no floor) in dB, in cells within the top 60 dB of a clip. The bands that reach beyond
0.9 of the Nyquist frequency have a bound of their own: there the filters of both resamplers end, each with its own slope.
The first 4,608 samples and the last frames are excluded: decoders treat the cut ends of a clip in different ways.
Prints the largest differences of each clip; exit code 1 above a bound.
"""
import argparse, pathlib, subprocess, sys, tempfile
import librosa
import numpy as np

RECIPE = """
name = "chain"
[catalog]
dataset = "folders"
[audio]
sample_rate_hz = 22050
min_duration_s = 0.1
[[features]]
name = "mel"
op = "mel"
dtype = "f32"
"""
RATE_HZ = 22050
BOUND_DB = 0.1
NYQUIST_BOUND_DB = 0.3
NEAR_NYQUIST_HZ = 0.9 * RATE_HZ / 2
TOP_DB = 60
EDGE_FRAMES = 10


def ours(wavemill, folder, clip):
    recipe, out = folder / "chain.toml", folder / "chain.npy"
    recipe.write_text(RECIPE)
    command = [wavemill, "features", clip, "--recipe", recipe, "--format", "npy", "--out", out]
    subprocess.run([str(word) for word in command], check=True)
    return np.load(out)[0]  # the only row


def theirs(clip):
    samples, rate = librosa.load(clip, sr=RATE_HZ)  # soundfile, then soxr_hq
    return librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=2048, hop_length=512, n_mels=128)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wavemill", default="target/debug/wavemill")
    parser.add_argument("clips", nargs="+")
    args = parser.parse_args()
    is_near = librosa.mel_frequencies(n_mels=130, fmax=RATE_HZ / 2)[2:] > NEAR_NYQUIST_HZ
    worst = np.zeros(2)
    with tempfile.TemporaryDirectory() as folder:
        for clip in args.clips:
            a, b = ours(args.wavemill, pathlib.Path(folder), clip), theirs(clip)
            frames = min(a.shape[1], b.shape[1])
            assert abs(a.shape[1] - b.shape[1]) <= EDGE_FRAMES, f"{clip}: {a.shape[1]} frames instead of {b.shape[1]}"
            inner = slice(EDGE_FRAMES, frames - EDGE_FRAMES)
            a, b = (10 * np.log10(np.maximum(x[:, inner], 1e-20)) for x in (a, b))
            is_compared = b > b.max() - TOP_DB
            parts = [np.abs(a - b)[bands][is_compared[bands]] for bands in (~is_near, is_near)]
            largest = np.array([part.max(initial=0.0) for part in parts])
            worst = np.maximum(worst, largest)  # keeps NaN
            print(
                f"{clip}: {largest[0]:.4f} dB at most, mean {parts[0].mean():.5f}, {parts[0].size} cells; "
                f"near Nyquist {largest[1]:.4f} dB, {parts[1].size} cells"
            )
    print(f"largest {worst[0]:.4f} dB, bound {BOUND_DB}; near Nyquist {worst[1]:.4f} dB, bound {NYQUIST_BOUND_DB}")
    sys.exit(int(not (worst <= [BOUND_DB, NYQUIST_BOUND_DB]).all()))


if __name__ == "__main__":
    main()
