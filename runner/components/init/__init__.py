"""Initializations: a component returns `(model) -> None`, which sets weights in place from PyTorch's global generator.

layers.py: the layers that are initialized, their fans, biases and the classifier.
variance_scaling.py: constant and normal weights, Xavier, Kaiming and LeCun.
structured.py: orthogonal, Dirac and zero-initialized residual branches.
data_dependent.py: LSUV and patch whitening, which read training images.

Common knobs: `bias` is the value of all biases; `head` treats the classifier's weights: None (like other layers),
`zeros`, `prior` (zeros, with log class frequencies as bias) or a standard deviation > 0.
"""
