#!/usr/bin/env python3
"""Check that a version of a store conforms to docs/store-format.md, without using wavemill's own code.

Reads the manifest, all its files and all their rows. Checks the manifest's checksum; sizes, blake3 and row groups of the
files; columns, types and metadata; length and values of every tensor; the rows of each clip, their split and labels; the
rejects; and every count and mean of the manifest, which are computed again. Each fault is one line with the file and the
place in it; the last line is a summary.

`wavemill verify` checks the same with wavemill's own code. This is an independent implementation for the tests, and for
people who write stores with other tools.

Needs pyarrow, numpy and blake3: scripts/peers/setup.sh installs them into .venv. Exit codes: 0 no fault; 1 faults; 2 the
store or the version does not exist, or an option is invalid.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

try:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from blake3 import blake3

    LACKING = None
except ImportError as error:
    # Reported after the options were parsed, because `--help` does not need these modules.
    LACKING = error

FORMAT = 3

TENSOR_KEYS = ["dtype", "shape", "dim_names", "scale", "feature_id", "sample_rate_hz", "hop_length", "preset"]
MANIFEST_KEYS = {
    "format_version", "plan_id", "identity", "engine", "recipe", "targets", "features", "files", "counts", "stats",
}  # fmt: skip
COUNTS_KEYS = {
    "rows_read", "rows_kept", "rows_dropped", "rows_rejected", "clips_planned", "clips_written", "clips_rejected",
    "feature_rows", "rejects",
}  # fmt: skip
ENTRY_KEYS = {
    "targets": {"name", "classes", "counts"},
    "features": {"name", *TENSOR_KEYS},
    "files": {"path", "rows", "bytes", "blake3", "row_groups"},
}
STAGES = {"catalog", "read", "decode", "features"}
REASONS = {
    "missing_file", "empty", "not_audio", "unsupported_codec", "no_audio", "too_short", "too_large", "damaged",
    "worker_panic", "bad_row", "bad_encoding", "outside_root", "encrypted", "duplicate_entry",
    "not_image", "not_finite",
}  # fmt: skip
ROW_REASONS = {"bad_row", "bad_encoding"}
FATES = {
    "used", "dropped", "near_row", "no_row", "unsupported", "not_audio", "not_image", "hidden", "bad_name",
}  # fmt: skip
# Columns that are null for pictures.
AUDIO_COLUMNS = ["offset_s", "duration_s", "lost_s", "silent", "audio_blake3"]
# The loader's order of splits; splits with other names follow these, sorted by name.
SPLITS = ["training", "validation", "test"]
# For these rules, the split of every clip is also a column of `tracks`.
RULES_OF_TRACKS = {"official", "stratified", "artist"}
# With these rules, each row has its own split.
RULES_BY_SEGMENT = {"segment", "segment_stretched"}
# Rules whose splits are kept from version to version, independent of the recipe's rule: rule → its column of
# `tracks`.
KEPT_RULES = {"artist": "split_artist", "stratified": "split_stratified"}

DTYPES = {"f16": "<f2", "f32": "<f4", "u8": "u1", "s16": "<i2"}
HEX_64 = re.compile(r"[0-9a-f]{64}")

# Statistics are sums of f64 in a different order than here. A variance is the difference of two such sums, so it
# keeps about half of their digits.
MEAN_REL_MAX = 1e-9
STD_REL_MAX = 1e-6


class Unusable(Exception):
    """Nothing can be checked: there is no store or no version, or it has another format."""


class Faults:
    """Faults found so far; each is printed when it is found."""

    def __init__(self):
        self.count = 0

    def add(self, place, what):
        self.count += 1
        print(f"fault: {place}: {what}")

    def unless_equal(self, place, what, found, said):
        if found != said:
            self.add(place, f"{what}: {shown(found)}, but the manifest says {shown(said)}")


def shown(value):
    """Formats a value on one line; long values are cut."""
    text = json.dumps(value, default=str, sort_keys=True)
    return text if len(text) <= 200 else text[:200] + " …"


def new_contents():
    """Returns an empty collection for the contents of all files, which are compared with the manifest at the end."""
    return SimpleNamespace(
        rows=defaultdict(dict),  # by feature: row key → the row's other columns
        classes=defaultdict(lambda: defaultdict(Counter)),  # of the first feature: target → split → clips of each class
        splits=defaultdict(set),  # of the first feature: the splits that contain a clip's rows
        sums={},  # by feature, over the training split: sum, sum of squares, number of values per band
        tables={},  # by table: the rows, as pyarrow tables
    )


# Finding and reading a version


def version_path(store, number, faults):
    """Returns the path of the requested version's manifest; by default that of the latest version."""
    folder = store / "_wavemill/versions"
    found = {int(path.stem): path for path in folder.glob("[0-9]*.json") if path.stem.isdigit()}
    if not found:
        raise Unusable(f"{store}: no version (nothing in _wavemill/versions)")
    if number is not None and number not in found:
        raise Unusable(f"{store}: no version {number}; the latest is {max(found)}")

    missing = sorted(set(range(1, max(found) + 1)) - set(found))
    if missing:
        faults.add("_wavemill/versions", f"no manifest of version {', '.join(map(str, missing))}")
    return found[max(found) if number is None else number]


