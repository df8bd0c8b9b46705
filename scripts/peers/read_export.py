#!/usr/bin/env python3
"""Read exports of `wavemill export` with common tools, and compare every value with the store.

usage: read_export.py arrays STORE FEATURE NPY PNG
       read_export.py sounds STORE FEATURE FOLDER
       read_export.py datasets STORE FEATURE FOLDER
       read_export.py webdataset STORE FEATURE FOLDER
arrays: two folders, written with --format npy and png and read by NumPy and Pillow.
sounds: a folder written with --format wav from mel bands in dB with ref "max", and read by soundfile. The log-mel of the
first sounds must be as close to the stored one as that of librosa's own mel_to_audio, within a margin.
datasets: a folder written with --format huggingface and read by `datasets`.
webdataset: a folder written with --format webdataset and read by `webdataset`.
Rows, values, class names and splits must equal those that pyarrow reads from the store's files. Prints a summary of the
comparisons as JSON; on a difference, prints one line and exits with 1.
"""

import csv
import glob
import json
import os
import sys
import tempfile

import numpy as np
import pyarrow.parquet as pq

DTYPES = {"f16": "<f2", "f32": "<f4", "u8": "u1", "s16": "<i2"}
# As described in docs/data.md; other splits keep their names.
SPLITS = {"training": "train"}
# Largest additional distance of wavemill's sounds from the stored bands compared with that of librosa's sounds: a
# mean in dB over all values of a row.
SOUND_MARGIN_DB = 0.2
# librosa takes seconds for each sound.
SOUNDS_COMPARED = 3


