"""``python -m wavemill`` is the command ``wavemill``."""

from __future__ import annotations

import sys

from . import _wavemill


def main() -> None:
    """Run the command with the arguments of this process, and end the process with its exit code."""
    sys.exit(_wavemill.run_command([sys.executable, "-m", "wavemill"], ["wavemill", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