def read_manifest(path, place, faults):
    """Returns the manifest, or reports a fault and returns None if it cannot be used."""
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
        version = int(manifest["format_version"])
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        faults.add(place, f"not a manifest in JSON ({error})")
        return None

    # Checked first, because another format may have other keys and another checksum.
    if version != FORMAT:
        raise Unusable(f"{place}: format version {version}; this script reads {FORMAT}")

    lacks = sorted(lacking_keys(manifest))
    if lacks:
        faults.add(place, f"missing keys: {', '.join(lacks)}")
        return None

    check_checksum(text, manifest, place, faults)
    check_plan_id(manifest, place, faults)
    return manifest


def lacking_keys(manifest):
    """Yields the missing keys of the manifest and of the elements of its lists."""
    yield from MANIFEST_KEYS - set(manifest)
    if "counts" in manifest:
        yield from (f"counts.{key}" for key in COUNTS_KEYS - set(manifest["counts"]))

    for name, keys in ENTRY_KEYS.items():
        for index, entry in enumerate(manifest.get(name, [])):
            keys_here = set(entry) if isinstance(entry, dict) else set()
            yield from (f"{name}[{index}].{key}" for key in keys - keys_here)
            if name == "files" and len(keys_here & {"table", "feature"}) != 1:
                yield f"files[{index}].table or .feature"


def check_checksum(text, manifest, place, faults):
    """Checks the checksum of the text itself without its key: another JSON writer could format floats differently."""
    if not text.endswith("}\n"):
        faults.add(place, "does not end with one newline")
    if "manifest_blake3" not in manifest:
        faults.add(place, "no manifest_blake3")
        return

    rest = re.sub(r'"manifest_blake3":"[^"]*",?', "", text.rstrip("\n"), count=1)
    if hash_of(rest) != manifest["manifest_blake3"]:
        faults.add(place, "manifest_blake3 is not the blake3 of the rest")


def check_plan_id(manifest, place, faults):
    """Checks `plan_id` and the engine's hash against the rest of the manifest."""
    identity = manifest["identity"]
    if hash_of(canonical(identity))[:16] != manifest["plan_id"]:
        faults.add(place, "plan_id is not the hash of identity")
    if hash_of(canonical(manifest["engine"])) != identity.get("engine"):
        faults.add(place, "identity.engine is not the hash of engine")


def canonical(value):
    """Returns the canonical JSON of a value without floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(text):
    return blake3(text.encode()).hexdigest()


# Files


def check_paths(store, manifest, place, faults):
    """Checks that every path is inside the store and unique, and that the plan's folder has no other Parquet files.

    Returns the entries that may be opened.
    """
    named, inside = set(), []
    for entry in manifest["files"]:
        path = entry["path"]
        if path in named:
            faults.add(place, f"{path} occurs twice")
        named.add(path)

        parts = path.split("/")
        if path.startswith("/") or not {"", ".", ".."}.isdisjoint(parts):
            faults.add(place, f"{path} is not a plain path below the store")
        elif not (store / path).resolve().is_relative_to(store.resolve()):
            faults.add(path, "a link leads out of the store")
        else:
            inside.append(entry)
            if not right_place(entry, manifest["plan_id"]):
                faults.add(path, "wrong path for the file of this table or feature")

    folder = store / "data" / manifest["plan_id"]
    for path in sorted(folder.rglob("*.parquet")):
        path = path.relative_to(store).as_posix()
        if path not in named:
            faults.add(path, "not in the manifest")
    return inside


def right_place(entry, plan_id):
    """Reports whether the path is correct for the entry's table, or for its feature and split."""
    if "table" in entry:
        name = re.escape(entry["table"])
        wanted = f"data/{plan_id}/{name}/{name}\\.parquet"
    else:
        split = re.escape(str(entry.get("split")))
        wanted = f"data/{plan_id}/features/{re.escape(entry['feature'])}/split={split}/[0-9]{{5,}}\\.parquet"
    return re.fullmatch(wanted, entry["path"]) is not None


