"""Features of audio, with the names, arguments, defaults and values of ``librosa.feature``.

float32 input is computed by wavemill's kernels in single precision, which is enough for decibels of the usual range of
80 dB. For a wider range (``top_db=None``), pass float64: float64 input, and arguments that the kernels do not have, such
as a window given as an array, are computed by numpy in double precision.
"""

from __future__ import annotations

import json
import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from . import _wavemill
from ._arguments import argument, checked, whole
from ._audio import Array, Window, power_to_db, rows, stft, valid_audio, whole_rate
from .errors import UsageError

__all__ = [
    "beat_track",
    "chroma_cens",
    "chroma_cqt",
    "chroma_stft",
    "cqt",
    "delta",
    "melspectrogram",
    "mfcc",
    "onset_strength",
    "rms",
    "spectral_bandwidth",
    "spectral_centroid",
    "spectral_contrast",
    "spectral_flatness",
    "spectral_rolloff",
    "tempo",
    "tempogram",
    "tonnetz",
    "vqt",
    "zero_crossing_rate",
]

#: Modes of padding that the kernels have.
_KERNEL_PAD_MODES = ("constant", "reflect", "edge")

#: Types of options that functions do not declare, because they pass them on; the others are whole numbers.
_OPTION_TYPES = dict.fromkeys(("filter_scale", "fmax", "fmin", "gamma", "tuning"), "float | None")
_OPTION_TYPES |= {"center": "bool"} | dict.fromkeys(("chroma", "pad_mode", "window"), "str | None")


def melspectrogram(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_fft: int = 2048,
    hop_length: int | None = 512,
    win_length: int | None = None,
    window: Window = "hann",
    center: bool = True,
    pad_mode: str = "constant",
    power: float = 2.0,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    norm: str | None = "slaney",
) -> Array:
    """Compute a mel spectrogram, like ``librosa.feature.melspectrogram``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples, float32 or float64; or
    S : array of shape (…, n_fft // 2 + 1, frames)
        a spectrum of magnitudes to the power of ``power``.
    sr : int
        Sample rate in Hz.
    n_fft, hop_length, win_length, window, center, pad_mode
        As for `wavemill.stft`.
    power : float
        Exponent of the magnitudes: 1 is magnitude, 2 power.
    n_mels, fmin, fmax : int, float, float
        Number of bands, and their range in Hz (default up to ``sr / 2``).
    htk : bool
        Whether to use HTK's mel scale instead of Slaney's.
    norm : "slaney" or None
        Whether all bands have the same area.

    Returns
    -------
    array of shape (…, n_mels, frames)

    Examples
    --------
    >>> mel = wm.feature.melspectrogram(y=y, sr=sr, n_mels=128)
    """
    mel: dict[str, Any] = {"n_mels": n_mels, "fmin": fmin, "fmax": fmax, "htk": htk, "norm": norm or "none"}
    if S is not None:
        return _mel_bands(np.asarray(S), sr, mel)
    if y is None:
        raise UsageError("y: is missing; give y or S")

    samples = valid_audio(y)
    spectrum: dict[str, Any] = {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length, "window": window}
    is_of_kernels = isinstance(window, str) and 0.0 < power <= 2.0
    is_of_kernels &= not center or pad_mode in _KERNEL_PAD_MODES
    if samples.dtype == np.float32 and is_of_kernels:
        options = mel | spectrum | {"power": power, "center": center}
        if center:
            options["pad_mode"] = pad_mode
        values = _wavemill.spectrogram(rows(samples), whole_rate("sr", sr), _options(options))
        return values.reshape(*samples.shape[:-1], *values.shape[1:])

    transform = stft(samples, center=center, pad_mode=pad_mode, **spectrum)
    return _mel_bands(np.abs(transform) ** power, sr, mel)


