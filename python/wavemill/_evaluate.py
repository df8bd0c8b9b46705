"""Scores of models that were trained elsewhere, from their predictions for the rows of a store."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from . import _wavemill
from ._arguments import checked
from .errors import UsageError

log = logging.getLogger("wavemill")

#: An array, a tensor, a table (any object with ``__arrow_c_stream__``, a DataFrame, a dict of columns), or the path of
#: a Parquet file.
Predictions: TypeAlias = Any


class Evaluation(dict[str, Any]):
    """Scores of predictions, as a dict in the form of ``wavemill train eval --json``.

    The keys: ``target``, ``classes``, ``segments`` (scores of rows), ``tracks_mean`` and ``tracks_majority`` (scores of
    tracks; ``None`` if each track has one row), and ``leaks``. Each level of scores has a ``report``, a ``log_loss`` and
    95 % intervals in ``bootstrap``, from resamples of whole artists. ``loss`` is always ``None``: it depends on settings
    of the training.

    ``print(evaluation)`` shows the command's table. A copy or a pickle is a plain dict.

    >>> evaluation = store.evaluate(probabilities)
    >>> evaluation["segments"]["report"]["accuracy"]
    0.61
    >>> evaluation.report("model.html")
    """

    #: Name of the predictions on a page.
    name: str
    #: Calibration per row: ``expected_error``, ``largest_error``, ``overconfidence`` and 15 ``bins``; ``None`` for a
    #: target with several labels per row.
    calibration: dict[str, Any] | None
    #: Warnings about the rows that affect the interpretation of the scores.
    warnings: list[str]

    def __init__(self, name: str, native: _wavemill.Evaluated) -> None:
        super().__init__(json.loads(native.json()))
        self.name = name
        self.calibration = json.loads(native.calibration())
        self.warnings = native.warnings()
        self._native = native

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the page about these predictions; see `wavemill.report`."""
        report(self, path)

    def __repr__(self) -> str:
        return f"<wavemill.Evaluation {self.name!r}: {self['target']} on {self['leaks']['split']}>"

    def __str__(self) -> str:
        return self._native.table()

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def evaluated(store: str, version: int, predictions: Predictions, settings: Mapping[str, Any]) -> Evaluation:
    """Compute the scores of predictions for a split of a version."""
    native = _wavemill.evaluate(store, version, _given(predictions), settings)
    evaluation = Evaluation(settings["name"], native)
    for warning in evaluation.warnings:
        log.warning("%s", warning)
    return evaluation


@checked
def report(evaluations: Evaluation | Iterable[Evaluation], path: str | os.PathLike[str]) -> None:
    """Write an HTML page about predictions: scores, confusion matrix, classes, calibration, mistakes and leaks.

    The page is one file that loads nothing. It has the sections of ``wavemill train report``. With several evaluations,
    the first one is compared with each of the others on the same tracks.

    Parameters
    ----------
    evaluations : Evaluation or iterable of Evaluation
        Results of `Store.evaluate`. Several need different names.
    path : path
        The page. A page of wavemill is replaced, but no other file.

    Raises
    ------
    UsageError
        Another file exists at `path`, or two evaluations have the same name.

    Examples
    --------
    >>> cnn = store.evaluate(cnn_probabilities, name="cnn")
    >>> crnn = store.evaluate(crnn_probabilities, name="crnn")
    >>> wm.report([cnn, crnn], "models.html")
    """
    every = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    if not every:
        raise UsageError("evaluations: give at least one")
    seen: set[str] = set()
    for evaluation in every:
        if not isinstance(evaluation, Evaluation):
            kind = type(evaluation).__name__
            raise UsageError(f"evaluations: {kind} is not a result of Store.evaluate (a copy of it is a plain dict)")
        if evaluation.name in seen:
            raise UsageError(f"evaluations: two have the name {evaluation.name}: pass name= to Store.evaluate")
        seen.add(evaluation.name)
    _wavemill.write_report([evaluation._native for evaluation in every], os.fspath(path))


def _given(predictions: Predictions) -> Any:
    """Return predictions in a form that the native module takes."""
    if isinstance(predictions, (str, os.PathLike)):
        path = os.fspath(predictions)
        # The error of Python names the file and has the right class.
        with open(path, "rb"):
            return path
    if isinstance(predictions, Mapping):
        return [(str(column), _column(str(column), values)) for column, values in predictions.items()]
    if type(predictions).__module__.partition(".")[0] == "pandas":
        # Arrow data of pandas would need pyarrow.
        return [(str(column), _column(str(column), predictions[column])) for column in predictions.columns]
    if hasattr(predictions, "__arrow_c_stream__"):
        return predictions
    return _matrix(predictions)


def _matrix(predictions: Any) -> npt.NDArray[np.float64]:
    # A tensor of torch may be on a GPU or have gradients.
    if hasattr(predictions, "detach"):
        predictions = predictions.detach().cpu().double()
    try:
        matrix = np.ascontiguousarray(predictions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        kind = type(predictions).__name__
        raise UsageError(
            f"predictions: {kind} is not an array of numbers, a table or the path of a Parquet file: {error}"
        ) from error
    if matrix.ndim != 2:
        raise UsageError(f"predictions: an array of shape {matrix.shape}, not (rows, classes)")
    return matrix


def _column(name: str, values: Any) -> npt.NDArray[Any] | list[str]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double() if values.is_floating_point() else values.cpu()
    array = np.asarray(values)
    if array.dtype.kind == "O" and len(array) and not isinstance(array[0], str):
        # A column of lists.
        array = np.asarray(list(array))
    if array.dtype.kind in "UTO":
        return [str(value) for value in array]
    if array.dtype.kind in "iub" and array.ndim == 1:
        return array.astype(np.int64)
    if array.dtype.kind in "fiub" and array.ndim in (1, 2):
        return np.ascontiguousarray(array, dtype=np.float64)
    raise UsageError(f"predictions: column {name} has shape {array.shape} and type {array.dtype}")
