"""Writes files of weights as people publish them with PyTorch, and files that only look so.

usage: make_weights.py FOLDER [SAFETENSORS]

With SAFETENSORS, a checkpoint of wavemill-train, full.pth has its model's tensors, under the names of a model that was
trained on several GPUs.
"""

import json
import pathlib
import struct
import sys

import torch


class Touch:
    """What is run when a pickle of this is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def read_checkpoint(path):
    """Names and tensors of f32 of the model in a checkpoint."""
    data = path.read_bytes()
    (n_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + n_bytes])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + n_bytes + at for at in entry["data_offsets"])
        if name.startswith("model."):
            tensors[name.removeprefix("model.")] = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.float32).reshape(entry["shape"])
    return tensors


def main():
    folder = pathlib.Path(sys.argv[1])
    weights = {
        # Transposed, so that the logical order differs from the order in memory.
        "module.conv1.weight": torch.arange(6, dtype=torch.float64).reshape(2, 3).t(),
        "module.block1.rep.0.pointwise.weight": torch.ones(4, 2, dtype=torch.float16),
        "module.bn1.num_batches_tracked": torch.tensor(7),
        "module.fc.weight": torch.zeros(10, 3),
    }
    torch.save({"epoch": 3, "state_dict": weights, "optimizer": {"lr": 0.1}}, folder / "plain.pth")
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": weights, "hook": Touch(str(folder / "was-run"))}, folder / "code.pth")
    plain = (folder / "plain.pth").read_bytes()
    (folder / "cut.pth").write_bytes(plain[: len(plain) // 2])
    (folder / "text.pth").write_text("<!DOCTYPE html>")
    torch.save({"lr": 0.1}, folder / "numbers.pth")
    torch.save([1, 2], folder / "list.pth")
    if len(sys.argv) > 2:
        tensors = read_checkpoint(pathlib.Path(sys.argv[2]))
        torch.save({"model": {f"module.{name}": tensor for name, tensor in tensors.items()}}, folder / "full.pth")


if __name__ == "__main__":
    main()
