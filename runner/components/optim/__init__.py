"""Optimizers. Each asks for `groups`, which has the shared knobs `lr`, `weight_decay`, `no_decay` and `rules`.

- `groups.py`: parameter groups: weight decay, learning-rate factors, freezing.
- `gradient.py`: plain gradient descent and momentum, from torch.optim.
- `adaptive.py`: Adam and its relatives, Adagrad, RMSProp, from torch.optim.
- `foreach.py`: LAMB, Lion and schedule-free AdamW, and update steps that they share with Muon.
- `muon.py`: Muon for hidden matrices, with AdamW or SGD for the other parameters.
"""
