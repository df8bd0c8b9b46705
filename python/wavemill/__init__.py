"""Music features, feature stores and their data loader.

>>> import wavemill as wm
>>> y, sr = wm.load("a.mp3")
>>> mel = wm.feature.melspectrogram(y=y, sr=sr)

Audio functions have the names, arguments, defaults and values of librosa. The other functions build and read the
feature stores of the command ``wavemill``, which is part of this package.
"""

from __future__ import annotations

from . import feature
from ._audio import (
    AudioInfo,
    amplitude_to_db,
    inspect,
    istft,
    load,
    power_to_db,
    resample,
    stft,
)
from ._build import Extracted, build, commit, extract, plan, work
from ._dataset import Dataset, MapDataset
from ._evaluate import Evaluation, report
from ._store import Result, Store, Table, object_store_traffic
from ._store import open_store as open
from .errors import (
    AudioError,
    DamagedStoreError,
    Error,
    NoSpaceError,
    OtherPlanError,
    StoreInUseError,
    UsageError,
)

__all__ = [
    "AudioError",
    "AudioInfo",
    "DamagedStoreError",
    "Dataset",
    "Error",
    "Evaluation",
    "Extracted",
    "MapDataset",
    "NoSpaceError",
    "OtherPlanError",
    "Result",
    "Store",
    "Table",
    "StoreInUseError",
    "UsageError",
    "amplitude_to_db",
    "build",
    "commit",
    "extract",
    "feature",
    "inspect",
    "istft",
    "load",
    "object_store_traffic",
    "open",
    "plan",
    "power_to_db",
    "report",
    "resample",
    "stft",
    "work",
]
