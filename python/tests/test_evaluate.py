"""Scores of predictions: against scikit-learn, against wavemill-train, and in every form that is accepted."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import wavemill as wm

import support


def setUpModule() -> None:
    # The demo's test split lacks classes, and each evaluation warns of it.
    logging.getLogger("wavemill").addHandler(logging.NullHandler())


class EvaluateTest(unittest.TestCase):
    """Random predictions for the test split of the demo's store."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.store = wm.open(support.demo_store())
        cls.classes = cls.store.classes("genre")
        rows = np_rows(cls.store, "test")
        cls.clips, cls.segments, cls.tracks, cls.labels = rows
        cls.probabilities = softmax(np.random.default_rng(5).normal(size=(len(cls.clips), len(cls.classes))))

    def evaluate(self, predictions: Any, **arguments: Any) -> wm.Evaluation:
        return self.store.evaluate(predictions, **arguments)

    def columns(self) -> dict[str, Any]:
        """The predictions as columns in another order of rows, with one list per row."""
        order = np.random.default_rng(6).permutation(len(self.clips))
        return {
            "clip_key": [self.clips[row] for row in order],
            "segment": self.segments[order],
            "genre_probabilities": self.probabilities[order],
        }

    def test_scores_equal_those_of_scikit_learn(self) -> None:
        try:
            from sklearn import metrics
        except ImportError:
            self.skipTest("scikit-learn is not installed")
        found = self.evaluate(self.probabilities)
        level = found["segments"]
        report = level["report"]

        known = self.labels >= 0
        truth, values = self.labels[known], self.probabilities[known]
        guess = values.argmax(axis=1)
        ids = range(len(self.classes))
        with warnings.catch_warnings():
            # Classes are predicted that no row has; they count neither here nor there.
            warnings.simplefilter("ignore", UserWarning)
            balanced = metrics.balanced_accuracy_score(truth, guess)
        wanted = {
            "accuracy": metrics.accuracy_score(truth, guess),
            "balanced_accuracy": balanced,
            "macro_f1": metrics.f1_score(truth, guess, average="macro", zero_division=0),
            "weighted_f1": metrics.f1_score(truth, guess, average="weighted", zero_division=0),
            "top_3": metrics.top_k_accuracy_score(truth, values, k=3, labels=ids),
            # Normalised, because scikit-learn warns about sums of f32 probabilities.
            "log_loss": metrics.log_loss(truth, values.astype(float) / values.sum(axis=1, dtype=float)[:, None], labels=ids),
        }
        got = {
            "accuracy": report["accuracy"],
            "balanced_accuracy": report["balanced_accuracy"],
            "macro_f1": report["macro_mean"]["f1"],
            "weighted_f1": report["weighted_mean"]["f1"],
            "top_3": report["top_3"],
            "log_loss": level["log_loss"],
        }
        for name, value in wanted.items():
            self.assertAlmostEqual(got[name], value, delta=1e-6 if name == "log_loss" else 1e-12, msg=name)
        confusion = metrics.confusion_matrix(truth, guess, labels=ids)
        self.assertEqual(report["confusion"], confusion.tolist())

        low, high = (level["bootstrap"]["intervals"]["accuracy"][end] for end in ("low", "high"))
        self.assertTrue(low <= got["accuracy"] <= high, (low, got["accuracy"], high))
        self.assertEqual(found["leaks"]["split"], "test")

    def test_calibration_is_that_of_the_definition(self) -> None:
        calibration = self.evaluate(self.probabilities).calibration
        known = self.labels >= 0
        values = self.probabilities[known].astype(float)
        sure = values.max(axis=1)
        is_right = values.argmax(axis=1) == self.labels[known]
        place = np.clip(np.ceil(sure * 15).astype(int) - 1, 0, 14)
        error = sum(
            abs(sure[place == at].mean() - is_right[place == at].mean()) * (place == at).mean()
            for at in np.unique(place)
        )
        self.assertAlmostEqual(calibration["expected_error"], error, delta=1e-12)
        self.assertEqual([one["rows"] for one in calibration["bins"]], np.bincount(place, minlength=15).tolist())

    def test_every_form_has_the_same_scores(self) -> None:
        wanted = self.evaluate(self.probabilities)
        columns = self.columns()
        lists = {**columns, "genre_probabilities": list(columns["genre_probabilities"])}
        by_class = {"track_id": self.tracks, "segment": self.segments}
        for place, name in enumerate(self.classes):
            by_class[name] = self.probabilities[:, place]
        forms: dict[str, Any] = {
            "f64": self.probabilities.astype(np.float64),
            "list": self.probabilities.tolist(),
            "Fortran": np.asfortranarray(self.probabilities),
            "dict": columns,
            "dict of classes": by_class,
        }
        for module in ("pandas", "polars", "pyarrow"):
            try:
                library = __import__(module)
            except ImportError:
                continue
            if module == "pyarrow":
                flat = library.array(columns["genre_probabilities"].ravel())
                width = len(self.classes)
                fixed = {**lists, "genre_probabilities": library.FixedSizeListArray.from_arrays(flat, width)}
                forms["pyarrow"] = library.table(fixed)
                forms["record batch reader"] = library.table(fixed).to_reader(max_chunksize=7)
            else:
                forms[module] = library.DataFrame(lists)
                forms[f"{module} of classes"] = library.DataFrame(by_class)
        for form, predictions in forms.items():
            with self.subTest(form=form):
                self.assertEqual(self.evaluate(predictions), wanted)

    def test_rows_of_other_splits_in_a_table_are_ignored(self) -> None:
        clips, segments, _, _ = np_rows(self.store, "validation")
        columns = self.columns()
        self.assertGreater(len(clips), 0)
        others = np.resize(self.probabilities, (len(clips), len(self.classes)))
        more = {
            "clip_key": columns["clip_key"] + list(clips),
            "segment": np.concatenate([columns["segment"], segments]),
            "probabilities": np.concatenate([columns["genre_probabilities"], others]),
        }
        self.assertEqual(self.evaluate(more), self.evaluate(self.probabilities))

    def test_logits_are_converted(self) -> None:
        wanted = self.evaluate(self.probabilities)
        found = self.evaluate(np.log(self.probabilities) + 3, logits=True)
        self.assertEqual(found["segments"]["report"], wanted["segments"]["report"])
        self.assertAlmostEqual(found["segments"]["log_loss"], wanted["segments"]["log_loss"], delta=1e-6)

    def test_an_evaluation_is_a_dict_that_can_be_stored(self) -> None:
        found = self.evaluate(self.probabilities)
        self.assertEqual(json.loads(json.dumps(found)), found)
        self.assertEqual(pickle.loads(pickle.dumps(found)), dict(found))
        self.assertIn("genre on test", str(found))
        self.assertIn("macro F1", str(found))
        self.assertEqual(repr(found), "<wavemill.Evaluation 'predictions': genre on test>")

    def test_the_page_has_scores_and_mistakes(self) -> None:
        mine = self.evaluate(self.probabilities, name="mine")
        other = self.evaluate(np.full_like(self.probabilities, 1 / len(self.classes)), name="constant")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "page.html"
            mine.report(path)
            alone = path.read_text()
            wm.report([mine, other], path)
            both = path.read_text()
            for words in ("Confusion matrix", "Scores per class", "Calibration", "Misclassified tracks", "<svg"):
                self.assertIn(words, alone)
            self.assertNotIn("Differences", alone)
            self.assertIn("Differences", both)
            self.assertIn("genre: mine and constant, on test", both)

            foreign = Path(folder) / "foreign.html"
            foreign.write_text("mine")
            with self.assertRaisesRegex(wm.UsageError, "a file that is not a page of wavemill"):
                mine.report(foreign)
            with self.assertRaisesRegex(wm.UsageError, "no/page.html"):
                mine.report(Path(folder) / "no/page.html")
            with self.assertRaisesRegex(wm.UsageError, "two have the name mine"):
                wm.report([mine, mine], path)
            with self.assertRaisesRegex(wm.UsageError, "dict is not a result of Store.evaluate"):
                wm.report([dict(mine)], path)
            with self.assertRaisesRegex(wm.UsageError, "give at least one"):
                wm.report([], path)

    def refused(self, predictions: Any, **arguments: Any) -> str:
        with self.assertRaises(wm.UsageError) as caught:
            self.evaluate(predictions, **arguments)
        self.assertEqual(caught.exception.exit_code, 2)
        return str(caught.exception)

    def test_predictions_that_do_not_fit_are_refused(self) -> None:
        rows, width = self.probabilities.shape
        words = self.refused(self.probabilities[1:])
        self.assertIn(f"{rows - 1} rows of {width} values, but split test of version 1 has {rows} rows", words)
        self.assertIn("array of shape (3,), not (rows, classes)", self.refused([1, 2, 3]))
        self.assertIn("list is not an array of numbers", self.refused([["a"]]))
        self.assertIn("object is not an array of numbers", self.refused(object()))
        self.assertIn("not an array of numbers", self.refused([[1.0], [1.0, 2.0]]))

        broken = self.probabilities.copy()
        broken[3, 1] = np.nan
        row = f"{self.clips[3]}, segment {self.segments[3]}"
        self.assertEqual(
            self.refused(broken),
            f"predictions: {row}, target genre: probability of class {self.classes[1]} is NaN",
        )
        self.assertIn(f"{self.clips[0]}, segment {self.segments[0]}: the probabilities sum to", self.refused(broken * 2))
        self.assertIn("set logits", self.refused(broken * 2))

        columns = self.columns()
        missing = {name: values[1:] for name, values in columns.items()}
        self.assertIn(f"1 of the {rows} rows of the split are missing", self.refused(missing))
        self.assertIn("all columns in a record batch must have the same length", self.refused({**columns, "segment": [0]}))
        unnamed = {"clip_key": columns["clip_key"], "segment": columns["segment"]}
        self.assertIn("no column genre_probabilities or probabilities", self.refused(unnamed))
        self.assertIn("has shape", self.refused({**columns, "genre_probabilities": np.zeros((rows, 2, 2))}))

    def test_arguments_that_the_store_lacks_are_refused(self) -> None:
        values = self.probabilities
        self.assertTrue(self.refused(values, target="mood").startswith("target = mood: the store has "))
        self.assertTrue(self.refused(values, feature="mood").startswith("feature = mood: the store has "))
        self.assertTrue(self.refused(values, split_rule="mood").startswith("split_rule = mood: the store has "))
        self.assertEqual(self.refused(values, split="train"), 'split: "train" is not training, validation or test')
        self.assertIn("version 99", self.refused(values, trained_on=99))
        self.assertIn("seed: -1", self.refused(values, seed=-1))
        with self.assertRaises(FileNotFoundError):
            self.evaluate("no/predictions.parquet")
        with self.assertRaises(FileNotFoundError):
            self.evaluate(Path("no/predictions.parquet"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "p.parquet"
            path.write_text("no Parquet")
            self.assertIn("is not a readable Parquet file", self.refused(path))

    def test_classes_in_another_order_are_those_of_the_model(self) -> None:
        order = list(reversed(self.classes))
        found = self.evaluate(self.probabilities[:, ::-1], classes=order)
        wanted = self.evaluate(self.probabilities)
        self.assertEqual(found["classes"], order)
        self.assertEqual(found["segments"]["report"]["accuracy"], wanted["segments"]["report"]["accuracy"])

        with self.assertLogs("wavemill", "WARNING") as logged:
            # The model does not know the first class.
            fewer = softmax(np.log(self.probabilities[:, 1:]))
            self.evaluate(fewer, classes=self.classes[1:])
        self.assertTrue(any("that the model does not know" in line for line in logged.output), logged.output)

    def test_several_labels_per_row(self) -> None:
        width = len(self.store.classes("genres_all"))
        values = np.random.default_rng(8).random((len(self.clips), width), dtype=np.float32)
        found = self.evaluate(values, target="genres_all")
        self.assertEqual(found["segments"]["report"]["labels"], "multi")
        self.assertIsNone(found.calibration)
        logits = np.log(values.astype(float)) - np.log1p(-values.astype(float))
        again = self.evaluate(logits, target="genres_all", logits=True)
        self.assertAlmostEqual(
            again["segments"]["report"]["roc_auc_macro"], found["segments"]["report"]["roc_auc_macro"], delta=1e-6
        )

    def test_scores_equal_those_of_the_trainer(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = self.trained(folder)
            path = model / "predictions.parquet"
            for split in ("validation", "test"):
                wanted = self.scores_of_trainer(model, path, "--side", split)
                for scores in wanted:
                    found = self.evaluate(path, target=scores["target"], split=split, seed=11)
                    self.assertEqual(found, scores)

            trainer("report", str(model), "--out", f"{folder}/theirs.html")
            theirs = Path(folder, "theirs.html").read_text()
            self.evaluate(path, seed=11, name=model.name).report(f"{folder}/ours.html")
            ours = Path(folder, "ours.html").read_text()
            for title in ("Confusion matrix", "Calibration", "Misclassified tracks"):
                self.assertEqual(section(ours, title), section(theirs, title), title)

    def test_leaks_from_another_version_equal_those_of_the_trainer(self) -> None:
        archive = support.demo_archive()
        with tempfile.TemporaryDirectory() as folder:
            model = self.trained(folder)
            two = Path(folder, "two")
            shutil.copytree(self.store.path, two)
            wm.build(
                two,
                recipe="demo",
                metadata=archive / "fma_metadata",
                audio=archive / "fma_demo",
                set={"split.seed": 9},
                max_reject_fraction=0.2,
                new_version=True,
                resplit=True,
                progress=False,
            )
            path = Path(folder, "p.parquet")
            (wanted, _) = self.scores_of_trainer(model, path, "--store", str(two), "--version", "2")
            found = wm.open(two).evaluate(path, seed=11, trained_on=1)
            self.assertEqual(found, wanted)
            self.assertEqual(found["leaks"]["compared_with"], "run")
            self.assertGreater(found["leaks"]["shared"]["track"]["tracks"], 0)
            self.assertTrue(any("that the model trained on" in words for words in found.warnings), found.warnings)

    def trained(self, folder: str) -> Path:
        """Return the run of a small model after an epoch; its folder is below `folder`."""
        trainer(
            *("fit", "--store", str(self.store.path), "--model", "lstm", "--epochs", "1", "--device", "cpu"),
            *("--runs", f"{folder}/runs", "--target", "genre", "--target", "genres_all", "--set", "seed=11"),
        )
        (model,) = Path(folder, "runs").iterdir()
        return model

    def scores_of_trainer(self, model: Path, predictions: Path, *arguments: str) -> list[dict[str, Any]]:
        """Return the scores that the trainer prints, without the loss, and write its predictions to a file."""
        said = trainer("eval", str(model), "--json", "--predictions", str(predictions), *arguments)
        return [{**scores, "loss": None} for scores in json.loads(said)]


def trainer(*arguments: str) -> str:
    """Run the trainer and return its output."""
    words = [str(support.program("wavemill-train")), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{words}: exit code {done.returncode}: {done.stderr}")
    return done.stdout


def section(page: str, title: str) -> str:
    """Return a section of a page, without its number."""
    found = page.split(f">{title}</h2>")[1]
    return found.split("</section>")[0]


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def np_rows(store: Any, split: str) -> tuple[Any, Any, Any, Any]:
    """Return keys, segments, track ids and labels of a split, in the manifest's order, read by pyarrow."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise unittest.SkipTest("pyarrow is not installed") from None
    root = Path(store.path)
    manifest = json.loads((root / f"_wavemill/versions/{store.version:08}.json").read_text())
    feature = manifest["features"][0]["name"]
    columns = ["clip_key", "segment", "track_id", "genre"]
    parts = []
    for file in manifest["files"]:
        if file.get("feature") == feature and file.get("split") == split:
            with open(root / file["path"], "rb") as opened:
                parts.append(pq.read_table(opened, columns=columns))
    values = [np.concatenate([part[name].to_numpy() for part in parts]) for name in columns]
    clips, segments, tracks, labels = values
    return clips, segments, tracks, np.nan_to_num(labels.astype(float), nan=-1).astype(int)


if __name__ == "__main__":
    unittest.main()
