#!/usr/bin/env python3
"""All runs of MLflow's experiment `wavemill`, read by MLflow's client, as JSON; the first run first.

usage: MLFLOW_TRACKING_URI=URI read_mlflow.py
"""

import json

from mlflow import MlflowClient

client = MlflowClient()
experiment = client.get_experiment_by_name("wavemill")
found = []
for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]):
    run_id = run.info.run_id
    metrics = {}
    for name in run.data.metrics:
        metrics[name] = [[one.step, one.value] for one in client.get_metric_history(run_id, name)]
    found.append(
        {
            "name": run.info.run_name,
            "status": run.info.status,
            "params": run.data.params,
            "metrics": metrics,
            "files": sorted(file.path for file in client.list_artifacts(run_id)),
        }
    )
print(json.dumps(found))