def mfcc(
    *,
    y: npt.ArrayLike | None = None,
    sr: float = 22050,
    S: npt.ArrayLike | None = None,
    n_mfcc: int = 20,
    dct_type: int = 2,
    norm: str | None = "ortho",
    lifter: float = 0,
    mel_norm: str | None = "slaney",
    **kwargs: Any,
) -> Array:
    """Compute mel-frequency cepstral coefficients, like ``librosa.feature.mfcc``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples; or
    S : array of shape (…, n_mels, frames)
        a mel spectrogram in decibels.
    sr : int
        Sample rate in Hz.
    n_mfcc : int
        Number of coefficients, starting with the lowest.
    dct_type, norm : int, "ortho" or None
        Type (1, 2 or 3) and normalization of the cosine transform.
    lifter : float
        Weight of higher coefficients; 0 changes nothing.
    **kwargs
        Other arguments of `melspectrogram`.

    Returns
    -------
    array of shape (…, n_mfcc, frames)

    Examples
    --------
    >>> coefficients = wm.feature.mfcc(y=y, sr=sr, n_mfcc=13)
    """
    if S is None and y is None:
        raise UsageError("y: is missing; give y or S")
    if S is None:
        samples = valid_audio(cast(npt.ArrayLike, y))
        # A lifter multiplies errors of the transform, which is therefore computed in double precision.
        exact = samples.astype(np.float64) if lifter > 0 else samples
        mel = melspectrogram(y=exact, sr=sr, norm=mel_norm, **kwargs)
        decibels = power_to_db(mel).astype(samples.dtype, copy=False)
    else:
        decibels = np.asarray(S)
    n_mels = decibels.shape[-2]
    if not 1 <= n_mfcc <= n_mels:
        raise UsageError(f"n_mfcc = {n_mfcc}: must be from 1 to the number of mel bands, {n_mels}")
    if not lifter >= 0:
        raise UsageError(f"lifter = {lifter}: must be 0 or more")

    matrix = _dct_matrix(n_mels, dct_type, norm)[:n_mfcc]
    if lifter > 0:
        matrix *= 1 + lifter / 2 * np.sin(np.pi * np.arange(1, 1 + n_mfcc) / lifter)[:, np.newaxis]
    coefficients: Array = matrix.astype(decibels.dtype) @ decibels
    return coefficients


def delta(
    data: npt.ArrayLike, *, width: int = 9, order: int = 1, axis: int = -1, mode: str = "interp", cval: float = 0.0
) -> Array:
    """Compute the derivative along ``axis`` with a Savitzky–Golay filter, like ``librosa.feature.delta``.

    Parameters
    ----------
    data : array
        A feature, such as the result of `mfcc`.
    width : int
        Number of frames over which a polynomial is fitted; odd, at least 3.
    order : int
        Order of the derivative and of the polynomial.
    axis : int
        Axis of time.
    mode : str
        How the ends are computed: ``"interp"`` continues the outermost polynomials; ``"nearest"``, ``"mirror"``,
        ``"constant"`` (with ``cval``) and ``"wrap"`` extend the data.

    Returns
    -------
    array of the shape of ``data``

    Examples
    --------
    >>> slopes = wm.feature.delta(wm.feature.mfcc(y=y, sr=sr))
    """
    values = np.moveaxis(np.asarray(data), axis, -1)
    half = width // 2
    if width < 3 or width % 2 == 0:
        raise UsageError(f"width = {width}: must be odd, and 3 or more")
    if not 1 <= order < width:
        raise UsageError(f"order = {order}: must be from 1 to width - 1")
    if mode == "interp" and values.shape[-1] < width:
        raise UsageError(f"width = {width}: the data have only {values.shape[-1]} frames, too few for mode='interp'")

    taps = _derivative_taps(width, order).astype(values.dtype)
    modes = {"interp": "edge", "nearest": "edge", "mirror": "reflect", "wrap": "wrap", "constant": "constant"}
    if mode not in modes:
        raise UsageError(f"mode = {mode!r}: must be one of {', '.join(modes)}")
    fill: dict[str, Any] = {"constant_values": cval} if mode == "constant" else {}
    pad = [(0, 0)] * (values.ndim - 1) + [(half, half)]
    padded = np.pad(values, pad, mode=modes[mode], **fill)  # type: ignore[call-overload]
    out = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1) @ taps

    if mode == "interp":
        # The derivative of full order of the outermost polynomial is constant.
        out[..., :half] = out[..., half : half + 1]
        out[..., -half:] = out[..., -half - 1 : -half]
    return np.moveaxis(out, -1, axis)


