"""An example that uses every function of the package, for the type checker. It is not run."""

from __future__ import annotations

import numpy as np

import wavemill as wm


def audio() -> None:
    y, sr = wm.load("a.mp3", sr=22050, mono=True, offset=0.0, duration=30.0, dtype=np.float64)
    info = wm.inspect(b"bytes of a file")
    print(info.duration, info.rate, info.channels, info.lost, info.reject, info.detail)
    y = wm.resample(y, orig_sr=sr, target_sr=16000)
    magnitude = np.abs(wm.stft(y, n_fft=1024, hop_length=256, window=np.hanning))
    y = wm.istft(wm.stft(y), length=y.shape[-1])
    S = wm.feature.melspectrogram(S=magnitude**2, sr=sr, n_mels=64)
    L = wm.power_to_db(S, ref=np.max)
    M = wm.feature.mfcc(S=L, n_mfcc=20)
    print(wm.feature.delta(M, order=2).shape, wm.amplitude_to_db(magnitude).max())


def store() -> None:
    report = wm.build("store", recipe="fma-small", metadata="m", audio="a", set={"features.log_mel.n_mels": 96}, limit=10)
    plan: str = wm.plan("store", recipe="fma-small", metadata="m", audio="a", new_version=True)["plan_id"]
    print(wm.work("store", plan, "1/1", threads=2)["clips"], wm.work("store", plan), wm.commit("store", plan)["version"])
    extracted: wm.Extracted = wm.extract(["a.mp3"], recipe="fma-small", feature="log_mel", threads=2)
    print(extracted.rows, extracted.rejects)
    opened = wm.open("store", version=report["version"])
    print(opened, opened.path, opened.version, opened.info(), opened.classes("genre"), opened.stats("log_mel"))
    print(opened.versions(), opened.diff(1, 2, rows=True), opened.rejects.to_arrow())
    result: wm.Result = opened.sql("SELECT 1", memory_limit=1 << 30, threads=2)
    table: wm.Table = opened.table("tracks", memory_limit=1 << 30, threads=2)
    print(table, result.to_pandas(), opened.sql("SELECT 1").to_polars())


def cluster() -> None:
    import wavemill.ray

    report = wavemill.ray.build("store", recipe="fma-small", metadata="m", audio="a", parts=8, cpus=2, address="auto")
    print(report["version"], wavemill.ray.map_batches(None, "fma-small", feature="log_mel", concurrency=2))


def training(opened: wm.Store) -> None:
    data: wm.Dataset = opened.dataset("log_mel", batch_size=64, seed=0, rank=0, world_size=2, crop_frames=100)
    data.set_epoch(1)
    data.load_state_dict(data.state_dict())
    for batch in data:
        print(batch["log_mel"].shape, batch["label"].dtype, len(data), data.classes, data.class_counts, data.shape)
    rows: wm.MapDataset = opened.map("log_mel", split="test")
    print(rows[0]["key"], len(rows), rows.__getitems__([0, 1]))

    import wavemill.torch

    print(wavemill.torch.IterableDataset(data, pin_memory=True), wavemill.torch.Dataset(rows))


def scores(opened: wm.Store) -> None:
    evaluation: wm.Evaluation = opened.evaluate(np.zeros((4, 2)), target="genre", split="test", logits=True)
    evaluation.report("model.html")
    wm.report([evaluation], "models.html")
    print(evaluation, evaluation["segments"], evaluation.calibration, evaluation.warnings)


def errors() -> None:
    try:
        wm.load("a.mp3")
    except wm.AudioError as error:
        print(error.reason, error.exit_code)
    except (wm.UsageError, wm.DamagedStoreError, wm.OtherPlanError, wm.NoSpaceError, wm.StoreInUseError, wm.Error) as error:
        print(error.exit_code)
