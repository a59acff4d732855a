"""Many trials: each in a process of its own, none lost, none done twice; no torch on this side of the processes."""