def rms(
    *,
    y: npt.ArrayLike,
    frame_length: int = 2048,
    hop_length: int = 512,
    center: bool = True,
    pad_mode: str = "constant",
) -> Array:
    """Compute the root mean square of each frame of samples, like ``librosa.feature.rms``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    frame_length, hop_length : int
        Length of a frame, and distance between frames, in samples.
    center, pad_mode : bool, str
        As for `wavemill.stft`.

    Returns
    -------
    float32 array of shape (…, 1, frames)

    Examples
    --------
    >>> level = wm.feature.rms(y=y)
    """
    options = {"frame_length": frame_length, "hop_length": hop_length}
    return _of_frames("rms", y, 22050, options | _padding(center, pad_mode))


def zero_crossing_rate(
    y: npt.ArrayLike, *, frame_length: int = 2048, hop_length: int = 512, center: bool = True
) -> Array:
    """Compute the part of each frame's samples with another sign than the sample before.

    Like ``librosa.feature.zero_crossing_rate``; arguments and result as for `rms`.

    Examples
    --------
    >>> rate = wm.feature.zero_crossing_rate(y)
    """
    options = {"frame_length": frame_length, "hop_length": hop_length, "center": center}
    return _of_frames("zero_crossing_rate", y, 22050, options)


def spectral_centroid(*, y: npt.ArrayLike, sr: float = 22050, **spectrum: Any) -> Array:
    """Compute the mean frequency of each frame, weighted by magnitudes, like ``librosa.feature.spectral_centroid``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    sr : int
        Sample rate in Hz.
    **spectrum
        ``n_fft``, ``hop_length`` (default 512), ``win_length``, ``window``, ``center`` and ``pad_mode`` of
        `wavemill.stft`.

    Returns
    -------
    float32 array of shape (…, 1, frames), in Hz

    Examples
    --------
    >>> brightness = wm.feature.spectral_centroid(y=y, sr=sr)
    """
    return _of_spectra("spectral_centroid", y, sr, {}, spectrum)


def spectral_bandwidth(*, y: npt.ArrayLike, sr: float = 22050, p: float = 2, **spectrum: Any) -> Array:
    """Compute the mean distance from the centroid, to the power of ``p``, like ``librosa.feature.spectral_bandwidth``.

    Arguments and result as for `spectral_centroid`.

    Examples
    --------
    >>> width = wm.feature.spectral_bandwidth(y=y, sr=sr)
    """
    return _of_spectra("spectral_bandwidth", y, sr, {"p": p}, spectrum)


def spectral_contrast(
    *,
    y: npt.ArrayLike,
    sr: float = 22050,
    fmin: float = 200.0,
    n_bands: int = 6,
    quantile: float = 0.02,
    linear: bool = False,
    **spectrum: Any,
) -> Array:
    """Compute the difference between peaks and valleys in each octave, like ``librosa.feature.spectral_contrast``.

    Parameters
    ----------
    y, sr, **spectrum
        As for `spectral_centroid`.
    fmin, n_bands : float, int
        Upper end of the first band in Hz, and the number of octaves above it.
    quantile : float
        Part of a band's bins that the peak and the valley are the means of.
    linear : bool
        True for a difference of magnitudes instead of decibels.

    Returns
    -------
    float32 array of shape (…, n_bands + 1, frames)

    Examples
    --------
    >>> contrast = wm.feature.spectral_contrast(y=y, sr=sr)
    """
    options = {"fmin": float(fmin), "n_bands": n_bands, "quantile": quantile, "linear": linear}
    return _of_spectra("spectral_contrast", y, sr, options, spectrum)


