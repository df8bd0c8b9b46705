#!/usr/bin/env python3
"""Makes models with random weights, and compares wavemill's embeddings with those of onnxruntime.

usage: embeddings.py small FOLDER          small.onnx (samples), bands.onnx (log-mel) and faulty models; no torch
       embeddings.py check STORE RECIPE    recompute the stored embeddings from the stored inputs; at most 1e-4 may differ
       embeddings.py probe STORE PREDICTIONS DECAY   compare `wavemill-train eval --predictions` of a converged linear-probe
                                           with scikit-learn's logistic regression; probabilities may differ by 1e-5
needs: pip install numpy onnx onnxruntime; pyarrow for check; scikit-learn too for probe

check needs a store whose recipe stores the inputs of all models in f32: op = "pcm", or the source feature.
"""
import argparse, json, math, pathlib, sys, tomllib
import numpy as np

BOUND = 1e-4
PROBE_BOUND = 1e-5


class Graph:
    """An ONNX graph that grows node by node."""

    def __init__(self, seed):
        self.random, self.nodes, self.weights = np.random.default_rng(seed), [], []

    def weight(self, *shape):
        scale = 1 / math.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 1)
        values = self.random.normal(0, scale, shape).astype(np.float32)
        return self.constant(values)

    def constant(self, values):
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op, *inputs, name=None, **attributes):
        from onnx import helper

        name = name or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def save(self, path, inputs, outputs):
        from onnx import TensorProto, helper, save

        def values(names):
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in names.items()]

        graph = helper.make_graph(self.nodes, "wavemill", values(inputs), values(outputs), self.weights)
        opset = [helper.make_opsetid("", 17)]
        save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def transformer(graph, x, dim, heads):
    """A transformer layer with normalization behind each part, as in wav2vec 2.0 and MERT."""
    ones, zeros = np.ones(dim, np.float32), np.zeros(dim, np.float32)

    def norm(x):
        return graph.add("LayerNormalization", x, graph.constant(ones), graph.constant(zeros))

    def projected(order):
        y = graph.add("MatMul", x, graph.weight(dim, dim))
        split = graph.add("Reshape", y, graph.constant(np.array([0, 0, heads, dim // heads], np.int64)))
        return graph.add("Transpose", split, perm=order)

    query, key, value = (projected(order) for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    scale = graph.constant(np.float32(1 / math.sqrt(dim // heads)))
    weights = graph.add("Softmax", graph.add("Mul", graph.add("MatMul", query, key), scale), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    mixed = graph.add("Reshape", mixed, graph.constant(np.array([0, 0, dim], np.int64)))
    x = norm(graph.add("Add", x, graph.add("MatMul", mixed, graph.weight(dim, dim))))
    hidden = graph.add("Relu", graph.add("MatMul", x, graph.weight(dim, 4 * dim)))
    return norm(graph.add("Add", x, graph.add("MatMul", hidden, graph.weight(4 * dim, dim))))


def small_transformer(path, dim=32, layers=3):
    """Convolutions over samples, then a transformer: outputs `last` and `hidden`."""
    graph = Graph(1)
    x = graph.add("Unsqueeze", "samples", graph.constant(np.array([1], np.int64)))
    for n_in, n_out, size, stride in [(1, 16, 10, 5), (16, 16, 8, 8), (16, dim, 8, 8)]:
        x = graph.add("Conv", x, graph.weight(n_out, n_in, size), strides=[stride])
        x = graph.add("Relu", x)
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    hidden = []
    for layer in range(layers):
        x = transformer(graph, x, dim, 4)
        hidden.append(graph.add("Unsqueeze", x, graph.constant(np.array([1], np.int64))))
    graph.add("Identity", x, name="last")
    graph.add("Concat", *hidden, name="hidden", axis=1)
    outputs = {"last": ["batch", "frames", dim], "hidden": ["batch", layers, "frames", dim]}
    graph.save(path, {"samples": ["batch", "n"]}, outputs)


def small_cnn(path, n_mels=64, dim=24, batch="batch"):
    """Convolutions over a log-mel, as in PANNs: output `embedding`."""
    graph = Graph(2)
    x = "log_mel"
    for n_in, n_out in [(1, 8), (8, 16)]:
        x = graph.add("Conv", x, graph.weight(n_out, n_in, 3, 3), pads=[1, 1, 1, 1])
        x = graph.add("AveragePool", graph.add("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = graph.add("ReduceMean", x, axes=[2], keepdims=0)
    x = graph.add("Add", graph.add("ReduceMax", x, axes=[2], keepdims=0), graph.add("ReduceMean", x, axes=[2], keepdims=0))
    graph.add("Relu", graph.add("MatMul", x, graph.weight(16, dim)), name="embedding")
    graph.save(path, {"log_mel": [batch, 1, n_mels, "frames"]}, {"embedding": [batch, dim]})


def faulty(folder):
    """Models that wavemill must refuse or reject."""
    graph = Graph(3)
    graph.add("Add", "a", "b", name="y")
    graph.save(folder / "two_inputs.onnx", {"a": ["batch", "n"], "b": ["batch", "n"]}, {"y": ["batch", "n"]})
    graph = Graph(3)
    graph.add("NoSuchOperator", "x", name="y")
    graph.save(folder / "unknown_operator.onnx", {"x": ["batch", "n"]}, {"y": ["batch", "n"]})
    graph = Graph(3)
    graph.add("Identity", "x", name="y")
    graph.save(folder / "five_axes.onnx", {"x": ["a", "b", "c", "d", "e"]}, {"y": ["a", "b", "c", "d", "e"]})
    # Negative means have no logarithm.
    graph = Graph(3)
    graph.add("Log", graph.add("ReduceMean", "x", axes=[1], keepdims=1), name="y")
    graph.save(folder / "logarithm.onnx", {"x": ["batch", "n"]}, {"y": ["batch", 1]})
    whole = (folder / "small.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "text.onnx").write_text("not a model\n")

    import onnx

    model = onnx.load(folder / "small.onnx")
    onnx.save(model, folder / "external.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)


def standardized(values):
    values = values.astype(np.float64)
    return (values - values.mean()) / np.sqrt(values.var() + 1e-7)


def windows(values, size, axis, standardize):
    """Cut as wavemill does: the last window ends with the last value, and too few values are followed by zeros."""
    n = values.shape[axis]
    starts = [min(at * size, max(n - size, 0)) for at in range(max(1, math.ceil(n / size)))]
    cut = [np.take(values, range(start, min(start + size, n)), axis) for start in starts]
    if standardize:
        cut = [standardized(window) for window in cut]
    if n < size:
        cut = [np.concatenate([window, np.zeros(size - n)]) for window in cut]
    return np.stack(cut)


def expected(session, spec, cut):
    """Return the tensor of a row by onnxruntime, from its windows."""
    shape = session.get_inputs()[0].shape
    cut = cut.reshape(len(cut), *[1] * (len(shape) - cut.ndim), *cut.shape[1:]).astype(np.float32)
    name = session.get_inputs()[0].name
    outputs = [spec["output"]] if "output" in spec else None
    out = np.concatenate([session.run(outputs, {name: one[None]})[0] for one in cut]).astype(np.float64)
    if out.ndim == 4:
        out = out[:, spec["layer"]] if "layer" in spec else out
    if out.ndim == 2:
        out = out[:, None]
    pooling = spec.get("pooling", "mean")
    if pooling == "none":
        return out.reshape(-1, out.shape[-1])
    if pooling == "window":
        return out.mean(-2)
    frames = np.moveaxis(out, 0, -3).reshape(*out.shape[1:-2], -1, out.shape[-1])
    mean = frames.mean(-2)
    return np.concatenate([mean, frames.std(-2)], -1) if pooling == "mean_std" else mean


def manifest_of(store):
    """Return the manifest of the latest version."""
    return json.loads(max((store / "_wavemill/versions").iterdir()).read_text())


def probe(store, predictions, decay):
    """Compare the probabilities of rows of the test split."""
    import pyarrow.parquet as parquet
    from sklearn.linear_model import LogisticRegression

    manifest = manifest_of(store)
    feature = next(entry["name"] for entry in manifest["features"] if entry["dim_names"] == ["value"])
    splits = {"training": [], "test": []}
    for file in manifest["files"]:
        if file.get("feature") == feature and file["split"] in splits:
            splits[file["split"]] += parquet.read_table(store / file["path"]).to_pylist()

    def columns(rows):
        return np.stack([np.frombuffer(row[feature], "<f4").astype(np.float64) for row in rows])

    known = columns(splits["training"])
    mean, deviation = known.mean(0), known.std(0)

    def inputs(rows):
        # The trainer decays the bias too, so it is the weight of a column of ones.
        scaled = (columns(rows) - mean) / deviation
        return np.hstack([scaled, np.ones((len(rows), 1))])

    labels = [row["genre"] for row in splits["training"]]
    # scikit-learn minimizes C times the sum of the losses, and the trainer the mean loss with the decay.
    model = LogisticRegression(C=1 / (len(labels) * decay), fit_intercept=False, tol=1e-10, max_iter=10_000)
    model.fit(inputs(splits["training"]), labels)

    wanted = dict(zip([row["clip_key"] for row in splits["test"]], model.predict_proba(inputs(splits["test"]))))
    rows = parquet.read_table(predictions).to_pylist()
    largest = 0.0
    for row in rows:
        given = np.array(row["genre_probabilities"])[model.classes_]
        largest = max(largest, float(np.abs(given - wanted[row["clip_key"]]).max()))
    print(f"{len(rows)} rows, {len(labels)} for training: largest difference of probabilities {largest:.1e}")
    sys.exit(0 if rows and largest <= PROBE_BOUND else f"{largest:.1e} exceeds {PROBE_BOUND}")


def check(store, recipe_file):
    # Rows begin with their clips: recipes with segments are not supported.
    import onnxruntime
    import pyarrow.parquet as parquet

    recipe = tomllib.loads(pathlib.Path(recipe_file).read_text())
    rate = recipe["audio"]["sample_rate_hz"]
    specs = {spec["name"]: spec for spec in recipe["features"]}
    pcm = next((spec["name"] for spec in specs.values() if spec["op"] == "pcm"), None)
    manifest = manifest_of(store)
    entries = {entry["name"]: entry for entry in manifest["features"]}

    def rows(name):
        dtype = {"f32": "<f4", "f16": "<f2"}[entries[name]["dtype"]]
        # At most one dimension differs between rows.
        shape = [-1 if size is None else size for size in entries[name]["shape"]]
        files = [file["path"] for file in manifest["files"] if file.get("feature") == name]
        columns = ["clip_key", "segment", "duration_s", name]
        found = {}
        for file in files:
            for row in parquet.read_table(store / file, columns=columns).to_pylist():
                values = np.frombuffer(row[name], dtype).reshape(shape)
                found[row["clip_key"], row["segment"]] = values, row["duration_s"]
        return found

    worst = 0.0
    for spec in specs.values():
        if spec["op"] != "onnx":
            continue
        source = spec.get("source", pcm)
        axis = entries[source]["dim_names"].index("frame") if "source" in spec else 0
        per_s = rate / (entries[source]["hop_length"] if "source" in spec else 1)
        session = onnxruntime.InferenceSession(spec["model"], providers=["CPUExecutionProvider"])
        inputs, stored = rows(source), rows(spec["name"])
        assert stored.keys() == inputs.keys() and stored, f"{spec['name']}: other rows than {source}"
        largest = 0.0
        for key, (values, duration_s) in stored.items():
            given, _ = inputs[key]
            size = round(spec["window_s"] * per_s) if "window_s" in spec else given.shape[axis]
            if source == pcm:
                # Models do not see the zeros behind a clip that is shorter than its row.
                given = given[: round(duration_s * rate)]
            wanted = expected(session, spec, windows(given, size, axis, spec.get("standardize")))
            assert values.shape == wanted.shape, f"{spec['name']}, {key}: {values.shape}, not {wanted.shape}"
            largest = max(largest, float(np.abs(values - wanted).max()))
        print(f"{spec['name']}: {len(stored)} rows of {list(wanted.shape)}, largest difference {largest:.1e}")
        worst = max(worst, largest)
    sys.exit(0 if worst <= BOUND else f"{worst:.1e} exceeds {BOUND}")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1][7:])
    parser.add_argument("command", choices=["small", "check", "probe"])
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    asked = parser.parse_args()
    folder = asked.paths[0]
    if asked.command == "probe":
        return probe(folder, asked.paths[1], float(str(asked.paths[2])))
    if asked.command == "check":
        return check(*asked.paths)
    folder.mkdir(parents=True, exist_ok=True)
    small_transformer(folder / "small.onnx")
    small_cnn(folder / "bands.onnx")
    small_cnn(folder / "one_at_a_time.onnx", batch=1)
    faulty(folder)


if __name__ == "__main__":
    main()
