"""Optimizers. Each asks for `groups`, which has the knobs that all share: `lr`, `weight_decay`, `no_decay`, `rules`.

- `groups.py`: parameter groups: weight decay, learning-rate factors, freezing.
- `gradient.py`: plain gradient descent and momentum, from torch.optim.
- `adaptive.py`: Adam and its relatives, Adagrad, RMSProp, from torch.optim.
- `foreach.py`: LAMB, Lion and schedule-free AdamW, and the steps that our own optimizers share.
- `muon.py`: Muon, beside AdamW or SGD.
"""
