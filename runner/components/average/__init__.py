"""Weights that evaluation reads: the model's, or an average of its weights over past steps.

- `running.py`: averages that do not affect training: EMA, SWA, Polyak.
- `snapshots.py`: the weights at the end of each cycle, for an ensemble.
- `swag.py`: the mean and the covariance of the weights, from which predictions sample.
- `steering.py`: averages that are part of the optimization: Lookahead, schedule-free.
"""
