#!/usr/bin/env python3
"""Compare wavemill's presets with the tools they are named after.

usage: presets.py [--wavemill PATH] [CLIP.wav ...]
needs: scripts/peers/setup.sh

Each case writes a recipe, runs `wavemill features CLIP --format npy` and compares every value with the peer's value for
the same samples. Without a clip a synthetic one is used: five seconds at 16 kHz of a gliding voice-like tone in noise.
Prints one line per case; exit code 1 if any case exceeds its bound.
"""
import math, wave
import kaldi_native_fbank as knf
import librosa
import numpy as np

from compare import Comparison, read_wav

FEATURE = '[[features]]\nname = "feature"\ndtype = "f32"\n'

# Bounds, with the reason for each: all programs compute in f32, with different transforms and filter banks.
LN = 5e-4  # Kaldi's natural logarithm; its filter weights are f32 differences of f32 mels
MFCC = 5e-3  # a liftered sum over bands of the above
WHISPER = 2e-5  # decibels over 40


def synthetic(path, rate=16000, seconds=5):
    """Write a voice-like glide with harmonics, noise and a pause as a 16-bit WAV."""
    t = np.arange(rate * seconds) / rate
    phase = 2 * np.pi * np.cumsum(120 + 60 * np.sin(2 * np.pi * 0.7 * t)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    noise = np.random.default_rng(0).standard_normal(t.size)
    x = (0.2 * voice + 0.02 * noise) * (0.05 + np.clip(np.sin(2 * np.pi * 0.4 * t), 0, 1))
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(rate)
        out.writeframes(np.clip(np.round(x * 32767), -32768, 32767).astype("<i2").tobytes())


def kaldi(kind, rate, n_mels=23, **options):
    """Return Kaldi's features, computed by kaldi-native-fbank, with frames as columns."""
    opts = knf.FbankOptions() if kind is knf.OnlineFbank else knf.MfccOptions()
    opts.frame_opts.samp_freq = rate
    opts.frame_opts.dither = 0
    opts.frame_opts.snip_edges = True
    opts.mel_opts.num_bins = n_mels
    opts.use_energy = False
    for key, value in options.items():
        setattr(opts, key, value)

    def run(x):
        online = kind(opts)
        online.accept_waveform(rate, (x * 32768).tolist())
        online.input_finished()
        return np.stack([online.get_frame(i) for i in range(online.num_frames_ready)]).T

    return run


def whisper(n_mels):
    """Return log_mel_spectrogram(pad_or_trim(x)) of openai/whisper's audio.py, in numpy with librosa's filter bank."""
    filters = librosa.filters.mel(sr=16000, n_fft=400, n_mels=n_mels)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)

    def run(x):
        audio = np.pad(x[:480000], (0, max(0, 480000 - x.size)))
        padded = np.pad(audio, 200, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
        power = np.abs(np.fft.rfft(frames * window)[:-1].T) ** 2
        log_spec = np.log10(np.maximum(filters @ power, 1e-10))
        log_spec = np.maximum(log_spec, log_spec.max() - 8.0)
        return (log_spec + 4.0) / 4.0

    return run


def cases(rate):
    """Return (name, TOML of the feature, peer, bound) of each case."""
    yield "kaldi fbank 23", 'op = "mel"\npreset = "kaldi"', kaldi(knf.OnlineFbank, rate), LN
    yield "kaldi fbank 80", 'op = "mel"\npreset = "kaldi"\nn_mels = 80', kaldi(knf.OnlineFbank, rate, 80), LN
    yield "kaldi mfcc", 'op = "mfcc"\npreset = "kaldi"', kaldi(knf.OnlineMfcc, rate), MFCC
    if rate == 16000:
        for n_mels in (80, 128):
            feature = f'op = "mel"\npreset = "whisper"\nn_mels = {n_mels}'
            yield f"whisper {n_mels}", feature, whisper(n_mels), WHISPER


def main():
    comparison = Comparison(__doc__, n_clips="*")
    if not comparison.clips:
        comparison.clips = [comparison.folder / "synthetic.wav"]
        synthetic(comparison.clips[0])
    for clip in comparison.clips:
        x, rate = read_wav(clip)
        for name, feature, peer, bound in cases(rate):
            got, want = np.squeeze(comparison.feature(clip, rate, FEATURE + feature, "feature")), peer(x)
            same = got.shape == want.shape
            error = np.abs(got - want).max() if same else math.nan
            shapes = "x".join(map(str, want.shape)) if same else f"{got.shape} instead of {want.shape}"
            comparison.line(same and error <= bound, f"{clip.stem:16} {name:26} {shapes:>10}  {error:.1e} <= {bound:.0e}")
    comparison.end()


if __name__ == "__main__":
    main()
