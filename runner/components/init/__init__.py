"""Initializations: a component returns `(model) -> None`, which sets weights in place from PyTorch's global generator.

layers.py: the layers that are initialized, their fans, biases and the classifier.
gains.py: the gains of activations.
variance_scaling.py: constant and normal weights, Xavier, Kaiming and LeCun.
structured.py: orthogonal, Dirac and zero-initialized residual branches.
data_dependent.py: LSUV and patch whitening, which read training images.
unit_variance.py: the forward pass in which LSUV scales the weights.
width.py: maximal update parametrization, for models of several widths.

Common knobs: `bias` is the value of all biases; `head` treats the classifier's weights: `small` (normal with standard
deviation 0.01, or 10 / inputs if that is less, so that training starts at the loss of a guess), None (like
other layers), `zeros`, `prior` (zeros, with log class frequencies as bias) or a standard deviation > 0.

Weights are written through parametrizations (weight norm). A run's summary lists the weights left as constructed.
"""
