#!/usr/bin/env python3
"""Runs an MLflow server on this machine and prints its contents.

Prints the server's address when it responds. Then, for each line on standard input, prints one JSON line: all runs of the
experiment named by the line, with parameters, tags, every value of every metric, and the files' bytes, as returned by
MLflow's REST interface. Stops the server when standard input ends.

usage: scripts/peers/mlflow_server.py FOLDER
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# On a machine with two busy cores, the first start took four minutes: the server loads a hundred packages and
# creates the tables of its database.
START_S_MAX = 600
# After this time the server is killed.
STOP_S_MAX = 10


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(folder, port):
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"),
    ]
    # The server's jobs would need another package, and telemetry must not report a test.
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = open(folder / "server.log", "w")
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
    )


def ask(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read()


def wait(server, address, folder):
    deadline = time.monotonic() + START_S_MAX
    while True:
        try:
            ask(f"{address}/health")
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the MLflow server did not start: {(folder / 'server.log').read_text()}")
            time.sleep(0.2)


def runs(address, experiment):
    """Returns all runs of an experiment, the oldest first."""
    api = f"{address}/api/2.0/mlflow"
    named = urllib.parse.urlencode({"experiment_name": experiment})
    found = json.loads(ask(f"{api}/experiments/get-by-name?{named}"))
    wanted = {"experiment_ids": [found["experiment"]["experiment_id"]], "order_by": ["attributes.start_time ASC"]}
    request = urllib.request.Request(
        f"{api}/runs/search", json.dumps(wanted).encode(), {"content-type": "application/json"}
    )
    told = []
    for run in json.loads(ask(request)).get("runs", []):
        run_id = run["info"]["run_id"]
        metrics = {}
        for metric in run["data"].get("metrics", []):
            named = urllib.parse.urlencode({"run_id": run_id, "metric_key": metric["key"]})
            history = json.loads(ask(f"{api}/metrics/get-history?{named}"))["metrics"]
            metrics[metric["key"]] = [[int(one["step"]), one["value"], int(one["timestamp"])] for one in history]
        told.append(
            {
                "info": run["info"],
                "params": {one["key"]: one["value"] for one in run["data"].get("params", [])},
                "tags": {one["key"]: one["value"] for one in run["data"].get("tags", [])},
                "metrics": metrics,
                "files": files(address, run["info"], ""),
            }
        )
    return told


def files(address, info, folder):
    """Returns the content of files by path, as text if it is text."""
    named = urllib.parse.urlencode({"run_id": info["run_id"], "path": folder})
    listed = json.loads(ask(f"{address}/api/2.0/mlflow/artifacts/list?{named}"))
    place = info["artifact_uri"].removeprefix("mlflow-artifacts:")
    found = {}
    for file in listed.get("files", []):
        if file["is_dir"]:
            found.update(files(address, info, file["path"]))
        else:
            content = ask(f"{address}/api/2.0/mlflow-artifacts/artifacts{place}/{file['path']}")
            found[file["path"]] = content.decode(errors="replace")
    return found


def stop(server):
    """Stops the server and its child processes."""
    os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(STOP_S_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    address = f"http://127.0.0.1:{free_port()}"
    server = start(folder, address.rsplit(":", 1)[1])
    try:
        wait(server, address, folder)
        print(address, flush=True)
        for line in sys.stdin:
            print(json.dumps(runs(address, line.strip())), flush=True)
    finally:
        stop(server)


main()
