#!/usr/bin/env python3
"""Copy training runs to MLflow, by MLflow's own client.

usage: mlflow_import.py RUN... [--uri URI] [--experiment NAME] [--follow]
needs: Python 3.11 and pip install mlflow (mlflow-skinny is enough)

Each RUN is a folder of `wavemill-train`, such as runs/cnn2d-1f2e3d4c-1, and becomes a run of MLflow with
  - parameters: the whole configuration, by the keys of --set;
  - metrics: the values of each epoch in log.jsonl, and the test scores of result.json;
  - tags: the store, its version and the feature of input.json;
  - artifacts, once the training has ended: config.toml, recipe.toml, result.json and report.html, where they exist;
  - a state: RUNNING, FINISHED, or KILLED if the training stopped before its end.

The folders are only read. A repeated call finds the MLflow run by a tag and adds only what is new. MLflow does not let
parameters change: if a resumed run has more epochs, train.epochs keeps its first value.

Exit codes: 0 ok, 1 a folder cannot be read or MLflow refuses, 2 usage or MLflow is not installed.
"""
import argparse, fcntl, json, re, sys, time, tomllib
from pathlib import Path

ARTIFACTS = ["config.toml", "recipe.toml", "result.json", "report.html"]
# The time at which the run began, from the first line of its log: folders can be moved, and their names can repeat.
IDENTITY = "wavemill.begun_unix_s"
POLL_S = 2


class ImportFailure(Exception):
    """A folder that is not that of a run, or is damaged."""


def is_training(log):
    """Reports whether a process is training the run: it holds a lock on the log."""
    with open(log) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            # On a file system without locks, `fit` trains without one.
            return False
    return False


def read_log(log):
    """The entries of the log without a last line that is still being written."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def flat(table, prefix=""):
    """The values of a TOML table as text, by dotted key."""
    values = {}
    for key, value in table.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return values


def test_scores(result):
    """The test scores of result.json by metric name."""
    scores = {}
    for evaluation in result["test"]:
        report = evaluation["segments"]["report"]
        # A target with several labels per row has no accuracy.
        if "exact_match" in report:
            pair = {"exact_match": report["exact_match"], "macro_f1": report["f1_macro"]}
        else:
            pair = {"accuracy": report["accuracy"], "macro_f1": report["macro_mean"]["f1"]}
        scores |= {f"test/{evaluation['target']}/{name}": value for name, value in pair.items()}
    return scores


class Run:
    """A run's folder and its counterpart at MLflow."""

    def __init__(self, client, experiment_id, folder):
        self.client = client
        self.experiment_id = experiment_id
        self.folder = folder
        self.run_id = None
        # The last step at MLflow, by metric.
        self.last_steps = {}

    def send(self):
        """Sends what MLflow lacks. Returns whether the training goes on or has not begun."""
        log = self.folder / "log.jsonl"
        # Look at the lock before reading: what is read afterwards is final if nobody trains.
        training = log.exists() and is_training(log)
        entries = read_log(log)
        if not entries:
            return True

        if self.run_id is None:
            self.open(entries[0])
        epochs = [entry for entry in entries if entry["kind"] == "epoch"]
        result = self.folder / "result.json"
        result = json.loads(result.read_text()) if result.exists() else None
        # A resumed run keeps its previous result until its new end.
        if result and epochs and result["steps"] < epochs[-1]["step"]:
            result = None

        metrics = []
        for entry in epochs:
            metrics += self.new_metrics(entry["values"], entry["step"], entry["unix_s"])
        last_s = entries[-1]["unix_s"]
        if result and not training:
            metrics += self.new_metrics(test_scores(result), result["steps"], last_s)
        self.client.log_batch(self.run_id, metrics=metrics)
        if training:
            return True

        for name in ARTIFACTS:
            if (self.folder / name).exists():
                self.client.log_artifact(self.run_id, str(self.folder / name))
        self.client.set_terminated(self.run_id, "FINISHED" if result else "KILLED", int(last_s * 1000))
        return False

    def open(self, first):
        """Finds the MLflow run or creates it, and sends the parameters."""
        from mlflow.entities import Param

        begun = repr(first["unix_s"])
        found = self.client.search_runs([self.experiment_id], f"tags.`{IDENTITY}` = '{begun}'")
        if found:
            self.run_id = found[0].info.run_id
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            given = json.loads((self.folder / "input.json").read_text())
            tags = {f"wavemill.{key}": str(value) for key, value in given.items()}
            tags |= {IDENTITY: begun, "mlflow.source.name": "wavemill-train"}
            start_ms = int(first["unix_s"] * 1000)
            name = self.folder.resolve().name
            created = self.client.create_run(self.experiment_id, start_ms, tags, run_name=name)
            self.run_id = created.info.run_id

        known = self.client.get_run(self.run_id).data.params
        config = flat(tomllib.loads((self.folder / "config.toml").read_text()))
        new = [Param(key, value) for key, value in config.items() if key not in known]
        self.client.log_batch(self.run_id, params=new)

    def new_metrics(self, values, step, unix_s):
        """The values whose metric has neither this step nor a later one at MLflow."""
        from mlflow.entities import Metric

        new = []
        for name, value in values.items():
            # MLflow allows no other characters; the log writes NaN and infinity as text.
            name = re.sub(r"[^\w\-./: ]", "_", name)
            if step > self.last_step(name):
                new.append(Metric(name, float(value), int(unix_s * 1000), step))
                self.last_steps[name] = step
        return new

    def last_step(self, name):
        if name not in self.last_steps:
            history = self.client.get_metric_history(self.run_id, name)
            self.last_steps[name] = max((metric.step for metric in history), default=-1)
        return self.last_steps[name]


def run_import(arguments, client):
    experiment = client.get_experiment_by_name(arguments.experiment)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(arguments.experiment)

    left = [Run(client, experiment_id, folder) for folder in arguments.runs]
    while True:
        left = [run for run in left if send(run)]
        if not left or not arguments.follow:
            break
        time.sleep(POLL_S)
    for run in left:
        if run.run_id is None:
            raise ImportFailure(f"{run.folder}: no log.jsonl: not a run's folder, or its training has not begun")


def send(run):
    """Calls `Run.send` and names the folder in an error."""
    try:
        return run.send()
    except (KeyError, ValueError) as error:
        raise ImportFailure(f"{run.folder}: a file is damaged: {error!r}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path, help="a run's folder")
    parser.add_argument("--uri", help="MLflow's server or database [default: MLFLOW_TRACKING_URI, as MLflow reads it]")
    parser.add_argument("--experiment", metavar="NAME", default="wavemill", help="created if necessary [default: wavemill]")
    parser.add_argument("--follow", action="store_true", help="keep sending until all trainings have ended")
    arguments = parser.parse_args()
    for folder in arguments.runs:
        if not folder.is_dir():
            parser.error(f"{folder}: no such folder")
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        sys.stderr.write("mlflow_import.py: needs MLflow's client: pip install mlflow\n")
        return 2
    try:
        run_import(arguments, MlflowClient(tracking_uri=arguments.uri))
    except KeyboardInterrupt:
        return 130
    except (MlflowException, ImportFailure, OSError) as error:
        reason = " ".join(str(error).split())
        sys.stderr.write(f"mlflow_import.py: {reason}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
