"""Arguments of all functions: numbers and texts of numpy, and errors that name the argument."""

from __future__ import annotations

import inspect
import io
import unittest
import wave
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import clips
import wavemill as wm
from wavemill._arguments import _TYPES

RATE_HZ = 22050
NOISE = np.random.default_rng(3).standard_normal(RATE_HZ).astype(np.float32) * 0.1
BANDS = wm.feature.melspectrogram(y=NOISE)
STFT = wm.stft(NOISE)

#: Words of serde, pyo3 and json, which are not for users.
INTERNAL = "at line|usize|f64|expected|JSON|serializ|PyString|extract"


def wav() -> bytes:
    """Return a WAV file of the noise."""
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes((NOISE * 10000).astype("<i2").tobytes())
    return made.getvalue()


def in_numpy(value: Any) -> Iterator[Any]:
    """Yield values of numpy that are equal to a value of Python."""
    types = {bool: [np.bool_], int: [np.int64, np.int32], float: [np.float32, np.float64], str: [np.str_]}
    for of_numpy in types.get(type(value), []):
        yield of_numpy(value)
        yield np.array(value, dtype=of_numpy)
    if isinstance(value, (list, tuple)):
        for place in range(2):
            yield type(value)(list(in_numpy(item))[place] for item in value)


def mel(**options: Any) -> Any:
    return wm.feature.melspectrogram(y=NOISE, **options)


#: Functions, positional arguments, and named ones of all types; numbers are exact in float32.
CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (wm.load, (wav(),), {"sr": 8000, "mono": True, "offset": 0.25, "duration": 0.5, "decode": "exact"}),
    (wm.resample, (NOISE,), {"orig_sr": RATE_HZ, "target_sr": 16000.0, "axis": -1}),
    (wm.stft, (NOISE,), {"n_fft": 512, "hop_length": 100, "win_length": 400, "window": "hamming", "center": True, "pad_mode": "edge"}),
    (wm.istft, (STFT,), {"n_fft": 2048, "hop_length": 512, "window": "hann", "center": True, "length": 20000}),
    (wm.power_to_db, (BANDS,), {"ref": 0.5, "amin": 0.125, "top_db": 60.0}),
    (wm.amplitude_to_db, (BANDS,), {"ref": 0.5, "amin": 0.125, "top_db": 60.0}),
    (mel, (), {"sr": RATE_HZ, "n_fft": 1024, "hop_length": 256, "power": 1.0, "n_mels": 40, "fmin": 20.0, "fmax": 8000.0, "htk": True, "norm": "slaney"}),
    (wm.feature.melspectrogram, (), {"y": NOISE.astype(np.float64), "n_fft": 1024, "hop_length": 256, "power": 2.0, "window": "hann"}),
    (wm.feature.mfcc, (), {"y": NOISE, "n_mfcc": 13, "dct_type": 2, "norm": "ortho", "lifter": 22.0, "n_mels": 40, "fmin": 20.0}),
    (wm.feature.delta, (BANDS,), {"width": 5, "order": 1, "axis": -1, "mode": "nearest", "cval": 0.5}),
    (wm.feature.rms, (), {"y": NOISE, "frame_length": 1024, "hop_length": 256, "center": True, "pad_mode": "edge"}),
    (wm.feature.zero_crossing_rate, (NOISE,), {"frame_length": 1024, "hop_length": 256, "center": False}),
    (wm.feature.spectral_centroid, (), {"y": NOISE, "sr": RATE_HZ, "n_fft": 1024, "center": False, "window": "hann"}),
    (wm.feature.spectral_bandwidth, (), {"y": NOISE, "p": 3.0, "hop_length": 256, "pad_mode": "reflect"}),
    (wm.feature.spectral_contrast, (), {"y": NOISE, "fmin": 100.0, "n_bands": 5, "quantile": 0.0625, "linear": True}),
    (wm.feature.spectral_flatness, (), {"y": NOISE, "amin": 0.125, "power": 1.0, "win_length": 1024}),
    (wm.feature.spectral_rolloff, (), {"y": NOISE, "roll_percent": 0.75}),
    (wm.feature.chroma_stft, (), {"y": NOISE, "n_chroma": 24, "tuning": 0.125}),
    (wm.feature.cqt, (), {"y": NOISE, "hop_length": 512, "fmin": 65.5, "n_bins": 24, "bins_per_octave": 12, "tuning": 0.125, "filter_scale": 0.5}),
    (wm.feature.vqt, (), {"y": NOISE, "fmin": 65.5, "n_bins": 24, "gamma": 20.0}),
    (wm.feature.chroma_cqt, (), {"y": NOISE, "fmin": 65.5, "n_octaves": 5, "n_chroma": 12, "bins_per_octave": 24}),
    (wm.feature.chroma_cens, (), {"y": NOISE, "fmin": 65.5, "n_octaves": 5, "win_len_smooth": 11}),
    (wm.feature.tonnetz, (), {"y": NOISE, "fmin": 65.5, "n_octaves": 5, "chroma": "cens"}),
    (wm.feature.onset_strength, (), {"y": NOISE, "lag": 2, "aggregate": "median", "n_mels": 40, "fmax": 8000.0}),
    (wm.feature.tempogram, (), {"y": NOISE, "hop_length": 512, "win_length": 100}),
    (wm.feature.tempo, (), {"y": NOISE, "start_bpm": 100.0, "std_bpm": 0.5, "ac_size": 4.0, "max_tempo": 240.0}),
    (wm.feature.beat_track, (), {"y": NOISE, "start_bpm": 100.0, "tightness": 50.0, "trim": False, "units": "time", "sparse": True}),
]


