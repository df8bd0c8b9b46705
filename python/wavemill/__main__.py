"""``python -m wavemill`` is the command ``wavemill``."""

from __future__ import annotations

import sys

from . import _programs, _wavemill


def main() -> None:
    """Run the command with the arguments of this process, and end the process with its exit code."""
    arguments = sys.argv[1:]
    if problem := _programs.prepare(arguments):
        sys.exit(f"wavemill: {problem}")
    sys.exit(_wavemill.run_command(_programs.words(), ["wavemill", *arguments]))


if __name__ == "__main__":
    main()
