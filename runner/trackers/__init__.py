"""Trackers: the rows of a run, sent to CSV, MLflow or Weights & Biases while it trains.

- `contract.py`: what a tracker is, and what it is told about a run
- `command_line.py`: which trackers a run has, and which may open connections
- `follower.py`: the thread that reads `metrics.jsonl` and gives its rows to a tracker
- `record.py`: `trackers.json`, which rows each tracker has
- `csv_file.py`: the tracker `csv`
- `in_process.py`: a tracker in a process of its own, as the run sees it
- `serve.py`: what that process runs; imports no torch
- `earlier_process.py`: one process of a tracker at a time writes for a run
- `tags.py`: tags and configs in the forms that they take
- `mlflow_run.py`, `wandb_run.py`: the trackers `mlflow` and `wandb`, in that process
"""
