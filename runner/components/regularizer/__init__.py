"""Regularizers: penalties on the loss, dropout modules inserted into the model, constraints after each step.

penalties.py: L1, L2, elastic net and max-norm.
dropout.py: dropout, vanilla dropout, alpha dropout and DropConnect; the helpers that fill a model's slots.
structured_dropout.py: DropBlock and stochastic depth.
fractional_pooling.py: fractional max pooling.
weight_standardization.py: weight standardization of convolutions.
"""
