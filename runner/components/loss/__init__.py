"""Losses: `(logits (B, K), labels (B,) int64 or (B, K) float) -> mean loss`, computed in at least float32.

softmax.py: cross-entropy, focal loss and poly loss.
per_output.py: binary cross-entropy, hinge loss and squared error.
class_weights.py: weights of classes, and means that use them.

Soft labels (B, K) are class probabilities. A formula that is defined for one class becomes its expectation over them.
`val/loss` is the loss without label smoothing, mixing and penalties. `val/nll` is the negative log-likelihood of the
probabilities that a loss trains: softmax, for bce the sigmoids divided by their sum; hinge and mse have none.

Every loss has the knob `class_weights`: one weight > 0 per class, None for equal ones, or `balanced`: n / (K n_c) for
n_c of n training examples, as in scikit-learn. The loss is then the weighted mean over examples, the weight of one with
soft labels being the mean of theirs. The weighted mean over micro-batches (`accumulate`) differs slightly from that of
the whole batch; `val/loss` is that of the whole split.
"""
