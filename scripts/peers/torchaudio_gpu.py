#!/usr/bin/env python3
"""Measure torchaudio on one GPU for the same work as kernels/benches/cuda.rs: clips of 30 s to log-mel.

usage: scripts/peers/torchaudio_gpu.py [BATCHES]        default: rounds of 8 batches of 64 clips

The result is clips per second by wall time in the median of 20 rounds, after a second of work that raises the clocks.

Computes the mean of the channels, Resample if the rate differs, MelSpectrogram with 128 bands, AmplitudeToDB and f16; TF32
is off. Resampling uses torchaudio's default filter, which is shorter than wavemill's. Needs torch and torchaudio for the
machine's CUDA. Without a device, prints a message and succeeds, unless WAVEMILL_REQUIRE_CUDA=1 is set.
"""

import os
import statistics
import sys
import time

CLIP_S, RATE_HZ, CLIPS = 30, 22_050, 64
WARM_UP_S, ROUNDS = 1.0, 20
CASES = [("44,100 Hz stereo s16", 44_100, 2), ("22,050 Hz stereo s16", RATE_HZ, 2), ("22,050 Hz mono s16", RATE_HZ, 1)]


def chain(torch, torchaudio, rate_hz):
    """Return samples [clips, channels, n] as stored -> decibels [clips, 128, frames]."""
    mel = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, n_fft=2048, hop_length=512, n_mels=128, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )
    steps = [mel, torchaudio.transforms.AmplitudeToDB("power", top_db=80.0)]
    if rate_hz != RATE_HZ:
        steps.insert(0, torchaudio.transforms.Resample(rate_hz, RATE_HZ))
    steps = torch.nn.Sequential(*steps).cuda()
    return lambda samples: steps(samples.to(torch.float32).mul(1 / 32_768).mean(1)).to(torch.float16)


def round_s(torch, batches, work):
    """Return the wall seconds of running `work` once per batch, including synchronization."""
    start = time.perf_counter()
    for _ in range(batches):
        work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def clips_per_s(torch, batches, work):
    """Return the result of the median round, after warming up."""
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_UP_S:
        round_s(torch, batches, work)
    return batches * CLIPS / statistics.median(round_s(torch, batches, work) for _ in range(ROUNDS))


def measure(torch, run, rate_hz, channels, batches):
    """Measure with samples on the device, and with copies from and to pinned memory."""
    shape = (CLIPS, channels, CLIP_S * rate_hz)
    pinned = torch.randint(-16_384, 16_384, shape, dtype=torch.int16).pin_memory()
    on_device = pinned.cuda()
    out = torch.empty_like(run(on_device), device="cpu", pin_memory=True)
    resident = clips_per_s(torch, batches, lambda: run(on_device))
    copied = clips_per_s(torch, batches, lambda: out.copy_(run(pinned.cuda(non_blocking=True)), non_blocking=True))
    return resident, copied


def main():
    try:
        import torch
        import torchaudio
    except ImportError as missing:
        sys.exit(f"{missing}: pip install torch torchaudio")
    if not torch.cuda.is_available():
        print("no CUDA device: not run")
        sys.exit(1 if os.environ.get("WAVEMILL_REQUIRE_CUDA") == "1" else 0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    print(f"{torch.cuda.get_device_name()}: torch {torch.__version__}, torchaudio {torchaudio.__version__}")
    with torch.inference_mode():
        for name, rate_hz, channels in CASES:
            resident, copied = measure(torch, chain(torch, torchaudio, rate_hz), rate_hz, channels, batches)
            print(f"{name}: samples on the device {resident:.0f} clips/s, with copies {copied:.0f} clips/s")


if __name__ == "__main__":
    main()
