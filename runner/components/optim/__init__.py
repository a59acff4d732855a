"""Optimizers. Each asks for `groups`, which has the shared knobs `lr`, `weight_decay`, `no_decay` and `rules`.

Formulas: w are the weights, g is the gradient, t the number of steps that the parameter has taken, 1 for the first.
`m <- a * m + (1 - a) * g` and `v <- b * v + (1 - b) * g ** 2` are running means with `betas: [a, b]`, each in [0, 1).
L2 regularization adds `weight_decay * w` to g; decoupled weight decay is `w <- w - lr * weight_decay * w`.

- `groups.py`: parameter groups: weight decay, learning-rate factors, freezing.
- `width_rules.py`: factors of an optimizer for models of several widths (`init=mup`).
- `describe_groups.py`: a line per parameter group for the summary.
- `gradient.py`: plain gradient descent and momentum, from torch.optim.
- `adaptive.py`: Adam and its relatives, Adagrad, Adafactor, RMSProp, from torch.optim.
- `foreach.py`: LAMB and Lion, and update steps that they share with Muon and schedule-free ones.
- `schedulefree.py`: schedule-free AdamW and SGD.
- `muon.py`: Muon for hidden matrices, with AdamW or SGD for the other parameters.
"""
