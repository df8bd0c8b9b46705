#!/usr/bin/env python3
"""Run a chain of Python from MP3s to log-mel at 22.05 kHz mono in .npy files: prints milliseconds per clip as JSON.

usage: peer_audio.py librosa|soundfile|torchcodec|wavemill OUT_DIR CLIP…

Imports, and everything that a careful user creates only once (filter banks, resampling kernels), are not timed; one clip is
processed first to warm up. Uses one thread.
"""

import json
import os
import sys
import time

RATE_HZ = 22_050


def torch_mel():
    """Return torchaudio's log-mel with librosa's parameters, as a function."""
    import torch
    import torchaudio

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    return torch.nn.Sequential(
        torchaudio.transforms.MelSpectrogram(
            RATE_HZ, n_fft=2048, hop_length=512, n_mels=128, mel_scale="slaney", norm="slaney", pad_mode="constant"
        ),
        torchaudio.transforms.AmplitudeToDB("power", 80.0),
    )


def librosa_mel(path):
    """Return the log-mel of a file by librosa, as in its tutorial."""
    import librosa

    power = librosa.feature.melspectrogram(y=librosa.load(path)[0], sr=RATE_HZ, n_fft=2048, hop_length=512, n_mels=128)
    return librosa.power_to_db(power)


def wavemill_mel(path):
    """Return the log-mel of a file by wavemill's Python package."""
    import wavemill

    samples, rate = wavemill.load(path)
    return wavemill.power_to_db(wavemill.feature.melspectrogram(y=samples, sr=rate))


def chain(peer):
    """Return path -> log-mel."""
    if peer in ("librosa", "wavemill"):
        return librosa_mel if peer == "librosa" else wavemill_mel
    import torch

    mel = torch_mel()
    if peer == "torchcodec":
        from torchcodec.decoders import AudioDecoder

        def decode(path):
            return AudioDecoder(path, sample_rate=RATE_HZ, num_channels=1).get_all_samples().data[0]

        return lambda path: mel(decode(path)).numpy()
    import soundfile
    import soxr

    def read(path):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        one = samples[:, 0] if samples.shape[1] == 1 else (samples[:, 0] + samples[:, 1]) * 0.5
        return torch.from_numpy(one if rate == RATE_HZ else soxr.resample(one, rate, RATE_HZ))

    return lambda path: mel(read(path)).numpy()


def main():
    """Measure one pass."""
    import numpy

    peer, out_dir, *clips = sys.argv[1:]
    log_mel = chain(peer)

    def save(path):
        numpy.save(os.path.join(out_dir, os.path.basename(path) + ".npy"), log_mel(path).astype("f4"))

    save(clips[0])
    start, start_cpu = time.perf_counter(), time.process_time()
    for clip in clips:
        save(clip)
    cpu_ms = (time.process_time() - start_cpu) * 1e3 / len(clips)
    wall_ms = (time.perf_counter() - start) * 1e3 / len(clips)
    print(json.dumps({"cpu_ms": cpu_ms, "wall_ms": wall_ms}))


if __name__ == "__main__":
    main()