def chroma_stft(
    *, y: npt.ArrayLike, sr: float = 22050, n_chroma: int = 12, tuning: float | None = None, **spectrum: Any
) -> Array:
    """Compute the energy of each pitch class relative to the strongest one, like ``librosa.feature.chroma_stft``.

    Parameters
    ----------
    y, sr, **spectrum
        As for `spectral_centroid`.
    n_chroma : int
        Number of pitch classes in an octave.
    tuning : float, optional
        Deviation from A4 = 440 Hz in pitch classes. Default: estimated for each signal.

    Returns
    -------
    float32 array of shape (…, n_chroma, frames)

    Examples
    --------
    >>> chroma = wm.feature.chroma_stft(y=y, sr=sr)
    """
    return _of_spectra("chroma_stft", y, sr, {"n_chroma": n_chroma, "tuning": tuning}, spectrum)


def cqt(*, y: npt.ArrayLike, sr: float = 22050, **options: Any) -> Array:
    """Compute the magnitudes of the constant-Q transform, like ``np.abs(librosa.cqt(...))``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    sr : int
        Sample rate in Hz.
    **options
        ``hop_length`` (default 512), ``fmin`` (default C1, 32.7 Hz), ``n_bins`` (84), ``bins_per_octave`` (12), ``tuning``
        in bins (0), and ``filter_scale`` (1).

    Returns
    -------
    float32 array of shape (…, n_bins, frames)

    Examples
    --------
    >>> magnitudes = wm.feature.cqt(y=y, sr=sr)
    """
    return _of_constant_q("cqt", y, sr, options, {"n_bins", "filter_scale"})


def vqt(*, y: npt.ArrayLike, sr: float = 22050, gamma: float | None = None, **options: Any) -> Array:
    """Compute the magnitudes of the variable-Q transform, like ``np.abs(librosa.vqt(...))``.

    Arguments and result as for `cqt`; bandwidths are ``gamma`` Hz larger than a constant part of the frequency. Default:
    proportional to the bandwidths of hearing.

    Examples
    --------
    >>> magnitudes = wm.feature.vqt(y=y, sr=sr, gamma=20)
    """
    return _of_constant_q("vqt", y, sr, options | {"gamma": gamma}, {"n_bins", "filter_scale", "gamma"})


def chroma_cqt(*, y: npt.ArrayLike, sr: float = 22050, **options: Any) -> Array:
    """Compute the energy of each pitch class in a constant-Q transform, like ``librosa.feature.chroma_cqt``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    sr : int
        Sample rate in Hz.
    **options
        ``hop_length`` (default 512), ``fmin`` (C1, 32.7 Hz), ``n_octaves`` (7), ``bins_per_octave`` (36), ``n_chroma`` (12),
        and ``tuning`` in bins (estimated for each signal).

    Returns
    -------
    float32 array of shape (…, n_chroma, frames)

    Examples
    --------
    >>> chroma = wm.feature.chroma_cqt(y=y, sr=sr)
    """
    return _of_constant_q("chroma_cqt", y, sr, options, {"n_octaves", "n_chroma"})


def chroma_cens(*, y: npt.ArrayLike, sr: float = 22050, win_len_smooth: int = 41, **options: Any) -> Array:
    """Compute energies of pitch classes in steps, smoothed over frames (CENS), like ``librosa.feature.chroma_cens``.

    Arguments and result as for `chroma_cqt`; ``win_len_smooth`` is the number of frames of the smoothing.

    Examples
    --------
    >>> cens = wm.feature.chroma_cens(y=y, sr=sr)
    """
    own = {"n_octaves", "n_chroma", "win_len_smooth"}
    return _of_constant_q("chroma_cens", y, sr, options | {"win_len_smooth": win_len_smooth}, own)


def tonnetz(*, y: npt.ArrayLike, sr: float = 22050, chroma: str = "cqt", **options: Any) -> Array:
    """Compute tonal centroids, like ``librosa.feature.tonnetz`` of samples.

    Arguments as for `chroma_cqt`, or as for `chroma_cens` with ``chroma="cens"``: the chroma that the centroids are
    computed from.

    Returns
    -------
    float32 array of shape (…, 6, frames)

    Examples
    --------
    >>> centroids = wm.feature.tonnetz(y=y, sr=sr)
    """
    own = {"n_octaves", "n_chroma", "win_len_smooth", "chroma"}
    return _of_constant_q("tonnetz", y, sr, options | {"chroma": chroma}, own)


