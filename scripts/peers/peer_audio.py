#!/usr/bin/env python3
"""Run a Python chain, or one stage of it, over some clips: prints CPU and wall milliseconds per clip as JSON.

usage: peer_audio.py STAGE PEER OUT_DIR CLIP…

Imports, and everything that a careful user creates only once (filter banks, resampling kernels), are not timed; one clip is
processed first to warm up. Uses one thread. STAGE `chain` is MP3 -> 22.05 kHz mono -> log-mel -> .npy in OUT_DIR.
"""

import json
import os
import sys
import time

RATE_HZ = 22_050


def mono(samples):
    """Return the mean of the channels of [sample, channel]."""
    return samples[:, 0] if samples.shape[1] == 1 else (samples[:, 0] + samples[:, 1]) * 0.5


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


def librosa_mel(samples):
    """Return librosa's log-mel, as in its tutorial."""
    import librosa

    power = librosa.feature.melspectrogram(y=samples, sr=RATE_HZ, n_fft=2048, hop_length=512, n_mels=128)
    return librosa.power_to_db(power)


def wavemill_mel(path):
    """Return the log-mel of a file by wavemill's Python package."""
    import wavemill

    samples, rate = wavemill.load(path)
    return wavemill.power_to_db(wavemill.feature.melspectrogram(y=samples, sr=rate))


def decoder(peer):
    """Return path -> samples at the file's own rate."""
    if peer == "librosa":
        import librosa

        return lambda path: librosa.load(path, sr=None, mono=False)[0]
    if peer == "torchcodec":
        import torch
        from torchcodec.decoders import AudioDecoder

        torch.set_num_threads(1)
        return lambda path: AudioDecoder(path).get_all_samples().data
    import soundfile

    return lambda path: soundfile.read(path, dtype="float32", always_2d=True)[0]


def resampler(peer):
    """Return (mono samples, rate) -> samples at 22.05 kHz."""
    if peer == "librosa":
        import librosa

        return lambda samples, rate: librosa.resample(samples, orig_sr=rate, target_sr=RATE_HZ)
    if peer == "torchaudio":
        import torch
        import torchaudio

        torch.set_num_threads(1)
        kernels = {rate: torchaudio.transforms.Resample(rate, RATE_HZ) for rate in (44_100, 48_000)}
        return lambda samples, rate: kernels[rate](torch.from_numpy(samples))
    import soxr

    return lambda samples, rate: soxr.resample(samples, rate, RATE_HZ)


def chain(peer):
    """Return path -> log-mel."""
    if peer == "librosa":
        import librosa

        return lambda path: librosa_mel(librosa.load(path)[0])
    if peer == "wavemill":
        return wavemill_mel
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
        one = mono(samples)
        return torch.from_numpy(one if rate == RATE_HZ else soxr.resample(one, rate, RATE_HZ))

    return lambda path: mel(read(path)).numpy()


def prepare(stage, peer, out_dir, clips):
    """Return the work for one clip as a function, and the items to call it with."""
    import numpy
    import soundfile

    if stage == "chain":
        log_mel = chain(peer)

        def save(path):
            numpy.save(os.path.join(out_dir, os.path.basename(path) + ".npy"), log_mel(path).astype("f4"))

        return save, clips
    if stage == "decode":
        return decoder(peer), clips
    loaded = [soundfile.read(path, dtype="float32", always_2d=True) for path in clips[:16]]
    if stage == "resample":
        resample = resampler(peer)
        return lambda item: resample(*item), [(mono(samples), rate) for samples, rate in loaded if rate != RATE_HZ]
    soxr = resampler("soxr")
    audio = [mono(samples) if rate == RATE_HZ else soxr(mono(samples), rate) for samples, rate in loaded]
    if peer == "librosa":
        return librosa_mel, audio
    import torch

    return torch_mel(), [torch.from_numpy(samples) for samples in audio]


def main():
    """Measure one pass."""
    stage, peer, out_dir, *clips = sys.argv[1:]
    work, items = prepare(stage, peer, out_dir, clips)
    work(items[0])
    start, start_cpu = time.perf_counter(), time.process_time()
    for item in items:
        work(item)
    cpu_ms = (time.process_time() - start_cpu) * 1e3 / len(items)
    wall_ms = (time.perf_counter() - start) * 1e3 / len(items)
    print(json.dumps({"cpu_ms": cpu_ms, "wall_ms": wall_ms}))


if __name__ == "__main__":
    main()