class NumbersOfNumpy(unittest.TestCase):
    def assert_equal(self, got: Any, want: Any) -> None:
        for one, wanted in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
            self.assertEqual(np.asarray(one).dtype, np.asarray(wanted).dtype)
            np.testing.assert_array_equal(one, wanted)

    def test_functions_of_audio(self) -> None:
        for function, args, kwargs in CALLS:
            want = function(*args, **kwargs)
            for name, value in kwargs.items():
                for of_numpy in in_numpy(value):
                    with self.subTest(function.__name__, **{name: repr(of_numpy)}):
                        got = function(*args, **kwargs | {name: of_numpy})
                        # The level of reference is computed in the precision of its argument.
                        if name == "ref":
                            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
                        else:
                            self.assert_equal(got, want)

    def test_stores(self) -> None:
        store = wm.open(np.array(str(clips.store())), version=np.int64(1))
        self.assertEqual(wm.open(np.str_(clips.store()), version=np.array("latest")).version, 1)
        self.assertEqual(store.classes(np.array("genre")), clips.GENRES)
        self.assertEqual(store.stats(np.str_("mfcc")), store.stats("mfcc"))
        self.assertEqual(store.diff(np.int64(1), np.array(1), rows=np.bool_(True)), store.diff(1, 1, rows=True))
        result = store.sql(np.array("SELECT 1 AS one"), memory_limit=np.int64(1 << 28), threads=np.array(1))
        self.assertEqual(result.to_arrow().to_pylist(), [{"one": 1}])

        plan = {"split": "test", "target": "genre", "batch_size": 8, "seed": 3, "shuffle": True, "drop_last": True}
        plan |= {"rank": 1, "world_size": 2, "crop_frames": 10, "buckets": 1, "shuffle_window": 2, "readers": 1}
        want = [batch["key"].tolist() for batch in store.dataset("log_mel", **plan)]
        for place in range(2):
            of_numpy = {name: list(in_numpy(value))[place] for name, value in plan.items()}
            dataset = store.dataset(np.array("log_mel"), **of_numpy, verify=np.bool_(False))
            dataset.set_epoch(np.array(0))
            self.assertEqual([batch["key"].tolist() for batch in dataset], want)

        rows = store.map(np.array("log_mel"), split=np.str_("test"), seed=np.uint8(1), crop_frames=np.array(5))
        self.assertEqual({int(rows[index]["key"]) for index in (2, np.int64(2), np.array(2))}, {int(rows[2]["key"])})
        self.assertEqual(rows[np.array([2, 1])]["key"].tolist(), rows[[2, 1]]["key"].tolist())
        scores = np.full((len(rows), 4), 0.25)
        settings = {"target": np.array("genre"), "split": np.str_("test"), "seed": np.int64(1), "logits": np.bool_(False)}
        for classes in (np.array(clips.GENRES), [np.str_(name) for name in clips.GENRES], tuple(clips.GENRES)):
            got = store.evaluate(scores, **settings, classes=classes, trained_on=np.array(1), name=np.array("flat"))
            self.assertEqual(got, store.evaluate(scores, seed=1, classes=clips.GENRES, name="flat"))

    def test_recipes(self) -> None:
        clips.store()
        recipe = str(clips.folder() / "recipe.toml")
        files = [str(path) for path in sorted(clips.archive().rglob("*.wav"))[:2]]
        values = {"features.log_mel.n_mels": 8, "features.log_mel.center": False, "features.log_mel.fmin": 100.0}
        values |= {"split.fractions": [0.5, 0.25, 0.25], "features.log_mel.window": "hamming"}
        want = [row.keys() for row in self.rows(files, recipe, values)], self.rows(files, recipe, values)
        for place in range(2):
            of_numpy = {name: list(in_numpy(value))[place] for name, value in values.items()}
            of_numpy["split.fractions"] = np.array([0.5, 0.25, 0.25]) if place else of_numpy["split.fractions"]
            got = self.rows(np.array(files), np.array(recipe), of_numpy, threads=np.int64(1), feature=np.str_("log_mel"))
            self.assertEqual(([row.keys() for row in got], got), want)

        store = np.array(str(clips.folder() / "built-with-numpy"))
        given = {"recipe": np.str_(recipe), "audio": np.array(str(clips.archive())), "threads": np.int64(1), "limit": np.array(8)}
        report = wm.build(store, **given, new_version=np.bool_(True), progress=np.bool_(False), max_reject_fraction=np.float32(0.5))
        self.assertEqual(report["version"], 1)

    def rows(self, files: Any, recipe: Any, values: dict[str, Any], **options: Any) -> Any:
        pyarrow = __import__("pyarrow")
        return pyarrow.table(wm.extract(files, recipe, set=values, **options).rows).to_pylist()