def onset_strength(
    *, y: npt.ArrayLike, sr: float = 22050, lag: int = 1, aggregate: str = "mean", **options: Any
) -> Array:
    """Compute the increase of the log mel bands, like ``librosa.onset.onset_strength``, with an axis of one band.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    sr : int
        Sample rate in Hz.
    lag : int
        Number of frames between the two that are compared.
    aggregate : "mean" or "median"
        Combines the increases of all bands.
    **options
        ``hop_length`` (default 512), ``n_fft`` (2048), ``n_mels`` (128), ``fmin`` (0) and ``fmax`` (``sr / 2``).

    Returns
    -------
    float32 array of shape (…, 1, frames)

    Examples
    --------
    >>> envelope = wm.feature.onset_strength(y=y, sr=sr)
    """
    options = _known(options, {"hop_length", "n_fft", "n_mels", "fmin", "fmax"})
    return _of_frames("onset_strength", y, sr, options | {"lag": lag, "aggregate": aggregate})


def tempogram(*, y: npt.ArrayLike, sr: float = 22050, hop_length: int = 512, win_length: int = 384) -> Array:
    """Compute the autocorrelation of the onset strength around each frame, like ``librosa.feature.tempogram``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    sr : int
        Sample rate in Hz.
    hop_length : int
        Samples from one frame to the next.
    win_length : int
        Number of frames that are correlated, and number of lags.

    Returns
    -------
    float32 array of shape (…, win_length, frames)

    Examples
    --------
    >>> correlations = wm.feature.tempogram(y=y, sr=sr)
    """
    return _of_frames("tempogram", y, sr, {"hop_length": hop_length, "win_length": win_length})


def tempo(
    *,
    y: npt.ArrayLike,
    sr: float = 22050,
    hop_length: int = 512,
    start_bpm: float = 120,
    std_bpm: float = 1.0,
    ac_size: float = 8.0,
    max_tempo: float = 320.0,
) -> Array:
    """Estimate the tempo, like ``librosa.feature.tempo``.

    Parameters
    ----------
    y : array of shape (…, n)
        Samples.
    sr : int
        Sample rate in Hz.
    hop_length : int
        Samples from one frame to the next.
    start_bpm, std_bpm : float
        Most common tempo in beats per minute, and standard deviation of tempos in octaves.
    ac_size : float
        Duration of the frames that are correlated, in seconds.
    max_tempo : float
        Fastest tempo in beats per minute.

    Returns
    -------
    float32 array of shape (…, 1), in beats per minute

    Examples
    --------
    >>> bpm = wm.feature.tempo(y=y, sr=sr)
    """
    prior = {"start_bpm": float(start_bpm), "std_bpm": float(std_bpm), "max_tempo": float(max_tempo)}
    return _tempo(y, sr, hop_length, prior, ac_size, "mean")


