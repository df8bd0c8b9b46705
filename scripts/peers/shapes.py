#!/usr/bin/env python3
"""Compare levels, onsets, rhythm, chroma, constant-Q transforms and the shape of spectra with librosa 0.11, at its defaults
and with drawn options.

usage: shapes.py [--wavemill PATH] CLIP.wav ...
needs: scripts/peers/setup.sh

Each case writes a recipe, runs `wavemill features CLIP --format npy` and compares every value with librosa's value for
the same samples. Prints one line per clip and operation with the largest error of all its cases; exit code 1 if any case
exceeds its bound.
"""
import math, random
import librosa
import numpy as np

from compare import Comparison, read_wav

FEATURE = '[[features]]\nname = "feature"\ndtype = "f32"\n'

# Cases with drawn options for each clip and operation.
DRAWN = 3
# Bounds, with the reason for each. librosa transforms in f64 and sums in f32.
BOUNDS = {
    "rms": (1e-5, "relative"),
    "zero_crossing_rate": (1e-6, "absolute"),
    "spectral_centroid": (1e-4, "relative"),
    "spectral_bandwidth": (1e-4, "relative"),
    "spectral_flatness": (5e-3, "relative"),  # bins at the noise of an f32 transform count like others
    "spectral_contrast": (0.2, "absolute"),  # valleys may be so low that they are partly this noise
    "onset_strength": (1e-3, "absolute"),
    "tempogram": (1e-4, "absolute"),
    "tempo": (1e-3, "absolute"),
    "beat_track": (0, "absolute"),
    "chroma_stft": (1e-3, "absolute"),
    # Resamplers differ in their transition bands, and leave noise in digital silence, whose chroma is not compared.
    "cqt": (1e-4, "of max"),
    "vqt": (1e-3, "of max"),
    "chroma_cqt": (2e-3, "loud"),
    "chroma_cens": (0.05, "loud"),  # an energy that almost reaches a step
    "tonnetz": (1e-3, "loud"),
    "spectral_rolloff": (1.01, "bins"),  # a sum that almost reaches the roll-off may do so one bin later
}

CONSTANT_Q = ("cqt", "vqt", "chroma_cqt", "chroma_cens", "tonnetz")


def drawn_constant_q(op, draw):
    """Return drawn options of a constant-Q transform."""
    bins_per_octave, octaves = draw.choice([12, 24, 36]), draw.choice([5, 6, 7])
    own = {
        "hop_length": draw.choice([256, 512, 640, 1000]),
        "fmin": draw.choice([32.703195662574829, 55.0, 41.5]),
        "bins_per_octave": bins_per_octave,
    }
    if op in ("cqt", "vqt"):
        own |= {"n_bins": octaves * bins_per_octave - draw.choice([0, 5]), "tuning": draw.choice([0.0, 0.3, -0.4])}
        own |= {"filter_scale": draw.choice([1.0, 0.7])}
        return own | ({"gamma": draw.choice([0.0, 8.0, 20.0])} if op == "vqt" else {})
    own |= {"n_octaves": octaves, "n_chroma": draw.choice([12, 6])} | draw.choice([{}, {"tuning": 0.2}])
    return own | ({"win_len_smooth": draw.choice([9, 20, 41])} if op == "chroma_cens" else {})


RHYTHM = ("tempogram", "tempo", "beat_track")


def drawn_rhythm(op, draw):
    """Return drawn options of a feature of the onset strength."""
    bpm = {"start_bpm": draw.choice([60.0, 120.0, 180.0])}
    own = {
        "tempogram": {"win_length": draw.choice([100, 161, 384])},
        "tempo": bpm | {"std_bpm": draw.choice([0.5, 1.0]), "max_tempo": draw.choice([200.0, 320.0])},
        "beat_track": bpm | {"tightness": draw.choice([20.0, 100.0]), "trim": draw.random() < 0.5},
    }
    return {"hop_length": draw.choice([256, 512, 700])} | own[op]