def check_order(manifest, place, faults):
    """Checks that the files of a feature are in loader order: by split, then by number."""
    for feature in manifest["features"]:
        entries = [entry for entry in manifest["files"] if entry.get("feature") == feature["name"]]
        paths = [entry["path"] for entry in entries]
        ranks = [(split_rank(str(entry.get("split"))), Path(entry["path"]).stem) for entry in entries]
        for before, after, path in zip(ranks, ranks[1:], paths[1:]):
            if after <= before:
                faults.add(place, f"{path} is not in the loader's order")


def check_shards(manifest, place, faults):
    """Checks that numbers of shards are powers of two, and that every file's number is below that of its split."""
    shards = manifest.get("shards", {})
    if not isinstance(shards, dict):
        faults.add(place, f"shards is {shown(shards)}, which is not an object of numbers")
        return
    counts = {}
    for split, count in shards.items():
        if type(count) is int and count >= 1 and count & (count - 1) == 0:
            counts[split] = count
        else:
            faults.add(place, f"shards.{split} is {shown(count)}, which is not a power of two")

    for entry in manifest["files"]:
        number = Path(entry["path"]).stem
        # A file with another name is reported by the check of paths.
        if "feature" not in entry or not number.isdigit():
            continue
        split = str(entry.get("split"))
        if split in counts and int(number) >= counts[split]:
            faults.add(entry["path"], f"the manifest has {counts[split]} shards of the split {split}")
        if split not in shards:
            faults.add(entry["path"], f"the manifest has no number of shards of the split {split}")


def split_rank(split):
    return (SPLITS.index(split), "") if split in SPLITS else (len(SPLITS), split)


def opened(store, entry, faults):
    """Compares the bytes of an entry's Parquet file and opens it; returns None if it cannot be used."""
    place = entry["path"]
    path = store / place
    if not path.is_file():
        faults.add(place, "missing file")
        return None

    n_bytes = path.stat().st_size
    if n_bytes != entry["bytes"]:
        faults.unless_equal(place, "bytes", n_bytes, entry["bytes"])
        return None
    if blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest() != entry["blake3"]:
        faults.add(place, "blake3 differs from the manifest: the content was changed")
        return None
    if "footer" in entry:
        tail = path.read_bytes()[entry["footer"]["offset"] :]
        faults.unless_equal(place, "blake3 of its footer", blake3(tail).hexdigest(), entry["footer"]["blake3"])

    try:
        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        faults.add(place, f"not a Parquet file ({str(error).partition(chr(10))[0]})")
        return None

    groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    faults.unless_equal(place, "rows", file.metadata.num_rows, entry["rows"])
    faults.unless_equal(place, "rows of its row groups", groups, entry["row_groups"])
    return file


# Feature files


def wanted_columns(feature, targets, layout):
    """Returns name → (type, may be null) of every column of a feature's file, in order."""
    # Columns about audio are null for picture files. Pictures of spectrograms have a sample rate.
    no_audio = feature["sample_rate_hz"] is None and feature["dim_names"] == ["channel", "row", "column"]
    columns = {
        "clip_key": (pa.utf8(), False),
        "track_id": (pa.int64(), False),
        "segment": (pa.int32(), False),
        "offset_s": (pa.float32(), no_audio),
        "variant": (pa.float32(), False),
    }
    columns |= {target["name"]: (pa.int32(), True) for target in targets}
    columns |= {
        "genres_all": (list_of(pa.int32()), False),
        "artist_id": (pa.int64(), True),
        "album_id": (pa.int64(), True),
        "duration_s": (pa.float32(), no_audio),
        "lost_s": (pa.float32(), no_audio),
        "silent": (pa.bool_(), no_audio),
        "audio_blake3": (pa.utf8(), no_audio),
        feature["name"]: (tensor_type(feature, layout), False),
    }
    if None in feature["shape"]:
        columns[shape_column(feature)] = (list_of(pa.int32()), False)
    return columns


