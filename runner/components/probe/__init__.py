"""Probes: what one optimizer step does, read without changing it and without waiting for the device.

Each is a generator with one `yield` (`contracts.Probe`): before it the old weights, after it gradients and new weights.
"""
