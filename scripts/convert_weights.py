#!/usr/bin/env python3
"""Convert a PyTorch weights file to safetensors for wavemill-train's model.init (fit --init).

usage: convert_weights.py WEIGHTS.pth OUT.safetensors [--model resnet50|xception]
needs: pip install 'torch>=2.6'

A .pth, .pt or .bin file is a pickle, which can execute any code when it is read. This script reads it with
torch.load(weights_only=True), which only builds tensors; files with other content are rejected. (Before 2.6, torch's own
check had a vulnerability, CVE-2025-32434.)

Writes the tensors under the trainer's names:
  - uses the weights within a checkpoint (state_dict, model_state_dict, model, net), if there are any;
  - removes the prefixes module. and backbone. from names;
  - omits num_batches_tracked and the head (fc, last_linear), which the trainer initializes;
  - converts numbers to float32.
--model checks names and shapes: those of torchvision for resnet50, those of timm (legacy_xception) for xception. In older
Xception files by Cadene, 1 x 1 filters lack their last two axes, which are added.

Exit codes: 0 ok, 1 the file cannot be read or written, 2 invalid usage, or weights of another model.
"""
import argparse, contextlib, json, os, pathlib, pickle, struct, sys

PARTS = ["state_dict", "model_state_dict", "model", "net"]
PREFIXES = ["module.", "backbone."]
HEADS = ["fc.", "last_linear.", "head.", "classifier."]
# Number of tensors without head and counters, and some of the tensors with their shapes.
MODELS = {
    "resnet50": (265, {"conv1.weight": [64, 3, 7, 7], "layer3.5.bn3.running_var": [1024], "layer4.2.conv3.weight": [2048, 512, 1, 1]}),
    "xception": (234, {"conv1.weight": [32, 3, 3, 3], "block12.rep.1.pointwise.weight": [728, 728, 1, 1], "bn4.running_var": [2048]}),
}


def fail(code, words):
    print(f"convert_weights.py: {words}", file=sys.stderr)
    sys.exit(code)


def load(path):
    """Reads names and tensors of a file without executing any code in it."""
    try:
        import torch
    except ImportError:
        fail(2, "needs PyTorch: pip install 'torch>=2.6'")
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 6):
        fail(2, f"torch {torch.__version__} cannot read such files safely: pip install 'torch>=2.6'")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own message advises to read the file without the check.
        fail(1, f"{path}: contains more than weights, or is damaged: use a file written by torch.save(model.state_dict(), …)")
    except OSError as error:
        fail(1, f"{path}: {error.strerror}")
    except Exception as error:  # The type depends on the damage.
        fail(1, f"{path}: not a PyTorch file, or damaged ({type(error).__name__})")
    for part in PARTS:
        if isinstance(held, dict) and isinstance(held.get(part), dict):
            held = held[part]
            break
    if not isinstance(held, dict):
        fail(2, f"{path}: contains no named tensors")
    return {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}


def renamed(tensors):
    """Returns the tensors under the trainer's names, without those that the trainer initializes."""
    out = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if name.endswith("num_batches_tracked") or any(name.startswith(head) for head in HEADS):
            continue
        if name.endswith("pointwise.weight") and tensor.dim() == 2:
            tensor = tensor[:, :, None, None]
        out[name] = tensor
    return out


def check(tensors, model, path):
    """Exits at the first difference from the model."""
    count, shapes = MODELS[model]
    for name, shape in shapes.items():
        found = list(tensors[name].shape) if name in tensors else None
        if found != shape:
            fail(2, f"{path} is not a file of {model}: {name} is {found or 'missing'}, not {shape}")
    if len(tensors) != count:
        fail(2, f"{path} is not a file of {model}: {len(tensors)} tensors without the head, not {count}")


def write(tensors, path):
    """Writes safetensors: length of the header, header in JSON, values. The file gets its name when it is complete."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    values = []
    for name in sorted(tensors):
        data = tensors[name].detach().float().contiguous().numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
        values.append(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("wb") as file:
            file.write(struct.pack("<Q", len(head)) + head)
            for data in values:
                file.write(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        fail(1, f"{path}: {error.strerror}")


def main():
    parser = argparse.ArgumentParser(usage="convert_weights.py WEIGHTS.pth OUT.safetensors [--model resnet50|xception]")
    parser.add_argument("weights", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", choices=sorted(MODELS), help="check that these are weights of this model")
    words = parser.parse_args()
    tensors = renamed(load(words.weights))
    if not tensors:
        fail(2, f"{words.weights}: contains no weights")
    if words.model:
        check(tensors, words.model, words.weights)
    write(tensors, words.out)
    print(f"{words.out}: {len(tensors)} tensors; wavemill train fit --init {words.out} --model {words.model or 'NAME'}")


if __name__ == "__main__":
    main()
