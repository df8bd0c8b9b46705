"""Exceptions of the package, with the messages and exit codes of the command ``wavemill``."""

from __future__ import annotations

__all__ = [
    "AudioError",
    "DamagedStoreError",
    "Error",
    "NoSpaceError",
    "OtherPlanError",
    "StoreInUseError",
    "UsageError",
]


class Error(Exception):
    """An error of wavemill. The message names the file or argument, and the remedy if there is one.

    ``exit_code`` is the exit code of the command ``wavemill`` for the same error.
    """

    exit_code: int = 1


class UsageError(Error, ValueError):
    """An argument, a recipe, a feature or a version that does not exist or is not allowed."""

    exit_code = 2


class AudioError(Error, ValueError):
    """A file that cannot be decoded.

    ``reason`` is the reason of the reject, such as ``unsupported_codec``; docs/store-format.md lists them.
    """

    reason: str

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return AudioError, (str(self), self.reason)


class DamagedStoreError(Error):
    """A file of a store is missing or has other bytes than when it was written."""

    exit_code = 3


class OtherPlanError(Error):
    """The store was made with other inputs or another recipe, and no new version was requested."""

    exit_code = 4


class NoSpaceError(Error):
    """The disk is full or read-only, or this user lacks a permission."""

    exit_code = 5


class StoreInUseError(Error):
    """Another process is writing the store."""

    exit_code = 7


_BY_EXIT_CODE: dict[int, type[Error]] = {
    one.exit_code: one
    for one in (Error, UsageError, DamagedStoreError, OtherPlanError, NoSpaceError, StoreInUseError)
}


def from_exit_code(exit_code: int, message: str) -> Error:
    """Return the exception for an error of the command with this exit code."""
    error = _BY_EXIT_CODE.get(exit_code, Error)(message)
    error.exit_code = exit_code
    return error
