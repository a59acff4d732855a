"""Searching for hyperparameters with Optuna: spaces, samplers, pruning, and a study that outlives its process."""
