"""Learning-rate schedules: pure functions of the number of steps done, except `plateau`, which observes the score.

A schedule multiplies the learning rate of each parameter group by a factor; `onecycle` can cycle the momentum, too.
Formulas: t is the number of steps done since the warm-up, n the number of steps after the warm-up, s the number of
steps done since the start of the run.
`final` is the factor at t = n, one step after the last.

- `warmup.py`: the warm-up of all schedules.
- `decay.py`: schedules that are constant or decrease.
- `cycle.py`: schedules that increase too: cyclic, triangular, cosine with restarts, one cycle.
"""