def beat_track(
    *,
    y: npt.ArrayLike,
    sr: float = 22050,
    hop_length: int = 512,
    start_bpm: float = 120.0,
    tightness: float = 100,
    trim: bool = True,
    units: str = "frames",
    sparse: bool = True,
) -> tuple[Array, Array]:
    """Find beats, like ``librosa.beat.beat_track``.

    Parameters
    ----------
    y : array of shape (n,), or of shape (…, n) with ``sparse=False``
        Samples.
    sr : int
        Sample rate in Hz.
    hop_length : int
        Samples from one frame to the next.
    start_bpm : float
        Most common tempo in beats per minute.
    tightness : float
        Cost of intervals that differ from that of the tempo.
    trim : bool
        Removes beats without an onset from the start and the end.
    units : "frames", "samples" or "time"
        Unit of the positions.
    sparse : bool
        Returns positions; otherwise, which frames have a beat.

    Returns
    -------
    tempo : float32 array of shape (…, 1), in beats per minute; 0 without an onset
    beats : positions, or bool array of shape (…, frames)

    Examples
    --------
    >>> bpm, beats = wm.feature.beat_track(y=y, sr=sr, units="time")
    """
    if units not in ("frames", "samples", "time"):
        raise UsageError(f"units = {units!r}: must be 'frames', 'samples' or 'time'")
    if sparse and valid_audio(y).ndim > 1:
        raise UsageError("sparse = True: the number of beats differs between channels; give one channel, or sparse=False")

    options = {"hop_length": hop_length, "start_bpm": float(start_bpm), "tightness": float(tightness), "trim": trim}
    beats: Array = _of_frames("beat_track", y, sr, options)[..., 0, :] > 0
    bpm = _tempo(y, sr, hop_length, {"start_bpm": float(start_bpm)}, 8.0, "median")
    bpm = np.where(beats.any(axis=-1, keepdims=True), bpm, np.float32(0))
    if not sparse:
        return bpm, beats
    positions = np.flatnonzero(beats)
    scale = {"frames": 1, "samples": hop_length, "time": hop_length / sr}[units]
    return bpm, positions * scale


def _tempo(
    y: npt.ArrayLike, sr: float, hop_length: int, prior: dict[str, float], ac_size: float, aggregate: str
) -> Array:
    """Return the tempo of the onset strength, with librosa's duration of frames that are correlated."""
    whole("hop_length", hop_length, 1)
    source = {
        "name": "tempogram",
        "op": "tempogram",
        "hop_length": hop_length,
        "win_length": int(_valid("ac_size", ac_size) * whole_rate("sr", sr)) // hop_length,
        "aggregate": aggregate,
    }
    return _of_frames("tempo", y, sr, {"source": "tempogram"} | prior, source)


def spectral_flatness(*, y: npt.ArrayLike, amin: float = 1e-10, power: float = 2.0, **spectrum: Any) -> Array:
    """Compute the geometric mean of each frame's powers divided by their mean, like ``librosa.feature.spectral_flatness``.

    Arguments and result as for `spectral_centroid`, without a unit; ``amin`` is the smallest power, and ``power`` the
    exponent of the magnitudes.

    Examples
    --------
    >>> noisiness = wm.feature.spectral_flatness(y=y)
    """
    return _of_spectra("spectral_flatness", y, 22050, {"amin": amin, "power": power}, spectrum)


def spectral_rolloff(*, y: npt.ArrayLike, sr: float = 22050, roll_percent: float = 0.85, **spectrum: Any) -> Array:
    """Compute the frequency below which a part of the magnitudes lies, like ``librosa.feature.spectral_rolloff``.

    Arguments and result as for `spectral_centroid`.

    Examples
    --------
    >>> edge = wm.feature.spectral_rolloff(y=y, sr=sr, roll_percent=0.95)
    """
    return _of_spectra("spectral_rolloff", y, sr, {"roll_percent": roll_percent}, spectrum)


def _of_spectra(op: str, y: npt.ArrayLike, sr: float, options: dict[str, Any], spectrum: dict[str, Any]) -> Array:
    """Return a feature of the shape of spectra, with librosa's defaults for the arguments of the transform."""
    known = {"n_fft", "hop_length", "win_length", "window", "center", "pad_mode"}
    spectrum = _known(spectrum, known)
    center, pad_mode = spectrum.pop("center", True), spectrum.pop("pad_mode", "constant")
    return _of_frames(op, y, sr, options | spectrum | _padding(center, pad_mode))


def _of_constant_q(op: str, y: npt.ArrayLike, sr: float, options: dict[str, Any], own: set[str]) -> Array:
    """Return a feature that is computed from a constant-Q transform."""
    return _of_frames(op, y, sr, _known(options, own | {"hop_length", "fmin", "bins_per_octave", "tuning"}))


