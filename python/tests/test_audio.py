"""Decoding and resampling beside librosa, and bad files."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import numpy as np

import wavemill as wm
from support import data

try:
    import librosa
except ImportError:
    librosa = None


RATE_HZ = 22050
#: Samples at the start of a file that are not compared: decoders differ where the first frames refer to bits before them.
START = 4608
#: Largest difference of a sample from librosa's, of full scale; 0.0022 was measured. The filters of soxr and wavemill have
#: different slopes between 0.913 of the Nyquist frequency and that frequency.
SAMPLE_MAX = 0.005
#: Largest difference within the top 60 dB of a log-mel, in dB: of bands below 0.9 of the Nyquist frequency (0.044 measured),
#: and of those above (0.24 measured).
BAND_DB_MAX = 0.1, 0.3


def snr_db(got: np.ndarray, want: np.ndarray, below: float = 1.0) -> float:
    """Return the power of ``want`` relative to that of the difference.

    Compared are frequencies below this fraction of the Nyquist frequency, without the ends: resamplers differ above the
    pass band and at the ends.
    """
    inside = slice(2000, -2000)
    wanted = want[..., inside].astype(np.float64)
    window = np.hanning(wanted.shape[-1])
    signal = np.abs(np.fft.rfft(wanted * window))
    error = np.abs(np.fft.rfft((got[..., inside] - wanted) * window))
    last = int(below * signal.shape[-1])
    return float(20 * np.log10(np.linalg.norm(signal[..., :last]) / max(np.linalg.norm(error[..., :last]), 1e-30)))


@unittest.skipIf(librosa is None, "librosa is not installed")
class BesideLibrosa(unittest.TestCase):
    def files(self) -> list[str]:
        clips = sorted(data("audio").rglob("*.mp3"))
        self.assertTrue(clips)
        return [str(path) for path in clips[:6]]

    def test_native_rate_and_channels(self) -> None:
        for file in self.files():
            with self.subTest(file=file):
                got, rate = wm.load(file, sr=None, mono=False)
                want, wanted_rate = librosa.load(file, sr=None, mono=False)
                self.assertEqual(rate, wanted_rate)
                self.assertEqual(got.shape, want.shape)
                self.assertGreater(snr_db(got, want), 80.0)

                info = wm.inspect(file)
                self.assertEqual((info.rate, info.channels), (rate, 1 if want.ndim == 1 else len(want)))
                self.assertAlmostEqual(info.duration, want.shape[-1] / rate, delta=1 / rate)
                self.assertEqual((info.lost, info.reject), (0.0, None))

    def test_excerpts_at_other_rates(self) -> None:
        cases = [{}, {"sr": 16000}, {"duration": 5.0}, {"offset": 3.21, "duration": 4.0}, {"offset": 2.0}]
        cases += [{"sr": 8000, "mono": False}, {"sr": None, "offset": 1.5, "duration": 0.77}, {"duration": 1.2345}]
        for file in self.files()[:2]:
            for kwargs in cases:
                with self.subTest(file=file, **kwargs):
                    got, rate = wm.load(file, **kwargs)
                    want, wanted_rate = librosa.load(file, **kwargs)
                    self.assertEqual(rate, wanted_rate)
                    self.assertEqual(got.shape, want.shape)
                    self.assertGreater(snr_db(got, want, below=0.9), 60.0)

    def test_samples_and_all_bands_are_librosas(self) -> None:
        corners = librosa.mel_frequencies(n_mels=130, fmax=RATE_HZ / 2)
        is_low = corners[2:] <= 0.9 * RATE_HZ / 2
        excerpts: list[dict[str, Any]] = [{"duration": 5.0}, {"offset": 1.0, "duration": 2.0}, {"offset": 23.21}]
        for place, file in enumerate(self.files()):
            for kwargs in [{}, *excerpts] if place < 3 else [{}]:
                with self.subTest(file=file, **kwargs):
                    got, want = wm.load(file, **kwargs)[0], librosa.load(file, **kwargs)[0]
                    self.assertEqual(got.shape, want.shape)
                    start = 0 if "offset" in kwargs else START
                    got, want = got[start:], want[start:]
                    self.assertLessEqual(np.abs(got - want).max(), SAMPLE_MAX)

                    powers = [librosa.feature.melspectrogram(y=y, sr=RATE_HZ) for y in (got, want)]
                    a, b = 10 * np.log10(np.maximum(powers, 1e-20))
                    difference = np.where(b > b.max() - 60, np.abs(a - b), 0)
                    self.assertLessEqual(difference[is_low].max(), BAND_DB_MAX[0])
                    self.assertLessEqual(difference[~is_low].max(), BAND_DB_MAX[1])

    def test_band_path_is_only_taken_if_requested(self) -> None:
        file = self.files()[0]
        for sr in (22050, 11025):
            exact, rate = wm.load(file, sr=sr)
            for kwargs in ({}, {"duration": 4.0}, {"offset": 1.5}, {"offset": 1.5, "duration": 2.25}):
                with self.subTest(sr=sr, **kwargs):
                    band, band_rate = wm.load(file, sr=sr, decode="band", **kwargs)
                    start = int(kwargs.get("offset", 0.0) * rate)
                    part = exact[start:][: int(kwargs.get("duration", 1e9) * rate)]
                    self.assertEqual((band.shape, band_rate), (part.shape, rate))
                    self.assertGreater(snr_db(band, part), 90.0)
                    self.assertFalse(np.array_equal(band, part))
        for kwargs in ({"sr": None}, {"mono": False}):
            with self.subTest(**kwargs), self.assertRaisesRegex(wm.UsageError, "decode = 'band'"):
                wm.load(file, decode="band", **kwargs)

        # Recipes decode by the exact path unless they say otherwise.
        paths: list[Any] = [None, {"audio.decode.path": "exact"}, {"audio.decode.path": "band"}]
        tables = [__import__("pyarrow").table(wm.extract([file], "fma-large", set=path).rows) for path in paths]
        self.assertEqual(tables[0], tables[1])
        self.assertNotEqual(tables[0], tables[2])

    def test_resample(self) -> None:
        time = np.arange(44100) / 44100
        tones = np.stack([np.sin(2 * np.pi * hz * time) for hz in (440.0, 3000.0)])
        for dtype in (np.float32, np.float64):
            for target in (8000, 16000, 22050, 48000):
                with self.subTest(dtype=dtype, target=target):
                    got = wm.resample(tones.astype(dtype), orig_sr=44100, target_sr=target)
                    want = librosa.resample(tones.astype(dtype), orig_sr=44100, target_sr=target)
                    # librosa's count of samples is one too many where the product of its rounded ratio is above a whole number.
                    self.assertEqual((got.shape, got.dtype), ((2, target), want.dtype))
                    self.assertGreater(snr_db(got, want[:, :target]), 70.0)
        turned = wm.resample(tones.T.copy(), orig_sr=44100, target_sr=16000, axis=0)
        self.assertEqual(turned.shape, (16000, 2))


class Files(unittest.TestCase):
    def clip(self) -> str:
        return str(sorted(data("audio").rglob("*.mp3"))[0])

    def test_paths_bytes_and_file_objects_are_equal(self) -> None:
        file = self.clip()
        want, _ = wm.load(file, duration=3.0)
        with open(file, "rb") as opened:
            content = opened.read()
        for source in (content, bytearray(content), memoryview(content), io.BytesIO(content)):
            got, rate = wm.load(source, duration=3.0)
            np.testing.assert_array_equal(got, want)
            self.assertEqual(rate, 22050)
        self.assertEqual(wm.load(file, duration=3.0, dtype=np.float64)[0].dtype, np.float64)

    def test_errors_name_the_file(self) -> None:
        with self.assertRaises(FileNotFoundError):
            wm.load("no such file.mp3")
        with self.assertRaises(wm.AudioError) as caught:
            wm.load(b"no audio at all" * 100)
        self.assertIn("bytes", str(caught.exception))
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(os.fsencode(folder), b"caf\xe9.mp3")
            shutil.copy(self.clip(), path)
            np.testing.assert_array_equal(wm.load(os.fsdecode(path))[0], wm.load(self.clip())[0])
            with open(path, "wb") as file:
                file.write(b"no audio at all" * 100)
            with self.assertRaises(wm.AudioError) as caught:
                wm.load(os.fsdecode(path))
            self.assertIn("caf\ufffd.mp3", str(caught.exception))
        self.assertTrue(caught.exception.reason)
        self.assertEqual(wm.inspect(b"").reject, "empty")
        for no_file in (io.StringIO("text"), 3, None):
            with self.subTest(no_file=no_file), self.assertRaises(wm.UsageError):
                wm.load(no_file)  # type: ignore[arg-type]
        for wrong in ({"offset": -1.0}, {"duration": 0.0}, {"sr": 0}, {"sr": 22050.5}, {"sr": 10**7}, {"dtype": np.int16}):
            with self.subTest(**wrong), self.assertRaises(wm.UsageError):
                wm.load(self.clip(), **wrong)

    def test_hostile_files_give_audio_or_an_audio_error(self) -> None:
        files = [path for path in sorted(data("hostile").rglob("*")) if path.is_file()]
        self.assertTrue(files)
        rejects = 0
        for path in files:
            with self.subTest(file=path.name):
                info = wm.inspect(path)
                rejects += info.reject is not None
                try:
                    y, _ = wm.load(path)
                except wm.AudioError as error:
                    self.assertEqual(error.reason, info.reject)
                    self.assertIn(path.name, str(error))
                else:
                    self.assertIsNone(info.reject)
                    self.assertTrue(np.isfinite(y).all())
        self.assertGreater(rejects, 0)


class Command(unittest.TestCase):
    def test_module_is_the_command(self) -> None:
        ran = subprocess.run([sys.executable, "-m", "wavemill", "--version"], capture_output=True, text=True)
        self.assertEqual((ran.returncode, ran.stdout.split()[0]), (0, "wavemill"), ran.stderr)
        ran = subprocess.run([sys.executable, "-m", "wavemill", "info", "no store"], capture_output=True, text=True)
        self.assertEqual(ran.returncode, 2, ran.stderr)


if __name__ == "__main__":
    unittest.main()
