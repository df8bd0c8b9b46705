"""Audio as arrays: decoding, resampling, Fourier transforms and decibels, with librosa's names and values."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from . import _wavemill
from ._arguments import checked, whole
from .errors import AudioError, UsageError

log = logging.getLogger("wavemill")

Array: TypeAlias = npt.NDArray[Any]
#: A path, the bytes of a file, or a file object opened for reading bytes.
AudioFile: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"
#: The name of a window, its values, or a function of its length.
Window: TypeAlias = "str | npt.ArrayLike | Callable[[int], npt.ArrayLike]"


@dataclass(frozen=True)
class AudioInfo:
    """Properties of an audio file."""

    #: Duration in seconds, including silence in place of lost audio; 0 for a reject.
    duration: float
    #: Sample rate in Hz; 0 for a reject.
    rate: int
    #: Number of channels; 0 for a reject.
    channels: int
    #: Seconds of audio lost to damage.
    lost: float
    #: Reason why the file cannot be decoded, such as ``"unsupported_codec"``; ``None`` if it can.
    reject: str | None = None
    #: The reason in words, with the place in the file.
    detail: str | None = None


@checked
def load(
    path: AudioFile,
    *,
    sr: float | None = 22050,
    mono: bool = True,
    offset: float = 0.0,
    duration: float | None = None,
    dtype: npt.DTypeLike = np.float32,
    decode: str = "exact",
) -> tuple[Array, int]:
    """Decode an audio file, like ``librosa.load``.

    Parameters
    ----------
    path : path, bytes or file object
        An MP3, AAC, ALAC, FLAC, Vorbis, Opus, WAV or AIFF file.
    sr : int or None
        Sample rate of the result in Hz; ``None`` keeps that of the file.
    mono : bool
        Whether to return the mean of the channels.
    offset, duration : float
        Start and length of the excerpt in seconds; ``duration=None`` reads to the end.
    dtype : dtype
        Type of the samples; the full scale is ±1.
    decode : "exact" or "band"
        ``"band"`` decodes an MP3 with at least twice the rate ``sr`` only up to the frequencies that remain, in two thirds
        of the time. Samples then differ from librosa's: levels above 0.9 of the Nyquist frequency change by up to 29 dB,
        and excerpts are cut at ``sr``. It needs ``mono=True`` and a rate; docs/band-path.md has the differences.

    Returns
    -------
    y : array of shape (n,), or (channels, n) for a file of several channels with ``mono=False``
    sr : int
        Sample rate of ``y`` in Hz.

    Raises
    ------
    AudioError
        The file cannot be decoded. Damage inside a file is replaced by silence and reported as a warning of the
        logger ``wavemill``; see `inspect`.
    FileNotFoundError
        The file does not exist.

    Examples
    --------
    >>> y, sr = wm.load("a.mp3", sr=16000, offset=10.0, duration=5.0)
    """
    if not (offset >= 0.0 and np.isfinite(offset)):
        raise UsageError(f"offset = {offset}: must be 0 or more seconds")
    if duration is not None and not (duration > 0.0 and np.isfinite(duration)):
        raise UsageError(f"duration = {duration}: must be more than 0 seconds, or None")
    if np.dtype(dtype).kind != "f":
        raise UsageError(f"dtype: must be a type of floats, not {np.dtype(dtype)}")
    if decode not in ("exact", "band"):
        raise UsageError(f"decode = {decode!r}: must be 'exact' or 'band'")
    rate = None if sr is None else whole_rate("sr", sr)
    is_by_band = decode == "band"
    if is_by_band and (rate is None or not mono):
        raise UsageError("decode = 'band': needs mono=True and a sample rate sr")
    data, name = _read(path)

    end = None if duration is None else offset + duration
    if mono:
        # A whole file is resampled while it is decoded. librosa cuts an excerpt at the file's rate, before it resamples.
        decoded_rate = rate if is_by_band or (end is None and offset == 0.0) else None
        samples, native, lost = _wavemill.decode_mono(data, name, decoded_rate, end, is_by_band)
        planes = samples[np.newaxis]
    else:
        planes, native, lost = _wavemill.decode_channels(data, name, end)
    _warn_of_loss(name, lost)

    start = int(offset * native)
    stop = None if duration is None else start + int(duration * native)
    planes = planes[:, start:stop]
    if rate is not None and rate != native:
        planes = _wavemill.resample(np.ascontiguousarray(planes), native, rate)
    y = planes[0] if len(planes) == 1 else planes
    return np.ascontiguousarray(y, dtype=dtype), rate or native


@checked
def inspect(path: AudioFile) -> AudioInfo:
    """Decode an audio file without keeping its samples, and return its properties, or why it cannot be decoded.

    Examples
    --------
    >>> wm.inspect("a.mp3")
    AudioInfo(duration=30.0, rate=44100, channels=2, lost=0.0, reject=None, detail=None)
    """
    data, name = _read(path)
    try:
        duration, rate, channels, lost = _wavemill.inspect(data, name)
    except AudioError as error:
        return AudioInfo(0.0, 0, 0, 0.0, error.reason, str(error))
    return AudioInfo(duration, rate, channels, lost)


@checked
def resample(y: npt.ArrayLike, *, orig_sr: float, target_sr: float, axis: int = -1) -> Array:
    """Convert the sample rate, like ``librosa.resample``.

    The filter has linear phase; its pass band ends at 0.913 of the lower Nyquist frequency, and from that frequency on
    it attenuates by at least 100 dB. It computes in float32.

    Parameters
    ----------
    y : array of shape (…, n, …)
        Samples along ``axis``, float32 or float64.
    orig_sr, target_sr : int
        Sample rates in Hz.
    axis : int
        Axis of time.

    Returns
    -------
    array of the same shape, except for ``ceil(n * target_sr / orig_sr)`` samples along ``axis``

    Examples
    --------
    >>> wm.resample(y, orig_sr=44100, target_sr=16000)
    """
    samples = np.moveaxis(valid_audio(y), axis, -1)
    from_hz, to_hz = whole_rate("orig_sr", orig_sr), whole_rate("target_sr", target_sr)
    if from_hz == to_hz:
        return np.array(np.moveaxis(samples, -1, axis))
    resampled = _wavemill.resample(rows(samples), from_hz, to_hz)
    resampled = resampled.reshape(*samples.shape[:-1], -1).astype(samples.dtype, copy=False)
    return np.moveaxis(resampled, -1, axis)


@checked
def stft(
    y: npt.ArrayLike,
    *,
    n_fft: int = 2048,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    dtype: npt.DTypeLike | None = None,
    pad_mode: str = "constant",
) -> Array:
    """Compute the short-time Fourier transform, like ``librosa.stft``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples, float32 or float64.
    n_fft, hop_length, win_length : int
        Lengths in samples of transform, hop (default ``win_length // 4``) and window (default ``n_fft``).
    window : str, array or function
        Name of a window as in scipy, its ``win_length`` values, or a function that returns them for a length.
    center : bool
        Whether frame t is centred on sample ``t * hop_length``.
    dtype : dtype
        Complex type of the result; by default of the precision of ``y``.
    pad_mode : str
        Mode of ``numpy.pad`` for the ends of a centred signal.

    Returns
    -------
    array of shape (…, n_fft // 2 + 1, frames), complex

    Examples
    --------
    >>> magnitude = np.abs(wm.stft(y))
    """
    samples = valid_audio(y)
    win_length = n_fft if win_length is None else win_length
    hop_length = win_length // 4 if hop_length is None else hop_length
    # The weights are float64, so that float32 samples are transformed in double precision, too, as by librosa.
    weights = window_values(window, win_length, n_fft)
    hop_length = whole("hop_length", hop_length, 1)

    if center:
        pad = [(0, 0)] * (samples.ndim - 1) + [(n_fft // 2, n_fft // 2)]
        try:
            samples = np.pad(samples, pad, mode=cast(Any, pad_mode))
        except ValueError as error:
            raise UsageError(f"pad_mode: {error}") from None
    if samples.shape[-1] < n_fft:
        raise UsageError(f"n_fft = {n_fft}: y has only {samples.shape[-1]} samples")

    frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft, axis=-1)[..., ::hop_length, :]
    spectrum = np.fft.rfft(frames * weights, axis=-1)
    spectrum = spectrum.astype(dtype or np.result_type(samples.dtype, np.complex64), copy=False)
    return np.swapaxes(spectrum, -1, -2)


@checked
def istft(
    stft_matrix: npt.ArrayLike,
    *,
    hop_length: int | None = None,
    win_length: int | None = None,
    n_fft: int | None = None,
    window: Window = "hann",
    center: bool = True,
    dtype: npt.DTypeLike | None = None,
    length: int | None = None,
) -> Array:
    """Invert `stft`, like ``librosa.istft``: overlapping frames are added, and divided by the sum of squared windows.

    Parameters
    ----------
    stft_matrix : array of shape (…, n_fft // 2 + 1, frames), complex
    length : int
        Number of samples of the result; by default as many as the frames cover.

    The other parameters are those of `stft`.

    Returns
    -------
    array of shape (…, n)

    Examples
    --------
    >>> y = wm.istft(wm.stft(y), length=len(y))
    """
    spectrum = np.asarray(stft_matrix)
    if spectrum.ndim < 2 or spectrum.dtype.kind != "c":
        raise UsageError(f"stft_matrix: must be complex, of shape (…, bins, frames), not {spectrum.dtype} of {spectrum.shape}")
    n_fft = 2 * (spectrum.shape[-2] - 1) if n_fft is None else n_fft
    win_length = n_fft if win_length is None else win_length
    hop_length = win_length // 4 if hop_length is None else hop_length
    weights = window_values(window, win_length, n_fft)
    hop_length = whole("hop_length", hop_length, 1)

    frames = np.fft.irfft(np.swapaxes(spectrum, -1, -2), n=n_fft, axis=-1) * weights
    n_frames = frames.shape[-2]
    n_all = n_fft + hop_length * (n_frames - 1)
    y = np.zeros((*frames.shape[:-2], n_all), dtype=frames.dtype)
    squares = np.zeros(n_all)
    for frame in range(n_frames):
        place = slice(frame * hop_length, frame * hop_length + n_fft)
        y[..., place] += frames[..., frame, :]
        squares[place] += weights**2
    # Samples under no window are left as they are: zeros.
    np.divide(y, squares, out=y, where=squares > np.finfo(np.float32).tiny)

    start = n_fft // 2 if center else 0
    stop = n_all - start if length is None else start + length
    y = y[..., start:stop]
    if length is not None and y.shape[-1] < length:
        y = np.pad(y, [(0, 0)] * (y.ndim - 1) + [(0, length - y.shape[-1])])
    real = np.float32 if spectrum.dtype == np.complex64 else np.float64
    return y.astype(dtype or real, copy=False)


@checked
def power_to_db(
    S: npt.ArrayLike,
    *,
    ref: float | Callable[[Array], Any] = 1.0,
    amin: float = 1e-10,
    top_db: float | None = 80.0,
) -> Array:
    """Convert powers to decibels relative to ``ref``, like ``librosa.power_to_db``.

    Parameters
    ----------
    S : array
        Powers.
    ref : float or function
        Power of 0 dB, or a function that computes it from ``S``, such as ``np.max``.
    amin : float
        Smallest power; smaller values are raised to it.
    top_db : float or None
        Range below the maximum, in dB, to which values are limited.

    Examples
    --------
    >>> wm.power_to_db(S, ref=np.max)
    """
    power = np.abs(np.asarray(S))
    if not amin > 0.0:
        raise UsageError(f"amin = {amin}: must be above 0")
    if top_db is not None and not top_db >= 0.0:
        raise UsageError(f"top_db = {top_db}: must be 0 or more, or None")

    reference = np.abs(ref(power)) if callable(ref) else np.abs(ref)
    decibels = np.log10(np.maximum(amin, power))
    decibels *= 10.0
    decibels -= 10.0 * np.log10(np.maximum(amin, reference))
    if top_db is not None and decibels.size:
        decibels = np.maximum(decibels, decibels.max() - top_db)
    return cast(Array, decibels)


@checked
def amplitude_to_db(
    S: npt.ArrayLike,
    *,
    ref: float | Callable[[Array], Any] = 1.0,
    amin: float = 1e-5,
    top_db: float | None = 80.0,
) -> Array:
    """Convert magnitudes to decibels, like ``librosa.amplitude_to_db``; the arguments are those of `power_to_db`.

    Examples
    --------
    >>> wm.amplitude_to_db(np.abs(wm.stft(y)), ref=np.max)
    """
    magnitude = np.abs(np.asarray(S))
    reference = np.abs(ref(magnitude)) if callable(ref) else np.abs(ref)
    return power_to_db(magnitude**2, ref=reference**2, amin=amin**2, top_db=top_db)


def valid_audio(y: npt.ArrayLike) -> Array:
    """Return ``y`` as an array of float32 or float64, or raise `UsageError` if it is not audio."""
    samples = np.asarray(y)
    if samples.ndim == 0 or samples.dtype.kind != "f":
        raise UsageError(f"y: must be an array of floats of shape (…, n), not {samples.dtype} of {samples.shape}")
    if samples.dtype not in (np.float32, np.float64):
        samples = samples.astype(np.float32)
    if samples.shape[-1] == 0:
        raise UsageError("y: has no samples")
    if not np.isfinite(samples).all():
        raise UsageError("y: has samples that are NaN or infinite")
    return samples


def rows(samples: Array) -> npt.NDArray[np.float32]:
    """Return samples of shape (…, n) as contiguous float32 rows."""
    return np.ascontiguousarray(samples.reshape(-1, samples.shape[-1]), dtype=np.float32)


def window_values(window: Window, win_length: int, n_fft: int) -> npt.NDArray[np.float64]:
    """Return the window's values, with zeros around them up to ``n_fft``."""
    n_fft, win_length = whole("n_fft", n_fft, 1), whole("win_length", win_length, 1)
    if win_length > n_fft:
        raise UsageError(f"win_length = {win_length}: is longer than n_fft = {n_fft}")

    if isinstance(window, str):
        options = {"name": "window", "op": "stft", "dtype": "f32", "window": window}
        lengths = {"n_fft": max(n_fft, 2), "win_length": win_length}
        values = _wavemill.window(json.dumps([options | lengths]))
    else:
        try:
            values = np.asarray(window(win_length) if callable(window) else window, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(f"window: {error}") from None
    if values.shape != (win_length,):
        raise UsageError(f"window: has shape {values.shape}, and win_length is {win_length}")
    before = (n_fft - win_length) // 2
    return np.pad(values, (before, n_fft - win_length - before))


def _read(path: AudioFile) -> tuple[bytes, str]:
    """Return the bytes of a file, and its name for messages."""
    if isinstance(path, bytes):
        return path, "bytes"
    if isinstance(path, (bytearray, memoryview)):
        return bytes(path), "bytes"
    if isinstance(path, (str, os.PathLike)):
        with open(path, "rb") as file:
            return file.read(), _printable(os.fsdecode(path))
    data = path.read() if hasattr(path, "read") else None
    if not isinstance(data, bytes):
        raise UsageError(f"{path!r}: must be a path, bytes, or a file opened for reading bytes (mode 'rb')")
    return data, _printable(str(getattr(path, "name", "file object")))


def _printable(name: str) -> str:
    """Return a name as text, also that of a file whose name is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _warn_of_loss(name: str, lost: float) -> None:
    if lost > 0.0:
        log.warning("%s: %.3f s of audio are lost to damage and replaced by silence", name, lost)


def whole_rate(key: str, rate: float) -> int:
    """Return a sample rate as an int."""
    if not 0 < rate < 2**32 or rate != int(rate):
        raise UsageError(f"{key} = {rate}: must be a whole number of Hz")
    return int(rate)
