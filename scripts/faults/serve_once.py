#!/usr/bin/env python3
"""Starts `wavemill serve`, sends one song, stops the server and prints the answer. The song is made in memory.

usage: serve_once.py PROGRAM RUN

Ends with status 0 if the server answered and stopped in order, otherwise with the server's status or signal, and its
messages."""

import array
import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys

RATE_HZ = 16000
SECONDS = 2
# Status of a server that was stopped by a signal.
STOPPED = 130
PATIENCE_S = 60
# Status of this program if the server does not end.
HANGS = 99


def song() -> bytes:
    """Returns a WAV file with a sine."""
    values = (int(8000 * math.sin(0.1 * i)) for i in range(SECONDS * RATE_HZ))
    samples = array.array("h", values).tobytes()
    head = b"RIFF" + (36 + len(samples)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    shape = [(1, 2), (1, 2), (RATE_HZ, 4), (2 * RATE_HZ, 4), (2, 2), (16, 2)]
    form = b"".join(value.to_bytes(width, "little") for value, width in shape)
    return head + form + b"data" + len(samples).to_bytes(4, "little") + samples


def answer_of(port: int) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("POST", "/api/predict?name=song.wav", song())
    response = connection.getresponse()
    return response.status, response.read().decode()


def main() -> int:
    program, run = sys.argv[1:]
    words = [program, "serve", "--run", run, "--port", "0", "--threads", "1"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout and server.stderr
    said = ""
    for line in server.stderr:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            break
    else:
        sys.stderr.write(said)
        return server.wait()

    try:
        status, answer = answer_of(int(found[1]))
    except (OSError, http.client.HTTPException) as error:
        status, answer = 0, repr(error)
    server.send_signal(signal.SIGTERM)
    try:
        rest = server.communicate(timeout=PATIENCE_S)[1]
    except subprocess.TimeoutExpired:
        server.kill()
        sys.stderr.write(said + server.communicate()[1] + "the server does not end")
        return HANGS
    sys.stderr.write(said + rest)
    if status != http.client.OK or server.returncode != STOPPED:
        sys.stderr.write(f"status {status}: {answer}")
        return 1 if server.returncode == STOPPED else server.returncode
    whole = json.loads(answer)
    # Times differ.
    del whole["seconds"]
    print(json.dumps(whole, sort_keys=True))
    return 0


if __name__ == "__main__":
    ended = main()
    if ended < 0:
        os.kill(os.getpid(), -ended)
    sys.exit(ended)
