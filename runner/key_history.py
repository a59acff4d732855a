"""The keys of older versions: what was added since, former defaults, and old names; imports no torch.

A new key gets an entry in `ADDED`, with the value that reproduces the behavior before the key existed.
A renamed knob gets an entry in `RENAMED`: command lines, config files and saved configs may use the old name.
"""

from __future__ import annotations

from typing import Any

_SETS = ("cifar10", "cifar100", "digits", "fashion_mnist", "gaussian", "imagefolder", "mnist", "svhn", "synthetic")
_SCHEDULES = (
    *("constant", "cosine", "cosine_restarts", "cyclic", "exponential", "inverse_sqrt", "linear", "multistep"),
    *("onecycle", "plateau", "polynomial", "step", "triangular"),
)
# A setting or group is `<key>`, a knob is `<group>=<option>.<knob>`
ADDED: dict[str, Any] = {
    "runs": None,
    "resume_numerics": "same",
    "threads": "auto",
    "data=imagefolder.splits": "exact",
    **{f"data=imagefolder.{name}": None for name in ("classes", "limit", "labels", "columns", "label_regex", "groups")},
    "data=imagefolder.class_order": "text",
    "data=imagefolder.limit_seed": 0,
    "data=imagefolder.duplicates": "ignore",
    "data=digits.classes": None,
    "data=digits.limit": None,
    "data=digits.limit_seed": 0,
    "data=arrays.duplicates": "warn",
    "data=table.duplicates": "warn",
    "data=imagefolder.fit": "crop",
    "data=imagefolder.color": "rgb",
    "data=imagefolder.depth": 16,
    "data=imagefolder.alpha": "drop",
    "data=imagefolder.extra_bands": "drop",
    "average=swa.statistics": "average",
    "average=polyak.statistics": "average",
    "average=schedulefree.statistics": "model",
    **{f"data={name}.sampling": "shuffle" for name in _SETS},
    "task=evaluate.temperature": False,
    "resume_data": "same",
    "rerun": "never",
    "keep": "best+last",
    "average=ema.warmup": False,
    "init_from": None,
    "init_sha256": None,
    "init_download": True,
    "extend": None,
    "extend_restart": False,
    "extended_from": None,
    **{f"regularizer={name}.ramp": None for name in ("dropblock", "dropout", "dropout2d", "stochastic_depth")},
    **{f"loss={name}.class_weights": None for name in ("bce", "focal", "hinge", "mse")},
    "distillation=logits.features": 0.0,
    "distillation=logits.stages": None,
    "augment_repeats": 1,
    "augment=color_jitter.hue": 0.0,
    "augment=color_jitter.order": "fixed",
    "init=kaiming.gain": "relu",
    "init=xavier.gain": "linear",
    "loss=focal.alpha": None,
    "metric": {},
    "tracker": {},
    **{group: {"name": "none"} for group in ("transfer", "distillation", "resize")},
    "predictions": "never",
    "invariants": "never",
    "doctor": "auto",
    "clip_by": "norm",
    "update": {"name": "plain"},
    "strategy": {
        "name": "ddp",
        "batch_norm": "sync",
        "dropout": "exact",
        "timeout": 60,
        "start_timeout": 600,
    },
    **dict.fromkeys(("folds", "fold", "effective_batch_size")),
    **{f"scheduler={name}.warmup_start": None for name in _SCHEDULES},
    **{f"scheduler={name}.final": 0.0 for name in ("exponential", "inverse_sqrt", "multistep", "step")},
    "scheduler=onecycle.momentum": None,
    **{f"mix={name}.until": None for name in ("cutmix", "mixup", "mixup_or_cutmix", "saliencymix")},
    "optim=adam.amsgrad": False,
    "optim=adamw.amsgrad": False,
    "optim=rmsprop.centered": False,
    "task=compare.until": None,
    "task=compare.per_study": 5,
    "task=compare.objectives": [],
    "task=compare.tuned": [],
    "task=compare.workloads": [],
    "task=preview.tensorboard": True,
    "task=init_report.tensorboard": True,
}

# Defaults that have changed, with what they were. A saved run has its own values; a sweep that is resumed keeps those
# its trials began with.
FORMER_DEFAULTS: dict[str, Any] = {
    "checkpoint_every": "1epoch",
    "init.head": None,
    "optim.no_decay": ["bias", "norm"],
    "average.warmup": False,
}

# The old name `<group>=<option>.<knob>`, and the knob's name now
RENAMED: dict[str, str] = {
    "data=imagefolder.centre": "center",
}
# Other names of settings on the command line
ALIASES: dict[str, str] = {"extend.restart": "extend_restart", "model.weights": "init_from"}
