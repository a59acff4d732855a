"""Probes: measurements around one optimizer step that change nothing and never wait for the device.

A probe is a generator with one `yield` (`engine.contracts.Probe`): before it the model has the old weights, after it
gradients and new weights.

- `forward_pass.py`: activations, images, filters, confusion
- `machine.py`: throughput, memory
- `noise.py`: gradient_noise
- `parameters.py`: update_ratio, weight_norm, histograms, grad_norm, gradients
"""
