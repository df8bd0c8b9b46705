"""Runs a program on a terminal of its own: what comes on standard input is typed, what it shows goes to standard output.

usage: terminal.py ROWS COLUMNS PROGRAM [WORDS]

Ends with the program's exit code.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios

BYTES = 1 << 16


def main():
    rows, columns, *words = sys.argv[1:]
    child, terminal = pty.fork()
    if child == 0:
        # Sets the size before the program starts and reads it.
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", int(rows), int(columns), 0, 0))
        os.execvp(words[0], words)

    readable = [terminal, 0]
    while True:
        ready, _, _ = select.select(readable, [], [])
        if terminal in ready:
            try:
                shown = os.read(terminal, BYTES)
            except OSError:
                # Linux reports this error when no program has the terminal open.
                break
            os.write(1, shown)
        if 0 in ready:
            typed = os.read(0, BYTES)
            if not typed:
                readable.remove(0)
            while typed:
                typed = typed[os.write(terminal, typed) :]
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status) % 256)


if __name__ == "__main__":
    main()
