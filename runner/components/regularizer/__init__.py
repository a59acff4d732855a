"""Regularizers: penalties on the loss, dropout modules inserted into the model, constraints after each step.

penalties.py: L1, L2, elastic net and max-norm.
dropout.py: dropout of units, channels and weights (DropConnect); vanilla and alpha dropout; filling of slots.
ramped.py: drop rates that grow during training, the knob `ramp`.
structured_dropout.py: DropBlock and stochastic depth.
fractional_pooling.py: fractional max pooling.
weight_standardization.py: weight standardization of convolutions.
"""