def list_of(item):
    """Returns the type of a list without null elements."""
    return pa.list_(pa.field("item", item, nullable=False))


def shape_column(feature):
    return feature["name"] + "_shape"


def tensor_type(feature, layout):
    if layout == "list":
        items = {"f16": pa.float16(), "f32": pa.float32(), "u8": pa.uint8(), "s16": pa.int16()}
        return list_of(items[feature["dtype"]])
    if None in feature["shape"]:
        return pa.binary()
    return pa.binary(int(np.prod(feature["shape"])) * np.dtype(DTYPES[feature["dtype"]]).itemsize)


def check_schema(file, place, feature, manifest, faults):
    """Checks columns, types and metadata; returns False if the rows cannot be read as rows of the feature."""
    layout = manifest["recipe"].get("shards", {}).get("layout", "binary")
    wanted = wanted_columns(feature, manifest["targets"], layout)
    schema = file.schema_arrow
    if schema.names != list(wanted):
        faults.add(place, f"the columns are {', '.join(schema.names)}; they should be {', '.join(wanted)}")
        return False

    fits = True
    for name, (arrow_type, nullable) in wanted.items():
        field = schema.field(name)
        if field.type != arrow_type or field.nullable != nullable:
            found = f"{field.type}{' or null' if field.nullable else ''}"
            faults.add(place, f"column {name} is {found}, not {arrow_type}{' or null' if nullable else ''}")
            fits = False

    check_tensor_metadata(schema.metadata, f"{place}, the file's metadata", feature, manifest, faults)
    field = schema.field(feature["name"])
    check_tensor_metadata(field.metadata, f"{place}, column {feature['name']}", feature, manifest, faults)
    check_pages(file, place, feature, faults)
    return fits


def check_tensor_metadata(metadata, place, feature, manifest, faults):
    """Checks that `wavemill.tensor` repeats the manifest's entry of the feature, and the classes."""
    try:
        tensor = json.loads((metadata or {})[b"wavemill.tensor"])
    except (KeyError, ValueError):
        faults.add(place, "no wavemill.tensor")
        return

    # Names of the values, which only statistics have.
    for key in [*TENSOR_KEYS, "columns"]:
        faults.unless_equal(place, f"wavemill.tensor, {key}", tensor.get(key), feature.get(key))
    classes = {target["name"]: target["classes"] for target in manifest["targets"]}
    faults.unless_equal(place, "wavemill.tensor, classes", tensor.get("classes"), classes)


def check_pages(file, place, feature, faults):
    """Checks that there are no dictionaries and no tensor statistics, and that compressed files have an offset index."""
    for group in range(file.metadata.num_row_groups):
        row_group = file.metadata.row_group(group)
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            where = f"{place}, row group {group}, column {column.path_in_schema}"
            if column.has_dictionary_page:
                faults.add(where, "the column has a dictionary")

            is_tensor = column.path_in_schema.split(".")[0] == feature["name"]
            if is_tensor and column.is_stats_set:
                faults.add(where, "a tensor has statistics")
            if is_tensor and column.compression == "ZSTD" and not column.has_offset_index:
                faults.add(where, "no offset index")


def check_feature_file(file, entry, feature, manifest, told, faults):
    """Checks every row of a feature's file and adds its contents to `told`."""
    place = entry["path"]
    if not check_schema(file, place, feature, manifest, faults):
        return

    is_first = feature is manifest["features"][0]
    seen_clips, previous, row = set(), None, 0
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group)
        columns = {name: table[name].to_pylist() for name in table.column_names if name != feature["name"]}
        for at in range(table.num_rows):
            found = {name: values[at] for name, values in columns.items()}
            where = f"{place}, row {row} ({found['clip_key']}, segment {found['segment']})"
            check_row(found, where, manifest, faults)
            check_variant(found["variant"], entry["split"], where, manifest, faults)

            # All rows of a clip are adjacent: plain ones first, then by factor, each group in the order of its
            # segments.
            if previous and previous["clip_key"] == found["clip_key"]:
                if row_order(found) <= row_order(previous):
                    faults.add(where, f"wrong order: follows segment {previous['segment']} of the same clip")
            elif found["clip_key"] in seen_clips:
                faults.add(where, "rows of other clips are between the rows of this clip")
            elif is_first:
                count_clip(found, entry["split"], manifest, told)

            key = (found["clip_key"], found["segment"], found["variant"])
            if key in told.rows[feature["name"]]:
                faults.add(where, "duplicate row of this clip, segment and variant")
            kept = {name: value for name, value in found.items() if not name.endswith("_shape")}
            told.rows[feature["name"]][key] = kept
            seen_clips.add(found["clip_key"])
            previous, row = found, row + 1

        shapes = columns.get(shape_column(feature))
        first_row = row - table.num_rows
        for at, values in enumerate(tensors(table[feature["name"]], feature)):
            where = f"{place}, row {first_row + at} ({columns['clip_key'][at]}, segment {columns['segment'][at]})"
            shape = shapes[at] if shapes else feature["shape"]
            if check_tensor(values, shape, where, feature, faults) and entry["split"] == "training":
                add_sums(values.reshape(shape), feature, told)


