#!/usr/bin/env python3
"""A Gradio app that predicts the class of a song with an exported model; started by serve.py.

usage: serve_gradio.py MODEL.pt PORT

It is a typical app: librosa loads the file and computes the log-mel of scripts/peers/bench.toml, and TorchScript predicts.
MODEL.pt.json, which `wavemill-train export` writes, describes how a row is converted to the model's argument. Each response
contains its times and the probability of every class.
"""

import json
import sys
import time
from pathlib import Path

import gradio
import librosa
import numpy
import torch

RATE_HZ = 22_050
SECONDS = 30.0


def log_mel(samples):
    """Returns librosa's log-mel in dB below its peak, scaled to [0, 1], in half precision as in a store."""
    # A recipe with a duration pads a shorter clip with silence.
    samples = librosa.util.fix_length(samples, size=int(RATE_HZ * SECONDS))
    power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=2048, hop_length=512, n_mels=128)
    level = librosa.power_to_db(power, ref=numpy.max, amin=1e-10, top_db=80.0)
    low, high = level.min(), level.max()
    return ((level - low) / max(high - low, 1e-12)).astype(numpy.float16)


def argument(row, about):
    """Applies the steps of docs/export.md, from a stored row to the argument `spectrogram`."""
    values = row.astype(numpy.float32)
    normalize = about["input"].get("normalize")
    if normalize:
        std = numpy.asarray(normalize["std"], numpy.float32)
        mean = numpy.asarray(normalize["mean"], numpy.float32)
        values = (values - mean[:, None]) / numpy.where(std == 0, 1, std)[:, None]
    frames = about["input"]["frames"]
    values = values[:, :frames]
    values = numpy.pad(values, ((0, 0), (0, frames - values.shape[1])))
    return torch.from_numpy(values[None])


def main():
    """Serves requests until it is killed."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    model_file, port = sys.argv[1], int(sys.argv[2])
    model = torch.jit.load(model_file).eval()
    about = json.loads(Path(f"{model_file}.json").read_text())
    [output] = about["outputs"]

    def answer(path):
        marks = [time.perf_counter()]
        samples, _ = librosa.load(path, sr=RATE_HZ, mono=True, duration=SECONDS)
        marks.append(time.perf_counter())
        row = argument(log_mel(samples), about)
        marks.append(time.perf_counter())
        with torch.inference_mode():
            probabilities = torch.softmax(model(row), 1)[0].tolist()
        marks.append(time.perf_counter())

        decode, features, answered = (after - before for before, after in zip(marks, marks[1:]))
        classes = dict(zip(output["classes"], probabilities, strict=True))
        return {"decode": decode, "features": features, "model": answered, "classes": classes}

    app = gradio.Interface(answer, gradio.Audio(type="filepath"), gradio.JSON(), api_name="answer")
    app.launch(server_name="127.0.0.1", server_port=port, quiet=True, ssr_mode=False)


if __name__ == "__main__":
    main()
