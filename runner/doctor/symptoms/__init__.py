"""Symptoms: `(history) -> Finding | None`, each under `@register("symptom")`; importing this package registers all.

drops.py         the learning rate dropped too early, or warms up for too long
gradients.py     gradients that vanish or explode
half_precision.py  the loss scaler of fp16 skips steps
horizons.py      averages of gradients and of weights over too many steps
layers.py        dead or saturated units, layers that shrink or stand still
noise.py         the batch is small for the noise of its gradients
numerics.py      steps that are not finite
overfitting.py   training and validation examples are scored differently
patterns.py      spikes of the training loss, and what repeats in each epoch
rates.py         the learning rate is too high or too low
ratios.py        the size of updates: update ratios, clipping, weight decay
setup.py         first loss, batch size, regularization, loading, fine-tuning, rare classes
splits.py        validation is easier than training, at chance, or part of it
trends.py        the training loss: stuck, late, flat, rising
validations.py   validation scores still rise, are past their best, noisy, or from few examples
"""

import importlib
import pkgutil

for _module in pkgutil.walk_packages(__path__, __name__ + "."):
    importlib.import_module(_module.name)
