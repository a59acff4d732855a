"""Invariants: what must hold in the first steps of every run, at its first validation and at its first checkpoint.

attach       the parts of a run with the checks around them, which are dropped after the third step
batch_checks  whether a batch is that of the step before, and the range of its labels
clip_limits  how far the gradients are above the limit of their clipping
dropout_masks  the masks of dropout layers
evidence     what one step leaves to be judged: few elements of each tensor, on the device
first_steps  records the first steps of a run
known        facts about a run besides its recipe
judge        judges the evidence, on the host
optimizer_checks  the parameters and the learning rates of the optimizer
purity       the first validation changes no state
saved        the first checkpoint holds what is in memory
violation    the error of an invariant that does not hold
"""
