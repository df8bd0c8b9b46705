#!/usr/bin/env python3
"""Compare wavemill's complete chain (decode, downmix, resample, log-mel) with librosa's (soundfile, soxr_hq) on MP3s.

usage: chain.py [--wavemill PATH] CLIP.mp3 ...
needs: scripts/peers/setup.sh

Compares log-mel (128 bands, ref 1, no floor) in dB, in cells within the top 60 dB of a clip and in bands below 9 kHz.
The first 4,608 samples and the last frames are excluded: decoders treat the cut ends of a clip in different ways.
Prints the largest difference of each clip; exit code 1 above 0.1 dB.
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
BOUND_DB = 0.1
TOP_DB = 60
LIMIT_HZ = 9000
EDGE_FRAMES = 10


def ours(wavemill, folder, clip):
    recipe, out = folder / "chain.toml", folder / "chain.npy"
    recipe.write_text(RECIPE)
    command = [wavemill, "features", clip, "--recipe", recipe, "--format", "npy", "--out", out]
    subprocess.run([str(word) for word in command], check=True)
    return np.load(out)[0]  # the only row


def theirs(clip):
    samples, rate = librosa.load(clip, sr=22050)  # soundfile, then soxr_hq
    return librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=2048, hop_length=512, n_mels=128)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--wavemill", default="target/debug/wavemill")
    parser.add_argument("clips", nargs="+")
    args = parser.parse_args()
    centres = librosa.mel_frequencies(n_mels=130, fmax=11025)[1:-1]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for clip in args.clips:
            a, b = ours(args.wavemill, pathlib.Path(folder), clip), theirs(clip)
            frames = min(a.shape[1], b.shape[1])
            assert abs(a.shape[1] - b.shape[1]) <= EDGE_FRAMES, f"{clip}: {a.shape[1]} frames instead of {b.shape[1]}"
            inner = slice(EDGE_FRAMES, frames - EDGE_FRAMES)
            a, b = (10 * np.log10(np.maximum(x[centres < LIMIT_HZ, inner], 1e-20)) for x in (a, b))
            difference = np.abs(a - b)[b > b.max() - TOP_DB]
            worst = np.maximum(worst, difference.max())  # keeps NaN
            print(f"{clip}: {difference.max():.4f} dB at most, mean {difference.mean():.5f}, {difference.size} cells")
    print(f"largest {worst:.4f} dB, bound {BOUND_DB}")
    sys.exit(int(not worst <= BOUND_DB))


if __name__ == "__main__":
    main()
