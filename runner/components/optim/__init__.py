"""Optimizers; `groups` decides which tensors decay, at what learning rate, and `describe` prints it."""
