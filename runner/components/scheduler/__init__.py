"""Learning-rate schedules: pure functions of the number of steps done, but for `plateau`, which observes the score.

- `decay.py`: schedules that hold or fall, and the warm-up that all share.
- `cycle.py`: schedules that rise: cyclic, triangular, cosine with restarts, one cycle.
"""
