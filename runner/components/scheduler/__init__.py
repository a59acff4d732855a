"""Learning-rate schedules: pure functions of the number of steps done (but for `plateau`, which watches the score)."""