def tensors(column, feature):
    """Yields the stored values of each row as a flat array."""
    for value in column:
        if pa.types.is_list(column.type):
            yield value.values.to_numpy(zero_copy_only=False)
        else:
            yield np.frombuffer(value.as_buffer(), DTYPES[feature["dtype"]])


def check_row(row, where, manifest, faults):
    """Checks the columns of one row, independent of other rows."""
    for target in manifest["targets"]:
        label = row[target["name"]]
        if label is not None and not 0 <= label < len(target["classes"]):
            faults.add(where, f"{target['name']} is {label}, which is not a class of the manifest")

    if manifest["recipe"]["catalog"]["dataset"] == "images":
        told = [name for name in AUDIO_COLUMNS if row[name] is not None]
        if told or row["segment"] != 0:
            faults.add(where, f"a picture has a segment, or values in {told}")
        return

    if row["segment"] < 0 or row["offset_s"] < 0:
        faults.add(where, "segment or offset_s is negative")
    if not HEX_64.fullmatch(row["audio_blake3"]):
        faults.add(where, f"audio_blake3 is {row['audio_blake3']!r}, not 64 lower-case hex digits")
    if not 0 <= row["lost_s"] < float("inf"):
        faults.add(where, f"lost_s is {row['lost_s']}")

    longest = manifest["recipe"].get("audio", {}).get("duration_s")
    longest = float(np.float32(longest)) if longest is not None else float("inf")
    if not 0 < row["duration_s"] <= longest:
        faults.add(where, f"duration_s is {row['duration_s']}; the recipe allows at most {longest}")


def row_order(row):
    """Returns the sort key of the rows of a clip."""
    return row["variant"] != 1.0, row["variant"], row["segment"]


def check_variant(variant, split, where, manifest, faults):
    """Checks that the variant is 1.0 or a factor of the recipe, and that copies are in training, except under one rule."""
    recipe = manifest["recipe"]
    factors = [float(np.float32(factor)) for factor in recipe.get("audio", {}).get("stretch", [])]
    if variant != 1.0 and variant not in factors:
        faults.add(where, f"variant is {variant}, neither 1.0 nor a factor of the recipe")
    elif variant != 1.0 and split != "training" and recipe.get("split", {}).get("rule") != "segment_stretched":
        faults.add(where, f"variant is {variant} in the split {split}, but copies belong to training")


def check_tensor(values, shape, where, feature, faults):
    """Checks length, shape and finiteness; returns False if the values do not have this shape."""
    fixed = feature["shape"]
    if len(shape) != len(fixed) or any(said not in (None, found) for found, said in zip(shape, fixed)):
        faults.add(where, f"the shape {shape} does not match the feature's shape {fixed}")
        return False
    if values.size != int(np.prod(shape)):
        faults.add(where, f"{values.size} values of {feature['name']}, but its shape is {shape}")
        return False
    if feature["dtype"] != "u8" and not np.isfinite(values).all():
        faults.add(where, f"NaN or infinity in {feature['name']}")
        return False
    return True


def count_clip(row, split, manifest, told):
    """Counts a clip at its first row in a file. Under the rules by segment it is counted in each split."""
    told.splits[row["clip_key"]].add(split)
    for target in manifest["targets"]:
        label = row[target["name"]]
        if label is not None:
            told.classes[target["name"]][split][label] += 1


