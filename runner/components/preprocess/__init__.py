"""Preprocessing: raw pixels to the model's input, with statistics of the training split kept in buffers.

centering.py: scaling, centering and standardization.
values.py: pixels or features: what is divided by 255, and from where statistics are measured.
whitening.py: PCA, PCA whitening and ZCA whitening.
"""
