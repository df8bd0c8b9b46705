"""Features beside librosa's: the reference arrays, and drawn arguments."""

from __future__ import annotations

import json
import unittest
import wave
from pathlib import Path
from typing import Any

import numpy as np

import wavemill as wm
from support import data

try:
    import librosa
except ImportError:  # the reference arrays need no librosa
    librosa = None

CLIPS = ["fma000002", "fma000256", "like201003", "like211500", "hungarian", "like299998"]

# The bounds of kernels/kernels/tests/librosa.rs.
STFT_OF_MAX = 1e-6
MEL_REL_MAX = 1e-4
MEL_POWER_FROM = 1e-7
MEL_MAGNITUDE_FROM = 1e-4
DB_MAX = 1e-3
MFCC_MAX = 1e-3
BIN_HZ = 22050 / 2048 * 1.001

#: Function, arguments and bound of each reference array of a level or of the shape of spectra, and whether the bound is a
#: fraction of the largest value.
SHAPES: dict[str, tuple[str, dict[str, Any], float, bool]] = {
    "rms": ("rms", {}, 2e-5, True),
    "rms_center_false": ("rms", {"center": False}, 2e-5, True),
    "zcr": ("zero_crossing_rate", {}, 1e-7, False),
    "spectral_centroid": ("spectral_centroid", {}, 2e-5, True),
    "spectral_bandwidth": ("spectral_bandwidth", {}, 2e-5, True),
    "spectral_contrast": ("spectral_contrast", {}, 0.06, False),
    "chroma_stft_default": ("chroma_stft", {}, 1e-4, False),
    "chroma_stft_tuning0": ("chroma_stft", {"tuning": 0.0}, 1e-4, False),
    "chroma_cqt": ("chroma_cqt", {}, 3e-4, False),
    "chroma_cens": ("chroma_cens", {}, 0.02, False),
    "tonnetz_default": ("tonnetz", {}, 3e-4, False),
    "onset_strength": ("onset_strength", {}, 1e-3, False),
    "spectral_flatness": ("spectral_flatness", {}, 1e-3, True),
    "spectral_rolloff": ("spectral_rolloff", {}, BIN_HZ, False),
    "spectral_rolloff_95": ("spectral_rolloff", {"roll_percent": 0.95}, BIN_HZ, False),
}


#: Functions whose values in digital silence are those of the noise of a resampler.
OF_CONSTANT_Q = {"chroma_cqt", "chroma_cens", "tonnetz"}


def near_silence(x: np.ndarray) -> np.ndarray:
    """Return which frames are at most 20 frames from one whose constant-Q transform is silent."""
    magnitudes = wm.feature.cqt(y=x).max(axis=0)
    silent = magnitudes <= 1e-6 * magnitudes.max()
    return np.convolve(silent, np.ones(41), mode="same") > 0.5


def read_wav(path: Path) -> np.ndarray:
    """Return the samples of an s16 file as librosa's reference took them."""
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    return samples.astype(np.float32) / np.float32(32768)


class Bounds(unittest.TestCase):
    def assert_absolute(self, name: str, got: np.ndarray, want: np.ndarray, bound: float) -> None:
        self.assertEqual(got.shape, want.shape, name)
        worst = np.abs(got.astype(np.float64) - want).max(initial=0.0)
        self.assertLessEqual(worst, bound, name)

    def assert_relative(self, name: str, got: np.ndarray, want: np.ndarray, power: float) -> None:
        """Compare values above a fraction of the largest; smaller ones are noise of float32."""
        self.assertEqual(got.shape, want.shape, name)
        above = (MEL_POWER_FROM if power == 2.0 else MEL_MAGNITUDE_FROM) * want.max(initial=0.0)
        compared = want > above
        worst = (np.abs(got.astype(np.float64) - want)[compared] / want[compared]).max(initial=0.0)
        self.assertLessEqual(worst, MEL_REL_MAX, name)


