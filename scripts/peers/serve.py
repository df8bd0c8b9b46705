#!/usr/bin/env python3
"""Compare predictions of `wavemill serve` with Gradio and the same model; started by scripts/bench.sh serve.

usage: serve.py PROGRAMS DATA OUT.md [ROUNDS]

PROGRAMS is the folder of wavemill and wavemill-train. A model is trained for one epoch and exported as TorchScript. Both
servers run all the time. A round sends each clip once to both servers, one request at a time, in alternating order, so that
a slow second of the machine affects both. The client measures the time from the first byte of the request to the last byte
of the response; the server reports its parts.
"""

import http.client
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

from bench import HERE, archive, machine

MODEL = "crnn"
# Number of training rows. The accuracy of the model does not matter here.
TRAINED_CLIPS = 48
# Timeout for the start of a server, and for a response.
WAIT_S = 300
PARTS = ("decode", "features", "model")
VERSIONS = ("gradio", "librosa", "soundfile", "soxr", "torch", "numpy")


def run(*words):
    """Runs a command and waits for it."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {' '.join(map(str, words))} failed: {done.stderr[-500:]}")


def trained(programs, data, folder):
    """Creates a run of one epoch, its TorchScript export, and a list of distinct clips."""
    metadata, audio, files, distinct = archive(data, folder, TRAINED_CLIPS)
    recipe = HERE / "bench.toml"
    run(programs / "wavemill", "extract", "--recipe", recipe, "--metadata", metadata, "--audio", audio,
        "--store", folder / "store")
    run(programs / "wavemill-train", "fit", "--store", folder / "store", "--model", MODEL, "--epochs", 1,
        "--device", "cpu", "--runs", folder / "runs")
    [of_model] = (folder / "runs").iterdir()
    model = folder / "model.pt"
    run(programs / "wavemill-train", "export", of_model, "--format", "torchscript", "--out", model)
    return of_model, model, files[:distinct]


def free_port():
    """Returns a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server process, which is killed at the end."""

    def __init__(self, name, command, **env):
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        command = [str(word) for word in command(self.port)]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env={**os.environ, **env})
        end = time.monotonic() + WAIT_S
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                sys.exit(f"bench: {name} did not start: {self.log.read().decode(errors='replace')[-1000:]}")
            time.sleep(0.1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def listens(self):
        """Reports whether the server responds to GET /."""
        try:
            return self.request(self.connect(), "GET", "/")[0] == 200
        except OSError:
            return False

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)

    @staticmethod
    def request(connection, method, path, body=None, kind=None):
        """Returns status and body of a response."""
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return response.status, response.read()

    def peak_mib(self):
        """Returns the sum of the peak memory of the process and its children."""
        processes = [str(self.process.pid)]
        for process in processes:
            children = subprocess.run(["ps", "--ppid", process, "-o", "pid="], capture_output=True, text=True).stdout
            processes.extend(children.split())
        peaks = []
        for process in processes:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
            if found:
                peaks.append(int(found[1]) / 1024)
        return sum(peaks)


def good(status, body):
    """Returns the body of a successful response."""
    if status != 200:
        sys.exit(f"bench: status {status}: {body[:300]}")
    return body


def ask_wavemill(server, name, song):
    """Sends a clip to wavemill. Returns (seconds of each part, probability of each class)."""
    path = "/api/predict?top=65535&name=" + urllib.parse.quote(name)
    said = json.loads(good(*server.request(server.connect(), "POST", path, song, "application/octet-stream")))
    seconds = said["seconds"]
    [model_s] = seconds["models"].values()
    [answer] = said["answers"]
    classes = {line["class"]: line["probability"] for line in answer["top"]}
    return {"decode": seconds["decode"], "features": seconds["features"], "model": model_s}, classes


def ask_gradio(server, name, song):
    """Does the same with Gradio's documented requests over one connection: upload, call, and the call's events."""
    connection = server.connect()
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    form = head.encode() + song + f"\r\n--{mark}--\r\n".encode()
    uploaded = good(*server.request(connection, "POST", "/gradio_api/upload", form,
                                    f"multipart/form-data; boundary={mark}"))
    [path] = json.loads(uploaded)

    argument = {"path": path, "meta": {"_type": "gradio.FileData"}}
    called = good(*server.request(connection, "POST", "/gradio_api/call/answer", json.dumps({"data": [argument]}),
                                  "application/json"))
    events = good(*server.request(connection, "GET", "/gradio_api/call/answer/" + json.loads(called)["event_id"]))
    found = re.search(r"event: complete\s+data: (.*)", events.decode())
    if not found:
        sys.exit(f"bench: Gradio returned no result: {events[-300:]}")
    [said] = json.loads(found[1])
    return {part: said[part] for part in PARTS}, said["classes"]


def measure(ask, server, clip, song):
    """Measures one request. Returns the seconds of the whole and of its parts, and the classes."""
    begin = time.perf_counter()
    parts, classes = ask(server, clip.name, song)
    whole = time.perf_counter() - begin
    return {**parts, "rest": whole - sum(parts.values()), "whole": whole}, classes


def percentile(values, share):
    """Returns the percentile by the nearest-rank method."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def table(results):
    """Returns a Markdown table: p50 and p95 of the parts and of the whole, in ms."""
    lines = ["| | " + " | ".join(f"{name}, p50 | p95" for name in results) + " |", "|---|" + "---|---|" * len(results)]
    labels = {"decode": "decode and resample", "features": "log-mel and its scaling", "model": "model",
              "rest": "the rest: HTTP, queue, JSON", "whole": "**the whole request**"}
    for part, label in labels.items():
        cells = [label]
        for rounds in results.values():
            values = [one[part] * 1e3 for one in rounds]
            cells += [f"{percentile(values, share):.1f}" for share in (0.5, 0.95)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compare(servers, clips, rounds):
    """Returns {name: [times of each request]} and the largest difference between the probabilities of both."""
    results = {name: [] for name in servers}
    apart = 0.0
    songs = [(clip, clip.read_bytes()) for clip in clips]
    # The first requests load modules on demand, and are not counted.
    for clip, song in songs[:3]:
        for ask, server in servers.values():
            measure(ask, server, clip, song)

    for number in range(rounds):
        for place, (clip, song) in enumerate(songs):
            said = {}
            for name in list(servers)[:: 1 if (number + place) % 2 == 0 else -1]:
                ask, server = servers[name]
                times, said[name] = measure(ask, server, clip, song)
                results[name].append(times)
            ours, theirs = said.values()
            apart = max(apart, max(abs(ours[key] - theirs[key]) for key in ours))
        for name in servers:
            whole = [one["whole"] * 1e3 for one in results[name][-len(songs):]]
            print(f"round {number + 1}/{rounds} {name}: p50 {percentile(whole, 0.5):.1f} ms", file=sys.stderr)
    return results, apart


def main():
    """Measure and write the page."""
    if len(sys.argv) < 4 or {"-h", "--help"} & set(sys.argv):
        sys.exit(__doc__)
    programs, data, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), Path(sys.argv[3])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    gradio_folder = HERE.parents[1] / ".venv" / "gradio"

    with tempfile.TemporaryDirectory(prefix="wavemill-bench-") as scratch:
        scratch = Path(scratch)
        of_model, model, clips = trained(programs, data, scratch)
        ours = Server("wavemill", lambda port: [programs / "wavemill", "serve", "--run", of_model, "--port", port])
        theirs = Server(
            "gradio", lambda port: [sys.executable, HERE / "serve_gradio.py", model, port],
            PYTHONPATH=str(gradio_folder), GRADIO_TEMP_DIR=str(scratch / "uploads"), GRADIO_ANALYTICS_ENABLED="False",
        )
        with ours, theirs:
            load_before = os.getloadavg()[0]
            servers = {"wavemill serve": (ask_wavemill, ours), "Gradio": (ask_gradio, theirs)}
            results, apart = compare(servers, clips, rounds)
            load_after = os.getloadavg()[0]
            peaks = [server.peak_mib() for server in (ours, theirs)]

    # The folder belongs to the app only; here it is searched for its version.
    sys.path.insert(0, str(gradio_folder))
    ratios = []
    for share in (0.5, 0.95):
        us, them = ([one["whole"] for one in rounds_of] for rounds_of in results.values())
        ratios.append(percentile(them, share) / percentile(us, share))
    load = f"Load average before: {load_before:.1f}, after: {load_after:.1f}."
    if load_before > 0.5:
        load += " Other programs used this shared machine during the test: compare the columns only with each other."
    built = os.environ.get("WAVEMILL_BIN_DIR")
    command = f"WAVEMILL_BIN_DIR={os.path.relpath(built)} scripts/bench.sh serve" if built else "scripts/bench.sh serve"
    page = "\n\n".join([
        "# Serve: from a song to its prediction, by HTTP",
        f"Each request uploads one of {len(clips)} real MP3s of FMA, 30 s each, and returns the probabilities of all "
        f"classes. There are {rounds} rounds, so each server handles {rounds * len(clips)} requests, one at a time. The "
        f"model is `{MODEL}` on a log-mel of 128 bands at 22.05 kHz (`scripts/peers/bench.toml`), on the CPU, with libtorch's "
        "default threads. It is trained for one epoch, because the quality of its predictions does not matter here.",
        "- *wavemill serve* receives the file as the body of `POST /api/predict`.\n"
        "- *Gradio* is an app with the same model as TorchScript (`wavemill-train export`). `librosa.load` reads the file, "
        "`librosa.feature.melspectrogram` and `power_to_db` compute the log-mel. The client sends Gradio's own three "
        "requests (`/upload`, `/call`, and the events of the call) over one connection.",
        "The client measures the whole request. Each server reports the duration of its parts.",
        f"{machine(VERSIONS)} {load}",
        f"Command: `{command}`.",
        "Milliseconds:", table(results),
        f"- A request to Gradio takes {ratios[0]:.2f}× as long as a request to wavemill at p50, and {ratios[1]:.2f}× at p95.\n"
        f"- The probabilities of both servers differ by at most {apart:.0e}. Their decoders and resamplers are different.\n"
        f"- Peak memory: wavemill and its model process {peaks[0]:.0f} MiB, Gradio {peaks[1]:.0f} MiB.",
    ])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page + "\n", encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