def _known(options: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Return options as values of their types, or raise `UsageError` if one is not among the known ones."""
    if unknown := options.keys() - known:
        raise UsageError(f"{sorted(unknown)[0]}: is not an argument; allowed: {', '.join(sorted(known))}")
    return {name: argument(name, value, _OPTION_TYPES.get(name, "int | None")) for name, value in options.items()}


def _of_frames(op: str, y: npt.ArrayLike, sr: float, options: dict[str, Any], *sources: dict[str, Any]) -> Array:
    rate = whole_rate("sr", sr)
    samples = valid_audio(y)
    values = _wavemill.spectrogram(rows(samples), rate, _options({"name": op, "op": op} | options, *sources))
    return values.reshape(*samples.shape[:-1], *values.shape[1:])


def _padding(center: bool, pad_mode: str) -> dict[str, Any]:
    return {"center": center, "pad_mode": pad_mode} if center else {"center": False}


def _mel_bands(spectrum: Array, sr: float, mel: dict[str, Any]) -> Array:
    """Return the mel bands of a spectrum of shape (…, bins, frames)."""
    if spectrum.ndim < 2:
        raise UsageError(f"S: must have shape (…, bins, frames), not {spectrum.shape}")
    n_fft = 2 * (spectrum.shape[-2] - 1)
    weights = _wavemill.mel_weights(whole_rate("sr", sr), _options(mel | {"n_fft": n_fft}))
    dtype = np.result_type(spectrum.dtype, np.float32)
    return weights.astype(dtype) @ spectrum


def _options(options: dict[str, Any], *sources: dict[str, Any]) -> str:
    """Return the description of a feature after those of its sources; options that are None take their defaults."""
    features = [{"name": "mel", "op": "mel", "dtype": "f32"} | feature for feature in (*sources, options)]
    given = [{key: _valid(key, x) for key, x in feature.items() if x is not None} for feature in features]
    return json.dumps(given)


def _valid(key: str, value: Any) -> Any:
    """Return an option, or raise `UsageError` for a number that no option can have."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}: {value} is not a finite number")
    return whole(key, value, 0) if type(value) is int else value


def _dct_matrix(n: int, dct_type: int, norm: str | None) -> npt.NDArray[np.float64]:
    """Return the matrix of a cosine transform as ``scipy.fft.dct`` defines it, of shape (n, n)."""
    if norm not in ("ortho", None):
        raise UsageError(f"norm = {norm!r}: must be 'ortho' or None")
    if dct_type not in (1, 2, 3) or (dct_type == 1 and n < 2):
        raise UsageError(f"dct_type = {dct_type}: must be 1 (with 2 bands or more), 2 or 3")

    out, at = np.arange(n)[:, np.newaxis], np.arange(n)[np.newaxis, :]
    if dct_type == 1:
        matrix = 2 * np.cos(np.pi * out * at / (n - 1))
        matrix[:, [0, -1]] /= 2
        if norm == "ortho":
            matrix[:, [0, -1]] *= math.sqrt(2)
            matrix[[0, -1], :] /= math.sqrt(2)
            matrix *= math.sqrt(1 / (2 * (n - 1)))
        return matrix

    inner, outer = (at, out) if dct_type == 2 else (out, at)
    matrix = 2 * np.cos(np.pi * (2 * inner + 1) * outer / (2 * n))
    if dct_type == 3:
        matrix[:, 0] /= 2
    if norm == "ortho":
        matrix *= math.sqrt(1 / (2 * n))
        if dct_type == 2:
            matrix[0] /= math.sqrt(2)
        else:
            matrix[:, 0] *= math.sqrt(2)
    return matrix


def _derivative_taps(width: int, order: int) -> npt.NDArray[np.float64]:
    """Return the weights of ``width`` frames in the derivative of a polynomial of degree ``order`` fitted to them."""
    offsets = np.arange(width) - width // 2
    powers = offsets[:, np.newaxis] ** np.arange(order + 1)
    # Row k of the pseudo-inverse gives the coefficient of x^k, and the derivative at 0 is k! times that.
    taps: npt.NDArray[np.float64] = np.linalg.pinv(powers)[order] * math.factorial(order)
    return taps


# The functions above are defined without the check of their arguments.
globals().update({name: checked(globals()[name]) for name in __all__})
