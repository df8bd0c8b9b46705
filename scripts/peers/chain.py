#!/usr/bin/env python3
"""Compare wavemill's complete chain (decode, downmix, resample, log-mel) with librosa's (soundfile, soxr_hq) on MP3s.

usage: chain.py [--wavemill PATH] CLIP.mp3 ...
needs: scripts/peers/setup.sh

Compares log-mel (128 bands, ref 1, no floor) in dB, in cells within the top 60 dB of a clip. The bands that reach beyond
0.9 of the Nyquist frequency have a bound of their own: there the filters of both resamplers end, each with its own slope.
The first 4,608 samples and the last frames are excluded: decoders treat the cut ends of a clip in different ways.
Prints the largest differences of each clip; exit code 1 above a bound.
"""
import librosa
import numpy as np

from compare import Comparison

FEATURE = '[[features]]\nname = "mel"\nop = "mel"\ndtype = "f32"'
RATE_HZ = 22050
BOUND_DB = 0.1
NYQUIST_BOUND_DB = 0.3
NEAR_NYQUIST_HZ = 0.9 * RATE_HZ / 2
TOP_DB = 60
EDGE_FRAMES = 10


def theirs(clip):
    samples, rate = librosa.load(clip, sr=RATE_HZ)  # soundfile, then soxr_hq
    return librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=2048, hop_length=512, n_mels=128)


def main():
    comparison = Comparison(__doc__)
    is_near = librosa.mel_frequencies(n_mels=130, fmax=RATE_HZ / 2)[2:] > NEAR_NYQUIST_HZ
    for clip in comparison.clips:
        a, b = comparison.feature(clip, RATE_HZ, FEATURE, "mel"), theirs(clip)
        frames = min(a.shape[1], b.shape[1])
        assert abs(a.shape[1] - b.shape[1]) <= EDGE_FRAMES, f"{clip}: {a.shape[1]} frames instead of {b.shape[1]}"
        inner = slice(EDGE_FRAMES, frames - EDGE_FRAMES)
        a, b = (10 * np.log10(np.maximum(x[:, inner], 1e-20)) for x in (a, b))
        is_compared = b > b.max() - TOP_DB
        parts = [np.abs(a - b)[bands][is_compared[bands]] for bands in (~is_near, is_near)]
        largest, nyquist = (part.max(initial=0.0) for part in parts)
        comparison.line(
            largest <= BOUND_DB and nyquist <= NYQUIST_BOUND_DB,
            f"{clip}: {largest:.4f} dB at most, mean {parts[0].mean():.5f}, {parts[0].size} cells; "
            f"near Nyquist {nyquist:.4f} dB, {parts[1].size} cells",
        )
    comparison.end()


if __name__ == "__main__":
    main()
