"""The engine: trains, evaluates, probes, logs and saves; knows no names and no config."""
