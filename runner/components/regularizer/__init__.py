"""Regularizers: penalties on the loss, rewirings of the model, constraints after each step."""