def drawn(op, draw):
    """Return drawn options of an operation, with librosa's names."""
    if op in CONSTANT_Q:
        return drawn_constant_q(op, draw)
    if op in RHYTHM:
        return drawn_rhythm(op, draw)
    frames = {"hop_length": draw.choice([160, 256, 441, 1024]), "center": draw.random() < 0.7}
    length = draw.choice([512, 1000, 1024, 2048, 4096])
    if op == "onset_strength":  # librosa's argument moves the result and not the frames
        frames["center"] = True
    if op in ("rms", "zero_crossing_rate"):
        return frames | {"frame_length": length}
    own = {
        "spectral_centroid": {},
        "spectral_bandwidth": {"p": draw.choice([1.0, 2.0, 2.5])},
        "spectral_flatness": {"power": draw.choice([1.0, 2.0]), "amin": draw.choice([1e-10, 1e-6])},
        "spectral_contrast": {
            "fmin": draw.choice([150.0, 200.0, 333.0]),
            "n_bands": draw.choice([3, 4, 5]),
            "quantile": draw.choice([0.02, 0.1, 0.3]),
            "linear": draw.random() < 0.3,
        },
        "onset_strength": {"lag": draw.choice([1, 2, 5]), "n_mels": draw.choice([40, 128])},
        "chroma_stft": draw.choice([{}, {"n_chroma": 24}, {"tuning": 0.13}, {"n_chroma": 12, "tuning": -0.4}]),
        "spectral_rolloff": {"roll_percent": draw.choice([0.1, 0.5, 0.85, 0.99])},
    }[op]
    window = {"n_fft": length, "window": draw.choice(["hann", "hamming", "blackman"])}
    # librosa reflects the last hop alone, so a hop beyond half a frame has other samples in its last frame.
    short = ["reflect"] if frames["hop_length"] <= length // 2 else []
    return frames | window | {"pad_mode": draw.choice(["constant", "edge"] + short)} | own


def toml(op, rate, options):
    if op == "tempo":
        hop_length = options.get("hop_length", 512)
        source = {"name": "tempogram", "hop_length": hop_length, "win_length": 8 * rate // hop_length}
        own = {key: x for key, x in options.items() if key != "hop_length"}
        return toml("", rate, {"op": "tempo", "source": "tempogram"} | own) + "\n[[features]]\n" + toml("tempogram", rate, source)

    def value(x):
        return f'"{x}"' if isinstance(x, str) else str(x).lower() if isinstance(x, bool) else repr(x)

    named = {"op": op} if op else {}
    return "\n".join(f"{key} = {value(x)}" for key, x in (named | options).items())


def peer(op, x, rate, options):
    if op == "beat_track":
        return librosa.beat.beat_track(y=x, sr=rate, sparse=False, **options)[1].astype(np.float32)
    modules = {"onset_strength": librosa.onset, "cqt": librosa, "vqt": librosa}
    function = getattr(modules.get(op, librosa.feature), op)
    rates = {} if op in ("rms", "zero_crossing_rate", "spectral_flatness") else {"sr": rate}
    return np.abs(function(y=x, **rates, **options)) if op in ("cqt", "vqt") else function(y=x, **rates, **options)


def loud(x, rate, n_frames):
    """Return 1 for frames that are more than 20 frames of 1000 samples from digital silence, and else 0."""
    magnitudes = np.abs(librosa.cqt(x, sr=rate)).max(axis=0)
    reach = 41 * 1000 // 512 + 1
    near = np.convolve(magnitudes <= 1e-6 * magnitudes.max(), np.ones(2 * reach + 1), mode="same") > 0.5
    return ~near[np.minimum(np.arange(n_frames) * len(near) // n_frames, len(near) - 1)]


def error_of(op, got, want, rate, options, x):
    if got.shape != want.shape:
        return math.nan
    distance = np.abs(got - want)
    kind = BOUNDS[op][1]
    if options.get("linear"):
        return distance.max() / want.max() * BOUNDS[op][0] / 1e-4
    if kind == "of max":
        return distance.max() / want.max()
    if kind == "loud":
        return (distance * loud(x, rate, want.shape[1])).max()
    if kind == "relative":
        return (distance / np.maximum(np.abs(want), 1e-30)).max()
    return distance.max() if kind == "absolute" else distance.max() / rate * options.get("n_fft", 2048)


def main():
    comparison = Comparison(__doc__)
    draw = random.Random(0)
    for clip in comparison.clips:
        x, rate = read_wav(clip)
        for op, (bound, kind) in BOUNDS.items():
            worst, of = 0.0, {}
            for options in [{}] + [drawn(op, draw) for _ in range(DRAWN)]:
                got = np.squeeze(comparison.feature(clip, rate, FEATURE + toml(op, rate, options), "feature"))
                error = error_of(op, np.atleast_2d(got), np.atleast_2d(peer(op, x, rate, options)), rate, options, x)
                if not error <= worst:
                    worst, of = error, options
            is_ok = worst <= bound
            comparison.line(is_ok, f"{clip.parent.name}/{clip.stem} {op:20} {worst:.1e} <= {bound:.0e} {kind}{'' if is_ok else f' {of}'}")
    comparison.end()


if __name__ == "__main__":
    main()