class OtherTypes(unittest.TestCase):
    def assert_names(self, name: str, call: Callable[[], Any]) -> None:
        with self.assertRaises((ValueError, TypeError)) as caught:
            call()
        self.assertRegex(str(caught.exception), name)
        self.assertNotRegex(str(caught.exception), INTERNAL)

    def test_errors_of_every_parameter_name_it(self) -> None:
        wrong: dict[str, list[Any]] = {
            "int": [2.5, "7", [1], np.float32(2), np.array([5, 6]), 1j],
            "float": ["2", [1.0], 1j, b"1", np.str_("2"), 10**400],
            "bool": ["yes", 1.5, [True]],
            "str": [3, b"hann", ["hann"], np.int64(3)],
            "str | os.PathLike[str]": [3, [".."], 1.5],
        }
        store = wm.open(clips.store())
        given = {"y": NOISE, "S": BANDS, "data": BANDS, "stft_matrix": STFT, "path": wav(), "feature": "log_mel"}
        given |= {"orig_sr": 8000, "target_sr": 16000, "target": "genre", "first": 1, "query": "SELECT 1", "name": "tracks"}
        given |= {"predictions": np.ones((1, 4)), "store": "none", "recipe": "demo", "audio": "none", "plan": "x", "paths": []}
        functions = [getattr(wm, name) for name in wm.__all__] + [getattr(wm.feature, name) for name in wm.feature.__all__]
        methods = inspect.getmembers(wm.Store, inspect.isfunction)
        functions += [getattr(store, name) for name, _ in methods if not name.startswith("_")]
        seen = 0
        for function in functions:
            if not inspect.isroutine(function):
                continue
            parameters = inspect.signature(function).parameters
            needed = {name for name, of in parameters.items() if of.default is of.empty and of.kind is not of.VAR_KEYWORD}
            for name, parameter in parameters.items():
                for value in wrong.get(str(parameter.annotation).removesuffix(" | None"), []):
                    kwargs = {one: given.get(one) for one in needed} | {name: value}
                    with self.subTest(function.__qualname__, **{name: repr(value)[:20]}):
                        self.assert_names(f"^{name}: ", lambda: function(**kwargs))
                    seen += 1
        self.assertGreater(seen, 500)
        self.assertEqual(set(wrong), set(_TYPES))

    def test_errors_of_other_options(self) -> None:
        feature = wm.feature
        cases: list[tuple[str, Callable[[], Any]]] = []
        for value in (2048.5, "x", [1], -1, 2**64, np.int64(-1), np.nan, None.__class__):
            cases += [
                ("n_fft", lambda value=value: feature.spectral_centroid(y=NOISE, n_fft=value)),
                ("hop_length", lambda value=value: feature.mfcc(y=NOISE, hop_length=value)),
                ("n_bins", lambda value=value: feature.cqt(y=NOISE, n_bins=value)),
                ("n_octaves", lambda value=value: feature.chroma_cqt(y=NOISE, n_octaves=value)),
                ("win_len_smooth", lambda value=value: feature.tonnetz(y=NOISE, chroma="cens", win_len_smooth=value)),
                ("n_mels", lambda value=value: feature.onset_strength(y=NOISE, n_mels=value)),
                ("n_mels", lambda value=value: feature.melspectrogram(S=STFT.real, n_mels=value)),
                ("lag", lambda value=value: feature.onset_strength(y=NOISE, lag=value)),
            ]
        for value in ("x", [1.0], np.nan, np.inf, 1j):
            cases += [
                ("fmin", lambda value=value: feature.cqt(y=NOISE, fmin=value)),
                ("fmax", lambda value=value: feature.melspectrogram(y=NOISE, fmax=value)),
                ("tuning", lambda value=value: feature.chroma_stft(y=NOISE, tuning=value)),
                ("gamma", lambda value=value: feature.vqt(y=NOISE, gamma=value)),
                ("ac_size", lambda value=value: feature.tempo(y=NOISE, ac_size=value)),
                ("sr", lambda value=value: feature.tempo(y=NOISE, sr=value)),
                ("start_bpm", lambda value=value: feature.beat_track(y=NOISE, start_bpm=value)),
            ]
        for value in ("no such word", 3, b"hann"):
            cases += [
                ("window", lambda value=value: feature.spectral_centroid(y=NOISE, window=value)),
                ("window", lambda value=value: wm.stft(NOISE, window=value)),
                ("pad_mode", lambda value=value: feature.rms(y=NOISE, pad_mode=value)),
                ("norm", lambda value=value: feature.melspectrogram(y=NOISE, norm=value)),
                ("aggregate", lambda value=value: feature.onset_strength(y=NOISE, aggregate=value)),
                ("chroma", lambda value=value: feature.tonnetz(y=NOISE, chroma=value)),
                ("decode", lambda value=value: wm.load(wav(), decode=value)),
            ]
        store = wm.open(clips.store())
        cases.append(("classes", lambda: store.evaluate(np.ones((1, 4)), classes=[1, 2])))
        cases.append(("paths", lambda: wm.extract([3])))
        cases.append(("memory_limit", lambda: store.sql("SELECT 1", memory_limit=2**70)))
        cases.append(("window", lambda: feature.spectral_centroid(y=NOISE, window=np.ones(2048))))
        cases.append(("set", lambda: wm.extract([], set={"features.log_mel.n_mels": object()})))
        for place, (name, call) in enumerate(cases):
            with self.subTest(name, case=place):
                self.assert_names(name, call)


if __name__ == "__main__":
    unittest.main()
