"""Weights that evaluation reads: the model's own, or an average over its past."""