class Reference(Bounds):
    """Every array of the reference that has a function here."""

    def compare(self, name: str, x: np.ndarray, kwargs: dict[str, Any], want: np.ndarray) -> bool:
        mel = wm.feature.melspectrogram
        if name.startswith("mel_"):
            self.assert_relative(name, mel(y=x, **kwargs), want, kwargs.get("power", 2.0))
        elif name.startswith("stft_abs_first24"):
            pad_mode = "reflect" if name.endswith("reflect") else "constant"
            got = np.abs(wm.stft(x, pad_mode=pad_mode))[:, :24]
            self.assert_absolute(name, got, want, STFT_OF_MAX * want.max())
        elif name == "ampdb_power1_refmax_top80":
            self.assert_absolute(name, wm.amplitude_to_db(mel(y=x, power=1.0), ref=np.max), want, DB_MAX)
        elif "db_" in name:
            ref = np.max if "refmax" in name else 1.0
            top_db = None if "topnone" in name else 80.0
            # Without a limit of the range, the noise of float32 is visible.
            samples = x.astype(np.float64) if top_db is None else x
            self.assert_absolute(name, wm.power_to_db(mel(y=samples), ref=ref, top_db=top_db), want, DB_MAX)
        elif "mfcc" in name:
            changed = {"mfcc13_lifter22": {"n_mfcc": 13, "lifter": 22}}
            changed["mfcc20_htk_reflect"] = {"htk": True, "pad_mode": "reflect"}
            got = wm.feature.mfcc(y=x, **changed.get(name, {}))
            if "delta" in name:
                got = wm.feature.delta(got, order=2 if name.endswith("2") else 1)
            self.assert_absolute(name, got, want, MFCC_MAX)
        elif name in SHAPES:
            function, kwargs, bound, is_relative = SHAPES[name]
            got = getattr(wm.feature, function)(y=x, **kwargs)
            if function in OF_CONSTANT_Q:
                got, want = (values * ~near_silence(x) for values in (got, want))
            self.assert_absolute(name, got, want, bound * (want.max() if is_relative else 1))
        else:
            return False
        return True

    def test_reference_arrays(self) -> None:
        root = data("librosa_ref")
        manifest = json.loads((root / "manifest.json").read_text())
        for clip in CLIPS:
            y = read_wav(root / clip / "input_22k_mono.wav")
            start, stop = manifest[clip]["excerpt"]
            compared = 0
            for name, entry in manifest[clip]["arrays"].items():
                x = y if name.startswith("full_") else y[start:stop]
                with self.subTest(clip=clip, array=name):
                    want = np.load(root / clip / f"{name}.npy")
                    compared += self.compare(name, x, entry.get("kwargs", {}), want)
            self.assertEqual(compared, 44, clip)

    @unittest.skipIf(librosa is None, "librosa is not installed")
    def test_tempo_and_beats(self) -> None:
        for clip in CLIPS:
            x = read_wav(data("librosa_ref") / clip / "input_22k_mono.wav")
            with self.subTest(clip=clip):
                want = librosa.feature.tempogram(y=x, win_length=100)
                self.assert_absolute("tempogram", wm.feature.tempogram(y=x, win_length=100), want, 1e-4)
                self.assert_absolute("tempo", wm.feature.tempo(y=x), librosa.feature.tempo(y=x), 1e-3)
                for units in ("frames", "time"):
                    (tempo, beats), (bpm, want) = (of.beat_track(y=x, units=units) for of in (wm.feature, librosa.beat))
                    self.assert_absolute("tempo of beats", tempo, bpm, 1e-3)
                    np.testing.assert_allclose(beats, want, rtol=1e-12)
        stereo = wm.feature.beat_track(y=np.stack([x, np.zeros_like(x)]), sparse=False)
        self.assertEqual((stereo[0].shape, stereo[1].shape), ((2, 1), (2, 1 + x.size // 512)))
        self.assertEqual(stereo[0][1], 0)
        with self.assertRaisesRegex(wm.UsageError, "sparse"):
            wm.feature.beat_track(y=np.zeros((2, 5000), np.float32))

    def test_reference_windows(self) -> None:
        root = data("librosa_ref") / "filters"
        for length in (400, 882, 1024, 2048):
            got = wm._audio.window_values("hann", length, length)
            self.assert_absolute(f"hann {length}", got, np.load(root / f"hann_{length}.npy"), 1e-7)


@unittest.skipIf(librosa is None, "librosa is not installed")
class DrawnArguments(Bounds):
    """Arguments drawn at random, on signals of one and several channels, in both precisions."""

    def test_melspectrogram(self) -> None:
        draw = np.random.default_rng(7)
        for case in range(60):
            n_fft = int(draw.choice([256, 400, 512, 1000, 1024, 2048, 4096]))
            win_length = int(draw.integers(n_fft // 2, n_fft + 1))
            kwargs: dict[str, Any] = {
                "sr": int(draw.choice([8000, 16000, 22050, 44100, 48000])),
                "n_fft": n_fft,
                "hop_length": int(draw.integers(1, n_fft)),
                "win_length": win_length,
                "window": str(draw.choice(["hann", "hamming", "blackman", "blackmanharris", "nuttall", "bartlett", "ones"])),
                "center": bool(draw.integers(2)),
                "power": float(draw.choice([1.0, 2.0, 1.5])),
                "n_mels": int(draw.integers(1, 129)),
                "htk": bool(draw.integers(2)),
                "norm": [None, "slaney"][draw.integers(2)],
            }
            if kwargs["center"]:
                kwargs["pad_mode"] = str(draw.choice(["constant", "reflect", "edge"]))
            shape = [(9000,), (2, 7000), (2, 3, 5000)][draw.integers(3)]
            y = draw.standard_normal(shape).astype(draw.choice([np.float32, np.float64])) * 0.1
            with self.subTest(case=case, shape=shape, dtype=y.dtype, **kwargs):
                got = wm.feature.melspectrogram(y=y, **kwargs)
                want = librosa.feature.melspectrogram(y=y, **kwargs)
                self.assertEqual(got.dtype, y.dtype)
                self.assert_relative("mel", got, want, kwargs["power"])

    def test_stft_and_istft(self) -> None:
        draw = np.random.default_rng(8)
        for case in range(40):
            n_fft = int(draw.choice([64, 100, 256, 1000, 2048]))
            kwargs: dict[str, Any] = {
                "n_fft": n_fft,
                "hop_length": int(draw.integers(1, n_fft // 2)),
                "win_length": int(draw.integers(n_fft // 2, n_fft + 1)),
                "window": [str(draw.choice(["hann", "hamming"])), np.hanning(n_fft)][draw.integers(2)],
                "center": bool(draw.integers(2)),
            }
            if not isinstance(kwargs["window"], str):
                kwargs["win_length"] = n_fft
            shape = [(6000,), (2, 5000)][draw.integers(2)]
            y = draw.standard_normal(shape).astype(draw.choice([np.float32, np.float64]))
            with self.subTest(case=case, shape=shape, dtype=y.dtype, **kwargs):
                got, want = wm.stft(y, **kwargs), librosa.stft(y, **kwargs)
                self.assertEqual(got.dtype, want.dtype)
                self.assertEqual(got.shape, want.shape)
                self.assertLessEqual(np.abs(got - want).max(), STFT_OF_MAX * np.abs(want).max())

                length = shape[-1] if kwargs["center"] else None
                inverse = {**kwargs, "length": length}
                back, wanted = wm.istft(got, **inverse), librosa.istft(want, **inverse)
                self.assertEqual(back.dtype, wanted.dtype)
                if kwargs["center"]:
                    self.assert_absolute("istft", back, y, 1e-4)
                self.assertEqual(back.shape, wanted.shape)

    def test_mfcc_of_a_spectrogram(self) -> None:
        draw = np.random.default_rng(9)
        S = draw.uniform(-80.0, 0.0, size=(2, 40, 30))
        for dct_type in (1, 2, 3):
            for norm in ("ortho", None):
                for lifter in (0, 22):
                    kwargs: dict[str, Any] = {"dct_type": dct_type, "norm": norm, "lifter": lifter, "n_mfcc": 13}
                    with self.subTest(**kwargs):
                        want = librosa.feature.mfcc(S=S, **kwargs)
                        self.assert_absolute("mfcc", wm.feature.mfcc(S=S, **kwargs), want, 1e-9 * np.abs(want).max())

    def test_delta(self) -> None:
        x = np.random.default_rng(10).standard_normal((3, 4, 50))
        for width in (3, 5, 9, 11):
            for order in (1, 2):
                for mode in ("interp", "nearest", "mirror", "constant", "wrap"):
                    for axis in (-1, 0) if width == 3 else (-1,):
                        kwargs: dict[str, Any] = {"width": width, "order": order, "mode": mode, "axis": axis}
                        with self.subTest(**kwargs):
                            want = librosa.feature.delta(x, **kwargs)
                            self.assert_absolute("delta", wm.feature.delta(x, **kwargs), want, 1e-9)

    def test_decibels(self) -> None:
        draw = np.random.default_rng(11)
        S = np.exp(draw.uniform(-30, 5, size=(2, 64, 20)))
        for ref in (1.0, 0.5, np.max, np.median):
            for top_db in (None, 0.0, 60.0, 80.0):
                with self.subTest(ref=ref, top_db=top_db):
                    want = librosa.power_to_db(S, ref=ref, top_db=top_db)
                    self.assert_absolute("power", wm.power_to_db(S, ref=ref, top_db=top_db), want, 1e-9)
                    want = librosa.amplitude_to_db(S, ref=ref, top_db=top_db)
                    self.assert_absolute("amplitude", wm.amplitude_to_db(S, ref=ref, top_db=top_db), want, 1e-9)


class BadInput(unittest.TestCase):
    def test_errors_name_the_argument(self) -> None:
        y = np.zeros(4096, dtype=np.float32)
        nan = y.copy()
        nan[7] = np.nan
        cases: list[tuple[str, Any]] = [
            ("y:", lambda: wm.feature.melspectrogram(y=nan)),
            ("y:", lambda: wm.feature.melspectrogram(y=np.zeros(10, dtype=int))),
            ("y:", lambda: wm.feature.melspectrogram(y=np.float32(1.0))),
            ("y:", lambda: wm.feature.melspectrogram(y=np.zeros((2, 0), dtype=np.float32))),
            ("y:", lambda: wm.feature.melspectrogram()),
            ("y:", lambda: wm.feature.rms(y=nan)),
            ("frame_length", lambda: wm.feature.rms(y=np.zeros(9, dtype=np.float32), frame_length=1)),
            ("fmin", lambda: wm.feature.spectral_contrast(y=np.zeros(9, dtype=np.float32), n_bands=7)),
            ("S:", lambda: wm.feature.spectral_centroid(y=np.zeros(9, dtype=np.float32), S=1)),
            ("n_mels", lambda: wm.feature.melspectrogram(y=y, n_mels=0)),
            ("hop_length", lambda: wm.feature.melspectrogram(y=y, hop_length=0)),
            ("hop_length", lambda: wm.stft(y, hop_length=0)),
            ("win_length", lambda: wm.feature.melspectrogram(y=y, win_length=4096)),
            ("window", lambda: wm.feature.melspectrogram(y=y, window="han")),
            ("window", lambda: wm.stft(y, window=np.ones(5))),
            ("n_fft", lambda: wm.stft(y, n_fft=8192, center=False)),
            ("pad_mode", lambda: wm.stft(y, pad_mode="x")),
            ("stft_matrix", lambda: wm.istft(np.zeros(5, dtype=complex))),
            ("stft_matrix", lambda: wm.istft(np.zeros((5, 3)))),
            ("n_mfcc", lambda: wm.feature.mfcc(y=y, n_mfcc=200)),
            ("dct_type", lambda: wm.feature.mfcc(y=y, dct_type=4)),
            ("width", lambda: wm.feature.delta(np.zeros((3, 20)), width=4)),
            ("width", lambda: wm.feature.delta(np.zeros((3, 5)))),
            ("mode", lambda: wm.feature.delta(np.zeros((3, 20)), mode="x")),
            ("amin", lambda: wm.power_to_db(y, amin=0.0)),
            ("orig_sr", lambda: wm.resample(y, orig_sr=0, target_sr=8000)),
            ("resample", lambda: wm.resample(y, orig_sr=22050, target_sr=1)),
            ("hop_length", lambda: wm.stft(y, hop_length=np.inf)),
        ]
        for rate in (np.inf, -np.inf, np.nan, -1.0, 0.0, 2.0**40):
            cases.append(("sr", lambda rate=rate: wm.feature.melspectrogram(y=y, sr=rate)))
            cases.append(("sr", lambda rate=rate: wm.feature.melspectrogram(S=np.ones((1025, 3)), sr=rate)))
            cases.append(("sr", lambda rate=rate: wm.feature.spectral_centroid(y=y, sr=rate)))
        for name, call in cases:
            with self.subTest(name=name), self.assertRaises(wm.UsageError) as caught:
                call()
            self.assertIn(name, str(caught.exception))
            self.assertEqual(caught.exception.exit_code, 2)


if __name__ == "__main__":
    unittest.main()
