"""Initializations: a component returns `(model) -> None`, which draws in place from torch's global generator."""