def same(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: {got!r}, not {wanted!r}")


class Store:
    """Reads the rows of one feature of a store's latest version, by split."""

    def __init__(self, path, feature):
        names = sorted(os.listdir(f"{path}/_wavemill/versions"))
        with open(f"{path}/_wavemill/versions/{names[-1]}", encoding="utf-8") as file:
            manifest = json.load(file)
        self.feature = next(entry for entry in manifest["features"] if entry["name"] == feature)
        self.spec = next(spec for spec in manifest["recipe"]["features"] if spec["name"] == feature)
        self.classes = {target["name"]: target["classes"] for target in manifest["targets"]}
        self.splits = {}
        for file in manifest["files"]:
            if file.get("feature") == feature and file["split"] != "none":
                rows = pq.read_table(os.path.join(path, file["path"]), partitioning=None).to_pylist()
                self.splits.setdefault(file["split"], []).extend(rows)

    def tensor(self, row):
        shape = row.get(self.feature["name"] + "_shape", self.feature["shape"])
        dtype = DTYPES[self.feature["dtype"]]
        values = row[self.feature["name"]]
        # With `layout = "list"` the values are numbers already.
        return (np.array(values, dtype) if isinstance(values, list) else np.frombuffer(values, dtype)).reshape(shape)


def same_values(what, got, wanted):
    same(f"{what}: shape", tuple(got.shape), tuple(wanted.shape))
    same(f"{what}: type", got.dtype, wanted.dtype)
    same(f"{what}: bytes", got.tobytes(), wanted.tobytes())


def same_keys(what, line, row, classes):
    """Compares a line of a CSV file with a row of the store."""
    same(f"{what}: clip_key", line["clip_key"], row["clip_key"])
    for column in ("track_id", "segment"):
        same(f"{what}: {column}", int(line[column]), row[column])
    for column in ("offset_s", "variant"):
        same(f"{what}: {column}", np.float32(line[column]), np.float32(row[column]))
    for target, names in classes.items():
        id_ = row[target]
        same(f"{what}: {target}", line[target], "" if id_ is None else names[id_])
        same(f"{what}: {target}_id", line[f"{target}_id"], "" if id_ is None else str(id_))


def lines_of(folder, split):
    with open(f"{folder}/{split}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_npy(store, folder):
    for split, rows in store.splits.items():
        lines = lines_of(folder, split)
        same(f"npy: lines of {split}", len(lines), len(rows))
        if "file" not in lines[0]:
            array = np.load(f"{folder}/{split}.npy", mmap_mode="r", allow_pickle=False)
            same(f"npy: rows of {split}", len(array), len(rows))
        for number, (line, row) in enumerate(zip(lines, rows)):
            what = f"npy: row {number} of {split}"
            same_keys(what, line, row, store.classes)
            values = np.load(f"{folder}/{line['file']}") if "file" in line else array[number]
            same_values(what, values, store.tensor(row))


def brightness(tensor, is_unit):
    """Returns a picture as defined: frames to the right, bands upwards."""
    x = tensor.astype(np.float64)
    if tensor.dtype != np.uint8:
        low, high = (0.0, 1.0) if is_unit else (x.min(), x.max())
        x = (x - low) / (high - low) * 255 if high > low else np.zeros_like(x)
    return np.floor(x + 0.5)[::-1]


def read_png(store, folder, is_unit):
    try:
        from PIL import Image
    except ImportError:
        return 0
    n = 0
    for split, rows in store.splits.items():
        lines = lines_of(folder, split)
        same(f"png: lines of {split}", len(lines), len(rows))
        same(f"png: names of {split}", len({line["file"] for line in lines}), len(rows))
        for line, row in zip(lines, rows):
            same_keys(line["file"], line, row, store.classes)
            picture = np.asarray(Image.open(f"{folder}/{line['file']}"))
            same(f"{line['file']}: type", picture.dtype, np.uint8)
            wanted = brightness(store.tensor(row), is_unit)
            same(f"{line['file']}: shape", picture.shape, wanted.shape)
            # A half may be rounded up or down.
            same(f"{line['file']}: brightness", bool((abs(picture - wanted) > 1).any()), False)
            n += 1
    return n


def read_sounds(store, folder):
    import librosa
    import soundfile

    rate, hop = store.feature["sample_rate_hz"], store.feature["hop_length"]
    kwargs = {"sr": rate, "hop_length": hop, "n_fft": store.spec["n_fft"]}

    def difference(samples, wanted):
        mel = librosa.feature.melspectrogram(y=samples, n_mels=wanted.shape[0], **kwargs)
        found = librosa.power_to_db(mel, ref=np.max, top_db=80.0)
        frames = min(found.shape[1], wanted.shape[1]) - 1  # half of the last frame is after the end
        return float(np.abs(found[:, :frames] - wanted[:, :frames]).mean())

    n, compared = 0, []
    for split, rows in store.splits.items():
        lines = lines_of(folder, split)
        same(f"wav: lines of {split}", len(lines), len(rows))
        for line, row in zip(lines, rows):
            same_keys(line["file"], line, row, store.classes)
            samples, found_rate = soundfile.read(f"{folder}/{line['file']}", dtype="float32")
            same(f"{line['file']}: rate", found_rate, rate)
            decibels = store.tensor(row).astype(np.float32)
            frames = min(decibels.shape[1], 1 + round(row["duration_s"] * rate) // hop)
            same(f"{line['file']}: shape", samples.shape, (hop * frames,))
            same(f"{line['file']}: numbers", bool(np.isfinite(samples).all()), True)
            n += 1
            if row["silent"] or len(compared) == SOUNDS_COMPARED:
                continue
            decibels = decibels[:, :frames]
            theirs = librosa.feature.inverse.mel_to_audio(librosa.db_to_power(decibels), **kwargs)
            pair = difference(samples, decibels), difference(theirs, decibels)
            compared.append(pair)
            if not pair[0] <= pair[1] + SOUND_MARGIN_DB:
                sys.exit(f"{line['file']}: {pair[0]:.3f} dB from the stored bands, but {pair[1]:.3f} dB for librosa")
    return {"rows": sum(map(len, store.splits.values())), "sounds": n, "ours_and_librosas_db": compared}


def read_arrays(store, npy, png):
    read_npy(store, npy)
    is_unit = store.feature["name"] == "log_mel"
    pictures = read_png(store, png, is_unit)
    return {"rows": sum(map(len, store.splits.values())), "pictures": pictures}


def read_webdataset(store, folder):
    import webdataset

    target = next(iter(store.classes))
    for split, rows in store.splits.items():
        tars = sorted(glob.glob(f"{folder}/{split}-*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
        same(f"samples of {split}", len(samples), len(rows))
        same(f"keys of {split}", len({sample["__key__"] for sample in samples}), len(rows))
        for sample, row in zip(samples, rows):
            what = sample["__key__"]
            line = {name: "" if value is None else str(value) for name, value in sample["json"].items()}
            same_keys(what, line, row, store.classes)
            same(f"{what}: cls", sample.get("cls"), row[target])
            same_values(what, sample["npy"], store.tensor(row))
    return {"rows": sum(map(len, store.splits.values()))}


def read_datasets(store, folder):
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        found = datasets.load_dataset(folder, cache_dir=cache)
        same("splits", list(found), [SPLITS.get(split, split) for split in store.splits])
        name = store.feature["name"]
        for split, rows in store.splits.items():
            loaded = found[SPLITS.get(split, split)]
            same(f"rows of {split}", loaded.num_rows, len(rows))
            columns = [column for column in rows[0] if column not in (name, f"{name}_shape")]
            same(f"columns of {split}", loaded.column_names, [*columns, name])
            for target, names in store.classes.items():
                same(f"classes of {target}", loaded.features[target].names, names)
            plain = loaded.select_columns(columns).to_list()
            for number, (mine, theirs) in enumerate(zip(plain, rows)):
                same(f"row {number} of {split}", mine, {column: theirs[column] for column in columns})
            for number, row in enumerate(loaded.select_columns([name]).with_format("numpy")):
                # This format returns f32 for f16, and int64 for bytes; both are exact.
                values = row[name]
                same_values(f"row {number} of {split}", values, store.tensor(rows[number]).astype(values.dtype))
        features = str(found[next(iter(found))].features[name])
    return {"rows": sum(map(len, store.splits.values())), "datasets": datasets.__version__, "feature": features}


def main():
    if len(sys.argv) == 6 and sys.argv[1] == "arrays":
        answer = read_arrays(Store(sys.argv[2], sys.argv[3]), *sys.argv[4:])
    elif len(sys.argv) == 5 and sys.argv[1] == "sounds":
        answer = read_sounds(Store(sys.argv[2], sys.argv[3]), sys.argv[4])
    elif len(sys.argv) == 5 and sys.argv[1] == "datasets":
        answer = read_datasets(Store(sys.argv[2], sys.argv[3]), sys.argv[4])
    elif len(sys.argv) == 5 and sys.argv[1] == "webdataset":
        answer = read_webdataset(Store(sys.argv[2], sys.argv[3]), sys.argv[4])
    else:
        sys.exit(__doc__)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
