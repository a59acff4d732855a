"""Preprocessing: raw pixels to the model's input, with statistics of the training split kept in buffers.

centering.py: scaling, centering and standardization.
whitening.py: PCA, PCA whitening and ZCA whitening.
"""