def add_sums(values, feature, told):
    """Adds a tensor to the sums over the training split; stored integers are converted to the values that they represent."""
    first = feature["dim_names"][0]
    # The bytes of files have no statistics.
    if first == "byte":
        return
    values = values.astype(np.float64)
    if feature["scale"] is not None:
        scaled = values * feature["scale"]["factor"] + feature["scale"]["offset"]
        values = scaled.astype(np.float32).astype(np.float64)

    # Arranges the values with one row per band. For statistics each value is a band, for pictures each channel, and all
    # samples of a clip are one band.
    if first == "frame":
        bands = values.T
    elif first == "sample":
        bands = values.reshape(1, values.size)
    elif first == "statistic":
        bands = values.reshape(values.size, 1)
    else:
        bands = values.reshape(len(values), values.size // len(values))
    sums = np.stack([bands.sum(axis=1), np.square(bands).sum(axis=1)])
    total, n_values = told.sums.get(feature["name"], (0.0, 0))
    told.sums[feature["name"]] = (total + sums, n_values + bands.shape[1])


# The version as a whole


def check_rows_of_features(manifest, told, faults):
    """Checks that all features have the same rows, with equal values in all other columns."""
    names = [feature["name"] for feature in manifest["features"]]
    first = told.rows[names[0]]
    for name in names:
        rows = told.rows[name]
        place = f"features/{name}"
        faults.unless_equal(place, "rows", len(rows), manifest["counts"]["feature_rows"])
        if name == names[0]:
            continue

        only_here = sorted(set(rows) ^ set(first))
        if only_here:
            faults.add(place, f"rows that only {names[0]} or only {name} has: {shown(only_here[:3])}")
        for key in set(rows) & set(first):
            other = [column for column in rows[key] if rows[key][column] != first[key].get(column)]
            if other:
                faults.add(place, f"row {shown(key)} differs from the row of {names[0]} in {', '.join(other)}")


def check_counts(manifest, told, place, faults):
    """Checks the two sums, and compares each count with the rows."""
    counts = manifest["counts"]
    dropped = {step["step"]: step["rows"] for step in counts["rows_dropped"]}
    rows = counts["rows_kept"] + sum(dropped.values()) + counts["rows_rejected"]
    if counts["rows_read"] != rows:
        faults.add(place, f"counts: {counts['rows_read']} rows read, but kept + dropped + rejected are {rows}")
    clips = counts["clips_written"] + counts["clips_rejected"]
    if counts["clips_planned"] != clips:
        faults.add(place, f"counts: {counts['clips_planned']} clips planned, but written + rejected are {clips}")

    faults.unless_equal("features", "clips", len(told.splits), counts["clips_written"])
    faults.unless_equal("tracks", "rows", told.tables["tracks"].num_rows, counts["clips_planned"])
    by_step = Counter(told.tables["tracks_all"]["dropped_by"].to_pylist())
    faults.unless_equal("tracks_all", "rows that no step dropped", by_step.pop(None, 0), counts["rows_kept"])
    some_dropped = {step: rows for step, rows in dropped.items() if rows}
    faults.unless_equal("tracks_all", "rows by dropped_by", dict(by_step), some_dropped)


def check_rejects(manifest, told, faults):
    """Checks reasons, stages and counts, and that no clip has both rows and a reject. Returns the rejected clips."""
    rejects = told.tables["rejects"]
    by_reason = Counter(rejects["reason"].to_pylist())
    for reason in sorted(set(by_reason) - REASONS):
        faults.add("rejects", f"unknown reason {reason}")
    for stage in sorted(set(rejects["stage"].to_pylist()) - STAGES):
        faults.add("rejects", f"unknown stage {stage}")

    # Rejects of tables other than the tracks, and of paths that can have no key, are in neither of the two sums.
    rejected = set()
    for row in rejects.select(["clip_key", "stage", "reason"]).to_pylist():
        if row["clip_key"] is None or row["stage"] == "catalog" or row["reason"] in ROW_REASONS:
            continue
        if row["clip_key"] in rejected:
            faults.add("rejects", f"{row['clip_key']} is rejected twice")
        rejected.add(row["clip_key"])

    counts = manifest["counts"]
    faults.unless_equal("rejects", "inputs by reason", dict(by_reason), counts["rejects"])
    faults.unless_equal("rejects", "clips", len(rejected), counts["clips_rejected"])
    for clip in sorted(rejected & set(told.splits)):
        faults.add("rejects", f"{clip} is rejected and has rows")
    return rejected


def check_splits(manifest, told, faults):
    """Checks that each clip is in its split in `tracks`; only under the rules by segment it may be in several splits."""
    rule = manifest["recipe"].get("split", {}).get("rule", "artist")
    if rule not in RULES_BY_SEGMENT:
        for clip, splits in told.splits.items():
            if len(splits) > 1:
                faults.add("features", f"{clip} is in the splits {', '.join(sorted(splits))}")

    column = f"split_{rule}"
    tracks = told.tables["tracks"]
    if rule not in RULES_OF_TRACKS or column not in tracks.column_names:
        return
    placed = dict(zip(tracks["clip_key"].to_pylist(), tracks[column].to_pylist()))
    for clip, splits in told.splits.items():
        if clip not in placed:
            faults.add("tracks", f"no row for {clip}, which has feature rows")
        elif splits != {placed[clip] or "none"}:
            faults.add("tracks", f"{column} of {clip} is {placed[clip]}, but its rows are in {', '.join(splits)}")


def check_sides(told, faults):
    """Checks that every group has one split per rule, and that the tracks and artists of `tracks` are in these splits."""
    if "sides" not in told.tables:
        faults.add("sides", "the manifest has no such table")
        return

    sides = {}
    previous = ("", "")
    for row in told.tables["sides"].to_pylist():
        name = (row["rule"], row["group"])
        if name in sides:
            faults.add("sides", f"{shown(name)} occurs twice")
        elif name < previous:
            faults.add("sides", f"{shown(name)} is not in order")
        if row["rule"] not in KEPT_RULES or row["side"] not in SPLITS:
            faults.add("sides", f"{shown(row)} has an unknown rule or split")
        sides[name] = row["side"]
        previous = name

    # Artists without a numeric id have an id that is a hash of the name, which is not computed here.
    names = [name for name in told.tables["tracks"].column_names if name == "artist_id"]
    for row in told.tables["tracks"].select(["clip_key", *KEPT_RULES.values(), *names]).to_pylist():
        for rule, column in KEPT_RULES.items():
            groups = [f"track:{row['clip_key']}"]
            if rule == "artist" and isinstance(row.get("artist_id"), int):
                groups.append(f"artist:{row['artist_id']}")
            for group in groups:
                if sides.get((rule, group)) != row[column]:
                    said = f"{column} of {row['clip_key']} is {row[column]}"
                    faults.add("sides", f"{said}, but the split of {group} under {rule} is {sides.get((rule, group))}")


def check_inputs(told, faults):
    """Checks that each planned clip has one row, and that clips with feature rows have a file with audio."""
    if "inputs" not in told.tables:
        faults.add("inputs", "the manifest has no such table")
        return

    clips = []
    for row in told.tables["inputs"].to_pylist():
        clip = row["clip_key"]
        clips.append(clip)
        for column in ("content_blake3", "decode_key"):
            if row[column] is None:
                if clip in told.splits:
                    faults.add("inputs", f"{clip} has feature rows, but no {column}")
            elif not re.fullmatch("[0-9a-f]{64}", row[column]):
                faults.add("inputs", f"{column} of {clip} is not a blake3: {shown(row[column])}")
        if row["bytes"] is None and row["content_blake3"] is not None:
            faults.add("inputs", f"{clip} has a content hash, but no size")

    planned = sorted(told.tables["tracks"]["clip_key"].to_pylist())
    if clips != planned:
        faults.add("inputs", f"the {len(clips)} clips differ from the {len(planned)} of tracks in the order of their keys")


def check_audio_files(told, faults):
    """Checks fates and counts: at least as many used files as clips with a file. Earlier programs wrote no such table."""
    if "audio_files" not in told.tables:
        return

    used = 0
    kinds = set()
    for row in told.tables["audio_files"].to_pylist():
        kind = (row["fate"], row["extension"])
        if row["fate"] not in FATES or kind in kinds:
            faults.add("audio_files", f"{shown(kind)} has an unknown fate, or occurs twice")
        kinds.add(kind)
        if not 1 <= len(row["examples"]) <= row["files"]:
            faults.add("audio_files", f"{shown(kind)}: {len(row['examples'])} examples of {row['files']} files")
        if row["fate"] == "used":
            used += row["files"]

    if "inputs" in told.tables:
        there = sum(size is not None for size in told.tables["inputs"]["bytes"].to_pylist())
        if used < there:
            faults.add("audio_files", f"{used} files are used, but {there} clips have a file")


def check_classes(manifest, told, place, faults):
    """Checks the number of clips of each class, by target and split."""
    for target in manifest["targets"]:
        found = told.classes[target["name"]]
        for split in sorted(set(found) | set(target["counts"])):
            by_class = [found[split][label] for label in range(len(target["classes"]))]
            said = target["counts"].get(split, [0] * len(by_class))
            if by_class != said:
                what = f"targets.{target['name']}, counts of {split}: {said}, but the rows give {by_class}"
                faults.add(place, what)


def check_stats(manifest, told, place, faults):
    """Computes mean and standard deviation of each band again from the training rows."""
    if set(told.sums) != set(manifest["stats"]):
        faults.add(place, f"stats of {sorted(manifest['stats'])}, but training rows of {sorted(told.sums)}")

    for name in sorted(set(told.sums) & set(manifest["stats"])):
        stats = manifest["stats"][name]
        (total, squares), n_values = told.sums[name]
        if n_values != stats["values"] or len(total) != len(stats["mean"]):
            said = f"{stats['values']} values of {len(stats['mean'])} bands"
            faults.add(place, f"stats.{name}: {said}, but the training rows have {n_values} of {len(total)}")
            continue

        mean = total / n_values
        mean_square = squares / n_values
        std = np.sqrt(np.maximum(mean_square - mean * mean, 0.0))
        # A band of large, nearly equal values loses digits: the bounds are relative to the values, not to their
        # spread.
        size = np.sqrt(mean_square)
        if not (np.abs(mean - stats["mean"]) <= MEAN_REL_MAX * size).all():
            faults.add(place, f"stats.{name}.mean differs from the mean of the training rows")
        if not (np.abs(std - stats["std"]) <= STD_REL_MAX * size).all():
            faults.add(place, f"stats.{name}.std differs from that of the training rows")


def check_store(store, number, faults):
    """Checks one version and returns the summary line."""
    path = version_path(store, number, faults)
    place = path.relative_to(store).as_posix()
    manifest = read_manifest(path, place, faults)
    if manifest is None:
        return f"{place} was not read further"
    if not (store / "data" / manifest["plan_id"]).is_dir():
        raise Unusable(f"{store}: the data of version {int(path.stem)} does not exist (removed by `wavemill gc`?)")

    inside = check_paths(store, manifest, place, faults)
    check_order(manifest, place, faults)
    check_shards(manifest, place, faults)

    features = {feature["name"]: feature for feature in manifest["features"]}
    told = new_contents()
    complete = len(inside) == len(manifest["files"])
    for entry in inside:
        file = opened(store, entry, faults)
        if file is None:
            complete = False
        elif "table" in entry:
            told.tables[entry["table"]] = file.read()
        elif entry["feature"] in features:
            check_feature_file(file, entry, features[entry["feature"]], manifest, told, faults)
        else:
            faults.add(entry["path"], f"the manifest has no feature {entry['feature']}")

    summary = f"version {int(path.stem)} of plan {manifest['plan_id']}: {len(manifest['files'])} files"
    lacks = sorted({"tracks", "tracks_all", "rejects"} - set(told.tables))
    if lacks and complete:
        faults.add(place, f"no table {', '.join(lacks)}")
    # The rows of a lost file would be missing from every count, so that one fault would be reported many times.
    if lacks or not complete:
        return f"{summary}; counts were not compared, because not all files could be read"

    check_rows_of_features(manifest, told, faults)
    check_counts(manifest, told, place, faults)
    rejected = check_rejects(manifest, told, faults)
    check_splits(manifest, told, faults)
    check_sides(told, faults)
    check_inputs(told, faults)
    check_audio_files(told, faults)
    check_classes(manifest, told, place, faults)
    check_stats(manifest, told, place, faults)
    rows = {name: len(rows) for name, rows in told.rows.items()}
    return f"{summary}, {len(told.splits)} clips with rows {rows}, {len(rejected)} clips rejected"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="the store's folder")
    parser.add_argument("--version", type=int, metavar="N", help="the version to check (default: the latest)")
    options = parser.parse_args()
    if LACKING is not None:
        print(f"check_store: {LACKING}; run scripts/peers/setup.sh and use .venv/bin/python", file=sys.stderr)
        return 2

    faults = Faults()
    try:
        summary = check_store(options.store, options.version, faults)
    except Unusable as error:
        print(f"check_store: {error}", file=sys.stderr)
        return 2
    print(f"{faults.count} fault{'' if faults.count == 1 else 's'}; {summary}")
    return 1 if faults.count else 0


if __name__ == "__main__":
    sys.exit(main())
