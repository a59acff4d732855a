"""Weights that evaluation reads: the model's own, or an average over its past.

- `running.py`: averages beside the training: EMA, SWA, Polyak.
- `steering.py`: averages that belong to the optimizer's path: Lookahead, schedule-free.
"""
