"""Weights that evaluation reads: the model's, or an average of its weights over past steps.

- `running.py`: averages that do not affect training: EMA, SWA, Polyak.
- `steering.py`: averages that are part of the optimization: Lookahead, schedule-free.
"""
