#!/usr/bin/env python3
"""An MLflow server on this machine, and what it has.

Prints the server's address once it answers. Then, for each line on standard input, it prints one JSON line: all runs of
the experiment that the line names, with parameters, tags, every value of every metric, and the files' bytes, as MLflow's
REST interface tells them. Ends the server when standard input ends.

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

# On two busy cores the server was seen to need four minutes the first time: it loads a hundred packages, and makes the
# tables of its database.
START_S_MAX = 600
# Then it is ended in any case.
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
    # Its jobs would need one more package, and nobody has to be told of a test.
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
                sys.exit(f"no MLflow server: {(folder / 'server.log').read_text()}")
            time.sleep(0.2)


def runs(address, experiment):
    """All runs of an experiment, the first one first."""
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
    """Bytes by path, as text where they are text."""
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
    """The server, and the processes that it started."""
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
